// @ts-check
/** What the page says when an attachment has ended, and what it offers then: one literal table. */

/**
 * - `watch`: attach for reading only; `takeover`: take control; `again`: attach once more
 * - `restart`: a new shell in this session; `new`: a new session; `login`: sign in
 * @typedef {"watch" | "takeover" | "again" | "restart" | "new" | "login"} Offer
 */
/**
 * `quotes`: what the server says about it is worth reading too.
 * @typedef {{words: string, title: string, text: string, offers: readonly Offer[], quotes?: boolean}} Ending
 */

/** @type {Readonly<Record<Offer, string>>} */
export const OFFER_NAMES = Object.freeze({
  watch: "Watch",
  takeover: "Take over",
  again: "Try again",
  restart: "Start a new shell",
  new: "New terminal",
  login: "Sign in",
});

/** @type {Readonly<Record<string, Ending>>} */
const ENDINGS = Object.freeze({
  busy: {
    words: "in use elsewhere",
    title: "Someone else has control",
    text: "Another client is using this terminal. You can watch it, or take over; then the other one loses control.",
    offers: ["takeover", "watch", "new"],
  },
  taken_over: {
    words: "taken over",
    title: "Control was taken over",
    text: "Another client has taken control of this terminal. The shell goes on there.",
    offers: ["takeover", "watch", "new"],
  },
  superseded: {
    words: "open elsewhere",
    title: "Opened elsewhere",
    text: "This terminal goes on in another tab or window.",
    offers: ["takeover", "new"],
  },
  session_ended: {
    words: "ended",
    title: "The session has ended",
    text: "Everything in it was stopped.",
    offers: ["new"],
  },
  session_stopped: {
    words: "stopped",
    title: "The session was stopped",
    text: "Its home was kept. Once “trunkline start” has started it again, a new shell can be opened.",
    offers: ["again", "new"],
  },
  ending: {
    words: "ended",
    title: "The session has ended",
    text: "Everything in it was stopped.",
    offers: ["new"],
  },
  expired: {
    words: "expired",
    title: "The session has expired",
    text: "Its time to live is over, and everything in it was stopped.",
    offers: ["new"],
  },
  revoked: {
    words: "revoked",
    title: "Access was withdrawn",
    text: "Permission to use this session was withdrawn. It may have been given anew.",
    offers: ["again", "new"],
  },
  login: {
    words: "signed out",
    title: "Signed out",
    text: "Your sign-in has expired.",
    offers: ["login"],
  },
  missing: {
    words: "not found",
    title: "No such session",
    text: "It was removed, or the address is wrong.",
    offers: ["new"],
  },
  forbidden: {
    words: "not allowed",
    title: "Not allowed",
    text: "You may not use this terminal.",
    quotes: true,
    offers: ["watch", "new"],
  },
  not_found: {
    words: "no shell",
    title: "The shell is gone",
    text: "The session runs, but this shell is no longer there.",
    offers: ["restart", "new"],
  },
  start_failed: {
    words: "not started",
    title: "The shell could not be started",
    text: "",
    quotes: true,
    offers: ["restart", "new"],
  },
  protocol_error: {
    words: "error",
    title: "Something went wrong",
    text: "The server and this page did not understand each other. This is a bug; the shell still runs.",
    quotes: true,
    offers: ["again", "new"],
  },
});

/** @type {Ending} */
const OTHER = {
  words: "closed",
  title: "The terminal was closed",
  text: "",
  quotes: true,
  offers: ["again", "new"],
};

/**
 * @param {string} reason a close reason, a refusal, or a word of this page
 * @param {string} message what the server said about it, or ""
 * @returns {Ending}
 */
export function endingFor(reason, message) {
  const known = Object.hasOwn(ENDINGS, reason) ? ENDINGS[reason] : null;
  const ending = known ?? { ...OTHER, text: `Reason: ${reason}.` };
  if (!ending.quotes || message === "") return ending;
  return { ...ending, text: [ending.text, capitalised(message)].filter(Boolean).join(" ") };
}

/** @param {string} message */
function capitalised(message) {
  const text = message.charAt(0).toUpperCase() + message.slice(1);
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
