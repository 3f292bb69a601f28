// @ts-check
/**
 * Typing on a phone: its keyboard writes into a text field that nobody sees, and what changes there is
 * typed on the desktop; a row of keys has what that keyboard lacks.
 */

import keysyms from "@novnc/keysymdef";

const BACKSPACE = 0xff08;
const RETURN = 0xff0d;
/** Something to delete: a keyboard says nothing about Backspace in an empty field. */
const FILLING = "\u00a0".repeat(64);

/** @type {readonly {label: string, name: string, keysym: number, holds?: boolean}[]} */
const KEYS = Object.freeze([
  { label: "Esc", name: "Escape", keysym: 0xff1b },
  { label: "Tab", name: "Tab", keysym: 0xff09 },
  { label: "Ctrl", name: "Control, for the next key", keysym: 0xffe3, holds: true },
  { label: "Alt", name: "Alt, for the next key", keysym: 0xffe9, holds: true },
  { label: "←", name: "Left", keysym: 0xff51 },
  { label: "↓", name: "Down", keysym: 0xff54 },
  { label: "↑", name: "Up", keysym: 0xff52 },
  { label: "→", name: "Right", keysym: 0xff53 },
]);

export class TouchKeyboard {
  /**
   * @param {object} parts
   * @param {HTMLElement} parts.row
   * @param {HTMLTextAreaElement} parts.field
   * @param {HTMLButtonElement} parts.button
   * @param {(keysym: number, down?: boolean) => void} parts.send presses and releases, or one of them
   */
  constructor({ row, field, button, send }) {
    this._row = row;
    this._field = field;
    this._button = button;
    this._send = send;
    this._before = "";
    /** @type {Map<number, HTMLButtonElement>} */
    this._held = new Map();
    for (const key of KEYS) row.append(this._make(key));
    const coarse = matchMedia("(pointer: coarse)");
    const show = () => (button.hidden = !coarse.matches);
    coarse.addEventListener("change", show);
    show();
    keepsFocus(button, () => (this.shown ? this.hide() : this.show()));
    field.addEventListener("input", (event) => this._changed(event));
    field.addEventListener("compositionend", () => this._fill());
    field.addEventListener("blur", () => this._shown(false));
    field.addEventListener("keydown", (event) => this._pressed(event));
  }

  get shown() {
    return document.activeElement === this._field;
  }

  show() {
    this._fill();
    this._field.focus({ preventScroll: true });
    this._shown(true);
  }

  hide() {
    this._field.blur();
  }

  // ---------------------------------------------------------------- inside

  /** @param {boolean} on */
  _shown(on) {
    this._button.setAttribute("aria-pressed", String(on));
    this._row.hidden = !on;
    if (!on) this._letGo();
  }

  _fill() {
    this._before = this._field.value = FILLING;
    this._field.setSelectionRange(FILLING.length, FILLING.length);
  }

  /** @param {KeyboardEvent} event a key that keyboards name, unlike letters on a phone */
  _pressed(event) {
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault();
    this._type(RETURN);
  }

  /** @param {Event} event */
  _changed(event) {
    const [before, after] = [[...this._before], [...this._field.value]];
    let same = 0;
    while (same < before.length && before[same] === after[same]) same += 1;
    for (let i = same; i < before.length; i++) this._type(BACKSPACE);
    for (const character of after.slice(same)) {
      this._type(character === "\n" ? RETURN : keysyms.lookup(character.codePointAt(0)));
    }
    this._before = this._field.value;
    if (!(/** @type {InputEvent} */ (event).isComposing)) this._fill();
  }

  /** @param {number} keysym */
  _type(keysym) {
    this._send(keysym);
    this._letGo();
  }

  _letGo() {
    for (const [keysym, button] of this._held) {
      this._send(keysym, false);
      button.setAttribute("aria-pressed", "false");
    }
    this._held.clear();
  }

  /** @param {typeof KEYS[number]} key */
  _make({ label, name, keysym, holds = false }) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = label;
    made.setAttribute("aria-label", name);
    if (holds) made.setAttribute("aria-pressed", "false");
    keepsFocus(made, () => {
      if (!holds) this._type(keysym);
      else if (this._held.delete(keysym)) {
        this._send(keysym, false);
        made.setAttribute("aria-pressed", "false");
      } else {
        this._held.set(keysym, made);
        this._send(keysym, true);
        made.setAttribute("aria-pressed", "true");
      }
    });
    return made;
  }
}

/**
 * Act without taking the focus away from the field, which would close the keyboard.
 * @param {HTMLButtonElement} button
 * @param {() => void} act
 */
function keepsFocus(button, act) {
  button.addEventListener("pointerdown", (event) => event.preventDefault());
  button.addEventListener("mousedown", (event) => event.preventDefault());
  button.addEventListener("click", act);
}
