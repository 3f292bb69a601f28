/**
 * Two real terminals: one that saw all output, one that was given a snapshot.  What they look like is
 * told in plain values, so that a difference can be shown.
 */

import { Unicode11Addon } from "@xterm/addon-unicode11";
import { Terminal } from "@xterm/xterm";

const SCROLLBACK = 900; // less than a snapshot has, so that both have dropped the same

function open(columns, rows) {
  const terminal = new Terminal({
    allowProposedApi: true, cols: columns, rows, scrollback: SCROLLBACK, logLevel: "off",
  });
  terminal.loadAddon(new Unicode11Addon());
  terminal.unicode.activeVersion = "11";
  return terminal;
}

const bytes = (base64) => Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
const draw = (terminal, data) => new Promise((resolve) => terminal.write(bytes(data), resolve));

function colour(isDefault, isRgb, mode, value) {
  return isDefault ? "-" : isRgb ? `#${value.toString(16)}` : `${mode >> 24}:${value}`;
}

/** One cell; of an empty one only what shows. */
function cellOf(cell, before, after) {
  let [text, width] = [cell.getChars(), cell.getWidth()];
  // Halves that xterm leaves over when the other is overwritten look like blanks.
  if ((width === 0 && text === "" && before !== 2) || (width === 2 && after !== 0)) [text, width] = ["", 1];
  const background = colour(cell.isBgDefault(), cell.isBgRGB(), cell.getBgColorMode(), cell.getBgColor());
  const flags = [
    cell.isBold(), cell.isDim(), cell.isItalic(), cell.isBlink(), cell.isInverse(), cell.isInvisible(),
    cell.isStrikethrough(), cell.isOverline(), cell.isUnderline(),
  ].map((flag) => (flag ? 1 : 0));
  const shows = flags[4] || flags[6] || flags[7] || flags[8];
  if (text === "" && width === 1 && !shows) return `empty ${background}`;
  const foreground = colour(cell.isFgDefault(), cell.isFgRGB(), cell.getFgColorMode(), cell.getFgColor());
  return `${text || " "} ${width} ${foreground} ${background} ${flags.join("")}`;
}

function linesOf(buffer, columns, withWraps) {
  const lines = [];
  for (let y = 0; y < buffer.length; y++) {
    const line = buffer.getLine(y);
    const width = (x) => line.getCell(x)?.getWidth() ?? 1;
    const cells = [];
    for (let x = 0; x < columns; x++) cells.push(cellOf(line.getCell(x), width(x - 1), width(x + 1)));
    lines.push({ wrapped: withWraps && y > 0 && line.isWrapped, cells });
  }
  return lines;
}

/** What a terminal looks like and does with keys; also what its API does not tell. */
function stateOf(terminal) {
  const core = terminal._core;
  const { active, normal, alternate } = terminal.buffer;
  const inner = core.buffers._activeBuffer;
  const { synchronizedOutputMode, ...modes } = terminal.modes;
  return {
    size: [terminal.cols, terminal.rows],
    normal: linesOf(normal, terminal.cols, true),
    alternate: active.type === "alternate" ? linesOf(alternate, terminal.cols, false) : null,
    base: active.baseY,
    cursor: [inner.x, inner.y],
    margins: [inner.scrollTop, inner.scrollBottom],
    tabs: Object.keys(inner.tabs).map(Number).filter((x) => x < terminal.cols),
    saved: [
      Math.min(inner.savedX, terminal.cols - 1),
      Math.min(Math.max(inner.savedY - inner.ybase, 0), terminal.rows - 1),
    ],
    modes,
    hidden: core.coreService.isCursorHidden,
    keypad: core.coreService.decPrivateModes.applicationKeypad,
    mouse: core.coreMouseService.activeEncoding,
    title: core._inputHandler._windowTitle,
  };
}

/**
 * @param {{size: number[], parts: (string | number[])[], snapshot: string, shown: number[], more: string}[]}
 *   cases `parts` are output in base64 and new sizes; `more` is what comes after the snapshot
 */
export async function compare(cases) {
  const results = [];
  for (const { size, parts, snapshot, shown, more } of cases) {
    const old = open(...size);
    for (const part of parts) {
      if (typeof part === "string") await draw(old, part);
      else old.resize(...part);
    }
    let answers = 0;
    const fresh = open(...shown);
    fresh.onData(() => (answers += 1));
    await draw(fresh, snapshot);
    const result = { answers, old: stateOf(old), fresh: stateOf(fresh) };
    await draw(old, more);
    await draw(fresh, more);
    result.oldAfter = stateOf(old);
    result.freshAfter = stateOf(fresh);
    results.push(result);
    old.dispose();
    fresh.dispose();
  }
  return results;
}
