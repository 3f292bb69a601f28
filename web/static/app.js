// @ts-check
/**
 * The terminal page: signs in, finds the session to show, and puts the parts together.
 *
 * For tests and the curious, `window.trunkline` holds
 * - `terminal`: the xterm.js Terminal,
 * - `trunk`, `attachment`: what carries it (`trunk.statistics()` tells offsets and counters),
 * - `session`: the id of the session,
 * - `cut()`: breaks the connection, as a bad network would,
 * - `text()`: everything on the screen and in the scrollback, as lines.
 */

import { Api, ApiError } from "./page/api.js";
import { Bar } from "./page/bar.js";
import { Card } from "./page/card.js";
import { codeIn, takeCode } from "./page/code.js";
import { box } from "./page/elements.js";
import { Find } from "./page/find.js";
import { TouchKeys } from "./page/keys.js";
import { Screen } from "./page/screen.js";
import { Shell } from "./page/shell.js";
import { Tab } from "./page/tabs.js";
import { followVisualViewport } from "./page/viewport.js";

const NAME = "Trunkline";
const HOW_TO_SIGN_IN =
  "Run “trunkline open” in the terminal where the server runs, and open the link it prints. " +
  "Or paste that link, or a token, below.";

class App {
  constructor() {
    this.api = new Api(localStorage);
    this.tab = new Tab();
    this.card = new Card();
    /** @type {Shell | null} */
    this.shell = null;
    /** @type {TouchKeys} */
    this.keys = new TouchKeys(
      box("keys"),
      (data) => this.screen.terminal.input(data, true),
      () => this.screen.terminal.modes.applicationCursorKeysMode,
    );
    /** @type {Screen} */
    this.screen = new Screen(box("terminal"), {
      oninput: (bytes) => this.shell?.type(bytes),
      onresize: (columns, rows) => this.shell?.resize(columns, rows),
      ontitle: (title) => (document.title = title ? `${title.slice(0, 200)} · ${NAME}` : NAME),
      onfind: () => this.find.open(),
      transform: (data) => this.keys.transform(data),
    });
    this.find = new Find(this.screen);
    this.bar = new Bar({
      onretry: () => this.shell?.trunk?.retryNow(),
      ontakeover: () => this.shell?.act("takeover"),
      onwatch: () => this.shell?.act("watch"),
      onnew: () => this.openNew(),
      onfind: () => this.find.open(),
      onfontsize: (step) => this.screen.changeFontSize(step),
      onreader: (on) => (this.screen.screenReader = on),
      listSessions: () => this.api.sessions(),
      onswitch: (id) => location.assign(`/t/${encodeURIComponent(id)}`),
      onend: (id) => this.api.end(id),
      onleave: () => this.screen.focus(),
    });
    this.bar.screenReader = this.screen.screenReader;
  }

  /** Sign in if need be, and show a terminal. */
  async start() {
    const code = takeCode();
    try {
      if (code !== null) await this.api.login(code);
    } catch (error) {
      // A page with a good token may well be opened again through its used-up link.
      if (!this.api.hasToken) return this.signIn(`${textOf(error)} ${HOW_TO_SIGN_IN}`);
    }
    if (!this.api.hasToken) return this.signIn(HOW_TO_SIGN_IN);
    try {
      await this.show(sessionInPath() ?? (await this.chooseSession()));
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) {
        this.api.forgetToken();
        this.signIn(`Your sign-in is no longer valid. ${HOW_TO_SIGN_IN}`);
      } else this.sayProblem(error, () => this.start());
    }
  }

  /**
   * The session that this tab showed last; else the newest that runs and that no tab of this browser
   * shows, so that a second tab does not fight with the first one; else a new one.
   * @returns {Promise<string>}
   */
  async chooseSession() {
    const [sessions, open] = await Promise.all([this.api.sessions(), this.tab.openSessions()]);
    const running = sessions
      .filter(({ status }) => status === "running")
      .sort((a, b) => Date.parse(b.created_at) - Date.parse(a.created_at))
      .map(({ session_id }) => session_id);
    const { lastSession } = this.tab;
    if (lastSession !== null && running.includes(lastSession)) return lastSession;
    return running.find((id) => !open.has(id)) ?? (await this.api.create());
  }

  /** @param {string} session */
  async show(session) {
    history.replaceState(null, "", `/t/${encodeURIComponent(session)}`);
    this.bar.session = session;
    const attachmentId = await this.tab.enter(session);
    this.shell?.close();
    this.shell = new Shell({
      api: this.api,
      screen: this.screen,
      bar: this.bar,
      card: this.card,
      session,
      attachmentId,
      onoffer: (offer) => {
        if (offer === "new") this.openNew();
        else {
          this.api.forgetToken();
          this.signIn(`Your sign-in is no longer valid. ${HOW_TO_SIGN_IN}`);
        }
      },
    });
    this.shell.open();
  }

  /** Open a new session in this tab. */
  async openNew() {
    try {
      const id = await this.api.create();
      location.assign(`/t/${encodeURIComponent(id)}`);
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) {
        this.api.forgetToken();
        this.signIn(HOW_TO_SIGN_IN);
      } else if (this.card.shown) this.sayProblem(error, () => this.openNew());
      else this.card.toast(`No new terminal. ${textOf(error)}`);
    }
  }

  /** @param {string} text */
  signIn(text) {
    this.bar.show("idle", "signed out");
    this.card.askForLogin(text, async (pasted) => {
      const code = codeIn(pasted);
      if (code !== null) await this.api.login(code);
      else await this.api.useToken(pasted);
      this.card.hide();
      await this.start();
    });
  }

  /**
   * @param {unknown} error
   * @param {() => void} again
   */
  sayProblem(error, again) {
    const title = error instanceof ApiError ? error.title : "No terminal yet";
    this.bar.show("bad", "not connected");
    this.card.show(title, textOf(error), [
      {
        text: "Try again",
        act: () => {
          this.card.hide();
          again();
        },
        primary: true,
      },
    ]);
  }
}

function sessionInPath() {
  const found = /^\/t\/([^/]+)\/?$/.exec(location.pathname);
  return found ? decodeURIComponent(found[1]) : null;
}

/** @param {unknown} error */
function textOf(error) {
  return error instanceof Error ? error.message : String(error);
}

const app = new App();
followVisualViewport();
for (const [target, name] of /** @type {[EventTarget, string][]} */ ([
  [window, "online"], [window, "pageshow"], [document, "visibilitychange"],
])) {
  target.addEventListener(name, () => {
    if (document.visibilityState === "visible") app.shell?.trunk?.hint();
  });
}
// A link that is opened in this very tab changes the fragment only.
window.addEventListener("hashchange", () => {
  if (codeIn(location.hash) !== null) app.start();
});
window.trunkline = {
  get terminal() {
    return app.screen.terminal;
  },
  get trunk() {
    return app.shell?.trunk ?? null;
  },
  get attachment() {
    return app.shell?.attachment ?? null;
  },
  get session() {
    return sessionInPath();
  },
  cut: () => app.shell?.trunk?.cut(),
  text: () => {
    const { active } = app.screen.terminal.buffer;
    const lines = [];
    for (let i = 0; i < active.length; i++) lines.push(active.getLine(i).translateToString(true));
    return lines.join("\n").trimEnd();
  },
};
app.start();
