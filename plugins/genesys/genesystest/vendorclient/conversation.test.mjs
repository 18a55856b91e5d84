// The vendor's own client for guests of Web Chat holds a whole conversation with
// the simulator. It is the judge: nothing of it is changed or replaced.
import assert from "node:assert/strict";
import {spawn} from "node:child_process";
import {once} from "node:events";
import {createInterface} from "node:readline";
import {after, before, test} from "node:test";
import {fileURLToPath} from "node:url";
import platformClient from "purecloud-guest-chat-client";
import WebSocket from "ws";

const simulator = fileURLToPath(new URL("../../../../bin/simulators/genesys", import.meta.url));
const organizationId = "org-1", deploymentId = "deployment-1", queue = "Support";
let child, base;

before(async () => {
  child = spawn(simulator, ["--listen", "127.0.0.1:0", "--organization", organizationId, "--deployment", deploymentId, "--queue", queue],
    {stdio: ["ignore", "pipe", "inherit"]});
  const failed = once(child, "error").then(([e]) => { throw new Error("run make build first: " + e.message); });
  const [line] = await Promise.race([once(createInterface(child.stdout), "line"), failed]);
  base = line.match(/http:\/\/[^,\s]+/)[0];
});
after(() => child.kill());

// script has the desk do something.
async function script(act) {
  const r = await fetch(base + "/script", {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(act)});
  assert.equal(r.status, 200, await r.clone().text());
  return r.json();
}

// stream opens an event stream; its next method returns the next event that is
// asked for, in the order in which they come.
async function stream(uri) {
  const socket = new WebSocket(uri);
  const events = [], wake = [];
  socket.on("message", data => { events.push(JSON.parse(data)); wake.splice(0).forEach(w => w()); });
  await once(socket, "open");
  return {
    closed: once(socket, "close"),
    async next(wanted) {
      for (;;) {
        while (events.length) {
          const e = events.shift();
          if (wanted(e)) return e;
        }
        await new Promise(r => wake.push(r));
      }
    },
  };
}

const memberIs = (id, state) => e => e.metadata?.type === "member-change" && (!id || e.eventBody.member.id === id) && e.eventBody.member.state === state;
const message = e => e.metadata?.type === "message" && e.eventBody.bodyType === "standard";

// guest is the vendor's client, as its README uses it.
function guest() {
  const client = platformClient.ApiClient.instance;
  client.config.basePath = base;
  client.config.live_reload_config = false;
  return {client, api: new platformClient.WebChatApi()};
}

async function create(api, changes = {}) {
  return api.postWebchatGuestConversations({
    organizationId, deploymentId, routingTarget: {targetType: "QUEUE", targetAddress: queue},
    memberInfo: {displayName: "Mia", customFields: {deskhost_chat_id: "chat-1"}}, ...changes,
  });
}

test("a whole conversation", {timeout: 60_000}, async () => {
  const {client, api} = guest();
  const chat = await create(api);
  assert.ok(chat.id && chat.jwt && chat.eventStreamUri && chat.member.id);
  // Its logger has put a header of asterisks in the place of the real one.
  delete client.defaultHeaders.Authorization;
  client.setJwt(chat.jwt);

  const events = await stream(chat.eventStreamUri);
  assert.equal((await events.next(memberIs(chat.member.id, "CONNECTED"))).eventBody.conversation.id, chat.id);
  await script({do: "agent_joins", chat_id: "chat-1"});
  const agentId = (await events.next(memberIs("", "ALERTING"))).eventBody.member.id;
  await events.next(memberIs(agentId, "CONNECTED"));
  const agent = await api.getWebchatGuestConversationMember(chat.id, agentId);
  assert.equal(agent.role, "AGENT");
  assert.equal(agent.state, "CONNECTED");
  assert.equal(agent.displayName, "Ada");

  const sent = [];
  for (const body of ["One", "Two", "Grüße, <b>2 & 3</b> 😀"]) {
    const m = await api.postWebchatGuestConversationMemberMessages(chat.id, chat.member.id, {body, bodyType: "standard"});
    assert.equal(m.body, body);
    assert.equal(m.sender.id, chat.member.id);
    assert.equal(m.conversation.id, chat.id);
    const told = await events.next(message);
    assert.equal(told.eventBody.id, m.id);
    assert.equal(told.eventBody.body, body);
    sent.push(m);
  }
  assert.deepEqual((await script({do: "heard", chat_id: "chat-1"})).heard, sent.map(m => m.body));

  const typed = await api.postWebchatGuestConversationMemberTyping(chat.id, chat.member.id);
  assert.equal(typed.sender.id, chat.member.id);
  await script({do: "agent_typing", chat_id: "chat-1"});
  await events.next(e => e.metadata?.type === "typing-indicator" && e.eventBody.sender.id === agentId);
  await script({do: "agent_says", chat_id: "chat-1", text: "Hi"});
  assert.equal((await events.next(message)).eventBody.body, "Hi");

  // A transfer: one agent leaves, another is called and joins.
  await script({do: "transfer", chat_id: "chat-1", agent: "Grace"});
  await events.next(memberIs(agentId, "DISCONNECTED"));
  const nextId = (await events.next(memberIs("", "ALERTING"))).eventBody.member.id;
  await script({do: "agent_says", chat_id: "chat-1", text: "Grace here"});
  await events.next(memberIs(nextId, "CONNECTED"));
  assert.equal((await events.next(message)).eventBody.sender.id, nextId);

  const present = await api.getWebchatGuestConversationMembers(chat.id, {excludeDisconnectedMembers: true});
  assert.deepEqual(present.entities.map(m => m.role).sort(), ["AGENT", "CUSTOMER"]);

  // All that was said, page by page, and behind a message.
  const all = [];
  for (let opts = {maxResults: 2}; ;) {
    const page = await api.getWebchatGuestConversationMessages(chat.id, opts);
    assert.ok(page.entities.length <= 2);
    all.push(...page.entities);
    if (!page.next) break;
    opts = {maxResults: 2, after: new URL(page.next, base).searchParams.get("after")};
  }
  assert.deepEqual(all.filter(m => m.bodyType === "standard").map(m => m.body), ["One", "Two", sent[2].body, "Hi", "Grace here"]);
  assert.equal(new Set(all.map(m => m.id)).size, all.length);
  const behind = await api.getWebchatGuestConversationMessages(chat.id, {after: sent[2].id, sortOrder: "descending"});
  assert.deepEqual(behind.entities.filter(m => m.bodyType === "standard").map(m => m.body), ["Grace here", "Hi"]);
  assert.equal((await api.getWebchatGuestConversationMessage(chat.id, sent[0].id)).body, "One");

  await api.deleteWebchatGuestConversationMember(chat.id, chat.member.id);
  await events.next(memberIs(chat.member.id, "DISCONNECTED"));
  await events.closed;
  await assert.rejects(api.postWebchatGuestConversationMemberMessages(chat.id, chat.member.id, {body: "Late", bodyType: "standard"}),
    e => e.code === "chat.error.conversation.state" && e.status === 400);
});

test("what the vendor refuses", {timeout: 60_000}, async () => {
  const {client, api} = guest();
  delete client.defaultHeaders.Authorization;
  const refused = (promise, status, code) => assert.rejects(promise, e => e.status === status && e.code === code && !!e.contextId);
  await refused(create(api, {deploymentId: "another"}), 400, "chat.deployment.not.found");
  await refused(create(api, {routingTarget: {targetType: "QUEUE", targetAddress: "Nowhere"}}), 400, "chat.error.invalid.queue");
  delete client.defaultHeaders.Authorization;
  const chat = await create(api);
  delete client.defaultHeaders.Authorization;
  client.setJwt("nonsense");
  await refused(api.getWebchatGuestConversationMembers(chat.id), 401, "bad.credentials");
  client.setJwt(chat.jwt);
  await refused(api.postWebchatGuestConversationMemberMessages(chat.id, chat.member.id, {body: "x".repeat(4001), bodyType: "standard"}), 400, "bad.request");
  await script({do: "rate_limit", call: "send"});
  await refused(api.postWebchatGuestConversationMemberMessages(chat.id, chat.member.id, {body: "Fast", bodyType: "standard"}), 429, "too.many.requests");
  await script({do: "expire_tokens"});
  await refused(api.getWebchatGuestConversationMember(chat.id, chat.member.id), 401, "credentials.expired");
});
