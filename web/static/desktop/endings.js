// @ts-check
/** What the desktop's page says when the desktop is no longer there: one literal table. */

/**
 * - `again`: connect once more; `watch`: connect for viewing only; `login`: sign in; `terminal`: the session's terminal
 * @typedef {"again" | "watch" | "login" | "terminal"} Offer
 */
/**
 * `quotes`: what the server says about it is worth reading too.
 * @typedef {{words: string, title: string, text: string, offers: readonly Offer[], quotes?: boolean}} Ending
 */

/** @type {Readonly<Record<Offer, string>>} */
export const OFFER_NAMES = Object.freeze({
  again: "Try again",
  watch: "Only view",
  login: "Sign in",
  terminal: "Open the terminal",
});

/** @type {Ending} */
const ENDED = {
  words: "ended",
  title: "The session has ended",
  text: "Everything in it was stopped.",
  offers: [],
};

/** @type {Readonly<Record<string, Ending>>} */
const ENDINGS = Object.freeze({
  start_failed: {
    words: "no desktop",
    title: "There is no desktop",
    text: "",
    quotes: true,
    offers: ["again", "terminal"],
  },
  unsupported: {
    words: "no desktop",
    title: "This session has no desktops",
    text: "",
    quotes: true,
    offers: ["terminal"],
  },
  exited: {
    words: "ended",
    title: "The desktop has ended",
    text: "The VNC server closed the connection. The session goes on; trying again starts another desktop.",
    offers: ["again", "terminal"],
  },
  gone: {
    words: "lost",
    title: "The connection to the desktop was lost",
    text: "It could not be resumed. The programs on the desktop may still run.",
    offers: ["again"],
  },
  too_much_input: {
    words: "not connected",
    title: "Too long without a connection",
    text: "More input was waiting than is kept, so the connection was given up.",
    offers: ["again"],
  },
  password: {
    words: "password",
    title: "The desktop asks for a password",
    text: "This page cannot give one. Let the VNC server run without (SecurityTypes None): only who has a ticket gets there.",
    offers: ["again", "terminal"],
  },
  rfb: {
    words: "error",
    title: "The desktop could not be shown",
    text: "",
    quotes: true,
    offers: ["again", "terminal"],
  },
  forbidden: {
    words: "not allowed",
    title: "Not allowed",
    text: "You may not use this desktop.",
    quotes: true,
    offers: ["watch"],
  },
  missing: {
    words: "not found",
    title: "No such session",
    text: "It was removed, or the address is wrong. “trunkline ls” lists those there are.",
    offers: [],
  },
  login: {
    words: "signed out",
    title: "Signed out",
    text: "Your sign-in has expired.",
    offers: ["login"],
  },
  revoked: {
    words: "revoked",
    title: "Access was withdrawn",
    text: "Permission to use this session was withdrawn. It may have been given anew.",
    offers: ["again"],
  },
  expired: {
    words: "expired",
    title: "The session has expired",
    text: "Its time to live is over, and everything in it was stopped.",
    offers: [],
  },
  session_stopped: {
    words: "stopped",
    title: "The session was stopped",
    text: "Its home was kept. Once “trunkline start” has started it again, there is a desktop again.",
    offers: ["again"],
  },
  session_ended: ENDED,
  ending: ENDED,
});

/**
 * @param {string} reason a close reason, a refusal, or a word of this page
 * @param {string} message what the server said about it, or ""
 * @returns {Ending}
 */
export function endingFor(reason, message) {
  const known = Object.hasOwn(ENDINGS, reason) ? ENDINGS[reason] : null;
  const ending = known ?? {
    words: "closed",
    title: "The desktop was closed",
    text: `Reason: ${reason}.`,
    offers: /** @type {readonly Offer[]} */ (["again"]),
    quotes: true,
  };
  if (!ending.quotes || message === "") return ending;
  const sentence = message.charAt(0).toUpperCase() + message.slice(1);
  const quoted = /[.!?]$/.test(sentence) ? sentence : `${sentence}.`;
  return { ...ending, text: [ending.text, quoted].filter(Boolean).join(" ") };
}
