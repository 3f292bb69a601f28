// @ts-check
/**
 * What belongs to this tab, and what other tabs of this browser have open.
 *
 * A tab remembers its session and its attachment id in sessionStorage, so a reload comes back to the
 * same shell.  A duplicated tab gets a copy of both: it must not use the same attachment id, or the
 * two would push each other out for ever.  So a page holds a lock on its id for as long as it lives.
 * Where there are no Web Locks (they need https or localhost), it asks around on a BroadcastChannel.
 */

const SESSION_KEY = "trunkline.session";
const ATTACHMENTS_KEY = "trunkline.attachments";
const PREFIX = "trunkline/";
/** Milliseconds to wait for a lock that the page before a reload may just be giving up. */
const LOCK_PATIENCE = 400;
/** Milliseconds to wait for the answers of other tabs. */
const ASK_PATIENCE = 150;
/** Attachment ids that one tab remembers. */
const MOST_REMEMBERED = 32;

export class Tab {
  constructor() {
    /** @type {Set<string>} */
    this._held = new Set();
    /** @type {BroadcastChannel | null} */
    this._channel = null;
    if (!navigator.locks) {
      this._channel = new BroadcastChannel("trunkline");
      this._channel.addEventListener("message", ({ data }) => {
        if (data?.ask === true) this._channel?.postMessage({ held: [...this._held] });
      });
    }
  }

  /** The session that this tab showed last. */
  get lastSession() {
    return sessionStorage.getItem(SESSION_KEY);
  }

  /**
   * Say that this tab shows a session, and return the attachment id it has there.
   * @param {string} session
   * @returns {Promise<string>}
   */
  async enter(session) {
    sessionStorage.setItem(SESSION_KEY, session);
    await this._hold(`session/${session}/${randomId()}`);
    const remembered = recall();
    const old = remembered[session];
    if (typeof old === "string" && (await this._hold(`attachment/${old}`))) return old;
    const id = randomId();
    await this._hold(`attachment/${id}`);
    const entries = Object.entries(remembered).filter(([key]) => key !== session);
    const kept = Object.fromEntries([...entries.slice(1 - MOST_REMEMBERED), [session, id]]);
    sessionStorage.setItem(ATTACHMENTS_KEY, JSON.stringify(kept));
    return id;
  }

  /** @returns {Promise<Set<string>>} the sessions that tabs of this browser show */
  async openSessions() {
    const names = await this._names();
    return new Set(
      [...names].filter((name) => name.startsWith("session/")).map((name) => name.split("/")[1]),
    );
  }

  /**
   * Hold a name until the page goes away; false when another page holds it.
   * @param {string} name
   * @returns {Promise<boolean>}
   */
  async _hold(name) {
    if (this._held.has(name)) return true;
    if (navigator.locks) {
      return new Promise((resolve) => {
        const hold = () => {
          this._held.add(name);
          resolve(true);
          return new Promise(() => {}); // until the page goes away
        };
        const signal = AbortSignal.timeout(LOCK_PATIENCE);
        navigator.locks.request(PREFIX + name, { signal }, hold).catch(() => resolve(false));
      });
    }
    if ((await this._names()).has(name)) return false;
    this._held.add(name);
    return true;
  }

  /** @returns {Promise<Set<string>>} what is held by any page */
  async _names() {
    if (navigator.locks) {
      const { held = [] } = await navigator.locks.query();
      return new Set(held.map(({ name }) => (name ?? "").slice(PREFIX.length)));
    }
    /** @type {Set<string>} */
    const names = new Set();
    const collect = (/** @type {MessageEvent} */ { data }) => {
      if (Array.isArray(data?.held)) for (const name of data.held) names.add(String(name));
    };
    this._channel?.addEventListener("message", collect);
    this._channel?.postMessage({ ask: true });
    await new Promise((resolve) => setTimeout(resolve, ASK_PATIENCE));
    this._channel?.removeEventListener("message", collect);
    return names;
  }
}

/** @returns {Record<string, unknown>} */
function recall() {
  try {
    return JSON.parse(sessionStorage.getItem(ATTACHMENTS_KEY) ?? "{}") ?? {};
  } catch {
    return {}; // not ours
  }
}

/** 24 random characters; `crypto.randomUUID` is not there on plain http. */
function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(18));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
}
