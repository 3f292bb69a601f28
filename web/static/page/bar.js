// @ts-check
/** The slim bar on top: which session, how the link is, and the menu. */

import { box, button, newButton, part } from "./elements.js";

/** @typedef {import("./api.js").Session} Session */

/**
 * @typedef {object} BarHandlers
 * @property {() => void} onretry
 * @property {() => void} ontakeover
 * @property {() => void} onwatch
 * @property {() => void} onnew
 * @property {() => void} onfind
 * @property {(step: -1 | 1) => void} onfontsize
 * @property {(on: boolean) => void} onreader
 * @property {() => Promise<Session[]>} listSessions
 * @property {(id: string) => void} onswitch
 * @property {(id: string) => Promise<void>} onend
 * @property {() => void} onleave the menu was closed: the terminal gets the focus back
 */

export class Bar {
  /** @param {BarHandlers} handlers */
  constructor(handlers) {
    this._handlers = handlers;
    this._session = box("session");
    this._state = box("state");
    this._words = box("words");
    this._live = box("live");
    this._roundTrip = box("roundtrip");
    this._retry = button("retry");
    this._takeover = button("takeover");
    this._watch = button("watch");
    this._menu = box("menu");
    this._menuButton = button("menu-button");
    this._list = part("sessions", HTMLUListElement);
    /** @type {string | null} */
    this._current = null;
    this._retry.addEventListener("click", handlers.onretry);
    this._takeover.addEventListener("click", handlers.ontakeover);
    this._menuButton.addEventListener("click", () => this._toggle());
    this._item("new-terminal", handlers.onnew);
    this._item("watch", handlers.onwatch);
    this._item("find-open", handlers.onfind);
    button("smaller").addEventListener("click", () => handlers.onfontsize(-1));
    button("larger").addEventListener("click", () => handlers.onfontsize(1));
    const reader = part("reader", HTMLInputElement);
    reader.addEventListener("change", () => handlers.onreader(reader.checked));
    document.addEventListener("pointerdown", ({ target }) => {
      const inside = target instanceof Node && (this._menu.contains(target) || this._menuButton.contains(target));
      if (!inside) this._close(false);
    });
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || this._menu.hidden) return;
      event.preventDefault();
      this._close(true);
    });
  }

  /** @param {string} id */
  set session(id) {
    this._current = id;
    this._session.hidden = false;
    this._session.textContent = shorten(id);
    this._session.title = `Session ${id}`;
  }

  /** @param {boolean} on */
  set screenReader(on) {
    part("reader", HTMLInputElement).checked = on;
  }

  /**
   * Show how things are.  Only what changes is read out, and never a countdown.
   * @param {"idle" | "busy" | "good" | "bad" | "watching"} look
   * @param {string} words
   * @param {object} [details]
   * @param {string} [details.more] shown after the words, not read out
   * @param {boolean} [details.retry] offer to try again now
   * @param {boolean} [details.takeover] offer to take control
   */
  show(look, words, { more = "", retry = false, takeover = false } = {}) {
    this._state.dataset.state = look;
    this._words.textContent = more ? `${words} ${more}` : words;
    if (this._live.textContent !== words) this._live.textContent = words;
    this._retry.hidden = !retry;
    this._takeover.hidden = !takeover;
    this._watch.hidden = look !== "good";
  }

  /** @param {number | null} milliseconds */
  set roundTrip(milliseconds) {
    this._roundTrip.textContent =
      milliseconds === null ? "" : milliseconds < 1 ? "<1 ms" : `${Math.round(milliseconds)} ms`;
  }

  /**
   * @param {string} id
   * @param {() => void} act
   */
  _item(id, act) {
    button(id).addEventListener("click", () => {
      this._close(true);
      act();
    });
  }

  _toggle() {
    if (!this._menu.hidden) return this._close(true);
    this._menu.hidden = false;
    this._menuButton.setAttribute("aria-expanded", "true");
    this._menu.querySelector("button")?.focus();
    this._fill();
  }

  /** @param {boolean} leave give the focus back */
  _close(leave) {
    if (this._menu.hidden) return;
    this._menu.hidden = true;
    this._menuButton.setAttribute("aria-expanded", "false");
    if (leave) this._handlers.onleave();
  }

  async _fill() {
    /** @type {Session[]} */
    let sessions;
    try {
      sessions = await this._handlers.listSessions();
    } catch (error) {
      this._note(error instanceof Error ? error.message : String(error));
      return;
    }
    const running = sessions.filter(({ status }) => status === "running");
    if (running.length === 0) this._note("None is running.");
    else this._list.replaceChildren(...running.map((session) => this._row(session)));
  }

  /** @param {string} text */
  _note(text) {
    const item = document.createElement("li");
    item.className = "note";
    item.textContent = text;
    this._list.replaceChildren(item);
  }

  /** @param {Session} session */
  _row({ session_id: id, created_at, profile }) {
    const item = document.createElement("li");
    const open = newButton("", () => {
      this._close(true);
      if (id !== this._current) this._handlers.onswitch(id);
    }, "session-open");
    const name = document.createElement("span");
    name.className = "session";
    name.textContent = shorten(id);
    const about = document.createElement("span");
    about.className = "about";
    about.textContent = [id === this._current ? "this one" : profile, age(created_at)]
      .filter(Boolean)
      .join(" · ");
    open.append(name, about);
    if (id === this._current) open.setAttribute("aria-current", "true");
    const end = newButton("End", () => this._end(id, end), "end");
    end.setAttribute("aria-label", `End session ${shorten(id)}`);
    item.append(open, end);
    return item;
  }

  /**
   * End a session, on the second press: there is no way back.
   * @param {string} id
   * @param {HTMLButtonElement} pressed
   */
  async _end(id, pressed) {
    if (pressed.dataset.sure === undefined) {
      pressed.dataset.sure = "";
      pressed.textContent = "Really end?";
      pressed.setAttribute("aria-label", `Really end session ${shorten(id)}?`);
      return;
    }
    pressed.disabled = true;
    try {
      await this._handlers.onend(id);
    } finally {
      await this._fill();
    }
  }
}

/** @param {string} id */
function shorten(id) {
  return id.slice(0, 8);
}

/** @param {string} time */
function age(time) {
  const minutes = Math.floor((Date.now() - Date.parse(time)) / 60_000);
  if (!Number.isFinite(minutes)) return "";
  if (minutes < 1) return "just now";
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.floor(hours / 24)} days`;
}
