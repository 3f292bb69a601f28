// @ts-check
/**
 * Keeps a terminal from answering questions that were asked long ago.
 *
 * Programs ask terminals for their type, the cursor's place, colours and modes, and the terminal
 * writes the answer into the input.  When old output is drawn again, the questions in it have been
 * answered already (or nobody waits any more): a second answer would appear as junk at the prompt.
 * So while replay is drawn, the questions are taken out of the output, and what the person types
 * meanwhile passes.
 */

/** CSI sequences that are questions, whatever their parameters. */
const QUESTIONS = [
  { final: "c" }, // DA1
  { prefix: ">", final: "c" }, // DA2
  { prefix: "=", final: "c" }, // DA3
  { final: "n" }, // DSR
  { prefix: "?", final: "n" }, // DECDSR
  { intermediates: "$", final: "p" }, // DECRQM, ANSI modes
  { prefix: "?", intermediates: "$", final: "p" }, // DECRQM
  { prefix: ">", final: "q" }, // XTVERSION
  { prefix: "?", final: "u" }, // keyboard protocol
];
/** Window operations that are reports (XTWINOPS). */
const WINDOW_REPORTS = [11, 13, 14, 15, 16, 18, 19, 20, 21];
/** OSC commands that set a colour or, with "?", ask for it; 52 is the clipboard. */
const COLOURS = [4, 5, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 52];
/** Focus in, focus out, and mouse reports: about a moment that is not the program's. */
const FOCUS_OR_MOUSE = /^\x1b\[(?:[IO]|M[^]{3}|<\d+;\d+;\d+[Mm])$/;

export class AnswerGuard {
  /** @param {import("@xterm/xterm").Terminal} terminal */
  constructor(terminal) {
    /** Whether what is being drawn is replay. */
    this.replaying = false;
    const { parser } = terminal;
    for (const sequence of QUESTIONS) parser.registerCsiHandler(sequence, () => this.replaying);
    parser.registerCsiHandler(
      { final: "t" },
      (/** @type {(number | number[])[]} */ [operation]) =>
        this.replaying && WINDOW_REPORTS.includes(/** @type {number} */ (operation)),
    );
    parser.registerDcsHandler({ intermediates: "$", final: "q" }, () => this.replaying); // DECRQSS
    parser.registerDcsHandler({ intermediates: "+", final: "q" }, () => this.replaying); // XTGETTCAP
    for (const command of COLOURS) {
      parser.registerOscHandler(
        command,
        (/** @type {string} */ data) => this.replaying && data.split(";").includes("?"),
      );
    }
  }

  /**
   * Whether input of the terminal should be sent.
   * @param {string} data
   */
  passes(data) {
    return !this.replaying || !FOCUS_OR_MOUSE.test(data);
  }
}
