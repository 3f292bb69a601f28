// @ts-check
/** When to try again after a link was lost: pure. */

const FIRST_LEAST = 50;
const FIRST_MOST = 150;
const BASE = 250;
const MOST = 10_000;
/** No server may send a client away for longer, in milliseconds. */
const RETRY_AFTER_MOST = 300_000;
/** A link that lived so long, in milliseconds, was a good one: begin to count anew. */
const GOOD_LIFE = 2_000;
/** After a link that was good but short, do not wait longer than this attempt would. */
const SHORT_LIFE_ATTEMPT = 3;

/**
 * Return how many milliseconds to wait.
 * @param {number} attempt 0 for the first try after a link was lost
 * @param {number} random in [0, 1): half of each delay is jitter, so that the clients of a server
 *   that went away do not all come back in the same moment
 * @param {number | null} [retryAfter] seconds, as the server asked
 * @returns {number}
 */
export function delayBefore(attempt, random, retryAfter = null) {
  const asked = retryAfter === null ? 0 : Math.min(retryAfter * 1000, RETRY_AFTER_MOST);
  const spread = Math.min(FIRST_LEAST + random * (FIRST_MOST - FIRST_LEAST), FIRST_MOST);
  if (attempt === 0 || asked > 0) return asked * (1 + random / 4) + spread;
  const ceiling = Math.min(BASE * 2 ** Math.min(attempt - 1, 16), MOST);
  return ceiling / 2 + (random * ceiling) / 2;
}

/**
 * Return the number of the next attempt.
 * @param {number} attempt the number of this one
 * @param {number | null} life milliseconds since the server answered an ATTACH; null: it never did
 * @returns {number}
 */
export function nextAttempt(attempt, life) {
  if (life === null) return attempt + 1;
  return life >= GOOD_LIFE ? 0 : Math.min(attempt + 1, SHORT_LIFE_ATTEMPT);
}
