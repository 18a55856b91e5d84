// The mock desk's HTTP API, which plugins/mock/deskapi describes. The client keeps
// no state and tries nothing twice; it knows nothing of deskhost.

/** The silence after which a feed counts as lost, in milliseconds: three times what the desk promises. */
const FEED_DEAD = 6000;

/** The errors of a connection that was never made. */
const NEVER_CONNECTED = new Set([
  "ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH", "UND_ERR_CONNECT_TIMEOUT",
]);

/** A call that the desk did not serve. */
export class DeskError extends Error {
  /**
   * @param {string} message
   * @param {object} [more]
   * @param {number} [more.status] the HTTP status; 0 if there was no answer
   * @param {boolean} [more.sent] false if the desk cannot have had the call
   * @param {string} [more.code] what the desk calls it; empty if it was not the desk that answered
   * @param {number} [more.retryAfter] seconds that the desk asked to wait
   * @param {string} [more.userMessage]
   */
  constructor(message, { status = 0, sent = true, code = "", retryAfter, userMessage } = {}) {
    super(message);
    Object.assign(this, { status, sent, code, retryAfter, userMessage });
  }
}

export class Client {
  /** @param {string} base the desk's address */
  constructor(base) {
    this.base = base.replace(/\/*$/, "/");
  }

  /** Asks who answers at the address. */
  info(signal) {
    return this.#call("GET", "v1/desk", undefined, signal);
  }

  /** Asks whether anybody is there. */
  availability(signal) {
    return this.#call("GET", "v1/availability", undefined, signal);
  }

  /** Opens the conversation with the key, or joins it. */
  start(key, request, signal) {
    return this.#call("PUT", path(key), request, signal);
  }

  /** Tells what is now known of the user. */
  update(key, context, signal) {
    return this.#call("PATCH", path(key), context, signal);
  }

  /** Ends a conversation; by is "user" or "host". */
  end(key, by, reason, signal) {
    return this.#call("DELETE", `${path(key)}?${new URLSearchParams({ by, reason })}`, undefined, signal);
  }

  /** Hands over a message. The same id is the same message. */
  send(key, message, signal) {
    return this.#call("POST", `${path(key)}/messages`, message, signal);
  }

  /** Tells whether the user types. */
  typing(key, typing, signal) {
    return this.#call("POST", `${path(key)}/typing`, { typing }, signal);
  }

  /** Tells that the user has seen everything. */
  read(key, signal) {
    return this.#call("POST", `${path(key)}/read`, {}, signal);
  }

  /** Asks what happened in conversations behind the cursors given, by key. */
  catchUp(after, signal) {
    return this.#call("POST", "v1/catch-up", { after }, signal);
  }

  /**
   * Reads what happens from now on in all conversations, until that breaks off.
   * @param {{opened: () => void, happened: (event: object) => void}} told
   * @param {AbortSignal} signal
   * @returns {Promise<never>} rejected with what broke it
   */
  async follow({ opened, happened }, signal) {
    const silence = new AbortController();
    const watchdog = setTimeout(() => silence.abort(new DeskError("the desk's feed fell silent")), FEED_DEAD);
    try {
      const response = await this.#fetch("v1/feed", { signal: AbortSignal.any([signal, silence.signal]) });
      let begun = false;
      for await (const line of lines(response.body)) {
        watchdog.refresh();
        if (!begun) opened(); // the first line, which is empty, says so
        begun = true;
        if (line) happened(parse(line));
      }
    } finally {
      clearTimeout(watchdog);
    }
    throw new DeskError("the desk closed its feed");
  }

  async #call(method, at, body, signal) {
    const response = await this.#fetch(at, {
      method,
      signal,
      headers: body && { "Content-Type": "application/json" },
      body: body && JSON.stringify(body),
    });
    const text = await response.text();
    return text ? parse(text) : undefined;
  }

  /** Makes a request, and throws unless the desk does what it asks. */
  async #fetch(at, request) {
    let response;
    try {
      response = await fetch(this.base + at, request);
    } catch (err) {
      const cause = err.cause ?? err;
      throw new DeskError(cause.message || cause.code, { sent: !NEVER_CONNECTED.has(cause.code) });
    }
    if (response.ok) return response;
    const error = await response.json().catch(() => ({}));
    throw new DeskError(`the desk answered ${response.status} ${error.code ?? ""}: ${error.message ?? ""}`, {
      status: response.status,
      code: error.code,
      retryAfter: Number(response.headers.get("Retry-After")) || undefined,
      userMessage: error.user_message,
    });
  }
}

const path = (key) => `v1/conversations/${encodeURIComponent(key)}`;

/** Reads JSON, of which a parser's own error would quote what people wrote. */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new DeskError("what the desk says is no JSON");
  }
}

async function* lines(body) {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of body) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = parts.pop();
    yield* parts;
  }
}
