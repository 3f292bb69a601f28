// @ts-check
/**
 * What noVNC takes for a WebSocket, on a stream of a trunk: it does not notice when the link is cut.
 *
 * Links come and go beneath; the bytes of the desktop go on where they were, in both directions, so the
 * RFB connection is the same one all the time.  Only when the stream itself is over does it close.
 */

/** @typedef {import("../trunk/types.js").Ending} Ending */

/** What is kept of input that waits for a link is bounded; beyond that the connection has to end. */
const TOO_MUCH = { refused: false, reason: "too_much_input", message: "" };

export class TrunkChannel {
  /**
   * @param {import("../trunk.js").Trunk} trunk
   * @param {{attachment: string, tag: string}} names
   * @param {(ending: Ending) => void} onended called once, before `onclose`
   * @param {() => void} onattached called with every link
   */
  constructor(trunk, { attachment, tag }, onended, onattached) {
    // noVNC looks for each of these on the object.
    this.binaryType = "arraybuffer";
    this.protocol = "";
    this.readyState = "connecting";
    /** @type {(() => void) | null} */
    this.onopen = null;
    /** @type {((event: {data: Uint8Array}) => void) | null} */
    this.onmessage = null;
    /** @type {((event: {code: number, reason: string}) => void) | null} */
    this.onclose = null;
    /** @type {((event: unknown) => void) | null} */
    this.onerror = null;
    this._trunk = trunk;
    this._onended = onended;
    this.attachment = trunk.attach(
      { attachment, kind: "vnc", tag, mode: "control", start: {} },
      {
        onattached: ({ fresh }) => {
          if (fresh && this.readyState === "open") {
            // Another connection to the VNC server: the old one's picture cannot go on.
            this._end({ refused: false, reason: "gone", message: "" });
            return;
          }
          onattached();
          if (this.readyState !== "connecting") return;
          this.readyState = "open";
          this.onopen?.();
        },
        ondata: (bytes, _, done) => {
          if (this.readyState === "open") this.onmessage?.({ data: bytes });
          done();
        },
        ongap: (_, done) => {
          done();
          this._end({ refused: false, reason: "too_far_behind", message: "" });
        },
        onexit: () => this._end({ refused: false, reason: "exited", message: "" }),
        onclosed: (ending) => this._end(ending),
      },
    );
  }

  /** @param {Uint8Array} bytes noVNC uses the same buffer again */
  send(bytes) {
    if (this.readyState !== "open") return;
    if (!this.attachment.write(bytes.slice()) && !this.attachment.ended) this._end(TOO_MUCH);
  }

  close() {
    this._end({ refused: false, reason: "detached", message: "" });
  }

  /** @param {Ending} ending */
  _end(ending) {
    if (this.readyState === "closed") return;
    this.readyState = "closed";
    this._trunk.detach(this.attachment);
    this._onended(ending);
    queueMicrotask(() => this.onclose?.({ code: 1000, reason: ending.reason }));
  }
}
