// @ts-check
/** Signals of an attachment (trunk/1 § 5): numbered from 1, kept so that a cut loses and repeats none. */

/** Signals kept for sending again after a cut; nobody sends more within one. */
const MOST = 64;

export class SignalLog {
  constructor() {
    /** @type {{number: number, name: string, sent: boolean}[]} */
    this._signals = [];
    this._last = 0;
  }

  /**
   * @param {string} name without "SIG"
   * @throws {RangeError} it cannot be the name of a signal
   */
  add(name) {
    if (!/^[A-Z0-9]{1,16}$/.test(name)) throw new RangeError(`there is no signal ${name}`);
    this._last += 1;
    this._signals.push({ number: this._last, name, sent: false });
    if (this._signals.length > MOST) this._signals.shift();
  }

  /** @returns {{number: number, name: string}[]} what has to be sent now */
  takeUnsent() {
    const unsent = this._signals.filter(({ sent }) => !sent);
    for (const signal of unsent) signal.sent = true;
    return unsent.map(({ number, name }) => ({ number, name }));
  }

  /** Go on with an owner that took those up to `taken`. @param {number} taken */
  resume(taken) {
    this._signals = this._signals.filter(({ number }) => number > taken);
    for (const signal of this._signals) signal.sent = false;
  }

  /**
   * Begin with an owner that knows nothing of what was sent before: nobody can know what became of
   * that, so only what was not sent yet is kept, and numbered anew.
   * @param {number} taken
   */
  restart(taken) {
    this._signals = this._signals
      .filter(({ sent }) => !sent)
      .map(({ name }, i) => ({ number: taken + 1 + i, name, sent: false }));
    this._last = taken + this._signals.length;
  }
}
