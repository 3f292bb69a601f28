// @ts-check
/**
 * Why something ended or was refused, and what a client does about it (docs/spec/close-reasons.md).
 */

/**
 * What follows when an attachment is closed, or a link is:
 * - `stop`: nothing; only the user may begin again,
 * - `resume`: reconnect and go on at the next byte,
 * - `afresh`: attach again, without the past.
 * @typedef {"stop" | "resume" | "afresh"} Sequel
 */

/** @type {Readonly<Record<string, Sequel>>} */
export const CLOSE_REASONS = Object.freeze({
  exited: "stop",
  detached: "stop",
  superseded: "stop",
  taken_over: "stop",
  expired: "stop",
  revoked: "stop",
  session_ended: "stop",
  session_stopped: "stop",
  agent_lost: "resume",
  draining: "resume",
  protocol_error: "stop",
  slow_reader: "resume",
  too_far_behind: "afresh",
  connection_lost: "resume",
  internal_error: "resume",
});

/** @type {Readonly<Record<string, "stop" | "later" | "afresh">>} */
export const REFUSALS = Object.freeze({
  bad_request: "stop",
  forbidden: "stop",
  not_found: "stop",
  conflict: "stop",
  busy: "stop",
  gone: "afresh",
  limit: "later",
  start_failed: "stop",
  unsupported: "stop",
  ending: "stop",
});

/**
 * The peer sent something that trunk/1 forbids.  The link is closed with GOAWAY `protocol_error`
 * and not opened again: going on would mean bytes that nobody can vouch for.
 */
export class ProtocolError extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = "ProtocolError";
  }
}
