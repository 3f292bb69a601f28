// @ts-check
/** The terminal itself: xterm.js, its size, its colours, and what the keyboard does besides typing. */

import { FitAddon } from "@xterm/addon-fit";
import { SearchAddon } from "@xterm/addon-search";
import { Unicode11Addon } from "@xterm/addon-unicode11";
import { WebLinksAddon } from "@xterm/addon-web-links";
import { Terminal } from "@xterm/xterm";

import { AnswerGuard } from "./answers.js";
import { DARK, LIGHT } from "./themes.js";

const FONT = 'ui-monospace, "SF Mono", "Cascadia Mono", Menlo, "DejaVu Sans Mono", Consolas, monospace';
const FONT_SIZE_KEY = "trunkline.font-size";
const READER_KEY = "trunkline.screen-reader";
const [FONT_LEAST, FONT_USUAL, FONT_MOST] = [8, 14, 32];
const SCROLLBACK = 10_000;

/** Sizes of letters for a terminal whose size others decide. */
const FONT_TINIEST = 4;
/** Everything as in a fresh terminal, also what a reset (RIS) leaves: colours, cursor, line ends. */
const RESET = "\x1bc\x1b[?25h\x1b[?12l\x1b[20l\x1b]104\x07\x1b]110\x07\x1b]111\x07\x1b]112\x07";
/** Ends a half-finished escape sequence (CAN), then plain text in the usual character set. */
const CALM = "\x18\x1b[0m\x1b(B\x0f";
/** What a program that is gone may have left switched on: screens, modes, mouse, a hidden cursor. */
const TIDY =
  "\x1b7\x1b[r\x1b8\x1b[?1l\x1b>\x1b[?25h\x1b[?7h\x1b[4l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l" +
  "\x1b[?1004l\x1b[?2004l\x1b[?2026l";

const ENCODER = new TextEncoder();

export class Screen {
  /**
   * @param {HTMLElement} element
   * @param {object} handlers
   * @param {(bytes: Uint8Array) => void} handlers.oninput
   * @param {(columns: number, rows: number) => void} handlers.onresize
   * @param {(title: string) => void} handlers.ontitle
   * @param {() => void} handlers.onfind
   * @param {(data: string) => string} handlers.transform what the touch keys make of typed text
   */
  constructor(element, { oninput, onresize, ontitle, onfind, transform }) {
    this._element = element;
    this._onfind = onfind;
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const terminal = new Terminal({
      allowProposedApi: true, // Unicode widths
      cursorBlink: false,
      fontFamily: FONT,
      fontSize: fontSize(),
      linkHandler: {
        // The text of such a link (OSC 8) may say anything: show where it leads.
        activate: (/** @type {MouseEvent} */ _, /** @type {string} */ uri) => {
          if (confirm(`Open this link?\n\n${uri}`)) follow(uri);
        },
      },
      macOptionClickForcesSelection: true,
      minimumContrastRatio: 4.5,
      screenReaderMode: localStorage.getItem(READER_KEY) === "on",
      scrollback: SCROLLBACK,
      theme: dark.matches ? DARK : LIGHT,
    });
    dark.addEventListener("change", () => (terminal.options.theme = dark.matches ? DARK : LIGHT));
    this.terminal = terminal;
    this._fit = new FitAddon();
    this._search = new SearchAddon();
    for (const addon of [
      this._fit, this._search, new Unicode11Addon(), new WebLinksAddon((_, uri) => follow(uri)),
    ]) {
      terminal.loadAddon(addon);
    }
    terminal.unicode.activeVersion = "11";
    terminal.open(element);
    this._guard = new AnswerGuard(terminal);
    terminal.attachCustomKeyEventHandler((/** @type {KeyboardEvent} */ event) => this._key(event));
    terminal.onData((/** @type {string} */ data) => {
      if (this._guard.passes(data)) oninput(ENCODER.encode(transform(data)));
    });
    terminal.onBinary((/** @type {string} */ data) => {
      if (this._guard.passes(data)) oninput(Uint8Array.from(data, (char) => char.charCodeAt(0)));
    });
    terminal.onResize((/** @type {{cols: number, rows: number}} */ { cols, rows }) => onresize(cols, rows));
    terminal.onTitleChange(ontitle);
    this._frame = 0;
    this._fixed = false;
    new ResizeObserver(() => this.fit()).observe(element);
    this._fit.fit();
  }

  get columns() {
    return this.terminal.cols;
  }

  get rows() {
    return this.terminal.rows;
  }

  // ---------------------------------------------------------------- output

  /**
   * Draw bytes of the stream.
   * @param {Uint8Array} bytes
   * @param {boolean} replay others have seen them: questions in them are not answered
   * @param {() => void} done
   */
  write(bytes, replay, done) {
    if (!replay) {
      this.terminal.write(bytes, done);
      return;
    }
    // What was written before is drawn first, so the switch has to wait for its turn as well.
    this.terminal.write("", () => (this._guard.replaying = true));
    this.terminal.write(bytes, () => {
      this._guard.replaying = false;
      done();
    });
  }

  /**
   * Draw a mark where bytes are missing.
   * @param {number} count
   * @param {() => void} done
   */
  gap(count, done) {
    this._calm();
    this.terminal.write(`\r\n\x1b[2m── ${size(count)} of output missing here ──\x1b[0m\r\n`, done);
  }

  /** Forget everything that was drawn, in its turn. */
  clear() {
    this._calm();
    this.terminal.write(RESET);
  }

  /**
   * Draw a whole screen in place of everything that was drawn, in its turn.
   * @param {Uint8Array} bytes what draws it in a fresh terminal of this size
   * @param {number} columns
   * @param {number} rows
   */
  draw(bytes, columns, rows) {
    this.clear();
    this.terminal.write("", () => {
      this._guard.replaying = true;
      this.terminal.resize(columns, rows);
    });
    this.terminal.write(bytes, () => {
      this._guard.replaying = false;
      this.fit();
    });
  }

  /**
   * Say something below what was drawn.
   * @param {string} text
   */
  remark(text) {
    this._calm();
    this.terminal.write("", () => {
      // Leaving the alternate screen moves the cursor even where there is none to leave.
      const leave = this.terminal.buffer.active.type === "alternate" ? "\x1b[?1049l" : "";
      const fresh = this.terminal.buffer.active.cursorX > 0 ? "\r\n" : "";
      this.terminal.write(`${leave}${TIDY}${fresh}\x1b[2m${text}\x1b[0m\r\n`);
    });
  }

  /** Go on below what was drawn. */
  continueBelow() {
    this._calm();
    this.terminal.write("\r\n");
  }

  /** Leave whatever half-finished character or sequence the output has stopped in. */
  _calm() {
    this.terminal.write(ENCODER.encode(CALM));
  }

  // ---------------------------------------------------------------- size and looks

  /** Whether the size is that of the output, not that of the page. */
  get fixed() {
    return this._fixed;
  }

  set fixed(fixed) {
    if (fixed === this._fixed) return;
    this._fixed = fixed;
    if (!fixed) this.terminal.options.fontSize = fontSize();
    this.fit();
  }

  /** Fit the terminal to its element, or its letters if its size is fixed; once a frame. */
  fit() {
    if (this._frame) return;
    this._frame = requestAnimationFrame(() => {
      this._frame = 0;
      if (this._fixed) this._fitLetters();
      else this._fit.fit();
    });
  }

  _fitLetters() {
    const { terminal } = this;
    const room = this._fit.proposeDimensions();
    if (!room) return;
    const scale = Math.min(room.cols / terminal.cols, room.rows / terminal.rows);
    const size = Math.floor(terminal.options.fontSize * scale);
    terminal.options.fontSize = Math.min(Math.max(size, FONT_TINIEST), fontSize());
  }

  /** @param {-1 | 0 | 1} step 0: the usual size */
  changeFontSize(step) {
    const size = step === 0 ? FONT_USUAL : clamp(this.terminal.options.fontSize + step);
    this.terminal.options.fontSize = size;
    localStorage.setItem(FONT_SIZE_KEY, String(size));
    this.fit();
  }

  get screenReader() {
    return this.terminal.options.screenReaderMode === true;
  }

  set screenReader(on) {
    this.terminal.options.screenReaderMode = on;
    localStorage.setItem(READER_KEY, on ? "on" : "off");
  }

  focus() {
    this.terminal.focus();
  }

  // ---------------------------------------------------------------- keyboard

  /**
   * @param {KeyboardEvent} event
   * @returns {boolean} whether the terminal should see it
   */
  _key(event) {
    if (event.type !== "keydown" || event.altKey || !(event.ctrlKey || event.metaKey)) return true;
    const key = event.key.toLowerCase();
    if (event.ctrlKey && event.shiftKey && key === "c") {
      event.preventDefault(); // some browsers would open their tools
      this._copy();
      return false;
    }
    if (event.ctrlKey && event.shiftKey && key === "v") return false; // the browser pastes
    if (event.shiftKey && key === "f") {
      event.preventDefault();
      this._onfind();
      return false;
    }
    const step = { "+": 1, "=": 1, "-": -1, 0: 0 }[key];
    if (step === undefined) return true;
    event.preventDefault();
    this.changeFontSize(/** @type {-1 | 0 | 1} */ (step));
    return false;
  }

  _copy() {
    const text = this.terminal.getSelection();
    if (text === "") return;
    // Where the page may not use the clipboard, the old way works from within a key press.
    if (navigator.clipboard) navigator.clipboard.writeText(text).catch(() => document.execCommand("copy"));
    else document.execCommand("copy");
  }

  /**
   * @param {string} text
   * @param {boolean} forward
   * @returns {boolean} whether it was found
   */
  find(text, forward) {
    if (text === "") return true;
    return forward ? this._search.findNext(text) : this._search.findPrevious(text);
  }

  endFind() {
    this._search.clearDecorations();
    this.terminal.clearSelection();
    this.focus();
  }
}

/** @param {string} uri */
function follow(uri) {
  if (/^https?:/i.test(uri)) window.open(uri, "_blank", "noopener,noreferrer");
}

function fontSize() {
  const stored = Number(localStorage.getItem(FONT_SIZE_KEY));
  return stored > 0 ? clamp(stored) : FONT_USUAL;
}

/** @param {number} value */
function clamp(value) {
  return Math.min(Math.max(Math.round(value), FONT_LEAST), FONT_MOST);
}

/** @param {number} bytes */
function size(bytes) {
  if (bytes < 1024) return `${bytes} bytes`;
  const kib = bytes / 1024;
  return kib < 1024 ? `${kib.toFixed(1)} KiB` : `${(kib / 1024).toFixed(1)} MiB`;
}
