/**
 * The error by which a plugin says what became of a call. Any other error says
 * that nobody knows.
 */
export class Failure extends Error {
  /**
   * @param {"RETRY"|"CHAT_OVER"|"CHAT_UNKNOWN"|"INVALID"|"UNSUPPORTED"|"REFUSED"|"OUTCOME_UNKNOWN"} kind
   *   as in desk.proto, without FAILURE_KIND_
   * @param {string} message for the operator; no secrets
   * @param {{retryAfter?: number, userMessage?: string}} [more] for RETRY, the seconds after
   *   which another try makes sense; what may be shown to the user
   */
  constructor(kind, message, more = {}) {
    super(message);
    this.kind = kind;
    this.retryAfter = more.retryAfter;
    this.userMessage = more.userMessage;
  }
}

/** The host's refusal of an event: it is settled, and not to be sent again. */
export class Refused extends Error {
  /**
   * @param {"CHAT_OVER"|"CHAT_UNKNOWN"|"MOVED"|"INVALID"|"TOO_LARGE"|"UNSPECIFIED"} code
   *   as in desk.proto, without REFUSAL_CODE_
   * @param {string} reason
   */
  constructor(code, reason) {
    super(reason);
    this.code = code;
  }
}

/**
 * Settles as the promise does, or fails once the call that waits for it is cut off.
 * @template T
 * @param {Promise<T>} promise
 * @param {AbortSignal} cut
 * @returns {Promise<T>}
 */
export function unlessCut(promise, cut) {
  return new Promise((resolve, reject) => {
    const giveUp = () => reject(cut.reason);
    if (cut.aborted) giveUp();
    cut.addEventListener("abort", giveUp, { once: true });
    promise.then(resolve, reject).finally(() => cut.removeEventListener("abort", giveUp));
  });
}
