import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { createClient } from "../../dist/bridge.js";
import { FakeHost, FakeStorage, json, problem } from "./fakehost.mjs";

const setImmediate = globalThis.setImmediate;

let host;
let storage;
let shown;
let connections;
let lost;
let clients;

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  host = new FakeHost();
  storage = new FakeStorage();
  shown = [];
  connections = [];
  lost = 0;
  clients = [];
});

afterEach(() => {
  for (const client of clients) client.close();
  mock.timers.reset();
});

function open(options = {}) {
  const client = createClient({
    url: "http://host.test/",
    storage,
    fetch: host.fetch,
    WebSocket: host.WebSocket,
    onEntry: (entry) => shown.push(entry),
    onConnection: (connection) => connections.push(connection),
    onSessionLost: () => lost++,
    ...options,
  });
  clients.push(client);
  return client;
}

/** Lets the page's pending work go on, with its clock, until the condition holds. */
async function until(condition, ms = 10) {
  for (let turns = 0; !condition(); turns++) {
    assert.ok(turns < 20_000, `never: ${condition}`);
    await new Promise((done) => setImmediate(done));
    mock.timers.tick(ms);
  }
}

/** Awaits a promise of the client while its clock runs. */
async function settled(promise, ms) {
  let done = false;
  promise.then(() => (done = true), () => (done = true));
  await until(() => done, ms);
  return promise;
}

const types = () => shown.map((entry) => entry.type);
const kept = () => JSON.parse([...storage.items.values()][0] ?? "null");

async function chatting(options) {
  const client = open(options);
  await settled(client.startChat());
  await until(() => client.connection === "online" && types().includes("chat_started"));
  return client;
}

test("nothing is asked of the host before the first call that needs it", async () => {
  const client = open({ user: { name: "Kim" }, locale: "en-GB", identityToken: async () => "jwt" });
  assert.equal(await client.resume(), null);
  assert.deepEqual(host.calls, []);
  assert.equal((await settled(client.availability())).online, true);
  assert.deepEqual(host.calls, ["POST /v1/sessions", "GET /availability"]);
  assert.deepEqual(host.sessions.get("s1").body, { user: { name: "Kim" }, locale: "en-GB", identity_token: "jwt" });
  assert.equal(host.connections, 0);
});

test("two first calls at once share one session", async () => {
  const client = open();
  await settled(Promise.all([client.availability(), client.startChat()]));
  assert.equal(host.sessions.size, 1);
});

test("a chat: its entries come in order, its end closes the connection", async () => {
  const client = await chatting();
  host.append("s1", { type: "agent_joined", agent: { id: "ada", nickname: "Ada" } });
  await settled(client.send("Hello", { id: "m1" }));
  host.push("s1", { type: "agent_typing", typing: true, chat_id: "s1-c1", time: "" });
  host.end("s1", "agent");
  await until(() => client.connection === "idle");
  assert.deepEqual(types(), ["chat_requested", "chat_started", "agent_joined", "message", "agent_typing", "chat_ended"]);
  assert.equal(client.chatOpen, false);
  assert.equal(host.sockets.size, 0);
  assert.deepEqual(connections, ["connecting", "online", "idle"]);
});

test("entries wait until the start has been answered", async () => {
  let answer;
  host.scripted["POST /chat"] = [() => new Promise((done) => (answer = done))];
  const client = open();
  const starting = client.startChat({ id: "r1" });
  await until(() => client.connection === "online" && answer);
  const session = host.sessions.get("s1");
  session.chat = { chat_id: "s1-c1", id: "r1" };
  host.append("s1", { type: "chat_requested" });
  host.append("s1", { type: "agent_joined", agent: { id: "ada", nickname: "Ada" } });
  await new Promise((done) => setImmediate(done));
  assert.deepEqual(types(), []);
  answer(json(201, { chat_id: "s1-c1" }));
  assert.equal(await settled(starting), "s1-c1");
  await until(() => shown.length === 2);
});

test("a lost connection is made again behind the last entry, and what comes twice is dropped", async () => {
  const client = await chatting();
  host.cut();
  host.append("s1", { type: "message", from: "agent", id: "a1", text: "while away" });
  await until(() => client.connection === "online" && shown.length === 3);
  host.push("s1", host.sessions.get("s1").entries[1]);
  host.append("s1", { type: "message", from: "agent", id: "a2", text: "back" });
  await until(() => shown.length === 4);
  assert.deepEqual(shown.map((entry) => entry.seq), [1, 2, 3, 4]);
  assert.equal(host.connections, 2);
});

test("while the host is down the page is offline, and it comes back by itself", async () => {
  const client = await chatting();
  host.crash();
  await until(() => client.connection === "offline");
  const sent = client.send("into the dark", { id: "m1" });
  host.append("s1", { type: "message", from: "agent", id: "a1", text: "from before" });
  for (let i = 0; i < 40; i++) await until(() => true, 1000);
  host.down = false;
  await settled(sent);
  await until(() => client.connection === "online" && shown.length === 4);
  assert.deepEqual(shown.map((entry) => entry.id), [undefined, undefined, "a1", "m1"]);
  assert.deepEqual(connections, ["connecting", "online", "connecting", "offline", "online"]);
});

test("one entry at a time: the next waits for the promise, and only then is the cursor stored", async () => {
  const gates = [];
  let running = 0;
  const client = open({
    onEntry: async () => {
      assert.equal(++running, 1);
      await new Promise((done) => gates.push(done));
      running--;
    },
  });
  await settled(client.startChat());
  await until(() => gates.length === 1);
  assert.equal(kept().cursor, 0);
  gates[0]();
  await until(() => gates.length === 2);
  assert.equal(kept().cursor, 1);
  gates[1]();
  await until(() => kept().cursor === 2);
});

test("a handler that fails does not stop the chat", async () => {
  const report = mock.method(console, "error", () => undefined);
  const client = open({
    onEntry: (entry) => {
      shown.push(entry);
      throw new Error("the page's fault");
    },
  });
  await settled(client.startChat());
  await until(() => kept().cursor === 2);
  assert.equal(shown.length, 2);
  assert.equal(report.mock.callCount(), 2);
  report.mock.restore();
});

test("an answer lost on the way: the call is made again with the same id and has effect once", async () => {
  const client = open();
  host.loseAnswers = 1;
  await settled(client.availability());
  host.loseAnswers = 1;
  assert.equal(await settled(client.startChat()), "s2-c1");
  host.loseAnswers = 1;
  await settled(client.send("once"));
  const { entries } = host.sessions.get("s2");
  assert.equal(entries.filter((entry) => entry.type === "chat_requested").length, 1);
  assert.equal(entries.filter((entry) => entry.type === "message").length, 1);
  assert.equal(host.calls.filter((call) => call === "POST /messages").length, 2);
});

test("what may pass is tried again, what is an answer is not", async () => {
  const client = open();
  host.scripted["POST /v1/sessions"] = [
    () => problem(429, "too_many_requests", {}, { "retry-after": "7" }),
    () => problem(503, "stopping"),
    () => problem(408, "body_timeout"),
    () => new Response("bad gateway", { status: 502 }),
  ];
  const begun = Date.now();
  await settled(client.availability());
  assert.ok(Date.now() - begun >= 7000);
  host.scripted["POST /chat"] = [() => problem(502, "start_refused", { detail: "No.", user_message: "We are closed." })];
  await assert.rejects(settled(client.startChat()), (error) => {
    assert.equal(error.code, "start_refused");
    assert.equal(error.status, 502);
    assert.equal(error.message, "No.");
    assert.equal(error.details.user_message, "We are closed.");
    return true;
  });
  assert.equal(client.chatOpen, false);
  assert.equal(client.connection, "idle");
  await settled(client.startChat());
  assert.equal(host.calls.filter((call) => call === "POST /chat").length, 2);
});

test("patience ends: a host out of reach for a minute", async () => {
  const client = await chatting();
  host.crash();
  await assert.rejects(settled(client.send("hello"), 500), { code: "unreachable" });
});

test("a message is settled by its status, also when that comes before the answer", async () => {
  host.sendStatus = "accepted";
  const client = await chatting();
  const first = client.send("one", { id: "m1" });
  await until(() => types().includes("message"));
  host.append("s1", { type: "message_status", id: "m1", status: "delivered" });
  await settled(first);

  const second = client.send("two", { id: "m2" });
  await until(() => host.sessions.get("s1").messages.has("m2"));
  host.append("s1", { type: "message_status", id: "m2", status: "failed", reason: "refused" });
  await assert.rejects(settled(second), (error) => error.code === "failed" && error.details.reason === "refused");

  const third = client.send("three", { id: "m3" });
  await until(() => host.sessions.get("s1").messages.has("m3"));
  host.end("s1", "desk");
  await assert.rejects(settled(third), { code: "unknown" });
});

test("a message that is known to have failed at once rejects", async () => {
  host.sendStatus = "unknown";
  const client = await chatting();
  await assert.rejects(settled(client.send("hello")), { code: "unknown" });
});

test("messages arrive in the order of the calls, whatever is lost", async () => {
  host.sendStatus = "accepted";
  const client = await chatting();
  const texts = Array.from({ length: 20 }, (_, i) => `text ${i}`);
  host.loseAnswers = 3;
  for (const text of texts) client.send(text).catch(() => undefined);
  const said = () => host.sessions.get("s1").entries.filter((entry) => entry.type === "message").map((entry) => entry.text);
  await until(() => said().length === texts.length);
  assert.deepEqual(said(), texts);
});

test("a message's entry that does not come shows a dead connection", async () => {
  const client = await chatting();
  const [socket] = host.sockets;
  host.sockets.delete(socket);
  host.sendStatus = "accepted";
  client.send("hello").catch(() => undefined);
  await until(() => types().includes("message"));
  assert.equal(host.connections, 2);
});

test("a connection that has died without a word is noticed, though the user only waits", async () => {
  await chatting();
  const [socket] = host.sockets;
  host.sockets.delete(socket);
  host.append("s1", { type: "message", from: "agent", id: "a1", text: "Are you there?" });
  await until(() => types().includes("message"), 1000);
  assert.equal(host.connections, 2);
});

test("a silent connection that has kept nothing back is left alone, and one with entries is not asked about", async () => {
  await chatting();
  const begun = Date.now();
  const asked = () => host.calls.filter((call) => call === "GET ").length;
  for (let i = 0; i < 10; i++) {
    host.append("s1", { type: "agent_read" });
    await until(() => Date.now() - begun >= i * 60_000, 1000);
  }
  assert.equal(asked(), 0);
  await until(() => asked() === 3, 1000);
  await until(() => Date.now() - begun > 20 * 60_000, 1000);
  assert.equal(host.connections, 1);
});

test("calls that do not get through beside a connection that does are no reason to make it again and again", async () => {
  const client = await chatting();
  host.scripted["POST /messages"] = Array.from({ length: 10_000 }, () => () => Promise.reject(new TypeError("fetch failed")));
  await assert.rejects(settled(client.send("hello")), { code: "unreachable" });
  const tries = host.calls.filter((call) => call === "POST /messages").length;
  assert.ok(tries < 30 && host.connections < 30, `${tries} calls, ${host.connections} connections in a minute`);
});

test("a storage that is full, and handlers that fail, do not stop the chat", async () => {
  const report = mock.method(console, "error", () => undefined);
  const fault = () => {
    throw new Error("not the module's fault");
  };
  const full = { getItem: () => null, setItem: fault, removeItem: () => undefined };
  const client = await chatting({ storage: full, onConnection: fault, onSessionLost: fault });
  host.cut();
  host.append("s1", { type: "message", from: "agent", id: "a1", text: "while away" });
  host.end("s1", "agent");
  await until(() => types().includes("chat_ended") && client.connection === "idle");
  await settled(client.startChat());
  await until(() => types().filter((type) => type === "chat_started").length === 2);
  host.forget("s1");
  await until(() => !client.chatOpen);
  report.mock.restore();
});

test("after a reload the chat goes on behind the cursor", async () => {
  const before = await chatting();
  await until(() => kept().cursor === 2);
  before.close();
  host.append("s1", { type: "agent_joined", agent: { id: "ada", nickname: "Ada" } });
  shown = [];
  const after = open();
  assert.equal(after.chatOpen, true);
  assert.equal((await settled(after.resume())).chat_id, "s1-c1");
  await until(() => shown.length === 1);
  assert.deepEqual(types(), ["agent_joined"]);
});

test("after a reload with replay the page is told the whole chat, and no other", async () => {
  const before = await chatting();
  host.end("s1", "agent");
  await until(() => !before.chatOpen);
  await settled(before.startChat());
  await until(() => kept().cursor === 5);
  before.close();
  shown = [];
  const after = open();
  await settled(after.resume({ replay: true }));
  await until(() => shown.length === 2);
  assert.deepEqual(shown.map((entry) => [entry.seq, entry.chat_id]), [[4, "s1-c2"], [5, "s1-c2"]]);
});

test("a reload while the start was under way finds the chat", async () => {
  const before = open();
  host.scripted["POST /chat"] = [() => new Promise(() => undefined)];
  before.startChat({ id: "r1" }).catch(() => undefined);
  await until(() => host.calls.includes("POST /chat"));
  before.close();
  host.answer(new URL("http://host.test/v1/sessions/s1/chat"), {
    method: "POST",
    headers: { authorization: "Bearer t1" },
    body: JSON.stringify({ id: "r1" }),
  });
  const after = open();
  assert.equal((await settled(after.resume())).chat_id, "s1-c1");
  await until(() => shown.length === 2);
});

test("a chat that never began is forgotten by the reload", async () => {
  const before = open();
  host.scripted["POST /chat"] = [() => new Promise(() => undefined)];
  before.startChat().catch(() => undefined);
  await until(() => host.calls.includes("POST /chat"));
  before.close();
  const after = open();
  assert.equal(await settled(after.resume()), null);
  assert.equal(after.chatOpen, false);
  await settled(after.startChat());
});

test("a chat that ended during a reload: the page is told the rest", async () => {
  const before = await chatting();
  before.close();
  host.append("s1", { type: "message", from: "agent", id: "a1", text: "bye" });
  host.end("s1", "agent");
  shown = [];
  const after = open();
  assert.equal(await settled(after.resume()), null);
  await until(() => after.connection === "idle" && !after.chatOpen);
  assert.deepEqual(types(), ["message", "chat_ended"]);
});

test("a reload while the host is down waits for it", async () => {
  const before = await chatting();
  before.close();
  host.crash();
  const after = open();
  const resumed = after.resume();
  await until(() => after.connection === "offline");
  for (let i = 0; i < 100; i++) await until(() => true, 1000);
  host.down = false;
  assert.equal((await settled(resumed)).chat_id, "s1-c1");
});

test("a session that the host has forgotten is told, and the next start makes a new one", async () => {
  const client = await chatting();
  host.forget("s1");
  await until(() => lost === 1);
  assert.equal(host.connections, 1);
  assert.equal(client.connection, "idle");
  assert.equal(client.chatOpen, false);
  assert.equal(kept(), null);
  host.sessions.set("s1", { gone: true });
  assert.equal(await settled(client.startChat()), "s2-c1");
});

test("an expired session without a chat is replaced without a word", async () => {
  const client = open();
  await settled(client.availability());
  host.sessions.get("s1").token = "changed";
  assert.equal(await settled(client.startChat()), "s2-c1");
  assert.equal(lost, 0);
});

test("where sockets are blocked the entries come by a stream", async () => {
  host.blockSockets = true;
  const client = await chatting();
  host.append("s1", { type: "message", from: "agent", id: "a1", text: "é — ok" });
  await until(() => shown.length === 3);
  assert.equal(shown[2].text, "é — ok");
  host.cut();
  host.append("s1", { type: "agent_read" });
  await until(() => client.connection === "online" && shown.length === 4);
  assert.deepEqual(shown.map((entry) => entry.seq), [1, 2, 3, 4]);
});

test("ending: a start that the host had not seen does not outlive it", async () => {
  let answer;
  host.scripted["POST /chat"] = [() => new Promise((done) => (answer = done))];
  const client = open();
  const starting = client.startChat({ id: "r1" });
  await until(() => answer);
  const ending = client.endChat();
  await until(() => host.calls.includes("DELETE /chat"));
  const session = host.sessions.get("s1");
  session.chat = { chat_id: "s1-c1", id: "r1" };
  host.append("s1", { type: "chat_requested" });
  answer(json(201, { chat_id: "s1-c1" }));
  await settled(Promise.all([starting, ending]));
  assert.equal(session.chat, undefined);
  await until(() => types().includes("chat_ended"));
  assert.equal(client.chatOpen, false);
});

test("ending: what is told again, because the answer was lost, does not end the next chat", async () => {
  let answer;
  host.scripted["POST /chat"] = [() => new Promise((done) => (answer = done))];
  host.scripted["DELETE /chat"] = [() => Promise.reject(new TypeError("fetch failed"))];
  const client = open();
  const starting = client.startChat({ id: "r1" });
  await until(() => answer);
  const ending = client.endChat();
  await until(() => host.calls.includes("DELETE /chat"));
  answer(problem(502, "start_failed"));
  await assert.rejects(settled(starting), { code: "start_failed" });
  const next = client.startChat({ id: "r2" });
  await settled(Promise.all([ending, next]));
  assert.equal(host.sessions.get("s1").chat?.id, "r2");
  assert.equal(client.chatOpen, true);
});

test("a message written while the chat starts waits for it; without a chat it is refused", async () => {
  const client = open();
  await assert.rejects(client.send("too early"), { code: "no_chat" });
  client.startChat().catch(() => undefined);
  await settled(client.send("early"));
  await settled(client.endChat());
  await assert.rejects(client.send("too late"), { code: "no_chat" });
  assert.deepEqual(host.sessions.get("s1").entries.filter((entry) => entry.type === "message").map((entry) => entry.text), ["early"]);
});

test("a second start while a chat is open is refused", async () => {
  const client = await chatting();
  await assert.rejects(client.startChat(), { code: "chat_open" });
});

test("two tabs of one session each see the chat once", async () => {
  await chatting();
  const other = new FakeStorage();
  for (const [key, value] of storage.items) other.setItem(key, value);
  const seen = [];
  const tab = open({ storage: other, onEntry: (entry) => seen.push(entry) });
  await settled(tab.resume());
  host.append("s1", { type: "message", from: "agent", id: "a1", text: "to both" });
  await until(() => seen.length === 1 && shown.length === 3);
  await settled(tab.endChat());
  await until(() => seen.length === 2 && shown.length === 4);
});

test("typing thins itself out", async () => {
  const client = await chatting();
  for (let i = 0; i < 50; i++) {
    client.typing(true);
    mock.timers.tick(100);
  }
  client.typing(false);
  client.typing(false);
  await until(() => host.sessions.get("s1").typing?.length === 3);
  assert.deepEqual(host.sessions.get("s1").typing, [true, true, false]);
});

test("update reaches the host at once in a session, and with the session before", async () => {
  const client = open();
  await client.update({ locale: "de" });
  assert.deepEqual(host.calls, []);
  await settled(client.availability());
  assert.deepEqual(host.sessions.get("s1").body, { locale: "de" });
  await settled(client.update({ user: { name: "Kim" } }));
  assert.deepEqual(host.sessions.get("s1").patched, { user: { name: "Kim" } });
});

test("forget deletes the session there and here", async () => {
  const client = await chatting();
  await settled(client.forget());
  assert.equal(host.sessions.size, 0);
  assert.equal(kept(), null);
  assert.equal(lost, 0);
});
