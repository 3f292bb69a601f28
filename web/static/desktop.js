// @ts-check
/**
 * The desktop page: signs in, and shows the desktop of the session that the path names.
 *
 * For tests and the curious, `window.trunkline` holds
 * - `rfb`, `trunk`: noVNC's RFB, and what carries it (`trunk.statistics()` tells offsets and counters),
 * - `handshakes`: how often RFB's handshake was done since the page was loaded,
 * - `cut()`: breaks the connection, as a bad network would.
 */

import { Clipboard } from "./desktop/clipboard.js";
import { Controls } from "./desktop/controls.js";
import { endingFor, OFFER_NAMES } from "./desktop/endings.js";
import { TouchKeyboard } from "./desktop/touch.js";
import { Viewer } from "./desktop/viewer.js";
import { Api, ApiError } from "./page/api.js";
import { Card } from "./page/card.js";
import { codeIn, takeCode } from "./page/code.js";
import { box, button, part } from "./page/elements.js";
import { followVisualViewport } from "./page/viewport.js";

const NAME = "Trunkline";
/** How often quality and countdown are shown anew, in milliseconds. */
const REFRESH = 500;
/** Milliseconds without a link after which the picture is shown to be old. */
const PATIENCE = 1500;
/** Seconds over which the rate is told. */
const RATE_SAMPLES = 6;
const HOW_TO_SIGN_IN =
  "Run “trunkline desktop” with the session's id in the terminal where the server runs, and open the link it " +
  "prints. Or paste that link, or a token, below.";

class App {
  constructor() {
    this.api = new Api(localStorage);
    this.card = new Card();
    this.session = sessionInPath();
    /** @type {Viewer | null} */
    this.viewer = null;
    /** @type {import("./desktop/viewer.js").Mode} */
    this.mode = wantsView() ? "view" : "control";
    /** @type {string | null} what is shown in place of the link's state */
    this._final = null;
    this._lostAt = 0;
    /** @type {number[]} */
    this._received = [];
    this.controls = new Controls({
      onretry: () => this.viewer?.trunk.retryNow(),
      onview: (on) => this.open(on ? "view" : "control"),
      onsize: (size) => this.viewer && (this.viewer.size = size),
      onpicture: (picture) => this.viewer && (this.viewer.picture = picture),
      oncad: () => this.viewer?.rfb.sendCtrlAltDel(),
      onleave: () => this.viewer?.focus(),
    });
    this.clipboard = new Clipboard(
      (text) => {
        if (!this.viewer?.shown || this.mode === "view") return false;
        this.viewer.rfb.clipboardPasteFrom(text);
        return true;
      },
      (text) => this.card.toast(text),
    );
    this.touch = new TouchKeyboard({
      row: box("keys"),
      field: part("touch-text", HTMLTextAreaElement),
      button: button("keyboard"),
      send: (keysym, down) => this.viewer?.shown && this.viewer.rfb.sendKey(keysym, null, down),
    });
    setInterval(() => this._show(), REFRESH);
  }

  /** Sign in if need be, and show the desktop. */
  async start() {
    const code = takeCode();
    try {
      if (code !== null) await this.api.login(code);
    } catch (error) {
      // A page with a good token may well be opened again through its used-up link.
      if (!this.api.hasToken) return this.signIn(`${textOf(error)} ${HOW_TO_SIGN_IN}`);
    }
    if (!this.api.hasToken) return this.signIn(HOW_TO_SIGN_IN);
    if (this.session === null) this._ended("missing", "");
    else this.open(this.mode);
  }

  /** @param {import("./desktop/viewer.js").Mode} mode */
  open(mode) {
    if (this.session === null) return;
    this.card.hide();
    this.viewer?.close();
    box("desktop").replaceChildren();
    this.mode = mode;
    this._final = null;
    this._lostAt = performance.now();
    this._received = [];
    this.controls.session = this.session;
    this.controls.viewing = mode === "view";
    this.clipboard.writable = mode === "control";
    this.viewer = new Viewer({
      api: this.api,
      place: box("desktop"),
      session: this.session,
      mode,
      size: this.controls.size,
      picture: this.controls.picture,
      handlers: {
        onchange: () => this._show(),
        onended: (reason, message) => this._ended(reason, message),
        onclipboard: (text) => this.clipboard.received(text),
        onname: (name) => (document.title = `${name.slice(0, 200)} · ${NAME}`),
      },
    });
    this._show();
  }

  /** @param {string} text */
  signIn(text) {
    this._final = "signed out";
    this.controls.show("idle", this._final);
    this.card.askForLogin(text, async (pasted) => {
      const code = codeIn(pasted);
      if (code !== null) await this.api.login(code);
      else await this.api.useToken(pasted);
      this.card.hide();
      await this.start();
    });
  }

  // ---------------------------------------------------------------- inside

  /**
   * @param {string} reason
   * @param {string} message
   */
  _ended(reason, message) {
    if (reason === "detached") return; // our own doing
    if (reason === "login") {
      this.api.forgetToken();
      this.signIn(`Your sign-in is no longer valid. ${HOW_TO_SIGN_IN}`);
      return;
    }
    const ending = endingFor(reason, message);
    this._final = ending.words;
    const acts = {
      again: () => this.open(this.mode),
      watch: () => this.open("view"),
      login: () => this.start(),
      terminal: () => location.assign(`/t/${encodeURIComponent(this.session ?? "")}`),
    };
    this.card.show(
      ending.title,
      ending.text,
      ending.offers.map((offer, i) => ({ text: OFFER_NAMES[offer], act: acts[offer], primary: i === 0 })),
    );
    this._show();
  }

  /** Show how things are. */
  _show() {
    const { viewer, controls } = this;
    if (viewer === null || this._final !== null) {
      if (this._final !== null) controls.show("idle", this._final);
      controls.quality(null, 0);
      box("veil").hidden = true;
      return;
    }
    const now = performance.now();
    const { state } = viewer.trunk;
    const figures = viewer.trunk.statistics();
    if (viewer.attached) this._lostAt = now;
    box("veil").hidden = !viewer.shown || now - this._lostAt < PATIENCE;
    this._received = [...this._received, figures.bytesReceived].slice(-RATE_SAMPLES);
    const span = ((this._received.length - 1) * REFRESH) / 1000;
    const moved = this._received[this._received.length - 1] - this._received[0];
    controls.quality(viewer.attached ? figures.roundTrip : null, span > 0 ? moved / span : 0);
    if (state.name === "waiting") {
      const seconds = Math.ceil(((state.retryAt ?? 0) - now) / 1000);
      // The first tries follow at once; a countdown would only flicker.
      controls.show("bad", "reconnecting…", { more: seconds > 1 ? `${seconds} s` : "", retry: seconds > 1 });
    } else if (state.name === "connecting") {
      controls.show("busy", figures.failures > 0 ? "reconnecting…" : "connecting…");
    } else if (!viewer.attached) controls.show("busy", viewer.shown ? "reconnecting…" : "starting the desktop…");
    else if (!viewer.shown) controls.show("busy", "connecting…");
    else if (this.mode === "view") controls.show("watching", "viewing");
    else controls.show("good", "connected");
  }
}

function sessionInPath() {
  const found = /^\/desktop\/([^/]+)\/?$/.exec(location.pathname);
  return found ? decodeURIComponent(found[1]) : null;
}

/** Whether the link asks for viewing only. */
function wantsView() {
  return /[#&]view(&|$)/.test(location.hash);
}

/** @param {unknown} error */
function textOf(error) {
  return error instanceof Error && !(error instanceof ApiError && error.status >= 500)
    ? error.message
    : `The server could not do it: ${String(error)}`;
}

const app = new App();
followVisualViewport();
for (const [target, name] of /** @type {[EventTarget, string][]} */ ([
  [window, "online"], [window, "pageshow"], [document, "visibilitychange"],
])) {
  target.addEventListener(name, () => {
    if (document.visibilityState === "visible") app.viewer?.trunk.hint();
  });
}
// A link that is opened in this very tab changes the fragment only.
window.addEventListener("hashchange", () => {
  if (codeIn(location.hash) !== null) app.start();
});
window.trunkline = {
  get rfb() {
    return app.viewer?.rfb ?? null;
  },
  get trunk() {
    return app.viewer?.trunk ?? null;
  },
  get handshakes() {
    return app.viewer?.handshakes ?? 0;
  },
  get session() {
    return app.session;
  },
  cut: () => app.viewer?.trunk.cut(),
};
app.start();
