// What a page sees of the module: the wire's entries and the client's options.
// Members in snake_case are the host's own JSON, as docs/http-api.md tells it.

/** Someone, or something, at the desk. */
export interface Agent {
  id: string;
  nickname: string;
  avatar_url?: string;
  bot?: boolean;
}

/** One thing to show of an agent's message. Links are http or https. */
export type Part =
  | { type: "text"; text: string }
  | { type: "image" | "video"; url: string; title?: string; alt_text?: string }
  | { type: "link"; url: string; label?: string }
  | { type: "inline_error"; text: string }
  | { type: "file"; url: string; name?: string; media_type?: string; size?: number }
  | { type: "quick_replies"; text?: string; replies: { label: string; value: string }[] }
  | { type: "user_defined"; data: unknown };

/** What each entry has: `seq` is missing on passing news (`agent_typing`, `availability`). */
export interface EntryBase {
  seq?: number;
  time: string;
  chat_id?: string;
}

/** One thing that happened in a chat, in the order in which it is to be shown. */
export type Entry = EntryBase &
  (
    | { type: "chat_requested"; desk: string; text?: string }
    | { type: "chat_started" }
    | { type: "agent_joined"; agent: Agent }
    | { type: "message"; from: "user"; id: string; text: string; data?: unknown }
    | { type: "message"; from: "agent"; id: string; text: string; agent_id?: string; parts?: Part[] }
    | { type: "message_status"; id: string; status: "delivered" | "failed" | "unknown"; reason?: string }
    | { type: "agent_left"; agent_id?: string }
    | { type: "transfer_started"; agent?: Agent }
    | { type: "agent_read" }
    | { type: "error"; kind: "connecting" | "disconnected"; disconnected?: boolean; message?: string }
    | { type: "capabilities"; file_uploads: boolean; multiple_file_uploads: boolean; file_upload_types: string[] }
    | { type: "state_updated" }
    | { type: "desk_away" }
    | { type: "desk_back" }
    | { type: "chat_ended"; by: "user" | "agent" | "desk" | "host"; reason?: string; message?: string }
    | { type: "gap" }
    | { type: "agent_typing"; typing: boolean; agent_id?: string }
    | ({ type: "availability" } & Wait)
  );

/** What a desk says of the wait; a page shows the first that is there. */
export interface Wait {
  wait_minutes?: number;
  position?: number;
  message?: string;
}

/** Whether anybody is there; `online` is null if nobody knows. */
export interface Availability extends Wait {
  online: boolean | null;
}

/** An open chat as the host has it. */
export interface ChatInfo {
  chat_id: string;
  id: string;
  state: "starting" | "waiting" | "connected";
  requested_at: string;
  agent?: Agent;
  desk_away: boolean;
}

/** Who talks to the agent. Unverified, unless an identity token says the same. */
export interface User {
  id?: string;
  name?: string;
  attributes?: Record<string, string>;
}

/**
 * How far the page is from the host: `idle` with no chat, `connecting` at first and right after a
 * connection was lost, `offline` once a try has failed; it goes on trying.
 */
export type Connection = "idle" | "connecting" | "online" | "offline";

/** What is known of the user and the page. */
export interface Context {
  user?: User;
  /** BCP 47, such as "en-GB". */
  locale?: string;
  assistantSessionId?: string;
  /** A signed token, or what fetches one: it is asked when the session is made. */
  identityToken?: string | (() => string | Promise<string>);
}

/** What a client is made of. */
export interface ClientOptions extends Context {
  /** Where the host is. Default: where this module was loaded from. */
  url?: string;
  /** The desk's name. Default: the host's default desk. */
  desk?: string;
  /**
   * Where the session is kept over a reload. Default: sessionStorage, which is a tab's own; a storage
   * that tabs share would mix their cursors. `null`: nowhere.
   */
  storage?: Pick<Storage, "getItem" | "setItem" | "removeItem"> | null;
  /**
   * Called with each entry of the chat, one at a time: the next call waits for the promise of the one
   * before, and only then is the entry counted as shown.
   */
  onEntry(entry: Entry): unknown;
  onConnection?(connection: Connection): void;
  /** The host knows the session no more, so its chat is gone. The next start makes a new one. */
  onSessionLost?(): void;
  /** For tests, and for places that have none. */
  fetch?: typeof fetch;
  WebSocket?: typeof WebSocket;
}

/** What a chat begins with. */
export interface StartOptions {
  /** The page's own id of the request; the same id never starts two chats. Default: a random one. */
  id?: string;
  /** Passed to the desk's plugin as it is. */
  connectMessage?: object;
  /** What the agent should read first. */
  text?: string;
  /** The conversation so far, oldest first. */
  history?: { from: "user" | "assistant"; text: string; time?: string }[];
  /** The desk's own sign-in token. */
  signInToken?: string;
}

/** What serviceDeskFactory takes: where the host is, who the user is, and what may be left as it is. */
export interface ServiceDeskOptions extends Omit<ClientOptions, "onEntry" | "onConnection" | "onSessionLost"> {
  /** What the widget calls the desk; at most 40 characters. Default: "deskhost". */
  name?: string;
  /**
   * The conversation so far, for the agent. Default: what the widget has shown since it was loaded. A
   * page that keeps the conversation over a reload can give all of it.
   */
  history?: () => StartOptions["history"] | Promise<StartOptions["history"]>;
  /** The desk's own sign-in token, or what fetches one when a chat is started. */
  signInToken?: string | (() => string | undefined | Promise<string | undefined>);
  /** Other words for what the module says by itself. */
  texts?: Partial<Texts>;
}

/** What the module says by itself; everything else comes from the widget, the assistant or the desk. */
export interface Texts {
  /** On the card that picks up a chat whose page was reloaded before an agent had joined. */
  stillWaiting: string;
  /** To a waiting user, while the host or the desk is out of reach. */
  disconnected: string;
  /** When the chat was ended by neither the user nor the agent, and nobody said why. */
  ended: string;
  /** About a file that the user has chosen. */
  noFiles: string;
}

/** One user's way to the agents of a desk. */
export interface Client {
  readonly connection: Connection;
  /** Whether a chat is open, or being opened, as far as the page has been told. */
  readonly chatOpen: boolean;
  /** Asks whether anybody is there; makes a session if there is none. */
  availability(): Promise<Availability>;
  /**
   * Resolves with the chat's id once the desk has taken the chat; an agent joins later, by an entry. A chat that
   * is being ended is seen through first.
   */
  startChat(options?: StartOptions): Promise<string>;
  /** Resolves once the end is sure. The `chat_ended` entry follows. */
  endChat(): Promise<void>;
  /**
   * Sends a message. Resolves once the desk has it. Rejects with code `failed` or `unknown` when that is
   * settled: another try is a new message with a new id. Rejects with `unreachable` when the host was
   * out of reach for a minute: another try takes the same id, and is never shown twice. Messages
   * arrive in the order of the calls.
   */
  send(text: string, options?: { id?: string; data?: object }): Promise<void>;
  /** Tells that the user types, or has stopped. May be called at each key: it thins itself out. */
  typing(typing: boolean): void;
  /** Tells that the user has seen all messages so far. */
  read(): void;
  /** Changes what is known of the user and the page; what is absent stays. */
  update(context: Context): Promise<void>;
  /**
   * Picks up the chat that was open when the page was last loaded (`chatOpen` tells at once whether
   * there is one), and waits for the host as long as it takes. Resolves with the chat if it is still
   * open, else with null; entries that the page has not seen follow in both cases. With `replay` it
   * is told the whole chat again from its beginning.
   */
  resume(options?: { replay?: boolean }): Promise<ChatInfo | null>;
  /** Deletes the session at the host, its chat and all that was said. */
  forget(): Promise<void>;
  /** Stops listening. The chat goes on; another client may resume it. */
  close(): void;
}

/** Why a call failed. */
export class ClientError extends Error {
  constructor(
    /**
     * A code of docs/http-api.md, or one of the client's own: `unreachable` (given up after many tries),
     * `failed` and `unknown` (the outcome of a message), `session_lost`, `closed`.
     */
    readonly code: string,
    message: string,
    /** Further members of the host's answer, such as `user_message`, `chat_id` or `reason`. */
    readonly details: Readonly<Record<string, unknown>> = {},
    /** The HTTP status, 0 if there was none. */
    readonly status = 0,
  ) {
    super(message);
    this.name = "ClientError";
  }
}
