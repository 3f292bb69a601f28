// @ts-check
/**
 * Payloads of the control frames (trunk/1 § 2, § 5): what a client receives, checked by a table.
 *
 * Keys that are not known are ignored, so that a later version can add some; a known key with a
 * wrong type or an impossible value is a protocol error, and so is a frame that only a client sends.
 */

import { TYPE, TYPE_NAMES } from "./frames.js";
import { decode } from "./msgpack.js";
import { CLOSE_REASONS, ProtocolError, REFUSALS } from "./reasons.js";

/** @typedef {{wanted: string, test: (value: any) => boolean, otherwise?: unknown}} Field */

/**
 * @param {string} wanted what the field is, for the error
 * @param {(value: any) => boolean} test
 * @returns {Field} a field that must be there
 */
const must = (wanted, test) => ({ wanted, test });

/**
 * @param {Field} field
 * @param {unknown} otherwise what stands for it where it is missing
 * @returns {Field}
 */
const may = (field, otherwise) => ({ ...field, otherwise });

const isOffset = (/** @type {any} */ value) => Number.isSafeInteger(value) && value >= 0;
const OFFSET = must("an offset", isOffset);
const TEXT = must("text", (value) => typeof value === "string" && value.length <= 4096);
/** Bytes in one SCREEN. */
const MAX_SCREEN_PART = 48 * 1024;
const CELLS = must("a number of cells", (value) => isOffset(value) && value >= 1 && value <= 0xffff);
const BOOLEAN = must("true or false", (value) => typeof value === "boolean");
const OFFSETS = must(
  "a map of channels to offsets",
  (value) =>
    typeof value === "object" &&
    value !== null &&
    !Array.isArray(value) &&
    Object.entries(value).every(([key, offset]) => /^[0-2]$/.test(key) && isOffset(offset)),
);
/** @param {Readonly<Record<string, unknown>>} words */
const oneOf = (words) => must("a known word", (value) => Object.hasOwn(words, value));
const REASON = oneOf(CLOSE_REASONS);

/** @type {Readonly<Record<number, Record<string, Field>>>} */
const SHAPES = Object.freeze({
  [TYPE.HELLO]: { version: must("a number", Number.isSafeInteger), software: may(TEXT, "") },
  [TYPE.CREDIT]: { ack: may(OFFSET, null), up_to: may(OFFSET, null) },
  [TYPE.GAP]: { from: OFFSET, to: OFFSET, screen: may(BOOLEAN, false) },
  [TYPE.FIN]: { at: OFFSET },
  [TYPE.ATTACHED]: {
    stream: TEXT,
    tag: TEXT,
    kind: TEXT,
    mode: oneOf({ control: 1, view: 1 }),
    pid: may(OFFSET, null),
    started: may(BOOLEAN, false),
    resumed: may(BOOLEAN, false),
    from: OFFSETS,
    live: may(OFFSET, 0),
    accepted: may(OFFSET, 0),
    credit: may(OFFSET, 0),
    signals: may(OFFSET, 0),
    stopped: may(BOOLEAN, false),
    screen: may(BOOLEAN, false),
  },
  [TYPE.REFUSED]: { code: oneOf(REFUSALS), message: may(TEXT, "") },
  [TYPE.CLOSED]: { reason: REASON, message: may(TEXT, "") },
  [TYPE.EXIT]: {
    code: may(must("a code of 0 to 255", (value) => isOffset(value) && value <= 255), null),
    signal: may(TEXT, null),
  },
  [TYPE.PING]: { id: OFFSET },
  [TYPE.PONG]: { id: OFFSET },
  [TYPE.GOAWAY]: {
    reason: REASON,
    message: may(TEXT, ""),
    retry_after: may(must("seconds", (value) => typeof value === "number" && value >= 0), null),
  },
  [TYPE.STOP]: {},
  [TYPE.SCREEN]: {
    data: must("bytes", (value) => value instanceof Uint8Array && value.length <= MAX_SCREEN_PART),
    at: OFFSET,
    columns: CELLS,
    rows: CELLS,
    last: may(BOOLEAN, false),
  },
});

/**
 * Return the checked fields of a control frame, with the defaults filled in; null for a type that
 * this version does not know.
 * @param {import("./frames.js").ControlFrame} frame
 * @returns {Record<string, any> | null}
 * @throws {ProtocolError}
 */
export function decodeMessage(frame) {
  const name = TYPE_NAMES[frame.type];
  if (name === undefined) return null;
  const shape = SHAPES[frame.type];
  if (shape === undefined) throw new ProtocolError(`${name} is not for a client`);
  const payload = decode(frame.payload);
  if (typeof payload !== "object" || payload === null || Array.isArray(payload) ||
      payload instanceof Uint8Array) {
    throw new ProtocolError(`the payload of ${name} is not a map`);
  }
  /** @type {Record<string, any>} */
  const fields = {};
  for (const [key, field] of Object.entries(shape)) {
    const value = /** @type {Record<string, unknown>} */ (payload)[key] ?? null;
    if (value === null && field.otherwise !== undefined) fields[key] = field.otherwise;
    else if (field.test(value)) fields[key] = value;
    else throw new ProtocolError(`${name}: ${key} is not ${field.wanted}`);
  }
  return fields;
}
