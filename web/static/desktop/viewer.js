// @ts-check
/**
 * One desktop on the page: a trunk, a channel on it, and noVNC on the channel.
 *
 * Changing between control and viewing is a new connection with another ticket: that a viewer cannot do more
 * is the server's doing, not this page's.
 */

import RFB from "@novnc/novnc";

import { ApiError } from "../page/api.js";
import { Final, SUBPROTOCOL, Trunk } from "../trunk.js";
import { TrunkChannel } from "./channel.js";

/** JPEG quality and compression, 0 to 9 each. */
const PICTURES = Object.freeze({
  sharp: { quality: 9, compression: 2 },
  balanced: { quality: 6, compression: 2 },
  fast: { quality: 2, compression: 9 },
});

/** @typedef {keyof typeof PICTURES} Picture */
/** @typedef {"scale" | "resize" | "actual"} Size */
/** @typedef {"control" | "view"} Mode */
/**
 * @typedef {object} Handlers
 * @property {() => void} onchange something that `state` tells is different
 * @property {(reason: string, message: string) => void} onended
 * @property {(text: string) => void} onclipboard something was copied on the desktop
 * @property {(name: string) => void} onname
 */

export class Viewer {
  /**
   * @param {object} parts
   * @param {import("../page/api.js").Api} parts.api
   * @param {HTMLElement} parts.place
   * @param {string} parts.session
   * @param {Mode} parts.mode
   * @param {Size} parts.size
   * @param {Picture} parts.picture
   * @param {Handlers} parts.handlers
   */
  constructor({ api, place, session, mode, size, picture, handlers }) {
    this._api = api;
    this._session = session;
    this._handlers = handlers;
    this.mode = mode;
    /** Whether the desktop is shown: the handshake of RFB is done. */
    this.shown = false;
    /** Whether the stream is bound to a link. */
    this.attached = false;
    /** How often the RFB handshake was done; once, whatever happens to links. */
    this.handshakes = 0;
    this._over = false;
    this._failure = "";
    this.trunk = new Trunk({
      connect: () => this._connect(),
      onstate: (state) => {
        if (state.name !== "open") this.attached = false;
        handlers.onchange();
      },
    });
    const name = randomName();
    this.channel = new TrunkChannel(
      this.trunk,
      { attachment: name, tag: `desktop-${name.slice(0, 12)}` },
      ({ reason, message }) => this._end(reason, message),
      () => {
        this.attached = true;
        handlers.onchange();
      },
    );
    this.rfb = new RFB(place, this.channel, { shared: true });
    this.rfb.viewOnly = mode === "view";
    this.rfb.background = "var(--backdrop)";
    this.rfb.focusOnClick = true;
    this.size = size;
    this.picture = picture;
    this.rfb.addEventListener("connect", () => {
      this.shown = true;
      this.handshakes += 1;
      this.focus();
      handlers.onchange();
    });
    this.rfb.addEventListener("securityfailure", ({ detail }) => (this._failure = detail.reason ?? "refused"));
    this.rfb.addEventListener("credentialsrequired", () => this._end("password", ""));
    this.rfb.addEventListener("disconnect", ({ detail }) => {
      if (!detail.clean) this._end("rfb", this._failure || "the VNC server and this page did not understand each other");
    });
    this.rfb.addEventListener("clipboard", ({ detail }) => handlers.onclipboard(detail.text));
    this.rfb.addEventListener("desktopname", ({ detail }) => handlers.onname(detail.name));
  }

  /** @param {Size} size */
  set size(size) {
    this.rfb.scaleViewport = size !== "actual";
    this.rfb.clipViewport = size === "actual";
    this.rfb.dragViewport = false;
    this.rfb.resizeSession = size === "resize";
  }

  /** @param {Picture} picture */
  set picture(picture) {
    this.rfb.qualityLevel = PICTURES[picture].quality;
    this.rfb.compressionLevel = PICTURES[picture].compression;
  }

  focus() {
    this.rfb.focus({ preventScroll: true });
  }

  /** Leave for good. */
  close() {
    this._over = true;
    this.shown = false;
    this.rfb.disconnect();
    this.trunk.close();
  }

  // ---------------------------------------------------------------- inside

  /** Get a ticket for one try. */
  async _connect() {
    let ticket;
    try {
      ticket = await this._api.ticket(this._session, this.mode, "vnc");
    } catch (error) {
      if (!(error instanceof ApiError) || error.passing) throw error;
      throw new Final(reasonOf(error.status), error.status === 401 ? "" : error.message);
    }
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    return {
      url: `${scheme}//${location.host}/v1/sessions/${encodeURIComponent(this._session)}/pty`,
      protocols: [SUBPROTOCOL, `trunk.ticket.${ticket}`],
    };
  }

  /**
   * @param {string} reason
   * @param {string} message
   */
  _end(reason, message) {
    if (this._over) return;
    this.close();
    this._handlers.onended(reason, message);
  }
}

function randomName() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {number} status */
function reasonOf(status) {
  if (status === 401) return "login";
  if (status === 403) return "forbidden";
  if (status === 404) return "missing";
  return status === 409 || status === 410 ? "session_ended" : "refused";
}
