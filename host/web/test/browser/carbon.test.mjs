// IBM's widget, @carbon/ai-chat, in Chromium with the bridge, against the built
// host, the mock plugin and mock desks. At desk "manual" the tests play the
// agent.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { browser, Desk, eventually, Host, Line } from "./harness.mjs";
import { lost, Widget } from "./widget.mjs";

let chromium;
let manual;
/** Takes 3 s for a message. */
let slow;
let host;
/** The keys of the conversations of earlier tests. */
const had = new Set();

before(async () => {
  [chromium, manual, slow] = await Promise.all([
    browser(),
    Desk.start({ console: true }),
    Desk.start({ calls: { send: { delay_ms: 3000 } } }),
  ]);
  host = new Host({
    manual: { url: manual.url },
    slow: { url: slow.url },
    closed: { online: false },
    unsure: { online: null },
    mute: { calls: { availability: { delay_ms: 20_000 } } },
    refusing: { calls: { start: { fail: "refused", user_message: "We are closed on Sundays." } } },
    failing: { calls: { send: { fail: "invalid" } } },
    late: { calls: { start: { delay_ms: 3000 } } },
  });
  await host.start();
});

after(async () => {
  await chromium?.close();
  await host?.kill();
  await manual?.program.kill();
  await slow?.program.kill();
  host?.remove();
});

async function open(query, options) {
  for (const { key } of await conversations()) had.add(key);
  return Widget.open(chromium, host, query, options);
}

const conversations = async () => (await manual.call("GET", "/console/api/state")).conversations;

/** The conversation that the page has just asked for. */
async function waiting(query, options) {
  const page = await open(query, options);
  await page.waits();
  return { page, ...(await agent()) };
}

/** The agent of the conversation that is new at the desk. */
async function agent() {
  const { key } = await eventually(
    async () => (await conversations()).find(({ key }) => !had.has(key)),
    "the conversation at the desk",
  );
  had.add(key);
  return {
    key,
    ada: (...steps) => manual.act(key, "ada", ...steps),
    atDesk: async () => (await conversations()).find((c) => c.key === key),
  };
}

/** Up to which event the user has read a conversation, as the desk has heard. */
const readTo = async (key) =>
  (await manual.call("GET", `/console/api/state?key=${encodeURIComponent(key)}`)).open.user_read;

async function withAda(query, options) {
  const chat = await waiting(query, options);
  await chat.ada({ join: "ada" });
  await chat.page.is("connected");
  await chat.page.sees("Ada connected.");
  return chat;
}

/** Whether the desk has been told, or has said, that the conversation is over. */
const over = (atDesk) => eventually(async () => (await atDesk()).state === "ended", "the end at the desk");

describe("the card", () => {
  for (const [desk, text] of [
    ["manual", "Somebody is there for you."],
    ["unsure", "Somebody is there for you."],
    ["closed", "Nobody is there at the moment."],
  ]) {
    test(`desk ${desk}: ${text}`, async () => {
      const page = await open(`?desk=${desk}`);
      await page.asks();
      await page.sees(text);
      assert.equal(await page.button("Connect to agent").count(), desk === "closed" ? 0 : 1);
      await page.close();
    });
  }

  test("a desk that does not answer in time is taken for closed", async () => {
    const page = await open("?desk=mute&availability=1");
    await page.asks();
    await page.sees("Nobody is there at the moment.");
    await page.close();
  });

  test("a host that is out of reach is taken for closed", async () => {
    const line = await Line.open(host);
    const page = await Widget.open(chromium, line, "?availability=1");
    line.cut();
    await page.asks();
    await page.sees("Nobody is there at the moment.");
    await page.close();
    line.close();
  });

  test("a chat begins without the card", async () => {
    const page = await open("?skip");
    await page.asks();
    await page.is("waiting");
    const { ada } = await agent();
    await ada({ join: "ada" });
    await page.is("connected");
    await page.close();
  });
});

describe("waiting", () => {
  test("wait, place and the desk's own words are shown as they change", async () => {
    const { page, ada } = await waiting();
    for (const [availability, text] of [
      [{ wait_minutes: 7, position: 3, message: "Soon." }, "7 minutes"],
      [{ position: 2, message: "Soon." }, "number 2 in line"],
      [{ message: "**Thank you** for waiting." }, "Thank you for waiting."],
    ]) {
      // Passing news: who was not there when it came does not hear it.
      await eventually(async () => {
        await ada({ availability });
        return page.log.filter({ hasText: text }).count();
      }, text);
    }
    await page.close();
  });

  test("the agent reads what was said before, and the summary", async () => {
    const { page, key } = await waiting();
    const { events } = await manual.call("GET", `/v1/conversations/${encodeURIComponent(key)}/events?after=0`);
    const { text, history } = events[0].start;
    assert.equal(text, "A human, please\n\nThe user asked the assistant for a human.");
    assert.deepEqual(
      history.map(({ from, text }) => [from, text.slice(0, 15)]),
      [["assistant", "Hello! I am a s"], ["user", "A human, please"], ["assistant", "I will see who "]],
    );
    await page.close();
  });

  test("cancelled by the user", async () => {
    const { page, atDesk } = await waiting();
    await page.cancels();
    await over(atDesk);
    await page.close();
  });

  test("nobody joins in the widget's time", async () => {
    const page = await open("?join=1");
    await page.asks();
    await page.button("Connect to agent").click();
    const { atDesk } = await agent();
    await page.sees("No agents accepted the chat");
    await page.is("none");
    await over(atDesk);
    await page.close();
  });

  test("refused by the desk: the user reads why", async () => {
    const page = await open("?desk=refusing");
    await page.asks();
    await page.button("Connect to agent").click();
    await page.sees("We are closed on Sundays.");
    await page.is("none");
    assert.deepEqual(page.errors.splice(0).length, 1, "the widget passes the rejection on");
    await page.close();
  });

  test("ended before anybody joined: the user reads why, and may ask again", async () => {
    const { page, ada } = await waiting();
    await ada({ trouble: { kind: "no_agent", message: "All have gone home." } });
    await page.sees("All have gone home.");
    await page.is("none");
    await page.asksAgain();
    await agent();
    await page.close();
  });
});

for (const variant of ["", "react.html"]) {
  test(`a chat from its start to its end, and another one (${variant || "web component"})`, async () => {
    const { page, key, ada, atDesk } = await withAda("", { variant });

    await ada({ say: "Hello, **I am Ada** <img src=x onerror=alert(1)>" }, { typing: true });
    await page.sees("Hello, I am Ada <img src=x onerror=alert(1)>");
    assert.equal(await page.log.locator("strong", { hasText: "I am Ada" }).count(), 1);
    await eventually(async () => (await readTo(key)) > 0, "the desk to hear that it was read");
    await page.typing();
    await ada({ typing: false });
    await page.typing(false);
    await ada(
      { message: [{ type: "image", url: `${host.url}/icon.svg`, alt_text: "An icon" }] },
      { message: [{ type: "text", text: "Please read this:" }, { type: "link", url: "https://example.com/terms", label: "Terms" }] },
      { message: [{ type: "inline_error", text: "No such order." }] },
    );
    await page.sees("No such order.");
    const image = page.log.locator('img[alt="An icon"]');
    await image.waitFor();
    assert.ok(await image.evaluate(({ naturalWidth }) => naturalWidth > 0), "the picture is shown");
    await page.log.getByText("Terms").waitFor();
    const link = page.log.locator('a[href="https://example.com/terms"]');
    assert.equal(await link.getAttribute("target"), "_blank");

    await page.input.click();
    await page.tab.keyboard.type("My lamp");
    await eventually(async () => (await atDesk()).typing, "the user's typing at the desk");
    await page.tab.keyboard.press("Enter");
    await page.sees("My lamp");
    await eventually(async () => (await manual.userTexts(key)).length, "the message at the desk");
    assert.deepEqual(await manual.userTexts(key), ["My lamp"]);

    await ada({ transfer: "grace" });
    await page.sees("You're being transferred.");
    await manual.act(key, "grace", { join: "grace" }, { say: "Grace here." });
    await page.sees("Grace connected.");
    await page.sees("Grace here.");
    await manual.act(key, "grace", { leave: true });
    await page.sees("Grace disconnected.");
    await page.says("Anybody there?");
    await eventually(async () => (await manual.userTexts(key)).length === 2, "the message at the desk");
    await ada({ join: "ada" }, { say: "It is me again." });
    await page.sees("It is me again.");
    assert.deepEqual(await page.told(/(?:Ada|Grace) (?:dis)?connected\./g), [
      "Ada connected.",
      "Grace connected.",
      "Grace disconnected.",
      "Ada connected.",
    ]);

    await ada({ end: "" });
    await page.sees("Ada ended the chat.");
    await page.is("none");
    await page.assistantReturns();

    await page.asksAgain();
    const second = await agent();
    assert.notEqual(second.key, key);
    await second.ada({ join: "ada" }, { say: "What else?" });
    await page.sees("What else?");
    await page.disconnects();
    await over(second.atDesk);
    await page.close();
  });
}

describe("messages", () => {
  test("one that the desk does not take is marked", async () => {
    const page = await open("?desk=failing");
    await page.connects();
    await page.says("Hello");
    await page.failed("Hello");
    await page.close();
  });

  test("one that fails after it was taken is marked, too", async () => {
    const { page, key, ada } = await withAda();
    await page.says("Hello");
    await eventually(async () => (await manual.userTexts(key)).length, "the message at the desk");
    await ada({ trouble: { kind: "message_failed", message: "Not shown." } });
    await page.failed("Hello");
    await page.close();
  });

  test("fifty from both sides at once: each once, and in order", async () => {
    const { page, key, ada } = await withAda();
    const numbers = [...Array(50).keys()];
    const agents = (async () => {
      for (const n of numbers) await ada({ say: `agent ${n}` });
    })();
    for (const n of numbers) await page.says(`user ${n}`);
    await agents;
    await page.sees(/\bagent 49\b/);
    await page.sees(/\buser 49\b/);
    await eventually(async () => (await manual.userTexts(key)).length >= 50, "the messages at the desk");
    assert.deepEqual(await manual.userTexts(key), numbers.map((n) => `user ${n}`));
    assert.deepEqual(await page.told(/\bagent \d+\b/g), numbers.map((n) => `agent ${n}`));
    assert.deepEqual(await page.told(/\buser \d+\b/g), numbers.map((n) => `user ${n}`));
    await page.close();
  });
});

describe("a reload", () => {
  test("with a card: the next chat is as if there had been none", async () => {
    const page = await open();
    await page.asks();
    await page.button("Connect to agent").waitFor();
    await page.reload();
    await page.waits();
    await agent();
    await page.close();
  });

  test("while the desk has not answered yet: a card leads on", async () => {
    const page = await open("?desk=late");
    await page.waits();
    await page.reload();
    await page.sees("You are still waiting for an agent.");
    await page.button("Connect to agent").click();
    await page.is("connected");
    await page.says("Hello");
    await page.sees("You said: Hello");
    await page.close();
  });

  test("while waiting: a card leads back into the same chat", async () => {
    const { page, key, ada } = await waiting();
    await page.reload();
    await page.sees("You are still waiting for an agent.");
    await page.button("Connect to agent").click();
    await page.is("waiting");
    await ada({ join: "ada" }, { say: "Hello" });
    await page.sees("Hello");
    assert.equal((await manual.latest()).key, key);
    await page.close();
  });

  test("while waiting, with no card needed: the agent has joined meanwhile", async () => {
    const { page, key, ada } = await (async () => {
      const page = await open("?skip");
      await page.asks();
      await page.is("waiting");
      return { page, ...(await agent()) };
    })();
    await page.tab.goto("about:blank");
    await ada({ join: "ada" }, { say: "Are you there?" });
    await page.tab.goto(`${host.url}/carbon/?skip`);
    await page.sees("Are you there?");
    await page.is("connected");
    assert.deepEqual(await page.told(/Ada connected\./g), ["Ada connected."]);
    await page.says("Yes");
    await eventually(async () => (await manual.userTexts(key)).length, "the message at the desk");
    await page.close();
  });

  test("while connected: the chat goes on, and nothing is shown twice", async () => {
    const { page, key, ada } = await withAda();
    await ada({ say: "before" });
    await page.sees("before");
    await page.tab.goto("about:blank");
    await ada({ say: "meanwhile" });
    await page.tab.goto(`${host.url}/carbon/`);
    await page.sees("meanwhile");
    await page.says("after");
    await eventually(async () => (await manual.userTexts(key)).length, "the message at the desk");
    await ada({ say: "the end" });
    await page.sees("the end");
    assert.deepEqual(await page.told(/before|meanwhile|the end/g), ["meanwhile", "the end"]);
    await page.close();
  });

  test("during a transfer, and when the agent has left: the chat goes on", async () => {
    const { page, key, ada } = await withAda();
    const grace = (...steps) => manual.act(key, "grace", ...steps);
    await ada({ transfer: "grace" });
    await page.sees("You're being transferred.");
    await page.reload();
    await grace({ join: "grace" }, { say: "Grace here." });
    await page.sees("Grace here.");
    assert.deepEqual(await page.told(/\w+ connected\./g), ["Grace connected."]);
    await grace({ leave: true });
    await page.sees("Grace disconnected.");
    await page.reload();
    await page.says("Anybody there?");
    await eventually(async () => (await manual.userTexts(key)).length, "the message at the desk");
    await ada({ join: "ada" }, { say: "Me again." });
    await page.sees("Me again.");
    assert.deepEqual(await page.told(/\w+ connected\./g), ["Ada connected."]);
    await page.close();
  });

  test("while a message is on its way: the desk gets it once", async () => {
    const page = await open("?desk=slow");
    await page.connects();
    const sent = page.tab.waitForRequest(/\/messages$/);
    await page.says("Hello");
    await sent;
    await page.reload();
    await page.sees("You said: Hello");
    assert.deepEqual(await slow.userTexts((await slow.latest()).key), ["Hello"]);
    await page.close();
  });

  test("the chat ended meanwhile: its last words are shown, then its end", async () => {
    const { page, ada } = await withAda();
    await page.tab.goto("about:blank");
    await ada({ say: "Goodbye." }, { end: "" });
    await page.tab.goto(`${host.url}/carbon/`);
    await page.sees("Goodbye.");
    await page.sees("Ada ended the chat.");
    await page.is("none");
    await page.close();
  });

  test("after the end: the assistant greets, and nothing is left of the chat", async () => {
    const { page, ada } = await withAda();
    await ada({ end: "" });
    await page.is("none");
    await page.reload();
    await page.sees("I am a small assistant");
    assert.equal(await page.button("Connect to agent").count(), 0);
    await page.close();
  });
});

describe("the host is killed and started again", () => {
  test("with a card", async () => {
    const page = await open();
    await page.asks();
    await page.button("Connect to agent").waitFor();
    await host.kill();
    await page.button("Connect to agent").click();
    await page.is("waiting");
    await host.start();
    const { ada } = await agent();
    await ada({ join: "ada" });
    await page.is("connected");
    await page.close();
  });

  test("while the desk has not answered yet: the chat begins, once", async () => {
    const page = await open("?desk=late");
    await page.waits();
    await host.kill();
    await host.start();
    await page.is("connected");
    await page.says("Hello");
    await page.sees("You said: Hello");
    assert.deepEqual(await page.told(/Ada connected\./g), ["Ada connected."]);
    await page.close();
  });

  test("while waiting: the user is told, and keeps the place", async () => {
    const { page, ada } = await waiting();
    await host.kill();
    await page.sees("The connection was lost. Trying again");
    await host.start();
    await page.tab.waitForFunction(() => !document.body.innerText.includes("Trying again"));
    await ada({ join: "ada" }, { say: "Hello" });
    await page.sees("Hello");
    await page.is("connected");
    await page.close();
  });

  test("while connected: shown as disconnected, and back by itself", async () => {
    const { page, key, ada } = await withAda();
    await host.kill();
    await page.sees(lost);
    await ada({ say: "meanwhile" });
    await host.start();
    await page.sees("The agent reconnected.");
    await page.sees("meanwhile");
    await page.says("after");
    await eventually(async () => (await manual.userTexts(key)).length, "the message at the desk");
    assert.deepEqual(await page.told(/meanwhile/g), ["meanwhile"]);
    await page.close();
  });

  test("during a transfer, and when the agent has left: the chat goes on", async () => {
    const { page, key, ada } = await withAda();
    const again = async (times) => {
      const shown = (text) => eventually(async () => (await page.told(text)).length === times, text);
      await host.kill();
      await shown(new RegExp(lost, "g"));
      await host.start();
      await shown(/The agent reconnected\./g);
    };
    await ada({ transfer: "grace" });
    await page.sees("You're being transferred.");
    await again(1);
    await manual.act(key, "grace", { join: "grace" }, { leave: true });
    await page.sees("Grace disconnected.");
    await again(2);
    await page.says("Anybody there?");
    await eventually(async () => (await manual.userTexts(key)).length, "the message at the desk");
    await ada({ join: "ada" });
    await eventually(async () => (await page.told(/Ada connected\./g)).length === 2, "Ada, again");
    assert.deepEqual(await page.told(/(?:Ada|Grace) (?:dis)?connected\./g), [
      "Ada connected.",
      "Grace connected.",
      "Grace disconnected.",
      "Ada connected.",
    ]);
    await page.close();
  });

  test("while a message is on its way: the desk gets it once", async () => {
    const page = await open("?desk=slow");
    await page.connects();
    const sent = page.tab.waitForRequest(/\/messages$/);
    await page.says("Hello");
    await sent;
    await host.kill();
    await page.sees(lost);
    await host.start();
    await page.sees("The agent reconnected.");
    await page.sees("You said: Hello");
    await page.failed("Hello", false);
    assert.deepEqual(await page.told(/You said: Hello/g), ["You said: Hello"]);
    assert.deepEqual(await slow.userTexts((await slow.latest()).key), ["Hello"]);
    await page.close();
  });

  test("after a chat: the next one begins", async () => {
    const { page, ada } = await withAda();
    await ada({ end: "" });
    await page.assistantReturns();
    await host.kill();
    await host.start();
    await page.asksAgain();
    await agent();
    await page.close();
  });

  test("while the page is away: it goes on", async () => {
    const { page, ada } = await withAda();
    await page.tab.goto("about:blank");
    await host.kill();
    await host.start();
    await page.tab.goto(`${host.url}/carbon/`);
    await ada({ say: "still here" });
    await page.sees("still here");
    await page.close();
  });

  test("not heard of at a reload: the widget waits until it answers", async () => {
    const { page, ada } = await withAda();
    await page.tab.route("**/v1/**", (route) => route.abort());
    await page.reload();
    await page.tab.locator('[data-testid="input_field"][contenteditable="false"]').waitFor();
    await ada({ say: "still here" });
    await page.tab.unroute("**/v1/**");
    await page.sees("still here");
    await page.input.waitFor();
    await page.close();
  });

  test("ended by the user meanwhile: the desk learns it, and a new chat begins", async () => {
    const { page, key, atDesk } = await withAda();
    await host.kill();
    await page.sees(lost);
    await page.disconnects();
    await host.start();
    await over(atDesk);
    await page.asksAgain();
    assert.notEqual((await agent()).key, key);
    await page.close();
  });

  test("with its data lost: the chat ends in the widget", async () => {
    const { page } = await withAda();
    await host.kill();
    host.loseData();
    await host.start();
    await page.sees("The chat was ended, as the connection to the agent was lost.");
    await page.sees("The chat has ended.");
    await page.is("none");
    await page.close();
  });
});

test("the network goes away and comes back", async () => {
  const { page, key, ada } = await withAda();
  await page.tab.context().setOffline(true);
  await page.sees(lost);
  await ada({ say: "said meanwhile" });
  await page.tab.context().setOffline(false);
  await page.sees("The agent reconnected.");
  await page.sees("said meanwhile");
  await page.says("back");
  await eventually(async () => (await manual.userTexts(key)).length, "the message at the desk");
  assert.deepEqual(await page.told(/said meanwhile/g), ["said meanwhile"]);
  await page.close();
});

test("two tabs of one session each show what the agent says, once", async () => {
  const { page, key, ada } = await withAda();
  const [second] = await Promise.all([
    page.tab.context().waitForEvent("page"),
    page.tab.evaluate(() => void window.open(location.href)),
  ]);
  const other = Object.assign(new Widget(), { tab: second });
  await other.ready();
  await other.is("connected");
  await ada({ say: "to both" });
  await other.says("from the second");
  await page.says("from the first");
  await eventually(async () => (await manual.userTexts(key)).length === 2, "the messages at the desk");
  await ada({ say: "the end" });
  for (const tab of [page, other]) {
    await tab.sees("the end");
    assert.deepEqual(await tab.told(/to both|the end/g), ["to both", "the end"]);
  }
  await page.disconnects();
  await other.is("none");
  await page.close();
});
