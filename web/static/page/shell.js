// @ts-check
/**
 * One session's shell on the screen: the attachment, what is shown of it, and what comes after it.
 *
 * A page load has an empty screen, so it attaches afresh and has everything drawn again; only a link
 * that breaks while the page lives is resumed.  Changing between control and watching, and starting
 * a new shell, are fresh attachments under the same id.
 */

import { Final, SUBPROTOCOL, Trunk } from "../trunk.js";
import { ApiError } from "./api.js";
import { endingFor, OFFER_NAMES } from "./endings.js";

const KIND = "pty";
const TAG = "main";
/** How often the round trip and the countdown are shown anew, in milliseconds. */
const REFRESH = 500;

/** @typedef {import("./endings.js").Offer} Offer */
/** @typedef {{mode?: "control" | "view", takeover?: boolean, restart?: boolean}} Opening */

export class Shell {
  /**
   * @param {object} parts
   * @param {import("./api.js").Api} parts.api
   * @param {import("./screen.js").Screen} parts.screen
   * @param {import("./bar.js").Bar} parts.bar
   * @param {import("./card.js").Card} parts.card
   * @param {string} parts.session
   * @param {string} parts.attachmentId
   * @param {(offer: Offer) => void} parts.onoffer `new` and `login`, which lead out of this session
   */
  constructor({ api, screen, bar, card, session, attachmentId, onoffer }) {
    this._api = api;
    this._screen = screen;
    this._bar = bar;
    this._card = card;
    this._session = session;
    this._attachmentId = attachmentId;
    this._onoffer = onoffer;
    /** @type {"control" | "view"} */
    this.mode = "control";
    /** @type {Trunk | null} */
    this.trunk = null;
    /** @type {import("../trunk.js").Attachment | null} */
    this.attachment = null;
    this._attached = false;
    /** @type {string | null} what is shown in place of the link's state */
    this._final = null;
    this._refresh = setInterval(() => this._show(), REFRESH);
  }

  /**
   * Attach, and forget an earlier attachment.
   * @param {Opening} [opening]
   */
  open({ mode = "control", takeover = false, restart = false } = {}) {
    this.trunk?.close();
    this._card.hide();
    this.mode = mode;
    this._screen.fixed = mode === "view"; // who watches sees it in the size of who has control
    this._attached = false;
    this._final = null;
    const trunk = new Trunk({
      connect: () => this._connect(),
      onstate: () => {
        if (trunk !== this.trunk) return;
        if (trunk.state.name !== "open") this._attached = false;
        this._show();
      },
    });
    this.trunk = trunk;
    const start = mode === "view" ? undefined : restart ? { restart: true } : {};
    this.attachment = trunk.attach(
      {
        attachment: this._attachmentId,
        kind: KIND,
        tag: TAG,
        mode,
        start,
        takeover,
        replay: "screen",
        columns: this._screen.columns,
        rows: this._screen.rows,
      },
      {
        onattached: ({ fresh, started, lostInput }) => {
          this._attached = true;
          if (fresh && restart && started) this._screen.continueBelow();
          else if (fresh) this._screen.clear();
          if (lostInput > 0) {
            this._card.toast(`The server restarted; the last ${lostInput} bytes you typed may be lost.`);
          }
          this._show();
        },
        ondata: (bytes, { replay }, done) => this._screen.write(bytes, replay || mode === "view", done),
        ongap: ({ from, to, screen }, done) => {
          if (screen) done();
          else this._screen.gap(to - from, done);
        },
        onscreen: ({ bytes, columns, rows }) => this._screen.draw(bytes, columns, rows),
        onexit: (exit) => this._exited(exit),
        onclosed: ({ reason, message }) => this._closed(reason, message),
      },
    );
    this._show();
    this._screen.focus();
  }

  /** Leave for good. */
  close() {
    clearInterval(this._refresh);
    this.trunk?.close();
  }

  /** Send what was typed. @param {Uint8Array} bytes */
  type(bytes) {
    const { attachment } = this;
    if (attachment === null || this.mode === "view") return;
    if (attachment.exit !== null) {
      if (bytes.length === 1 && bytes[0] === 0x0d) this.open({ restart: true });
      return;
    }
    if (attachment.ended || attachment.write(bytes)) return;
    this._card.toast("Too much input is waiting for the server: this was not sent.");
  }

  /**
   * @param {number} columns
   * @param {number} rows
   */
  resize(columns, rows) {
    this.attachment?.resize(columns, rows);
  }

  /** Do what a card has offered. @param {Offer} offer */
  act(offer) {
    const openings = {
      watch: { mode: /** @type {const} */ ("view") },
      takeover: { takeover: true },
      again: { mode: this.mode },
      restart: { restart: true },
    };
    if (offer === "new" || offer === "login") this._onoffer(offer);
    else this.open(openings[offer]);
  }

  // ---------------------------------------------------------------- inside

  /** Get a ticket for one try. */
  async _connect() {
    let ticket;
    try {
      ticket = await this._api.ticket(this._session, this.mode);
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

  /** @param {import("../trunk/types.js").Exit} exit */
  _exited({ code, signal }) {
    const how = signal === null ? `with code ${code}` : `by signal ${signal}`;
    this._final = signal === null ? `exited (${code})` : `ended (${signal})`;
    const next = this.mode === "view" ? "" : " Press Enter to start a new shell.";
    this._screen.remark(`[The shell ended ${how}.${next}]`);
    this._show();
  }

  /**
   * @param {string} reason
   * @param {string} message
   */
  _closed(reason, message) {
    if (reason === "detached") return; // our own doing
    if (reason === "login") {
      this._onoffer("login");
      return;
    }
    const ending = endingFor(reason, message);
    this._final = ending.words;
    this._card.show(
      ending.title,
      ending.text,
      ending.offers.map((offer, i) => ({
        text: this._nameOf(offer, reason),
        act: () => this.act(offer),
        primary: i === 0,
      })),
    );
    this._show();
  }

  /**
   * @param {Offer} offer
   * @param {string} reason
   */
  _nameOf(offer, reason) {
    if (offer === "takeover" && reason === "taken_over") return "Take back control";
    if (offer === "takeover" && reason === "superseded") return "Use it here";
    return OFFER_NAMES[offer];
  }

  /** Show how things are. */
  _show() {
    const { trunk, _bar: bar } = this;
    if (trunk === null) return;
    const { state } = trunk;
    const takeover = this.mode === "view" && this.attachment?.ended !== true;
    bar.roundTrip = this._attached && this._final === null ? trunk.statistics().roundTrip : null;
    if (this._final !== null) bar.show("idle", this._final, { takeover });
    else if (state.name === "waiting") {
      const seconds = Math.ceil(((state.retryAt ?? 0) - performance.now()) / 1000);
      // The first tries follow at once; a countdown would only flicker.
      const more = seconds > 1 ? `${seconds} s` : "";
      bar.show("bad", "reconnecting…", { more, retry: seconds > 1 });
    } else if (state.name === "connecting") {
      bar.show("busy", trunk.statistics().failures > 0 ? "reconnecting…" : "connecting…");
    } else if (!this._attached) bar.show("busy", "attaching…");
    else if (this.mode === "view") bar.show("watching", "watching", { takeover });
    else bar.show("good", "connected");
  }
}

/** @param {number} status */
function reasonOf(status) {
  if (status === 401) return "login";
  if (status === 403) return "forbidden";
  if (status === 404) return "missing";
  return status === 409 || status === 410 ? "session_ended" : "refused";
}
