// @ts-check
/** The control plane, as the page needs it: sessions, tickets, and the token that opens them. */

const TOKEN_KEY = "trunkline.token";
const PATIENCE = 10_000;

/** The server said no.  `status` is the HTTP status; the message is for the user. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} title
   * @param {string} detail
   */
  constructor(status, title, detail) {
    super(detail || title);
    this.name = "ApiError";
    this.status = status;
    this.title = title;
  }

  /** Whether the same request may succeed later. */
  get passing() {
    return this.status >= 500 || this.status === 408 || this.status === 429;
  }
}

/** @typedef {{session_id: string, status: string, state?: string, profile?: string, created_at: string, expires_at: string | null}} Session */

export class Api {
  /** @param {Storage} storage where the token is kept; bound to the origin, port included */
  constructor(storage) {
    this._storage = storage;
  }

  /** Whether there is a token that has not expired as far as we know. */
  get hasToken() {
    return this._token !== null;
  }

  get _token() {
    try {
      const { token, expires_at } = JSON.parse(this._storage.getItem(TOKEN_KEY) ?? "{}");
      if (typeof token !== "string") return null;
      return expires_at && Date.parse(expires_at) <= Date.now() ? null : token;
    } catch {
      return null; // not ours
    }
  }

  forgetToken() {
    this._storage.removeItem(TOKEN_KEY);
  }

  /** Trade the one-use code of a link for a token. @param {string} code */
  async login(code) {
    const { token, expires_at } = await this._request("POST", "/v1/login", { code });
    this._storage.setItem(TOKEN_KEY, JSON.stringify({ token, expires_at }));
  }

  /** Use a token that the user has pasted, if the server takes it. @param {string} token */
  async useToken(token) {
    const before = this._storage.getItem(TOKEN_KEY);
    this._storage.setItem(TOKEN_KEY, JSON.stringify({ token }));
    try {
      await this.sessions();
    } catch (error) {
      if (before === null) this._storage.removeItem(TOKEN_KEY);
      else this._storage.setItem(TOKEN_KEY, before);
      throw error;
    }
  }

  /** @returns {Promise<Session[]>} newest first */
  async sessions() {
    const { sessions } = await this._request("GET", "/v1/sessions");
    return sessions;
  }

  /** @returns {Promise<string>} the id of a new session */
  async create() {
    const body = { profile: "default", ttl_seconds: 0 };
    return (await this._request("POST", "/v1/sessions", body)).session_id;
  }

  /** @param {string} id */
  async end(id) {
    await this._request("DELETE", `/v1/sessions/${encodeURIComponent(id)}`);
  }

  /**
   * Get a one-use ticket for the streams of a session.
   * @param {string} id
   * @param {"control" | "view"} mode
   * @param {"pty" | "vnc"} [kind]
   * @returns {Promise<string>}
   */
  async ticket(id, mode, kind = "pty") {
    const body = { kinds: [kind], mode, ttl_seconds: 60, uses: 1 };
    const path = `/v1/sessions/${encodeURIComponent(id)}/attach`;
    return (await this._request("POST", path, body)).token;
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {unknown} [body]
   * @returns {Promise<any>}
   */
  async _request(method, path, body) {
    /** @type {Record<string, string>} */
    const headers = {};
    const token = this._token;
    if (token !== null) headers.Authorization = `Bearer ${token}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(path, {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        cache: "no-store",
        credentials: "omit",
        signal: AbortSignal.timeout(PATIENCE),
      });
    } catch {
      throw new Error("The server cannot be reached.");
    }
    const text = await response.text();
    const answer = parse(text);
    if (response.ok) return answer ?? {};
    throw new ApiError(
      response.status,
      answer?.title ?? `The server answered ${response.status}`,
      answer?.detail ?? "",
    );
  }
}

/** @param {string} text */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
