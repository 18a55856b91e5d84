import { backoff, type Pauses } from "./pauses.js";
import type { Connection, Entry } from "./types.js";

/** The host closes with this code when the session is no more. */
const closeGone = 4404;
const openTimeout = 10_000;
/** A connection that lived for so long was a good one: the next try is the first. */
const goodAfter = 5_000;
/** After so many sockets refused by a host that otherwise answers, something in between blocks them. */
const refusalsUntilStream = 2;

/** What a feed needs of its client. */
export interface FeedOptions {
  /** The address of the session's events. */
  url: string;
  token: string;
  fetch: typeof fetch;
  WebSocket: typeof WebSocket | undefined;
  pauses: Pauses;
  /** The seq behind which a new connection begins. */
  after(): number;
  onEntry(entry: Entry): void;
  onConnection(connection: Connection): void;
  /** Asks the host, after a failed try, whether it answers and knows the session. */
  probe(): Promise<"ok" | "lost" | "unreachable">;
}

/**
 * Keeps one connection to a session's events, over and over, until it is closed: a WebSocket, or a
 * stream over fetch where sockets cannot be opened.
 */
export class Feed {
  private closed = false;
  private streaming: boolean;
  /** Ends the present connection, if there is one. */
  private drop: (() => void) | undefined;
  /** When the present connection was opened. */
  private opened: number | undefined;
  /** Whether the next try follows at once. */
  private hurry = false;

  constructor(private readonly options: FeedOptions) {
    this.streaming = !options.WebSocket;
    void this.run();
  }

  /**
   * Gives up the present connection, which may be dead, for a new one: at once, unless this one is new itself,
   * and another would hardly be better.
   */
  renew(): void {
    if (!this.drop) return;
    this.hurry = this.opened === undefined || Date.now() - this.opened > goodAfter;
    this.drop();
  }

  close(): void {
    this.closed = true;
    this.drop?.();
  }

  private async run(): Promise<void> {
    const { pauses, onConnection, probe } = this.options;
    let refusals = 0;
    for (let attempt = 0; !this.closed; attempt++) {
      if (attempt === 0) onConnection("connecting");
      else if (!this.hurry) await pauses.pause(backoff(attempt));
      if (this.closed) return;
      this.hurry = false;
      this.opened = undefined;
      const begun = Date.now();
      const opened = await (this.streaming ? this.stream() : this.socket());
      if (this.closed) return;
      if (opened) {
        refusals = 0;
        onConnection("connecting");
        if (Date.now() - begun > goodAfter) attempt = 0;
        continue;
      }
      onConnection("offline");
      const host = await probe();
      if (host === "lost") return;
      if (host === "ok" && ++refusals >= refusalsUntilStream) this.streaming = true;
    }
  }

  /** Resolves when the connection is over, with whether it had been open and is worth another. */
  private socket(): Promise<boolean> {
    return new Promise((done) => {
      let socket: WebSocket;
      try {
        const url = `${this.options.url.replace(/^http/, "ws")}?after=${this.options.after()}`;
        socket = new this.options.WebSocket!(url, ["deskhost.v1", `bearer.${this.options.token}`]);
      } catch {
        done(false);
        return;
      }
      let opened = false;
      const over = (close?: CloseEvent) => {
        clearTimeout(timer);
        socket.onopen = socket.onmessage = socket.onclose = null;
        this.drop = undefined;
        done(opened && close?.code !== closeGone);
      };
      const drop = () => {
        over();
        socket.close();
      };
      const timer = setTimeout(drop, openTimeout);
      this.drop = drop;
      socket.onopen = () => {
        opened = true;
        this.opened = Date.now();
        clearTimeout(timer);
        this.options.onConnection("online");
      };
      socket.onmessage = (event) => this.options.onEntry(JSON.parse(String(event.data)));
      socket.onclose = over;
    });
  }

  private async stream(): Promise<boolean> {
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), openTimeout);
    this.drop = () => abort.abort();
    let opened = false;
    try {
      const response = await this.options.fetch(`${this.options.url}?after=${this.options.after()}`, {
        headers: { accept: "text/event-stream", authorization: `Bearer ${this.options.token}` },
        cache: "no-store",
        credentials: "omit",
        signal: abort.signal,
      });
      clearTimeout(timer);
      if (!response.ok || !response.body) return false;
      opened = true;
      this.opened = Date.now();
      this.options.onConnection("online");
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = ""; ; ) {
        const { done, value } = await reader.read();
        if (done) break;
        const events = (rest + value).split("\n\n");
        rest = events.pop()!;
        for (const event of events) {
          const data = /^data: ?(.*)$/m.exec(event);
          if (data && !abort.signal.aborted) this.options.onEntry(JSON.parse(data[1]!));
        }
      }
    } catch {
      // Cut or given up: the next connection goes on behind the last entry.
    } finally {
      clearTimeout(timer);
      this.drop = undefined;
    }
    return opened;
  }
}
