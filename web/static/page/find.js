// @ts-check
/** The small bar that searches the terminal. */

import { button, part } from "./elements.js";

export class Find {
  /** @param {import("./screen.js").Screen} screen */
  constructor(screen) {
    this._screen = screen;
    this._form = part("find", HTMLFormElement);
    this._text = part("find-text", HTMLInputElement);
    this._form.addEventListener("submit", (event) => {
      event.preventDefault();
      this._find(true);
    });
    button("find-previous").addEventListener("click", () => this._find(false));
    button("find-close").addEventListener("click", () => this.close());
    this._form.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.close();
      else if (event.key === "Enter" && event.shiftKey) {
        event.preventDefault();
        this._find(false);
      }
    });
  }

  open() {
    this._form.hidden = false;
    this._text.focus();
    this._text.select();
  }

  close() {
    this._form.hidden = true;
    this._screen.endFind();
  }

  /** @param {boolean} forward */
  _find(forward) {
    const found = this._screen.find(this._text.value, forward);
    this._text.setAttribute("aria-invalid", String(!found));
  }
}
