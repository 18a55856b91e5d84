import { Feed } from "./feed.js";
import { Http } from "./http.js";
import { Pauses } from "./pauses.js";
import {
  type Availability,
  type ChatInfo,
  type Client,
  type ClientOptions,
  ClientError,
  type Connection,
  type Context,
  type Entry,
  type StartOptions,
} from "./types.js";

/** For how long, in milliseconds, calls are made again while the host does not answer. */
const patience = { hint: 0, question: 4_000, call: 60_000 };
/** How often the host is told that the user still types. */
const typingEvery = 3_000;
/** The entry of a message that was answered must come within this time, or the connection is dead. */
const entryWithin = 5_000;
/**
 * After so long without an entry the host is asked whether it has some: a browser answers pings by itself, and
 * may take many minutes to see that a connection has died without a word.
 */
const silence = 90_000;

/** What survives a reload. */
interface Kept {
  session_id: string;
  token: string;
  /** The seq of the last entry that the page has shown. */
  cursor: number;
  chat?: Chat | undefined;
}

/** The chat that the page takes part in. */
interface Chat {
  /** The page's id of its request, kept before it is made: a reload in between finds the chat. */
  id: string;
  /** Known once the request is answered. Entries wait until then. */
  chat_id?: string;
  /** The cursor when the chat was requested. */
  begin: number;
  /** The page has asked for its end. */
  ended?: true;
}

/** A message whose outcome is not known yet. */
class Outgoing {
  resolve!: () => void;
  reject!: (error: ClientError) => void;
  readonly outcome = new Promise<void>((resolve, reject) => {
    this.resolve = resolve;
    this.reject = reject;
  });
  /** Lets the next message go: the host has this one, or will not get it. */
  taken!: () => void;
  readonly isTaken = new Promise<void>((done) => (this.taken = done));
}

export class HostClient implements Client {
  connection: Connection = "idle";

  private readonly fetch: typeof globalThis.fetch;
  private readonly http: Http;
  private readonly pauses = new Pauses();
  private readonly context: Context;
  private readonly storage: ClientOptions["storage"];
  private readonly storageKey: string;
  private kept: Kept | undefined;
  private creating: Promise<void> | undefined;
  private starting: Promise<unknown> | undefined;
  /** Settled once the host has heard of the end, or will not. */
  private ending: Promise<unknown> = Promise.resolve();
  /** Whether the chat of an earlier load still waits for resume(). */
  private left: boolean;
  private closed = false;

  private feed: Feed | undefined;
  private check: ReturnType<typeof setTimeout> | undefined;
  /** The highest seq that has arrived; between the cursor and it lies the queue. */
  private received = 0;
  private queue: Entry[] = [];
  private delivering = false;

  private readonly outgoing = new Map<string, Outgoing>();
  private lastSend: Promise<unknown> = Promise.resolve();
  private lastHint: Promise<unknown> = Promise.resolve();
  /** When the host was last told that the user types, unless it was told that they have stopped. */
  private typedAt: number | undefined;

  constructor(private readonly options: ClientOptions) {
    const { href } = new URL(options.url ?? ".", options.url ? globalThis.location?.href : import.meta.url);
    const url = href.replace(/\/$/, "");
    this.fetch = options.fetch ?? ((...args) => fetch(...args));
    this.http = new Http(url, this.fetch, this.pauses, () => {
      if (this.connection === "online") this.feed?.renew();
    });
    this.context = { ...options };
    this.storage = options.storage === undefined ? tabStorage() : options.storage;
    this.storageKey = `deskhost:${url}:${options.desk ?? ""}`;
    this.kept = JSON.parse(this.storage?.getItem(this.storageKey) ?? "null") ?? undefined;
    this.received = this.kept?.cursor ?? 0;
    this.left = this.chat !== undefined;
    globalThis.addEventListener?.("online", this.onOnline);
    globalThis.addEventListener?.("offline", this.onOffline);
    globalThis.document?.addEventListener("visibilitychange", this.onVisible);
  }

  get chatOpen(): boolean {
    return this.starting !== undefined || (this.chat !== undefined && !this.chat.ended);
  }

  async availability(): Promise<Availability> {
    return this.inSession(() => this.call("GET", "/availability", undefined, patience.question));
  }

  startChat(options: StartOptions = {}): Promise<string> {
    if (this.chatOpen) return Promise.reject(new ClientError("chat_open", "A chat is open."));
    const starting = this.start(options).finally(() => {
      if (this.starting === starting) this.starting = undefined;
    });
    this.starting = starting;
    this.lastSend = starting.catch(() => undefined); // messages wait for their chat
    return starting;
  }

  private async start(options: StartOptions): Promise<string> {
    const id = options.id ?? randomId();
    // What the chat before still waited for will not be told any more.
    this.failAll(chatOver());
    // While a chat starts its id is not known, and a late try of its end would end this one.
    await this.ending;
    const { chat_id } = await this.inSession(async () => {
      // An earlier load of the page did not see the end of its chat through.
      if (this.left) await this.call("DELETE", "/chat");
      this.left = false;
      const chat: Chat = { id, begin: this.kept!.cursor };
      this.setChat(chat);
      try {
        return await this.call<{ chat_id: string }>("POST", "/chat", {
          id,
          connect_message: options.connectMessage,
          text: options.text,
          history: options.history,
          sign_in_token: options.signInToken,
        });
      } catch (error) {
        if (this.chat === chat) this.setChat(undefined);
        throw error;
      }
    });
    const chat = this.chat;
    if (chat?.id !== id) throw new ClientError("closed", "The client was closed.");
    chat.chat_id = chat_id;
    this.save();
    this.deliverSoon();
    return chat_id;
  }

  endChat(): Promise<void> {
    if (!this.chatOpen) return Promise.resolve();
    const ending = this.end();
    this.ending = ending.catch(() => undefined);
    return ending;
  }

  private async end(): Promise<void> {
    const { starting } = this;
    this.setEnded(true);
    // A call that arrives late must not end the chat after this one.
    const path = () => (this.chat?.chat_id ? `/chat?chat_id=${encodeURIComponent(this.chat.chat_id)}` : "/chat");
    try {
      if (this.kept) await this.call("DELETE", path());
      // A request that the host had not seen yet begins the chat behind its end.
      if (await starting?.then(() => true, () => false)) {
        this.setEnded(true);
        await this.call("DELETE", path());
      }
    } catch (error) {
      this.setEnded(false);
      throw error;
    }
  }

  private setEnded(ended: boolean): void {
    if (!this.chat) return;
    if (ended) this.chat.ended = true;
    else delete this.chat.ended;
    this.save();
  }

  send(text: string, { id = randomId(), data }: { id?: string; data?: object } = {}): Promise<void> {
    const same = this.outgoing.get(id);
    if (same) return same.outcome;
    if (!this.chatOpen) return Promise.reject(new ClientError("no_chat", "No chat is open."));
    const message = new Outgoing();
    this.outgoing.set(id, message);
    this.lastSend = this.lastSend.then(() => {
      void this.post(id, { id, chat_id: this.chat?.chat_id, text, data });
      return message.isTaken;
    });
    return message.outcome;
  }

  private async post(id: string, body: object): Promise<void> {
    if (!this.outgoing.has(id)) return;
    try {
      const sent = await this.call<{ seq: number; status: string; reason?: string }>("POST", "/messages", body);
      if (sent.status === "accepted") {
        this.outgoing.get(id)?.taken();
        this.expect(sent.seq);
      } else {
        this.settle(id, sent.status, sent.reason);
      }
    } catch (error) {
      this.fail(id, error as ClientError);
    }
  }

  private settle(id: string, status: string, reason?: string): void {
    if (status === "delivered") {
      this.outgoing.get(id)?.resolve();
      this.release(id);
    } else {
      this.fail(id, new ClientError(status, `The message is ${status}.`, { reason }));
    }
  }

  private fail(id: string, error: ClientError): void {
    this.outgoing.get(id)?.reject(error);
    this.release(id);
  }

  private release(id: string): void {
    this.outgoing.get(id)?.taken();
    this.outgoing.delete(id);
  }

  private failAll(error: ClientError): void {
    for (const id of [...this.outgoing.keys()]) this.fail(id, error);
  }

  typing(typing: boolean): void {
    const now = Date.now();
    if (typing ? now - (this.typedAt ?? -Infinity) < typingEvery : this.typedAt === undefined) return;
    this.typedAt = typing ? now : undefined;
    this.hint("/typing", { typing });
  }

  read(): void {
    this.hint("/read");
  }

  /** Tells the host what nobody waits for, in order; what fails is out of date before another try. */
  private hint(path: string, body?: object): void {
    if (!this.chat?.chat_id) return;
    this.lastHint = this.lastHint
      .then(() => this.call("POST", path, body, patience.hint))
      .catch(() => undefined);
  }

  async update(context: Context): Promise<void> {
    Object.assign(this.context, context);
    if (this.kept) await this.call("PATCH", "", await contextBody(context));
  }

  async resume({ replay = false }: { replay?: boolean } = {}): Promise<ChatInfo | null> {
    const { kept, chat } = this;
    if (!kept || !chat || chat.ended) return null;
    if (replay && this.left) this.received = kept.cursor = chat.begin;
    this.listen();
    let info: { last_seq: number; chat?: ChatInfo };
    try {
      info = await this.call("GET", "", undefined, Infinity);
    } catch (error) {
      if ((error as ClientError).code === "session_lost") return null;
      throw error;
    }
    this.left = false;
    const open = info.chat?.id === chat.id ? info.chat : undefined;
    if (open) chat.chat_id = open.chat_id;
    // Without an id the chat never began; without new entries its end has been shown.
    if (!chat.chat_id || (!open && info.last_seq <= kept.cursor)) this.setChat(undefined);
    this.save();
    this.deliverSoon();
    return open ?? null;
  }

  async forget(): Promise<void> {
    try {
      if (this.kept) await this.call("DELETE", "");
    } catch (error) {
      if ((error as ClientError).code !== "session_lost") throw error;
    }
    this.drop(new ClientError("session_lost", "The session was deleted."));
  }

  close(): void {
    this.closed = this.http.closed = true;
    globalThis.removeEventListener?.("online", this.onOnline);
    globalThis.removeEventListener?.("offline", this.onOffline);
    globalThis.document?.removeEventListener("visibilitychange", this.onVisible);
    this.stopListening();
    this.failAll(new ClientError("closed", "The client was closed."));
    this.pauses.endAll();
  }

  // The session.

  /** Runs fn in a session, made if there is none, and once more in a new one if the host lost it. */
  private async inSession<T>(fn: () => Promise<T>): Promise<T> {
    for (let again = false; ; again = true) {
      if (!this.kept) {
        this.creating ??= this.create().finally(() => (this.creating = undefined));
        await this.creating;
      }
      try {
        return await fn();
      } catch (error) {
        if (again || (error as ClientError).code !== "session_lost") throw error;
      }
    }
  }

  private async create(): Promise<void> {
    const body = { desk: this.options.desk, ...(await contextBody(this.context)) };
    const made = await this.http.call<{ session_id: string; token: string }>({
      method: "POST",
      path: "/v1/sessions",
      body,
      patience: patience.call,
    });
    if (this.closed) throw new ClientError("closed", "The client was closed.");
    this.kept = { session_id: made.session_id, token: made.token, cursor: 0 };
    this.received = 0;
    this.save();
  }

  private async call<T>(
    method: "GET" | "POST" | "PATCH" | "DELETE",
    path: string,
    body?: object,
    wait = patience.call,
  ): Promise<T> {
    const { kept } = this;
    if (!kept) throw new ClientError("session_lost", "There is no session.");
    try {
      return await this.http.call<T>({
        method,
        path: `/v1/sessions/${kept.session_id}${path}`,
        token: kept.token,
        patience: wait,
        ...(body && { body }),
      });
    } catch (error) {
      if (!isLost(error)) throw error;
      const lost = new ClientError("session_lost", "The host knows the session no more.");
      if (this.kept === kept) this.lose(lost);
      throw lost;
    }
  }

  private lose(error: ClientError): void {
    const told = this.chat?.chat_id !== undefined;
    this.drop(error);
    if (told) void guarded("onSessionLost", () => this.options.onSessionLost?.());
  }

  private drop(error: ClientError): void {
    this.kept = undefined;
    this.left = false;
    this.storage?.removeItem(this.storageKey);
    this.stopListening();
    this.failAll(error);
  }

  private get chat(): Chat | undefined {
    return this.kept?.chat;
  }

  private setChat(chat: Chat | undefined): void {
    if (!this.kept) return;
    this.kept.chat = chat;
    this.save();
    if (chat) this.listen();
    else this.stopListening();
  }

  private save(): void {
    // A storage may be full. Then a reload is what suffers.
    if (this.kept) void guarded("storage", () => this.storage?.setItem(this.storageKey, JSON.stringify(this.kept)));
  }

  // Entries.

  private listen(): void {
    const { kept } = this;
    if (this.feed || !kept || this.closed) return;
    this.feed = new Feed({
      url: `${this.http.url}/v1/sessions/${kept.session_id}/events`,
      token: kept.token,
      fetch: this.fetch,
      WebSocket: this.options.WebSocket ?? globalThis.WebSocket,
      pauses: this.pauses,
      after: () => this.received,
      onEntry: (entry) => this.receive(entry),
      onConnection: (connection) => this.setConnection(connection),
      probe: () =>
        this.call("GET", "", undefined, patience.hint).then(
          () => "ok",
          (error) => (error.code === "session_lost" ? "lost" : "unreachable"),
        ),
    });
    this.watch();
  }

  /** Looks after each silence whether the connection has kept something back. */
  private watch(): void {
    clearTimeout(this.check);
    this.check = setTimeout(() => {
      this.watch();
      if (this.connection !== "online") return;
      this.call<{ last_seq: number }>("GET", "", undefined, patience.hint).then(
        ({ last_seq }) => this.expect(last_seq),
        () => undefined,
      );
    }, silence);
  }

  /** Makes the connection again if an entry that the host has told of does not come. */
  private expect(seq: number): void {
    const { feed } = this;
    setTimeout(() => this.feed === feed && this.received < seq && feed?.renew(), entryWithin);
  }

  private stopListening(): void {
    clearTimeout(this.check);
    this.feed?.close();
    this.feed = undefined;
    this.queue = [];
    this.received = this.kept?.cursor ?? 0;
    this.setConnection("idle");
  }

  private setConnection(connection: Connection): void {
    if (this.connection === connection) return;
    this.connection = connection;
    // The host answers again: whatever waits for another try need not wait longer.
    if (connection === "online") this.pauses.endAll();
    void guarded("onConnection", () => this.options.onConnection?.(connection));
  }

  private receive(entry: Entry): void {
    this.watch();
    if (entry.seq !== undefined) {
      if (entry.seq <= this.received) return;
      this.received = entry.seq;
    }
    this.queue.push(entry);
    void this.deliver();
  }

  /** Delivers behind the promise that the page awaits, so that it is not overtaken. */
  private deliverSoon(): void {
    setTimeout(() => void this.deliver(), 0);
  }

  /** Hands the queue to the page, one entry at a time. Only one run of it is under way. */
  private async deliver(): Promise<void> {
    if (this.delivering) return;
    this.delivering = true;
    while (this.chat?.chat_id && !this.left && !this.closed) {
      const entry = this.queue.shift();
      if (!entry) break;
      await this.show(this.kept!, this.chat, entry);
    }
    this.delivering = false;
  }

  private async show(kept: Kept, chat: Chat, entry: Entry): Promise<void> {
    // Another tab of the session, or an earlier load of the page, may have had chats of its own.
    if (!entry.chat_id || entry.chat_id === chat.chat_id) {
      if (entry.type === "message_status") this.settle(entry.id, entry.status, entry.reason);
      if (entry.type === "message" && entry.from === "user") this.outgoing.get(entry.id)?.taken();
      if (entry.type === "chat_ended") {
        this.failAll(chatOver());
        // At once, as the page may begin another chat when it is told.
        kept.chat = undefined;
      }
      await guarded("onEntry", () => this.options.onEntry(entry));
    }
    if (this.kept !== kept) return;
    if (entry.seq !== undefined) {
      kept.cursor = Math.max(kept.cursor, entry.seq);
      this.save();
    }
    if (!kept.chat) this.stopListening();
  }

  // The browser.

  private readonly onOnline = () => {
    this.pauses.endAll();
    if (this.connection !== "online") this.feed?.renew();
  };

  private readonly onOffline = () => this.feed?.renew();

  /** A page that was asleep may hold a socket that the host has given up. */
  private readonly onVisible = () => {
    if (document.visibilityState !== "visible" || !this.feed) return;
    this.call<{ last_seq: number }>("GET", "", undefined, patience.hint).then(
      ({ last_seq }) => last_seq > this.received && this.feed?.renew(),
      () => undefined,
    );
  };
}

/** Runs what belongs to the page, whose faults must not stop the chat. */
async function guarded(what: string, fn: () => unknown): Promise<void> {
  try {
    await fn();
  } catch (error) {
    console.error(`deskhost: ${what} failed`, error);
  }
}

async function contextBody({ user, locale, assistantSessionId, identityToken }: Context): Promise<object> {
  return {
    user,
    locale,
    assistant_session_id: assistantSessionId,
    identity_token: typeof identityToken === "function" ? await identityToken() : identityToken,
  };
}

/** Undefined where the user's settings forbid it. */
function tabStorage(): Storage | undefined {
  try {
    return globalThis.sessionStorage;
  } catch {
    return undefined;
  }
}

function chatOver(): ClientError {
  return new ClientError("unknown", "The chat ended before the outcome was known.", { reason: "chat_over" });
}

function isLost(error: unknown): boolean {
  const { code } = error as ClientError;
  return code === "session_unknown" || code === "token_wrong" || code === "token_missing";
}

/** crypto.randomUUID is missing on pages that are not served securely. */
function randomId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}
