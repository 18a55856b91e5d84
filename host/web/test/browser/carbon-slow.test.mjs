// What takes IBM's widget long by its nature, in one browser side by side. Each
// test has a page, a desk and a line to the host of its own.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { setTimeout as passes } from "node:timers/promises";
import { browser, Desk, eventually, Host, Line } from "./harness.mjs";
import { lost, Widget } from "./widget.mjs";

const cutFor = 30_000;

/** What the desks do to the calls of their plugins. */
const scripts = {
  cut: {},
  stuck: {},
  gone: {},
  slow: { send: { delay_ms: 8000 } },
  overloaded: { send: { fail: "retry", retry_after_ms: 25_000, first: 1 } },
  unclear: { send: { fail: "unknown" } },
};

let chromium;
let desks;
/** Waits for desks and pages as long as any host does. */
let host;
/** Waits 10 s only. */
let hasty;

before(async () => {
  [chromium, desks] = await Promise.all([
    browser(),
    Promise.all(
      Object.entries(scripts).map(async ([name, calls]) => [name, await Desk.start({ calls })]),
    ).then(Object.fromEntries),
  ]);
  const settings = Object.fromEntries(Object.entries(desks).map(([name, { url }]) => [name, { url }]));
  host = new Host(settings);
  hasty = new Host(settings, { message_wait: "10s", abandon_connected: "10s" });
  await Promise.all([host.start(), hasty.start()]);
});

after(async () => {
  await chromium?.close();
  await Promise.all([host, hasty].map((each) => each?.kill()));
  await Promise.all(Object.values(desks ?? {}).map(({ program }) => program.kill()));
  for (const each of [host, hasty]) each?.remove();
});

/** A page in a chat with Ada, who answers each message until the test speaks for her. */
async function withAda(name, at = host) {
  const line = await Line.open(at);
  const page = await Widget.open(chromium, line, `?desk=${name}&inside`);
  await page.connects();
  const { key } = await desks[name].latest();
  return {
    page,
    line,
    ada: (...steps) => desks[name].act(key, "ada", ...steps),
    heard: (...texts) => eventually(
      async () => (await desks[name].userTexts(key)).length >= texts.length,
      `the desk to hear ${texts}`,
    ).then(async () => assert.deepEqual(await desks[name].userTexts(key), texts)),
    over: () => eventually(async () => (await desks[name].latest()).state === "ended", "the end at the desk"),
    close: () => page.close().finally(() => line.close()),
  };
}

describe("what takes long", { concurrency: true }, () => {
  test("the connection is cut for 30 s: told to the user, and nothing is lost or shown twice", async () => {
    const { page, line, ada, heard, close } = await withAda("cut");
    await page.says("before");
    await page.sees("You said: before");
    // On its way when the line breaks: whether the host has it nobody can know.
    const sent = page.tab.waitForRequest(/\/messages$/);
    await page.says("on its way");
    await sent;
    line.cut();
    await page.sees(lost);
    await ada({ say: "agent 1" }, { say: "agent 2" });
    await passes(cutFor);
    await ada({ say: "agent 3" });
    line.mend();
    await page.sees("The agent reconnected.");
    await page.says("after");
    await heard("before", "on its way", "after");
    await ada({ say: "the end" });
    await page.sees("the end");
    assert.deepEqual(await page.told(/agent \d|the end/g), ["agent 1", "agent 2", "agent 3", "the end"]);
    await close();
  });

  test("nothing comes through for 30 s and nobody is told: what the user writes goes once, in order", async () => {
    const { page, line, ada, heard, close } = await withAda("stuck");
    await page.says("before");
    await page.sees("You said: before");
    line.stick();
    for (const n of [1, 2, 3]) await page.says(`user ${n}`);
    await ada({ say: "agent 1" }, { say: "agent 2" });
    await Promise.all([passes(cutFor), page.failed("user 3"), page.sees(lost)]);
    line.mend();
    await page.sees("The agent reconnected.");
    await heard("before", "user 1", "user 2", "user 3");
    for (const n of [1, 2, 3]) await page.failed(`user ${n}`, false);
    await ada({ say: "the end" });
    await page.sees("the end");
    assert.deepEqual(await page.told(/agent \d|the end/g), ["agent 1", "agent 2", "the end"]);
    await close();
  });

  test("a desk too busy for a message: the widget gives up at 20 s, and takes that back", async () => {
    const { page, heard, close } = await withAda("overloaded");
    await page.says("Hello");
    await page.sending("Hello", "retrying");
    await page.failed("Hello");
    await page.says("Still there?");
    await page.sees("You said: Still there?");
    await page.sending("Hello", "done");
    await page.failed("Hello", false);
    await page.failed("Still there?", false);
    await heard("Hello", "Still there?");
    await close();
  });

  test("a message that takes long is tried, and then sent", async () => {
    const { page, heard, close } = await withAda("slow");
    await page.says("Hello");
    await page.sending("Hello", "retrying");
    await page.sending("Hello", "done");
    await page.sees("You said: Hello");
    await page.failed("Hello", false);
    await heard("Hello");
    await close();
  });

  test("a message of which nobody knows whether it arrived is marked, and the chat goes on", async () => {
    const { page, ada, close } = await withAda("unclear", hasty);
    await page.says("Hello");
    await page.failed("Hello");
    await ada({ say: "Are you there?" });
    await page.sees("Are you there?");
    await page.is("connected");
    await close();
  });

  test("a page that is gone for good is ended by the host", async () => {
    const { over, close } = await withAda("gone", hasty);
    await close();
    await over();
  });
});
