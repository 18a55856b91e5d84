// The demo page: a chat window made of nothing but the client module. It keeps
// no transcript of its own; a reload is told the chat again.
//
// ?desk=NAME talks to another desk, ?console=URL shows another console.

import { createClient } from "./bridge.js";
import { el, safeLink } from "./markdown.js";
import { showParts } from "./parts.js";

const query = new URLSearchParams(location.search);
const at = (testid) => document.querySelector(`[data-testid="${testid}"]`);
const chat = at("chat");
const log = at("log");
const input = at("input");
const scroll = document.querySelector(".scroll");

const client = createClient({
  ...(query.has("desk") && { desk: query.get("desk") }),
  locale: navigator.language,
  onEntry: show,
  onConnection: (connection) => {
    // Right after a loss the next try is under way: only what fails is worth a word.
    if (connection !== "connecting") at("banner-offline").hidden = connection !== "offline";
    if (connection === "online") read();
  },
  onSessionLost: () => ended("This chat is no longer available."),
});

// What is shown of the present chat.

let agent;
/** Bubbles of the user's messages, by id. */
let mine = new Map();
/** The nickname and picture of everyone who joined, by id. */
let agents = new Map();

function reset() {
  agent = undefined;
  mine = new Map();
  agents = new Map();
  log.replaceChildren();
  for (const banner of document.querySelectorAll(".banner")) banner.hidden = true;
  at("typing").hidden = true;
  header();
}

/** Shows one state: loading, start, starting, waiting, connected or ended. */
function enter(state) {
  chat.dataset.state = state;
  const talking = state !== "start" && state !== "loading";
  at("start-card").hidden = talking || state === "loading";
  document.querySelector(".talk").hidden = !talking;
  at("waiting").hidden = state !== "starting" && state !== "waiting";
  at("ended").hidden = state !== "ended";
  document.querySelector(".compose").hidden = state === "ended" || state === "starting";
  at("end-button").hidden = state !== "connected";
  header();
}

function header() {
  const { state } = chat.dataset;
  at("agent-name").textContent = agent?.nickname ?? "Support";
  at("status").textContent =
    { starting: "Connecting", waiting: "Waiting for an agent", connected: agent ? "Connected" : "Connected, nobody here just now", ended: "Chat ended" }[state] ?? "";
  const avatar = document.querySelector('[data-part="avatar"]');
  avatar.replaceWith(portrait(agent, "avatar"));
}

function portrait(who, part) {
  const frame = el("span", { className: "avatar", ariaHidden: "true", dataset: part ? { part } : {} });
  const picture = who?.avatar_url && safeLink(who.avatar_url);
  if (picture) {
    const image = el("img", { src: picture, alt: "", referrerPolicy: "no-referrer" });
    image.addEventListener("error", () => image.replaceWith(initial(who)));
    frame.append(image);
  } else if (who) {
    frame.append(initial(who));
  } else {
    frame.classList.add("desk");
  }
  if (who) frame.style.setProperty("--hue", [...who.id].reduce((sum, c) => (sum * 31 + c.codePointAt(0)) % 360, 7));
  return frame;
}

function initial(who) {
  return [...who.nickname.trim()][0]?.toUpperCase() ?? "?";
}

/** Whether the end of the conversation is to be kept in view: not while the user looks at something above. */
let following = true;

function append(node) {
  log.append(node);
  if (following || node.classList.contains("user")) toEnd();
  else at("newer").hidden = false;
}

function toEnd() {
  scroll.scrollTop = scroll.scrollHeight;
  at("newer").hidden = true;
}

let scrolledTo = 0;

scroll.addEventListener("scroll", () => {
  const atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 60;
  // What grows below moves the end away; only the user scrolls up.
  if (atEnd || scroll.scrollTop < scrolledTo) following = atEnd;
  if (atEnd) at("newer").hidden = true;
  scrolledTo = scroll.scrollTop;
});

// Pictures get their height late, and the window changes its own.
const grown = new ResizeObserver(() => following && toEnd());
grown.observe(log);
grown.observe(scroll);

function note(type, text) {
  append(el("p", { className: "note", dataset: { testid: "note", type } }, text));
}

function clock(time) {
  return new Intl.DateTimeFormat(undefined, { timeStyle: "short" }).format(new Date(time));
}

// The user's messages.

const marks = {
  sending: "Sending …",
  delivered: "Delivered",
  read: "Read",
  failed: "Not delivered.",
  unknown: "May not have arrived.",
  unsent: "Not sent.",
};

/** Shows a message of the user, or finds the bubble that shows it. */
function bubble(id, text, time) {
  let row = mine.get(id);
  if (row) return row;
  row = el(
    "div",
    { className: "row user", dataset: { testid: "message", from: "user", id } },
    el("div", { className: "bubble" }, text),
    el("p", { className: "meta" }, el("time", { dateTime: time }, clock(time)), el("span", { className: "mark" })),
  );
  row.text = text;
  mine.set(id, row);
  for (const choice of log.querySelectorAll(".choice")) choice.disabled = true;
  append(row);
  mark(row, "sending");
  return row;
}

function mark(row, status) {
  row.dataset.status = status;
  const place = row.querySelector(".mark");
  place.replaceChildren(el("span", {}, marks[status]));
  if (!["failed", "unknown", "unsent"].includes(status)) return;
  const retry = el("button", { type: "button", dataset: { testid: "retry" } }, "Send again");
  retry.addEventListener("click", () => {
    // What never got through keeps its id; what is settled is said anew.
    if (status === "unsent") return post(row.dataset.id, row.text);
    retry.remove();
    post(newId(), row.text);
  });
  if (chat.dataset.state !== "ended") place.append(retry);
}

async function post(id, text) {
  const row = bubble(id, text, new Date().toISOString());
  mark(row, "sending");
  try {
    await client.send(text, { id });
    if (row.dataset.status === "sending") mark(row, "delivered");
  } catch (error) {
    mark(row, ["failed", "unknown"].includes(error.code) ? error.code : "unsent");
  }
}

function newId() {
  return `m-${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;
}

// What happens in the chat, entry by entry.

function show(entry) {
  entries[entry.type]?.(entry);
}

const entries = {
  chat_requested: (entry) => {
    enter("waiting");
    if (entry.text) note("chat_requested", `You asked: ${entry.text}`);
  },

  agent_joined: (entry) => {
    agent = entry.agent;
    agents.set(agent.id, agent);
    at("banner-transfer").hidden = true;
    at("banner-disconnected").hidden = true;
    enter("connected");
    note("agent_joined", `${agent.nickname} has joined the chat.`);
  },

  message: (entry) => {
    if (entry.from === "user") {
      bubble(entry.id, entry.text, entry.time);
      return;
    }
    typing(false);
    const who = agents.get(entry.agent_id) ?? agent;
    const parts = entry.parts ?? [{ type: "text", text: entry.text }];
    append(
      el(
        "div",
        { className: "row agent", dataset: { testid: "message", from: "agent", id: entry.id } },
        portrait(who),
        el("div", { className: "bubble" }, ...showParts(parts, (text) => post(newId(), text))),
        el("p", { className: "meta" }, `${who?.nickname ?? "Agent"} ·`, el("time", { dateTime: entry.time }, clock(entry.time))),
      ),
    );
    read();
  },

  message_status: (entry) => {
    const row = mine.get(entry.id);
    if (row && row.dataset.status !== "read") mark(row, entry.status);
  },

  agent_read: () => {
    for (const row of mine.values()) if (row.dataset.status === "delivered") mark(row, "read");
  },

  agent_typing: (entry) => typing(entry.typing),

  availability: (entry) => {
    const { wait_minutes: wait, position, message } = entry;
    if (at("waiting").hidden) return;
    document.querySelector('[data-part="wait"]').textContent =
      wait !== undefined
        ? `An agent will be with you in about ${wait === 1 ? "one minute" : `${wait} minutes`}.`
        : position !== undefined
          ? `You are number ${position} in the queue.`
          : (message ?? "Asking for an agent …");
  },

  transfer_started: (entry) => {
    typing(false);
    const text = entry.agent ? `You are being transferred to ${entry.agent.nickname} …` : "You are being transferred to another agent …";
    at("banner-transfer").textContent = text;
    at("banner-transfer").hidden = false;
    note("transfer_started", entry.agent ? `Transfer to ${entry.agent.nickname}` : "Transfer to another agent");
  },

  agent_left: (entry) => {
    typing(false);
    const who = agents.get(entry.agent_id) ?? agent;
    if (!entry.agent_id || entry.agent_id === agent?.id) agent = undefined;
    header();
    note("agent_left", `${who?.nickname ?? "The agent"} has left.${agent ? "" : " You may go on writing."}`);
  },

  error: (entry) => {
    if (entry.kind === "disconnected") at("banner-disconnected").hidden = !entry.disconnected;
    else note("error", entry.message ?? "No agent could be reached.");
  },

  desk_away: () => {
    typing(false);
    at("banner-desk-away").hidden = false;
  },

  desk_back: () => (at("banner-desk-away").hidden = true),

  gap: () => note("gap", "What was said earlier is no longer kept."),

  chat_ended: (entry) => {
    const who = agent?.nickname ?? "The agent";
    ended(entry.message || { user: "You ended the chat.", agent: `${who} ended the chat.` }[entry.by] || reasons[entry.reason] || "The chat has ended.");
  },
};

const reasons = {
  abandoned: "The chat ended because nobody was here.",
  join_timeout: "No agent was free in time.",
  connect_failed: "No agent could be reached.",
  desk_away: "The chat ended because the desk stayed out of reach.",
  desk_restarted: "The chat was lost when the desk was restarted.",
  resume_failed: "The desk could not take the chat up again.",
  resume_crashes: "The desk failed each time that it took the chat up again.",
};

let typingEnds;

function typing(on) {
  clearTimeout(typingEnds);
  const row = at("typing");
  if (on) typingEnds = setTimeout(() => typing(false), 15_000);
  if (row.hidden !== on) return;
  row.firstElementChild.replaceWith(portrait(agent));
  row.hidden = !on;
  if (on && following) toEnd();
}

function ended(text) {
  typing(false);
  for (const banner of document.querySelectorAll(".banner")) banner.hidden = true;
  for (const choice of log.querySelectorAll(".choice, [data-testid=retry]")) choice.disabled = true;
  at("end-dialog").close();
  const focused = chat.contains(document.activeElement);
  at("ended-reason").textContent = text;
  enter("ended");
  toEnd();
  if (focused) at("new-chat").focus();
}

function read() {
  if (document.visibilityState === "visible" && chat.dataset.state === "connected") client.read();
}

document.addEventListener("visibilitychange", read);

// Before the chat.

async function startCard() {
  reset();
  enter("start");
  const place = at("availability");
  place.dataset.online = "asking";
  place.textContent = "Looking who is there …";
  try {
    const { online, wait_minutes: wait, position, message } = await client.availability();
    place.dataset.online = String(online);
    place.textContent =
      message ||
      (online === false
        ? "Nobody is here at the moment."
        : wait
          ? `We are here. The wait is about ${wait} min.`
          : position
            ? `We are here. You would be number ${position}.`
            : online
              ? "We are here, and answer right away."
              : "We will look for somebody.");
  } catch {
    place.dataset.online = "null";
    place.textContent = "The chat cannot be reached at the moment.";
  }
}

at("start-card").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { name, topic } = event.target.elements;
  const problem = at("start-error");
  problem.hidden = true;
  reset();
  document.querySelector('[data-part="wait"]').textContent = "Asking for an agent …";
  enter("starting");
  try {
    if (name.value.trim()) await client.update({ user: { name: name.value.trim() } });
    await client.startChat({ text: topic.value.trim() });
    topic.value = "";
    if (chat.dataset.state === "starting") enter("waiting");
    input.focus();
  } catch (error) {
    if (chat.dataset.state !== "starting") return;
    startCard();
    problem.textContent = error.details?.user_message || "The chat could not be started. Please try again.";
    problem.hidden = false;
  }
});

at("cancel").addEventListener("click", end);
at("end-button").addEventListener("click", () => at("end-dialog").showModal());
at("end-dialog").addEventListener("close", ({ target }) => {
  if (target.returnValue === "end") end();
  target.returnValue = "";
});
at("new-chat").addEventListener("click", startCard);

async function end() {
  try {
    await client.endChat();
  } catch {
    note("error", "The chat could not be ended. Please try again.");
  }
}

// The line to write in.

let pause;

input.addEventListener("input", () => {
  input.style.height = "auto";
  input.style.height = `${Math.min(input.scrollHeight, 140)}px`;
  client.typing(input.value !== "");
  clearTimeout(pause);
  pause = setTimeout(() => client.typing(false), 5_000);
});

input.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  input.form.requestSubmit();
});

input.form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = input.value.trim();
  if (!text) return;
  input.value = "";
  input.style.height = "auto";
  clearTimeout(pause);
  client.typing(false);
  post(newId(), text);
  input.focus();
});

at("newer").addEventListener("click", toEnd);

// The agent's side.

for (const button of document.querySelectorAll(".sides button")) {
  button.addEventListener("click", () => {
    document.body.dataset.side = button.dataset.side;
    for (const each of document.querySelectorAll(".sides button")) each.ariaPressed = String(each === button);
  });
}

/** A desk that starts at the same time as the host has no console yet; another never has one. */
async function openConsole(frame, url) {
  // Another origin's cannot be asked.
  for (let answered = new URL(url, location).origin !== location.origin; !answered; ) {
    const status = await fetch(url, { method: "HEAD", mode: "same-origin" }).then((r) => r.status, () => 0);
    if (status === 404) {
      at("console-missing").textContent = "This desk has no console here.";
      return;
    }
    answered = status >= 200 && status < 300 || status === 405;
    if (!answered) await new Promise((done) => setTimeout(done, 1_500));
  }
  frame.src = url;
  frame.hidden = false;
  at("console-missing").hidden = true;
}

// An address given to the page may be any page, but not a script.
const consoleURL = safeLink(new URL(query.get("console") ?? `webhooks/${encodeURIComponent(query.get("desk") ?? "support")}/console/`, location.href).href);
if (consoleURL) openConsole(at("console"), consoleURL);

if (client.chatOpen) {
  enter("loading");
  client.resume({ replay: true }).then(() => {
    if (!client.chatOpen && chat.dataset.state === "loading") startCard();
    else input.focus();
  });
} else {
  startCard();
}
