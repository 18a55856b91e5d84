// The plugin's end of the event stream: it numbers events, sends them in batches
// within the host's windows, and tells each sender what became of its event. It
// knows nothing of what an event means.
import { Refused } from "./failure.js";

/** What the contract allows; a host may allow less. */
const LIMITS = {
  window: 4096,
  chat_window: 1024,
  max_batch_events: 64,
  max_batch_bytes: 1 << 20,
  max_event_bytes: 256 << 10,
};

/** What an event needs in a batch beside its own fields: its number, a tag and a length. */
const OVERHEAD = 16;

/**
 * The queue of one chat, which exists while the chat has events.
 * @typedef {object} Queue
 * @property {string} chat
 * @property {Pending[]} waiting
 * @property {number} sent how many of its events are sent and not settled
 *
 * @typedef {object} Pending
 * @property {object} event
 * @property {number} size
 * @property {Queue} queue
 * @property {() => void} resolve
 * @property {(err: Error) => void} reject
 */

export class EventStream {
  #encode;
  #call;
  #limits = LIMITS;
  #opened = false;
  #closed = false;
  /** @type {Map<string, Queue>} */
  #queues = new Map();
  /** The queues that may send an event, in turn. @type {Set<Queue>} */
  #ready = new Set();
  /** Events that are sent and not settled; the first has the number #base. @type {Pending[]} */
  #sent = [];
  #base = 1;
  /** Whether the connection takes no more until the host has read. */
  #full = false;
  /** @type {(() => void)[]} */
  #flushing = [];

  /** @param {(event: object) => Buffer} encode encodes one Event */
  constructor(encode) {
    this.#encode = encode;
  }

  /**
   * Serves the Events call. There is one in the life of a process.
   * @param {import("@grpc/grpc-js").ServerDuplexStream<object, object>} call
   */
  serve(call) {
    if (this.#call) {
      call.emit("error", new Error("the event stream was opened before"));
      return;
    }
    this.#call = call;
    call.on("data", ({ open, ack }) => {
      if (open && !this.#opened) this.#open(open);
      else if (ack && this.#opened) this.#settle(ack);
      else if (open || ack) this.#end(new Error("the host breaks the rules of the event stream: open comes first, and once"));
    });
    call.on("drain", () => {
      this.#full = false;
      this.#send();
    });
    call.on("end", () => this.#end());
    call.on("cancelled", () => this.#end());
  }

  /**
   * Sends an event, and resolves once the host has stored it. Events of one chat
   * keep the order of the calls.
   * @param {object} event an Event of desk.proto, without seq
   * @returns {Promise<void>} rejected with Refused if the host refuses it
   */
  async emit(event) {
    const size = this.#encode(event).length + OVERHEAD;
    const refused = this.#tooLarge(size);
    if (refused) throw refused;
    if (this.#closed) throw ended();
    await new Promise((resolve, reject) => {
      let queue = this.#queues.get(event.chat_id);
      if (!queue) {
        queue = { chat: event.chat_id, waiting: [], sent: 0 };
        this.#queues.set(queue.chat, queue);
      }
      queue.waiting.push({ event, size, queue, resolve, reject });
      this.#list(queue);
      this.#send();
    });
  }

  /** Resolves once every event is settled, or the stream has ended. */
  flush() {
    return new Promise((resolve) => {
      this.#flushing.push(resolve);
      this.#tellFlushed();
    });
  }

  #open(said) {
    const limits = Object.entries(LIMITS).map(([name, most]) => [name, said[name] || most]);
    this.#limits = Object.fromEntries(limits);
    this.#opened = true;
    this.#refuseTooLarge();
    this.#send();
  }

  /** Returns the refusal of an event that the host does not allow, or that no batch has room for. */
  #tooLarge(size) {
    const limit = Math.min(this.#limits.max_event_bytes, this.#limits.max_batch_bytes);
    if (size > limit) return new Refused("TOO_LARGE", `the event has ${size} bytes, at most ${limit} are allowed`);
  }

  /** Looks again at what was queued before the host told its limits. */
  #refuseTooLarge() {
    for (const queue of this.#queues.values()) {
      const all = queue.waiting;
      queue.waiting = all.filter(({ size }) => !this.#tooLarge(size));
      if (queue.waiting.length === 0) {
        this.#queues.delete(queue.chat);
        this.#ready.delete(queue);
      }
      for (const { size, reject } of all) if (this.#tooLarge(size)) reject(this.#tooLarge(size));
    }
    this.#tellFlushed();
  }

  /** Lists a queue that may send an event. */
  #list(queue) {
    if (queue.waiting.length > 0 && queue.sent < this.#limits.chat_window) this.#ready.add(queue);
  }

  #send() {
    while (this.#opened && !this.#closed && !this.#full) {
      const events = this.#nextBatch();
      if (events.length === 0) return;
      this.#full = !this.#call.write({ events });
    }
  }

  /** Takes the next batch from the queues, one event of each in turn. */
  #nextBatch() {
    const { window, max_batch_events, max_batch_bytes } = this.#limits;
    const events = [];
    let bytes = 0;
    for (const queue of this.#ready) {
      const [next] = queue.waiting;
      bytes += next.size;
      if (events.length === max_batch_events || this.#sent.length === window || bytes > max_batch_bytes) break;
      next.event.seq = this.#base + this.#sent.length;
      events.push(next.event);
      this.#sent.push(next);
      queue.waiting.shift();
      queue.sent++;
      this.#ready.delete(queue);
      this.#list(queue); // behind the others, where this loop finds it again
    }
    return events;
  }

  /** Takes an acknowledgement, which settles all events up to its number. */
  #settle({ seq, refusals }) {
    const count = seq - this.#base + 1;
    if (count > this.#sent.length) {
      this.#end(new Error(`the host breaks the rules of the event stream: it acknowledged event ${seq}, which was not sent`));
      return;
    }
    const refused = new Map(refusals.map((refusal) => [refusal.seq, refusal]));
    for (const { event, queue, resolve, reject } of this.#sent.splice(0, Math.max(count, 0))) {
      this.#base++;
      queue.sent--;
      this.#list(queue);
      if (queue.sent === 0 && queue.waiting.length === 0) this.#queues.delete(queue.chat);
      const refusal = refused.get(event.seq);
      if (refusal) reject(new Refused(String(refusal.code).replace("REFUSAL_CODE_", ""), refusal.reason));
      else resolve();
    }
    this.#tellFlushed();
    this.#send();
  }

  #tellFlushed() {
    if (this.#queues.size > 0 && !this.#closed) return;
    for (const resolve of this.#flushing.splice(0)) resolve();
  }

  /** Ends the stream: nobody waits any longer. The host ends the process then. */
  #end(err) {
    if (this.#closed) return;
    this.#closed = true;
    const waiting = [...this.#queues.values()].flatMap((queue) => queue.waiting);
    for (const { reject } of [...this.#sent, ...waiting]) reject(ended());
    this.#tellFlushed();
    if (err) this.#call.emit("error", err);
    else this.#call.end();
  }
}

const ended = () => new Error("the event stream has ended");
