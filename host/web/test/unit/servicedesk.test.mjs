// The bridge: what a widget of either generation calls, and what it is told.

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { serviceDeskFactory } from "../../dist/bridge.js";
import { FakeHost, FakeStorage, json, problem } from "./fakehost.mjs";

const setImmediate = globalThis.setImmediate;

let host;
let storage;
/** What the widget was told, as "method argument …". */
let told;
let persisted;
let listeners;
/** The load of the page that desks are made in. */
let page;

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  host = new FakeHost();
  storage = new FakeStorage();
  told = [];
  persisted = undefined;
  listeners = {};
  page = {};
});

afterEach(() => mock.timers.reset());

const widgetCalls = [
  "updateAgentAvailability",
  "agentJoined",
  "agentReadMessages",
  "agentTyping",
  "sendMessageToUser",
  "beginTransferToAnotherAgent",
  "agentLeftChat",
  "agentEndedChat",
  "setErrorStatus",
  "setFileUploadStatus",
];

function callback() {
  return Object.fromEntries(
    widgetCalls.map((name) => [name, async (...args) => void told.push([name, ...args])]),
  );
}

const instance = {
  on: ({ type, handler }) => (listeners[type] = handler),
};

/** A desk for the hosted web chat. */
function open(options = {}, parameters = {}) {
  const mine = page;
  const HostSocket = host.WebSocket;
  return serviceDeskFactory({
    url: "http://host.test/",
    storage,
    fetch: (...args) => (mine.gone ? new Promise(() => {}) : host.fetch(...args)),
    WebSocket: class {
      constructor(...args) {
        return mine.gone ? {} : new HostSocket(...args);
      }
    },
    ...options,
  })({ callback: callback(), instance, ...parameters });
}

/** A desk for @carbon/ai-chat. */
function openCarbon(options, { connected = false, ...more } = {}) {
  return open(options, {
    callback: {
      ...callback(),
      persistedState: () => persisted,
      updatePersistedState: (state, merge) => {
        assert.equal(merge, false);
        persisted = state;
      },
      ...more.callback,
    },
    instance: { ...instance, getState: () => ({ humanAgent: { isConnected: connected } }), ...more.instance },
    persistedState: persisted,
  });
}

async function until(condition, ms = 10) {
  for (let turns = 0; !condition(); turns++) {
    assert.ok(turns < 20_000, `never: ${condition}`);
    await new Promise((done) => setImmediate(done));
    mock.timers.tick(ms);
  }
}

async function settled(promise, ms) {
  let done = false;
  promise.then(() => (done = true), () => (done = true));
  await until(() => done, ms);
  return promise;
}

const names = () => told.map(([name]) => name);
const text = (said) => ({ response_type: "text", text: said });
const connect = (more = {}) => ({
  output: { generic: [text("One moment."), { response_type: "connect_to_agent", ...more }] },
});
const ada = { id: "ada", nickname: "Ada" };
const joins = (agent = ada) => host.append("s1", { type: "agent_joined", agent });
const says = (id, said, more = {}) => host.append("s1", { type: "message", from: "agent", id, text: said, agent_id: "ada", ...more });

async function waiting(desk = open()) {
  await settled(desk.startChat(connect()));
  await until(() => host.sockets.size === 1);
  return desk;
}

async function connected(desk) {
  desk = await waiting(desk);
  joins();
  await until(() => names().includes("agentJoined"));
  told.length = 0;
  return desk;
}

test("the hosted web chat gets the desk, its successor a promise of it", async () => {
  const desk = open();
  assert.equal(desk.getName(), "deskhost");
  assert.equal((await openCarbon({ name: "Our desk" })).getName(), "Our desk");
  for (const name of ["startChat", "endChat", "sendMessageToAgent", "areAnyAgentsOnline", "userTyping", "userReadMessages", "updateState", "filesSelectedForUpload", "screenShareStop", "reconnect"]) {
    assert.equal(typeof desk[name], "function", name);
  }
  assert.deepEqual(host.calls, [], "nothing is asked before it is needed");
});

for (const online of [true, false, null]) {
  test(`availability is passed on: ${online}`, async () => {
    host.scripted["GET /availability"] = [() => json(200, { online })];
    assert.equal(await settled(open().areAnyAgentsOnline(connect())), online);
    assert.deepEqual(host.calls, ["POST /v1/sessions", "GET /availability"]);
  });
}

test("availability of a host out of reach is an error", async () => {
  host.down = true;
  await assert.rejects(settled(open().areAnyAgentsOnline(connect()), 500), { code: "unreachable" });
});

test("message, summary, payload and history reach the agent, wherever the item stands", async () => {
  const desk = open();
  listeners["pre:send"]({ data: { input: { text: "Hello" } } });
  listeners["pre:receive"]({ data: { output: { generic: [text("Hi"), { response_type: "pause" }, text("What is it?")] } } });
  listeners["pre:send"]({ data: { input: { message_type: "event", text: "" } } });
  const message = connect({
    message_to_human_agent: "A lamp",
    transfer_info: { summary_message_to_agent: [text("It is broken."), text("Since May.")] },
  });
  await settled(desk.startChat(message, { preStartChatPayload: { order: 4711 } }));
  const { started } = host.sessions.get("s1");
  assert.equal(started.text, "A lamp\n\nIt is broken.\n\nSince May.");
  assert.deepEqual(started.history.map(({ from, text }) => [from, text]), [["user", "Hello"], ["assistant", "Hi\n\nWhat is it?"]]);
  assert.deepEqual(started.connect_message, { ...message, preStartChatPayload: { order: 4711 } });
});

test("the history is the page's if it has one, and begins anew with the conversation", async () => {
  const history = [{ from: "user", text: "long ago" }];
  await settled(open({ history: async () => history }).startChat(connect()));
  assert.deepEqual(host.sessions.get("s1").started.history, history);

  storage = new FakeStorage();
  const desk = open();
  listeners["pre:send"]({ data: { input: { text: "Hello" } } });
  listeners.restartConversation({});
  await settled(desk.startChat(connect()));
  assert.deepEqual(host.sessions.get("s2").started.history, []);
});

test("of a long conversation the agent gets the end", async () => {
  const desk = open();
  for (let n = 0; n < 300; n++) listeners["pre:send"]({ data: { input: { text: `${n} ${"x".repeat(1000)}` } } });
  await settled(desk.startChat(connect()));
  const { history } = host.sessions.get("s1").started;
  assert.equal(history.length, 49);
  assert.match(history.at(-1).text, /^299 /);
});

test("a start without a message to the agent is no error", async () => {
  await settled(open().startChat({ output: { generic: [{ response_type: "connect_to_agent", message_to_human_agent: "" }] } }));
  assert.equal(host.sessions.get("s1").started.text, "");
  storage = new FakeStorage();
  await settled(open().startChat({ output: {} }));
});

test("a sign-in token is fetched for each start", async () => {
  let n = 0;
  const desk = open({ signInToken: async () => `token ${++n}` });
  await settled(desk.startChat(connect()));
  assert.equal(host.sessions.get("s1").started.sign_in_token, "token 1");
  await settled(desk.endChat());
  await settled(desk.startChat(connect()));
  assert.equal(host.sessions.get("s1").started.sign_in_token, "token 2");
});

test("a refused start rejects, and the user reads why", async () => {
  host.scripted["POST /chat"] = [() => problem(502, "start_refused", { user_message: "We are closed." })];
  await assert.rejects(settled(open().startChat(connect())), { code: "start_refused" });
  assert.deepEqual(told, [["setErrorStatus", { type: 1, messageToUser: "We are closed." }]]);
});

test("a failed start rejects; the widget has words for that", async () => {
  host.scripted["POST /chat"] = [() => problem(502, "start_failed")];
  const desk = open();
  await assert.rejects(settled(desk.startChat(connect())), { code: "start_failed" });
  assert.deepEqual(told, []);
  await settled(desk.startChat(connect()));
});

test("all that happens in a chat, as either generation spells it", async () => {
  const desk = await waiting();
  const push = (entry) => host.push("s1", { time: "", chat_id: "s1-c1", ...entry });
  push({ type: "availability", wait_minutes: 3, position: 2, message: "Soon." });
  joins({ ...ada, avatar_url: "https://example.com/ada.png" });
  says("m1", "**Hello**");
  push({ type: "agent_typing", typing: true });
  push({ type: "agent_typing", typing: false });
  host.append("s1", { type: "agent_read" });
  host.append("s1", { type: "transfer_started", agent: { id: "bot", nickname: "Robo", bot: true } });
  joins({ id: "bot", nickname: "Robo", bot: true });
  // Who hands a chat over may leave behind the one who takes it: the chat has an agent.
  host.append("s1", { type: "agent_left", agent_id: "ada" });
  host.append("s1", { type: "agent_left", agent_id: "bot" });
  joins({ id: "bot", nickname: "Robo", bot: true });
  host.append("s1", { type: "gap" });
  host.append("s1", { type: "something_new" });
  host.end("s1", "agent");
  await until(() => names().includes("agentEndedChat"));
  const robo = { id: "bot", nickname: "Robo", user_type: "bot" };
  assert.deepEqual(told, [
    ["updateAgentAvailability", { estimatedWaitTime: 3, estimated_wait_time: 3, positionInQueue: 2, position_in_queue: 2, message: "Soon." }],
    ["agentJoined", { ...ada, user_type: "human", profile_picture_url: "https://example.com/ada.png" }],
    ["sendMessageToUser", { id: "s1-c1-m1", output: { generic: [text("**Hello**")] } }, "ada"],
    ["agentTyping", true],
    ["agentTyping", false],
    ["agentReadMessages"],
    ["beginTransferToAnotherAgent", robo],
    ["agentJoined", robo],
    ["agentLeftChat"],
    ["agentJoined", robo],
    ["agentEndedChat"],
  ]);
  await settled(desk.endChat({ endedByHumanAgent: true }));
  assert.ok(!host.calls.includes("DELETE /chat"), "it was over");
});

test("every part of a message becomes an item; what is not known yet is left to the text", async () => {
  await connected();
  const url = "https://example.com/x";
  says("m1", "all", {
    parts: [
      { type: "text", text: "Hello" },
      { type: "image", url, title: "T", alt_text: "A" },
      { type: "video", url },
      { type: "link", url, label: "Terms" },
      { type: "link", url },
      { type: "file", url, name: "terms.txt" },
      { type: "inline_error", text: "No." },
      { type: "quick_replies", text: "When?", replies: [{ label: "Today", value: "today" }, { label: "Later", value: "later" }] },
      { type: "user_defined", data: { number: 1 } },
      { type: "hologram" },
    ],
  });
  says("m2", "in words", { parts: [{ type: "hologram" }] });
  await until(() => told.length === 2);
  const link = { response_type: "button", button_type: "url", kind: "LINK", url, target: "_blank" };
  assert.deepEqual(JSON.parse(JSON.stringify(told[0][1].output.generic)), [
    text("Hello"),
    { response_type: "image", source: url, title: "T", alt_text: "A" },
    { response_type: "video", source: url },
    { ...link, label: "Terms" },
    { ...link, label: url },
    { ...link, label: "terms.txt" },
    { response_type: "inline_error", text: "No." },
    text("When?\n- Today\n- Later"),
    { response_type: "user_defined", user_defined: { number: 1 } },
  ]);
  assert.deepEqual(told[1][1].output.generic, [text("in words")]);
});

test("the widget is told one thing at a time, and an entry counts as shown only then", async () => {
  let shown;
  const slow = { sendMessageToUser: (message) => new Promise((done) => (shown = () => done(told.push(["shown", message.id])))) };
  const desk = await openCarbon({}, { callback: slow });
  await connected(desk);
  const cursor = () => JSON.parse([...storage.items.values()][0]).cursor;
  const before = cursor();
  says("m1", "one");
  host.end("s1", "agent");
  await until(() => shown);
  for (let turn = 0; turn < 20; turn++) await new Promise((done) => setImmediate(done));
  assert.deepEqual(names(), []);
  assert.equal(cursor(), before);
  shown();
  await until(() => names().includes("agentEndedChat"));
  assert.deepEqual(names(), ["shown", "agentEndedChat"]);
});

test("a widget that fails at one thing is told the next", async (t) => {
  const logged = t.mock.method(console, "error", () => {});
  const failing = { agentTyping: async () => Promise.reject(new Error("no")) };
  await connected(await openCarbon({}, { callback: failing }));
  host.push("s1", { type: "agent_typing", typing: true, chat_id: "s1-c1", time: "" });
  says("m1", "still here");
  await until(() => names().includes("sendMessageToUser"));
  assert.equal(logged.mock.callCount(), 1);
});

test("a message goes with its own id, or with the one beside it; an empty one goes nowhere", async () => {
  const desk = await connected();
  await settled(desk.sendMessageToAgent({ id: "own", input: { text: "one" } }, "beside"));
  await settled(desk.sendMessageToAgent({ input: { text: "two" } }, "beside"));
  await settled(desk.sendMessageToAgent({ id: "file", input: { text: "" } }, "x", { filesToUpload: [{ id: "f1" }] }));
  assert.deepEqual([...host.sessions.get("s1").messages.keys()], ["own", "beside"]);
  assert.deepEqual(told, [["setFileUploadStatus", "f1", true, "Files cannot be sent in this chat."]]);
});

for (const status of ["failed", "unknown"]) {
  test(`a message whose outcome is "${status}" rejects`, async () => {
    const desk = await connected();
    host.sendStatus = status;
    await assert.rejects(settled(desk.sendMessageToAgent({ input: { text: "one" } }, "m1")), { code: status });
  });
}

test("a message that fails later is marked by message.id, where the widget knows how", async () => {
  await connected(await openCarbon());
  host.append("s1", { type: "message_status", id: "own", status: "failed", reason: "refused" });
  await until(() => told.length);
  assert.deepEqual(told, [["setErrorStatus", { type: 3, messageID: "own" }]]);
});

test("typing, reading and the user's state reach the host", async () => {
  const desk = await connected(open({ user: { name: "Kim" } }));
  await desk.userTyping(true);
  await desk.userReadMessages();
  await settled(desk.updateState({ sessionID: "a1", userID: "u1", locale: "de" }));
  await until(() => host.calls.includes("POST /read"));
  const session = host.sessions.get("s1");
  assert.deepEqual(session.typing, [true]);
  assert.deepEqual(session.patched, { user: { name: "Kim", id: "u1" }, locale: "de", assistant_session_id: "a1" });
});

test("the user ends the chat: the widget is told nothing more of it, and may begin another", async () => {
  const desk = await connected();
  await settled(desk.endChat({ endedByHumanAgent: false }));
  await settled(desk.startChat(connect()));
  joins();
  await until(() => told.length);
  assert.deepEqual(names(), ["agentJoined"]);
});

test("given up while the start is under way: nothing comes of it", async () => {
  let answer;
  host.scripted["POST /chat"] = [() => new Promise((done) => (answer = done))];
  const desk = open();
  const starting = desk.startChat(connect());
  await until(() => answer);
  const ending = desk.endChat();
  const next = desk.startChat(connect());
  answer(problem(502, "start_failed"));
  await settled(Promise.all([starting, ending, next]));
  assert.equal(host.sessions.get("s1").chat.state, "waiting");
  assert.deepEqual(told, []);
});

test("an end that the host does not hear is told until it does, before another chat begins", async () => {
  const desk = await connected();
  host.down = true;
  void desk.endChat();
  const next = desk.startChat(connect());
  for (let turn = 0; turn < 200; turn++) {
    await new Promise((done) => setImmediate(done));
    mock.timers.tick(1000);
  }
  host.down = false;
  await settled(next, 1000);
  assert.equal(host.sessions.get("s1").chats.size, 2);
  assert.deepEqual(host.calls.filter((call) => call.endsWith(" /chat")), ["POST /chat", "DELETE /chat", "POST /chat"]);
});

for (const [by, message, wanted] of [
  ["desk", "All have gone home.", { type: 1, messageToUser: "All have gone home." }],
  ["agent", undefined, { type: 1 }],
]) {
  test(`ended by the ${by} before anybody joined: the chat could not begin`, async () => {
    const desk = await waiting();
    host.append("s1", { type: "error", kind: "connecting", message });
    host.append("s1", { type: "chat_ended", by, message });
    host.sessions.get("s1").chat = undefined;
    await until(() => told.length);
    assert.deepEqual(told, [["setErrorStatus", wanted]]);
    await settled(desk.startChat(connect()));
  });
}

test("not everything is the agent's doing: an end by the host is told in other words", async () => {
  const endConversation = async () => void told.push(["endConversation"]);
  await connected(await openCarbon({}, { instance: { serviceDesk: { endConversation } } }));
  host.end("s1", "host", "desk_away");
  await until(() => told.length === 2);
  assert.equal(told[0][1].output.generic[0].response_type, "inline_error");
  assert.deepEqual(names(), ["sendMessageToUser", "endConversation"]);
});

test("host, desk or vendor out of reach: one disconnection until all are back", async () => {
  await connected();
  host.append("s1", { type: "desk_away" });
  host.append("s1", { type: "error", kind: "disconnected", disconnected: true });
  host.append("s1", { type: "desk_back" });
  await until(() => told.length);
  host.crash();
  await until(() => host.sockets.size === 0);
  host.down = false;
  await until(() => host.sockets.size === 1, 100);
  assert.deepEqual(told, [["setErrorStatus", { type: 2, isDisconnected: true }]]);
  host.append("s1", { type: "error", kind: "disconnected", disconnected: false });
  await until(() => told.length === 2);
  assert.deepEqual(told[1], ["setErrorStatus", { type: 2, isDisconnected: false }]);
});

test("who typed when the connection was lost is not shown typing for ever", async () => {
  await connected();
  host.push("s1", { type: "agent_typing", typing: true, chat_id: "s1-c1", time: "" });
  await until(() => told.length);
  host.append("s1", { type: "desk_away" });
  await until(() => told.length === 3);
  assert.deepEqual(told[2], ["agentTyping", false]);
});

test("the host is away while the user waits: a word instead of an error that would end the chat", async () => {
  await waiting();
  host.push("s1", { type: "availability", position: 2, chat_id: "s1-c1", time: "" });
  await until(() => told.length);
  host.crash();
  await until(() => told.length === 2, 100);
  host.down = false;
  await until(() => told.length === 3, 100);
  joins();
  await until(() => told.length === 4);
  assert.deepEqual(told.slice(1).map(([name, news]) => [name, news.message ?? news.positionInQueue ?? news.id]), [
    ["updateAgentAvailability", "The connection was lost. Trying again; you keep your place."],
    ["updateAgentAvailability", 2],
    ["agentJoined", "ada"],
  ]);
});

// Reloads: another desk with the same storage.

const reload = (state) => {
  page.gone = true;
  page = {};
  host.sockets.clear();
  told.length = 0;
  listeners = {};
  return openCarbon({}, state);
};

test("reloaded while connected: reconnect picks the chat up behind what was shown", async () => {
  await connected(await openCarbon());
  says("m1", "shown");
  await until(() => told.length);
  assert.deepEqual(persisted, { chat: true });
  const desk = await reload({ connected: true });
  says("m2", "meanwhile");
  Object.assign(host.sessions.get("s1").chat, { state: "connected", agent: ada });
  assert.equal(await settled(desk.reconnect()), true);
  await until(() => told.length);
  assert.deepEqual(told, [["sendMessageToUser", { id: "s1-c1-m2", output: { generic: [text("meanwhile")] } }, "ada"]]);
});

test("reconnect with nothing to pick up is false, and asks nobody", async () => {
  persisted = { chat: true };
  const desk = await openCarbon({}, { connected: true });
  assert.equal(await settled(desk.reconnect()), false);
  assert.deepEqual(host.calls, []);
  assert.equal(persisted, false, "the widget may greet again");
});

test("reconnect to a chat that ended meanwhile shows its last words and its end", async () => {
  await connected(await openCarbon());
  const desk = await reload({ connected: true });
  says("m1", "Goodbye.");
  host.end("s1", "agent");
  assert.equal(await settled(desk.reconnect()), true);
  await until(() => names().includes("agentEndedChat"));
  assert.deepEqual(names(), ["sendMessageToUser", "agentEndedChat"]);
  assert.equal(persisted, false);
});

test("reloaded while waiting: a card leads into the same chat, with whoever has joined", async () => {
  await waiting(await openCarbon());
  const cards = [];
  const desk = await reload({ instance: { messaging: { addMessage: async (message) => cards.push(message) } } });
  listeners["chat:ready"]({});
  listeners["chat:ready"]({});
  assert.deepEqual(cards.map(({ output }) => output.generic[0].response_type), ["connect_to_agent"]);
  const calls = host.calls.length;
  assert.equal(await settled(desk.areAnyAgentsOnline(cards[0])), true);
  assert.equal(host.calls.length, calls, "it is known");
  joins();
  host.sessions.get("s1").chat = { ...host.sessions.get("s1").chat, state: "connected", agent: ada };
  await settled(desk.startChat(cards[0]));
  says("m1", "Hello");
  await until(() => told.length === 2);
  assert.deepEqual(names(), ["agentJoined", "sendMessageToUser"]);
  assert.equal(host.sessions.get("s1").chats.size, 1);
});

test("reloaded while waiting, and the chat ended meanwhile: the card begins another", async () => {
  await waiting(await openCarbon());
  const desk = await reload();
  host.end("s1", "host", "abandoned");
  await settled(desk.startChat(connect()));
  assert.equal(host.sessions.get("s1").chats.size, 2);
  joins();
  await until(() => told.length);
  assert.deepEqual(names(), ["agentJoined"]);
});

test("reloaded while the end was not heard yet: the next chat ends it first", async () => {
  const desk = await connected(await openCarbon());
  host.down = true;
  void desk.endChat();
  await until(() => storage.items.values().next().value.includes('"ended":true'));
  const next = await reload();
  host.down = false;
  listeners["chat:ready"]?.({});
  await settled(next.startChat(connect()));
  assert.equal(host.sessions.get("s1").chats.size, 2);
});

test("a host that lost its data: the chat ends, and the next one has a new session", async () => {
  const desk = await connected(await openCarbon());
  host.forget("s1");
  await until(() => names().includes("agentEndedChat"), 100);
  assert.deepEqual(told[0], ["setErrorStatus", { type: 2, isDisconnected: true }]);
  assert.deepEqual(names().slice(1), ["sendMessageToUser", "agentEndedChat"], "it is never said to be back");
  await settled(desk.startChat(connect()));
  assert.equal(host.sessions.size, 1);
});
