// @ts-check
/** What attachments take and tell, as types; nothing here runs. */

/**
 * What to attach to.  `attachment`: 16 to 64 random characters, the same through all resumes.
 * `window`: bytes of output under way at first.  The rest as in ATTACH.
 * @typedef {object} AttachOptions
 * @property {string} attachment
 * @property {string} kind
 * @property {string} tag
 * @property {"control" | "view"} [mode]
 * @property {"pace" | "skip" | "drop"} [policy]
 * @property {Record<string, unknown>} [start]
 * @property {boolean} [takeover]
 * @property {number} [columns]
 * @property {number} [rows]
 * @property {"all" | "none" | "screen"} [replay]
 * @property {number} [window]
 */
/**
 * `fresh`: the output begins anew, what was drawn before is not continued.  `lostInput`: bytes that
 * were sent and of which nobody can know whether they were taken.
 * @typedef {object} Attached
 * @property {boolean} fresh
 * @property {boolean} started
 * @property {string} stream
 * @property {number | null} pid
 * @property {number} from
 * @property {number} live
 * @property {number} lostInput
 */
/** @typedef {{channel: number, offset: number, replay: boolean}} Place */
/**
 * `screen`: a whole screen follows, which makes up for what is missing.
 * @typedef {{channel: number, from: number, to: number, replay: boolean, screen: boolean}} Gap
 */
/**
 * What brings a fresh terminal of this size to where the output is at `offset`.
 * @typedef {{bytes: Uint8Array, offset: number, columns: number, rows: number}} WholeScreen
 */
/** @typedef {{code: number | null, signal: string | null}} Exit */
/** @typedef {{refused: boolean, reason: string, message: string}} Ending */
/**
 * @typedef {object} Handlers
 * @property {(attached: Attached) => void} [onattached]
 * @property {(bytes: Uint8Array, place: Place, done: () => void) => void} ondata
 * @property {(gap: Gap, done: () => void) => void} [ongap]
 * @property {(screen: WholeScreen) => void} [onscreen] takes the place of all output so far
 * @property {(exit: Exit) => void} [onexit] after the last byte has been handed over
 * @property {(ending: Ending) => void} [onclosed] refused, or closed for good
 */
/**
 * What a link offers to an attachment that is bound to it.
 * @typedef {object} Binding
 * @property {number} id the stream id
 * @property {(frame: Uint8Array) => void} send
 * @property {() => void} wake there may be data to send
 * @property {() => void} again bind once more, under a new id
 * @property {(reason: string, message: string) => void} retry reconnect after a while
 * @property {() => number | null} roundTrip milliseconds
 * @property {() => number} now milliseconds
 */

export {};
