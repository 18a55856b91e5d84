// Connects deskhost to the mock desk, as an adapter connects it to a vendor's.
//
// The desk keeps what happens in a conversation, by number. So the plugin keeps
// nothing on disk: the number of the last event that the host has stored, the
// cursor, is the chat's resume state, and what lies behind it is asked for again.
// One feed tells of all conversations; what it missed is caught up by number.
import { setTimeout as sleep } from "node:timers/promises";
import { Client } from "./client.js";
import { Failure, Refused, unlessCut } from "./failure.js";
import { payloadOf } from "./payload.js";

/** What the desk says of itself. */
const PRODUCT = "deskhost mock desk";
/** How many events of a chat wait for the host before more are left at the desk. */
const MAX_QUEUED = 64;
/** How many conversations the desk lets one catch-up name. */
const MAX_CATCH_UP = 256;
/** Milliseconds for a catch-up, and between tries to reach the desk. */
const CATCH_UP_TIME = 10_000;
const MIN_PAUSE = 100;
const MAX_PAUSE = 5000;

/**
 * An open chat of this process.
 * @typedef {object} Chat
 * @property {string} id
 * @property {string} conversation the desk's id of it; empty until known
 * @property {number} taken the number of the last event in queue or before it
 * @property {number} cursor that of the last event that the host has settled
 * @property {object[]} queue the desk's events that wait for the host
 * @property {Promise<void>} [telling] set while the queue is worked on
 * @property {boolean} overflowed whether events were left at the desk because the queue was full
 * @property {number} starting how many StartChat calls are under way
 * @property {boolean} open once the desk has taken the chat, or is said to have
 * @property {boolean} resuming until the desk has said that it knows the chat
 * @property {boolean} ending once the host has asked for the end
 * @property {boolean} quiesced once another process is to have the chat
 * @property {boolean} dropped once this process has let it go
 * @property {{resolve: () => void, reject: (err: Error) => void}[]} waiting for the next catch-up
 */

export class Desk {
  /** The number of the form of the resume state. */
  static stateFormat = 1;

  #host;
  /** @type {Client} */
  #client;
  /** @type {Map<string, Chat>} */
  #chats = new Map();
  /** The chats that may have missed something. @type {Set<Chat>} */
  #behind = new Set();
  #catchingUp = false;
  /** Aborted when nothing more is to be read from the desk. */
  #reading = new AbortController();

  /** @param {import("./serve.js").Host} host */
  constructor(host) {
    this.#host = host;
  }

  async configure({ config_json }, cut) {
    const client = new Client(JSON.parse(config_json).url); // the host has held it to the schema
    const info = await client.info(cut).catch((err) => {
      throw err.status ? failureOf(err) : new Failure("RETRY",
        `no mock desk answers at url (${err.message}): start one with "deskhost-plugin-mock desk --listen ADDRESS"`);
    });
    if (info?.product !== PRODUCT) throw new Failure("INVALID", "url: something answers there, but no mock desk");
    this.#client = client;
    this.#follow();
  }

  async startChat({ chat_id, state, context, text, history, connect_message_json }, cut) {
    let chat = this.#chats.get(chat_id);
    // It is there before the call: events can come before the desk's answer.
    if (!chat) chat = this.#take(chat_id, readState(state));
    chat.starting++;
    try {
      const { id } = await asked(this.#client.start(chat_id, {
        context: contextOf(context),
        text,
        history: history.map((item) => ({ from: item.from, text: item.text, time: dateOf(item.time) })),
        connect_message: jsonOf(connect_message_json),
      }, cut));
      // A conversation that an earlier attempt began may be forgotten.
      if (chat.conversation !== id) Object.assign(chat, { conversation: id, taken: 0, cursor: 0 });
      chat.open = true;
      this.#fallBehind(chat);
      return { state: stateOf(chat) };
    } catch (err) {
      // Another call for it may yet do better.
      if (!chat.open && chat.starting === 1 && err.kind !== "OUTCOME_UNKNOWN") this.#drop(chat);
      throw err;
    } finally {
      chat.starting--;
    }
  }

  async endChat({ chat_id, ended_by, reason }, cut) {
    const chat = this.#chats.get(chat_id);
    if (chat) chat.ending = true;
    try {
      await asked(this.#client.end(chat_id, ended_by === "ENDED_BY_USER" ? "user" : "host", reason, cut));
    } catch (err) {
      if (err.kind !== "CHAT_OVER" && err.kind !== "CHAT_UNKNOWN") throw err; // it has ended before
    }
    if (chat) this.#drop(chat);
  }

  async sendMessageToAgent({ chat_id, message_id, text, data_json, time }, cut) {
    // The id is the desk's key, so another attempt needs no looking first.
    const message = { id: message_id, text, data: jsonOf(data_json), time: dateOf(time) };
    const taken = await asked(this.#client.send(chat_id, message, cut));
    return { desk_message_id: taken.id };
  }

  async areAnyAgentsOnline(_, cut) {
    const { online, wait_minutes, position, message } = await asked(this.#client.availability(cut));
    const known = online ? "AVAILABILITY_ONLINE" : "AVAILABILITY_OFFLINE";
    return { availability: online === null ? "AVAILABILITY_UNSPECIFIED" : known, wait_minutes, position, message };
  }

  async updateState({ chat_id, context }, cut) {
    await asked(this.#client.update(chat_id, contextOf(context), cut));
  }

  async userTyping({ chat_id, typing }, cut) {
    await asked(this.#client.typing(chat_id, typing, cut));
  }

  async userReadMessages({ chat_id }, cut) {
    await asked(this.#client.read(chat_id, cut));
  }

  async resumeChat({ chat_id, state }, cut) {
    if (!state) throw new Failure("CHAT_UNKNOWN", "the chat has no state to resume from");
    let chat = this.#chats.get(chat_id);
    if (!chat) {
      chat = this.#take(chat_id, readState(state));
      chat.open = chat.resuming = true;
    }
    chat.quiesced = false;
    const known = new Promise((resolve, reject) => chat.waiting.push({ resolve, reject }));
    this.#fallBehind(chat);
    await unlessCut(known, cut);
  }

  async quiesceChat({ chat_id }, cut) {
    const unknown = () => new Failure("CHAT_UNKNOWN", "this process does not serve the chat");
    const chat = this.#chats.get(chat_id);
    if (!chat) throw unknown();
    chat.quiesced = true;
    try {
      await unlessCut(Promise.resolve(chat.telling), cut);
    } catch (err) {
      chat.quiesced = false;
      this.#fallBehind(chat);
      throw err;
    }
    if (chat.dropped) throw unknown();
    this.#drop(chat);
    return { state: stateOf(chat) };
  }

  /** Reads no more, and resolves once the host has settled what was read. */
  async drain() {
    this.#reading.abort(new Error("the plugin drains"));
    await Promise.all([...this.#chats.values()].map((chat) => chat.telling));
  }

  /** @returns {Chat} */
  #take(id, { conversation, cursor }) {
    const chat = {
      id, conversation, taken: cursor, cursor, queue: [], overflowed: false, waiting: [],
      starting: 0, open: false, resuming: false, ending: false, quiesced: false, dropped: false,
    };
    this.#chats.set(id, chat);
    return chat;
  }

  /** Lets a chat go. What is queued is not handed over any more. */
  #drop(chat) {
    chat.dropped = true;
    chat.queue = [];
    this.#behind.delete(chat);
    if (this.#chats.get(chat.id) === chat) this.#chats.delete(chat.id);
    this.#settle(chat, new Failure("CHAT_OVER", "the chat was let go"));
  }

  /** Tells who waits for a catch-up of the chat how it went. */
  #settle(chat, err) {
    for (const { resolve, reject } of chat.waiting.splice(0)) err ? reject(err) : resolve();
  }

  /** Keeps the feed open. */
  async #follow() {
    const pause = new Pause();
    let told = false;
    while (!this.#reading.signal.aborted) {
      try {
        await this.#client.follow({
          opened: () => {
            if (told) this.#host.log("info", "the link to the desk is back");
            told = false;
            pause.reset();
            for (const chat of this.#chats.values()) this.#fallBehind(chat);
          },
          happened: (event) => {
            const chat = this.#chats.get(event.key);
            if (chat) this.#offer(chat, event);
          },
        }, this.#reading.signal);
      } catch (err) {
        if (this.#reading.signal.aborted) return;
        if (!told) this.#host.log("warn", "no link to the desk; trying on", { error: err.message });
        told = true;
        await pause.wait(this.#reading.signal);
      }
    }
  }

  /** Has the chat's history read from where the chat stands. */
  #fallBehind(chat) {
    // A chat that is not open yet the desk may not know.
    if (chat.dropped || chat.quiesced || !chat.open) return;
    this.#behind.add(chat);
    if (!this.#catchingUp) this.#catchUp();
  }

  /** Reads what chats have missed, of many in one call, until they have all of it. */
  async #catchUp() {
    this.#catchingUp = true;
    const pause = new Pause();
    while (this.#behind.size > 0 && !this.#reading.signal.aborted) {
      const chats = [...this.#behind].slice(0, MAX_CATCH_UP);
      for (const chat of chats) this.#behind.delete(chat);
      const after = Object.fromEntries(chats.map((chat) => [chat.id, chat.taken]));
      let histories;
      try {
        histories = (await this.#client.catchUp(after, AbortSignal.timeout(CATCH_UP_TIME))).conversations;
        pause.reset();
      } catch (err) {
        for (const chat of chats) this.#missed(chat, err);
        await pause.wait(this.#reading.signal);
        continue;
      }
      for (const chat of chats) this.#caughtUp(chat, after[chat.id], histories[chat.id]);
    }
    this.#catchingUp = false;
  }

  /** Who resumes is told of a catch-up that failed; who is open already has it tried again. */
  #missed(chat, err) {
    this.#settle(chat, failureOf(err));
    if (chat.resuming) this.#drop(chat);
    else this.#fallBehind(chat);
  }

  /** Gives a chat what it has missed. A desk that has less than it was asked to go on from is another. */
  #caughtUp(chat, after, history) {
    if (chat.dropped || chat.quiesced) return;
    const known = history && after <= history.seq && (!chat.conversation || chat.conversation === history.id);
    if (known) {
      chat.conversation = history.id;
      chat.resuming = false;
      for (const event of history.events) this.#offer(chat, event);
      if (history.more && !chat.overflowed) this.#fallBehind(chat);
      this.#settle(chat);
    } else if (chat.resuming) {
      this.#settle(chat, new Failure("CHAT_UNKNOWN", "the desk does not know the conversation"));
      this.#drop(chat);
    } else if (chat.ending) {
      this.#drop(chat);
    } else {
      // It ends behind what the desk said before.
      this.#push(chat, {
        conversation: chat.conversation, time: new Date().toISOString(), type: "ended",
        reason: "The desk has lost this conversation.",
      });
      chat.quiesced = true; // there is nothing more to read
    }
  }

  /** Gives a chat an event from the feed or from its history, unless it has it. */
  #offer(chat, event) {
    if (chat.quiesced || this.#reading.signal.aborted) return;
    chat.conversation ||= event.conversation;
    if (chat.conversation !== event.conversation) return;
    if (event.seq && event.seq <= chat.taken) return;
    if (chat.queue.length >= MAX_QUEUED) chat.overflowed = true;
    else if (event.seq > chat.taken + 1) this.#fallBehind(chat);
    else this.#push(chat, event);
  }

  #push(chat, event) {
    chat.taken = event.seq ?? chat.taken;
    chat.queue.push(event);
    // Later, lest it be over before it is noted.
    chat.telling ??= Promise.resolve().then(() => this.#tell(chat));
  }

  /** Hands a chat's events to the host, one after the other. */
  async #tell(chat) {
    while (chat.queue.length > 0) {
      const [event] = chat.queue;
      const cursor = event.seq ?? chat.cursor;
      const payload = payloadOf(event);
      if (payload && !(chat.ending && event.type === "ended")) {
        await this.#emit(chat, event, payload, cursor);
      }
      if (chat.dropped) return;
      chat.queue.shift();
      chat.cursor = cursor;
      if (isLast(event)) {
        this.#drop(chat);
        return;
      }
    }
    chat.telling = undefined;
    if (chat.overflowed) {
      chat.overflowed = false;
      this.#fallBehind(chat);
    }
  }

  async #emit(chat, event, payload, cursor) {
    const message = { chat_id: chat.id, time: timestampOf(event.time), ...payload };
    if (event.seq) {
      message.event_id = `${event.conversation}-${event.seq}`;
      message.state = stateOf({ conversation: event.conversation, cursor });
    } else if (isLast(event)) {
      message.event_id = `${event.conversation}-gone`;
    }
    try {
      await this.#host.emit(message);
    } catch (err) {
      const about = { chat_id: chat.id, event_id: message.event_id, error: err.message };
      if (!(err instanceof Refused)) {
        // The process is about to end. The cursor stays, so nothing is lost.
        this.#host.log("warn", "an event could not be handed over", about);
        this.#drop(chat);
      } else if (err.code === "INVALID" || err.code === "TOO_LARGE") {
        this.#host.log("warn", "the host refused an event; it is left out", about);
      } else {
        this.#host.log("debug", "the host has no use for the chat any more", about);
        this.#drop(chat);
      }
    }
  }
}

/** Waits between tries, longer each time, with some chance in it. */
class Pause {
  #next = MIN_PAUSE;

  reset() {
    this.#next = MIN_PAUSE;
  }

  async wait(signal) {
    const pause = this.#next * (0.5 + Math.random());
    this.#next = Math.min(2 * this.#next, MAX_PAUSE);
    await sleep(pause, undefined, { signal }).catch(() => {}); // who waits looks at the signal
  }
}

/** Whether no other event of the conversation follows. */
const isLast = (event) => event.type === "ended" || (event.type === "in_trouble" && event.trouble.kind === "no_agent");

function stateOf({ conversation, cursor }) {
  return { data: Buffer.from(JSON.stringify({ conversation, cursor })), format: Desk.stateFormat };
}

function readState(state) {
  if (!state) return { conversation: "", cursor: 0 };
  if (state.format !== Desk.stateFormat) throw new Failure("INVALID", `resume state of format ${state.format}, want ${Desk.stateFormat}`);
  return JSON.parse(state.data);
}

const contextOf = (context) => ({
  user: context?.user ?? {},
  locale: context?.locale,
  assistant_session_id: context?.assistant_session_id,
});

const jsonOf = (bytes) => (bytes.length > 0 ? JSON.parse(bytes) : undefined);

const dateOf = (time) => time && new Date(time.seconds * 1000 + time.nanos / 1e6).toISOString();

function timestampOf(date) {
  const ms = Date.parse(date);
  return { seconds: Math.floor(ms / 1000), nanos: (ms % 1000) * 1e6 };
}

/** What the desk answered, or the Failure that says what became of the call. */
const asked = (answer) => answer.catch((err) => { throw failureOf(err); });

function failureOf(err) {
  return new Failure(kindOf(err), err.message, { retryAfter: err.retryAfter, userMessage: err.userMessage });
}

function kindOf({ status, sent, code }) {
  if (status === 0 && !sent) return "RETRY";
  if (code === "unknown") return "CHAT_UNKNOWN";
  if (code === "over") return "CHAT_OVER";
  if (code === "refused") return "REFUSED";
  if (code === "busy" || status === 429 || status === 503) return "RETRY";
  if (status >= 400 && status < 500) return "INVALID";
  return "OUTCOME_UNKNOWN";
}
