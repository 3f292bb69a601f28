// @ts-check
/**
 * The clipboards of the desktop and of this machine.
 *
 * What is copied on the desktop goes to this machine's clipboard where the browser lets it, and always to the
 * field in the menu.  What is copied here goes there when this window gets the focus, if the user has allowed the
 * browser to read the clipboard (“Paste from here” asks); and always from the field.
 */

import { button, part } from "../page/elements.js";

export class Clipboard {
  /**
   * @param {(text: string) => boolean} send gives a text to the desktop; false: it cannot
   * @param {(text: string) => void} tell says something in passing
   */
  constructor(send, tell) {
    this._send = send;
    this._tell = tell;
    this._field = part("clipboard", HTMLTextAreaElement);
    this._last = "";
    const field = this._field;
    button("clipboard-send").addEventListener("click", () => this._give(field.value, true));
    button("clipboard-copy").addEventListener("click", () => this._copy(field.value, true));
    button("clipboard-read").addEventListener("click", () => this._paste());
    // The keys are not for the desktop.
    for (const name of ["keydown", "keyup"]) field.addEventListener(name, (event) => event.stopPropagation());
    window.addEventListener("focus", () => this._follow());
  }

  /** @param {boolean} on whether the desktop takes what is sent */
  set writable(on) {
    button("clipboard-send").disabled = !on;
    button("clipboard-read").disabled = !on;
  }

  /** Something was copied on the desktop. @param {string} text */
  received(text) {
    this._field.value = this._last = text;
    this._copy(text, false);
  }

  /**
   * @param {string} text
   * @param {boolean} asked
   */
  async _copy(text, asked) {
    try {
      await navigator.clipboard.writeText(text);
      if (asked) this._tell("Copied to this machine's clipboard.");
    } catch {
      if (asked) {
        this._field.select();
        this._tell("The browser does not allow it. The text is selected: copy it with Ctrl+C.");
      }
    }
  }

  async _paste() {
    try {
      this._give(await navigator.clipboard.readText(), true);
    } catch {
      this._field.focus();
      this._tell("The browser does not allow it. Paste into the field, then press Send.");
    }
  }

  /** This window has the focus again: take over what was copied meanwhile, if that was allowed once. */
  async _follow() {
    try {
      const name = /** @type {PermissionName} */ ("clipboard-read");
      const { state } = await navigator.permissions.query({ name });
      if (state === "granted") this._give(await navigator.clipboard.readText(), false);
    } catch {
      // Not every browser knows this permission; the buttons are there.
    }
  }

  /**
   * @param {string} text
   * @param {boolean} asked
   */
  _give(text, asked) {
    if (text === "" || (!asked && text === this._last) || !this._send(text)) return;
    this._field.value = this._last = text;
    if (asked) this._tell("Now in the desktop's clipboard.");
  }
}
