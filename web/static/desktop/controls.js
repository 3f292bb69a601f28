// @ts-check
/** The bar and the menu of the desktop's page. */

import { box, button, part } from "../page/elements.js";

/** Round trips in milliseconds: below the first there are four bars, and so on. */
const LEVELS = [40, 120, 300];
const LEVEL_NAMES = ["unknown", "poor", "fair", "good", "excellent"];
const STORE = "trunkline.desktop";

/** @typedef {import("./viewer.js").Size} Size */
/** @typedef {import("./viewer.js").Picture} Picture */

export class Controls {
  /**
   * @param {object} handlers
   * @param {() => void} handlers.onretry
   * @param {(on: boolean) => void} handlers.onview
   * @param {(size: Size) => void} handlers.onsize
   * @param {(picture: Picture) => void} handlers.onpicture
   * @param {() => void} handlers.oncad
   * @param {() => void} handlers.onleave the menu was closed
   */
  constructor(handlers) {
    this._handlers = handlers;
    this._menu = box("menu");
    this._menuButton = button("menu-button");
    this._view = part("view", HTMLInputElement);
    this._size = part("size", HTMLSelectElement);
    this._picture = part("picture", HTMLSelectElement);
    this._restore();
    button("retry").addEventListener("click", handlers.onretry);
    button("keys-cad").addEventListener("click", () => {
      this._close(true);
      handlers.oncad();
    });
    this._view.addEventListener("change", () => handlers.onview(this._view.checked));
    this._size.addEventListener("change", () => {
      this._save();
      handlers.onsize(this.size);
    });
    this._picture.addEventListener("change", () => {
      this._save();
      handlers.onpicture(this.picture);
    });
    this._menuButton.addEventListener("click", () => (this._menu.hidden ? this._open() : this._close(true)));
    document.addEventListener("pointerdown", ({ target }) => {
      const inside = target instanceof Node && (this._menu.contains(target) || this._menuButton.contains(target));
      if (!inside) this._close(false);
    }, true);
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || this._menu.hidden) return;
      event.preventDefault();
      event.stopPropagation();
      this._close(true);
    }, true);
    const full = button("full");
    full.hidden = !document.fullscreenEnabled; // phones of one make have none
    full.addEventListener("click", () => {
      if (document.fullscreenElement) document.exitFullscreen();
      else document.documentElement.requestFullscreen();
    });
  }

  /** @returns {Size} */
  get size() {
    return /** @type {Size} */ (this._size.value);
  }

  /** @returns {Picture} */
  get picture() {
    return /** @type {Picture} */ (this._picture.value);
  }

  /** @param {boolean} on */
  set viewing(on) {
    this._view.checked = on;
    button("keys-cad").disabled = on;
  }

  /** @param {string} id */
  set session(id) {
    const name = box("session");
    name.hidden = false;
    name.textContent = id.slice(0, 8);
    name.title = `Session ${id}`;
    const link = part("terminal-link", HTMLAnchorElement);
    link.href = `/t/${encodeURIComponent(id)}`;
    link.hidden = false;
  }

  /**
   * Show how things are.  Only what changes is read out, and never a countdown.
   * @param {"idle" | "busy" | "good" | "bad" | "watching"} look
   * @param {string} words
   * @param {{more?: string, retry?: boolean}} [details]
   */
  show(look, words, { more = "", retry = false } = {}) {
    box("state").dataset.state = look;
    box("words").textContent = more ? `${words} ${more}` : words;
    const live = box("live");
    if (live.textContent !== words) live.textContent = words;
    button("retry").hidden = !retry;
  }

  /**
   * @param {number | null} roundTrip milliseconds; null: not connected
   * @param {number} rate bytes per second
   */
  quality(roundTrip, rate) {
    const level = roundTrip === null ? 0 : 4 - LEVELS.filter((limit) => roundTrip >= limit).length;
    const bars = box("quality");
    bars.dataset.level = String(level);
    const words = `Connection quality: ${LEVEL_NAMES[level]}`;
    bars.setAttribute("aria-label", words);
    bars.title = roundTrip === null ? words : `${words} · ${formatRate(rate)}`;
    box("roundtrip").textContent =
      roundTrip === null ? "" : roundTrip < 1 ? "<1 ms" : `${Math.round(roundTrip)} ms`;
  }

  _open() {
    this._menu.hidden = false;
    this._menuButton.setAttribute("aria-expanded", "true");
    this._view.focus();
  }

  /** @param {boolean} leave give the focus back */
  _close(leave) {
    if (this._menu.hidden) return;
    this._menu.hidden = true;
    this._menuButton.setAttribute("aria-expanded", "false");
    if (leave) this._handlers.onleave();
  }

  _save() {
    localStorage.setItem(STORE, JSON.stringify({ size: this.size, picture: this.picture }));
  }

  _restore() {
    this._size.value = "scale";
    this._picture.value = "balanced";
    try {
      const { size, picture } = JSON.parse(localStorage.getItem(STORE) ?? "{}");
      if ([...this._size.options].some(({ value }) => value === size)) this._size.value = size;
      if ([...this._picture.options].some(({ value }) => value === picture)) this._picture.value = picture;
    } catch {
      // not ours
    }
  }
}

/** @param {number} rate bytes per second */
function formatRate(rate) {
  return rate < 1e6 ? `${Math.round(rate / 1000)} kB/s` : `${(rate / 1e6).toFixed(1)} MB/s`;
}
