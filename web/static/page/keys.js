// @ts-check
/** A row of keys that touch keyboards do not have. */

const HOLD = 400;
const REPEAT = 60;

/** @type {readonly {label: string, name: string, arrow?: string, sends?: string}[]} */
const KEYS = [
  { label: "Esc", name: "Escape", sends: "\x1b" },
  { label: "Tab", name: "Tab", sends: "\t" },
  { label: "Ctrl", name: "Control, for the next key" },
  { label: "←", name: "Left", arrow: "D" },
  { label: "↓", name: "Down", arrow: "B" },
  { label: "↑", name: "Up", arrow: "A" },
  { label: "→", name: "Right", arrow: "C" },
];

export class TouchKeys {
  /**
   * @param {HTMLElement} bar
   * @param {(data: string) => void} type types into the terminal
   * @param {() => boolean} applicationArrows whether arrows are in application mode
   */
  constructor(bar, type, applicationArrows) {
    this._control = false;
    this._type = type;
    this._applicationArrows = applicationArrows;
    /** @type {HTMLButtonElement | null} */
    this._controlButton = null;
    for (const key of KEYS) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = key.label;
      button.setAttribute("aria-label", key.name);
      bar.append(button);
      if (key.sends === undefined && key.arrow === undefined) {
        this._controlButton = button;
        button.setAttribute("aria-pressed", "false");
        onPress(button, () => this._setControl(!this._control), false);
      } else onPress(button, () => this._press(key), key.arrow !== undefined);
    }
    const coarse = matchMedia("(pointer: coarse)");
    const show = () => (bar.hidden = !coarse.matches);
    coarse.addEventListener("change", show);
    show();
  }

  /**
   * Turn what was typed into what Ctrl makes of it, if Ctrl is pressed.
   * @param {string} data
   * @returns {string}
   */
  transform(data) {
    if (!this._control || data.length !== 1) return data;
    this._setControl(false);
    const code = data.toUpperCase().charCodeAt(0);
    if (data === " ") return "\x00";
    if (data === "?") return "\x7f";
    return code >= 0x40 && code <= 0x5f ? String.fromCharCode(code & 0x1f) : data;
  }

  /** @param {{sends?: string, arrow?: string}} key */
  _press({ sends, arrow }) {
    if (arrow === undefined) this._type(sends ?? "");
    else if (this._control) {
      this._setControl(false);
      this._type(`\x1b[1;5${arrow}`);
    } else this._type(`\x1b${this._applicationArrows() ? "O" : "["}${arrow}`);
  }

  /** @param {boolean} on */
  _setControl(on) {
    this._control = on;
    this._controlButton?.setAttribute("aria-pressed", String(on));
  }
}

/**
 * Press without taking the focus away from the terminal, which would close the keyboard.
 * @param {HTMLButtonElement} button
 * @param {() => void} act
 * @param {boolean} repeats
 */
function onPress(button, act, repeats) {
  let timer = 0;
  const stop = () => clearTimeout(timer);
  const again = () => {
    act();
    timer = setTimeout(again, REPEAT);
  };
  button.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    act();
    if (repeats) timer = setTimeout(again, HOLD);
  });
  for (const name of ["pointerup", "pointercancel", "pointerleave"]) button.addEventListener(name, stop);
  button.addEventListener("mousedown", (event) => event.preventDefault());
  button.addEventListener("click", (event) => {
    if (event.detail === 0) act(); // from a keyboard or a screen reader
  });
}
