import assert from "node:assert/strict";
import { EventEmitter } from "node:events";
import test from "node:test";
import { EventStream } from "../src/events.js";

/** The host's end of the stream. */
class Host extends EventEmitter {
  batches = [];
  takes = true;

  write({ events }) {
    this.batches.push(events.map((event) => ({ ...event })));
    return this.takes;
  }

  end() {}

  ack(seq, refusals = []) {
    this.emit("data", { ack: { seq, refusals } });
  }

  /** The sequence numbers sent so far. */
  get sent() {
    return this.batches.flat().map((event) => event.seq);
  }
}

/** Opens a stream whose events have the size that they say. */
function open(limits = {}) {
  const stream = new EventStream((event) => Buffer.alloc(event.bytes ?? 100));
  const host = new Host();
  stream.serve(host);
  return { stream, host, begin: () => host.emit("data", { open: limits }) };
}

const event = (chat_id, bytes) => ({ chat_id, bytes });

test("events are numbered from 1 on, and what waits goes out together, 64 at most", () => {
  const { stream, host, begin } = open();
  for (let n = 0; n < 150; n++) stream.emit(event("a"));
  assert.deepEqual(host.batches, []);
  begin();
  assert.deepEqual(host.batches.map((batch) => batch.length), [64, 64, 22]);
  assert.deepEqual(host.sent, Array.from({ length: 150 }, (_, n) => n + 1));
});

test("a batch has no more bytes than allowed", () => {
  const { stream, host, begin } = open();
  for (let n = 0; n < 9; n++) stream.emit(event("a", 250 << 10));
  begin();
  assert.deepEqual(host.batches.map((batch) => batch.length), [4, 4, 1]);
});

test("an event that is too large is refused here", async () => {
  const { stream, host, begin } = open();
  begin();
  await assert.rejects(stream.emit(event("a", 256 << 10)), { code: "TOO_LARGE" });
  assert.deepEqual(host.batches, []);
});

test("one that is queued before the host tells its limits is refused then, and blocks nobody", async () => {
  const { stream, host, begin } = open({ max_batch_bytes: 1000 });
  const large = [stream.emit(event("a", 1000)), stream.emit(event("b", 1000))];
  const small = stream.emit(event("b"));
  begin();
  for (const each of large) await assert.rejects(each, { code: "TOO_LARGE" });
  assert.deepEqual(host.batches.flat().map((sent) => sent.chat_id), ["b"]);
  await assert.rejects(stream.emit(event("a", 1000)), { code: "TOO_LARGE" });
  host.ack(1);
  await small;
  await stream.flush();
});

test("no more wait for their acknowledgement than the windows allow, and chats take turns", async () => {
  const { stream, host, begin } = open({ window: 4, chat_window: 2 });
  for (let n = 0; n < 3; n++) stream.emit(event("a"));
  for (let n = 0; n < 3; n++) stream.emit(event("b"));
  begin();
  assert.deepEqual(host.batches.flat().map((sent) => sent.chat_id), ["a", "b", "a", "b"]);
  host.ack(1);
  assert.deepEqual(host.batches.at(-1).map((sent) => sent.chat_id), ["a"]);
  host.ack(5);
  assert.deepEqual(host.sent, [1, 2, 3, 4, 5, 6]);
});

test("nothing is written while the host does not read", () => {
  const { stream, host, begin } = open();
  begin();
  host.takes = false;
  stream.emit(event("a"));
  stream.emit(event("a"));
  assert.deepEqual(host.sent, [1]);
  host.emit("drain");
  assert.deepEqual(host.sent, [1, 2]);
});

test("each sender is told what became of its event", async () => {
  const { stream, host, begin } = open();
  begin();
  const sent = [1, 2, 3].map(() => stream.emit(event("a")));
  const flushed = stream.flush();
  host.ack(2, [{ seq: 2, code: "REFUSAL_CODE_CHAT_OVER", reason: "it has ended" }]);
  await sent[0];
  await assert.rejects(sent[1], { code: "CHAT_OVER", message: "it has ended" });
  assert.equal(await Promise.race([flushed, "waits"]), "waits");
  host.ack(3);
  await sent[2];
  await flushed;
});

test("when the stream ends nobody waits any longer", async () => {
  const { stream, host, begin } = open({ window: 1 });
  begin();
  const sent = [stream.emit(event("a")), stream.emit(event("a"))];
  const flushed = stream.flush();
  host.emit("cancelled");
  for (const each of sent) await assert.rejects(each, /ended/);
  await assert.rejects(stream.emit(event("a")), /ended/);
  await flushed;
});

test("a host that breaks the rules is told so", async () => {
  const { stream, host, begin } = open();
  const told = [];
  host.on("error", (err) => told.push(err.message));
  begin();
  const sent = stream.emit(event("a"));
  host.ack(2);
  await assert.rejects(sent, /ended/);
  assert.match(told.join(), /acknowledged event 2, which was not sent/);
});
