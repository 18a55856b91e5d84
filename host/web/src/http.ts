import { backoff, type Pauses } from "./pauses.js";
import { ClientError } from "./types.js";

const callTimeout = 15_000;

/** Problems that are an answer: the same call would be answered so again. */
const final = new Set(["start_failed", "start_refused", "start_timeout", "desk_unavailable", "storage_full"]);

/** One call of the host, made again until it is answered or patience has run out. */
export interface Call {
  method: "GET" | "POST" | "PATCH" | "DELETE";
  path: string;
  token?: string;
  body?: object;
  /** For how long, in milliseconds, the call is made again after a failure that may pass. */
  patience: number;
}

/**
 * Calls the host's JSON API. Every call is safe to repeat: a chat and a message carry an id, and a
 * session that nobody was told of is never used.
 */
export class Http {
  closed = false;

  constructor(
    readonly url: string,
    private readonly fetch: typeof globalThis.fetch,
    private readonly pauses: Pauses,
    /** Told that the host did not answer: an open socket to it may be dead. */
    private readonly onUnreachable: () => void,
  ) {}

  async call<T>({ method, path, token, body, patience }: Call): Promise<T> {
    const deadline = Date.now() + patience;
    for (let attempt = 1; ; attempt++) {
      let failure: ClientError;
      let wait = backoff(attempt);
      try {
        const response = await this.fetch(this.url + path, {
          method,
          headers: {
            ...(token && { authorization: `Bearer ${token}` }),
            ...(body && { "content-type": "application/json" }),
          },
          body: body ? JSON.stringify(body) : null,
          cache: "no-store",
          credentials: "omit",
          signal: AbortSignal.timeout(callTimeout),
        });
        if (response.ok) return (response.status === 204 ? undefined : await response.json()) as T;
        failure = await problemOf(response);
        const mayPass = failure.status === 408 || failure.status === 429 || failure.status >= 500;
        if (!mayPass || final.has(failure.code)) throw failure;
        wait = Math.max(wait, 1000 * Number(response.headers.get("retry-after") ?? 0) || 0);
      } catch (cause) {
        if (cause instanceof ClientError) throw cause;
        failure = new ClientError("unreachable", "The host cannot be reached.");
        this.onUnreachable();
      }
      if (this.closed || Date.now() + wait > deadline) throw failure;
      await this.pauses.pause(wait);
    }
  }
}

async function problemOf(response: Response): Promise<ClientError> {
  let problem: Record<string, unknown> = {};
  try {
    problem = await response.json();
  } catch {
    // Not from the host, but from something in between.
  }
  const { code, detail, title, type: _, status: __, ...details } = problem;
  return new ClientError(
    String(code ?? `http_${response.status}`),
    String(detail ?? title ?? `The host answered ${response.status}.`),
    details,
    response.status,
  );
}
