// The demo page in Chromium against the built host, the mock plugin and a mock
// desk that runs by itself. Desk "support" has its script answer; at "manual"
// the tests, or the console in the page, play the agent.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { browser, Desk, Host, Page } from "./harness.mjs";

let chromium;
let scripted;
let manual;
let host;

before(async () => {
  // Nobody is there for long enough after "/transfer" that a busy machine shows it.
  const transfer = [{ say: "One moment." }, { transfer: "" }, { wait_ms: 5000 }, { join: "" }];
  const rules = [{ when: "/transfer", do: transfer }];
  [chromium, scripted, manual] = await Promise.all([browser(), Desk.start({ rules }), Desk.start({ console: true })]);
  host = new Host({ support: { url: scripted.url }, manual: { url: manual.url } });
  await host.start();
});

after(async () => {
  await chromium?.close();
  await host?.kill();
  await scripted?.program.kill();
  await manual?.program.kill();
  host?.remove();
});

/** A page in a chat with Ada, at the desk where nobody answers by himself. */
async function withAda() {
  const page = await Page.open(chromium, host, "?desk=manual");
  await page.startChat({ name: "Kim" });
  await page.state("waiting");
  const { key } = await manual.latest();
  await manual.act(key, "ada", { join: "ada" });
  await page.state("connected");
  return { page, key, ada: (...steps) => manual.act(key, "ada", ...steps) };
}

describe("the demo page", () => {
  test("a chat from its start to its end", async () => {
    const page = await Page.open(chromium, host);
    await page.tab.locator('[data-testid=availability][data-online="true"]').waitFor();
    await page.startChat({ name: "Kim", topic: "A broken lamp" });
    await page.state("connected");
    assert.equal(await page.at("agent-name").innerText(), "Ada");

    await page.write("Hello");
    await page.wrote("Hello", "delivered");
    await page.heard("You said: Hello");

    await page.write("/typing");
    await page.shows("typing");
    await page.shows("typing", false);

    await page.write("/quick");
    await page.tab.getByRole("button", { name: "Today" }).click();
    await page.heard("You said: I would like to come today.");

    await page.write("/transfer");
    await page.shows("banner-transfer");
    await page.shows("banner-transfer", false);
    assert.equal(await page.at("agent-name").innerText(), "Grace");

    await page.write("/leave");
    await page.noted("agent_left");
    await page.write("/join");
    await page.state("connected");

    await page.write("/end");
    await page.state("ended");
    assert.equal(await page.at("ended-reason").innerText(), "The agent has ended the chat.");

    await page.at("new-chat").click();
    await page.startChat();
    await page.state("connected");
    assert.deepEqual(await page.said(), []);
    await page.write("again");
    await page.heard("You said: again");
    await page.close();
  });

  test("every kind of message is shown, and none of them as HTML or as a script", async () => {
    const { page, ada } = await withAda();
    await ada(
      { say: "<img src=x onerror=alert(1)> **bold** [no](javascript:alert(1)) [yes](https://example.com/)" },
      { message: [{ type: "text", text: "A list:\n\n- one\n- two" }, { type: "link", url: "https://example.com/terms", label: "Terms" }] },
      { message: [{ type: "file", url: "https://example.com/terms.txt", name: "terms.txt", size: 146 }, { type: "inline_error", text: "No such order." }] },
      { message: [{ type: "user_defined", data: { number: 4711 } }] },
      { say: "that was all" },
    );
    await page.heard("that was all");
    const first = page.at("message").first().locator(".bubble");
    assert.equal(await first.innerText(), "<img src=x onerror=alert(1)> bold [no](javascript:alert(1)) yes");
    const log = page.at("log");
    assert.equal(await log.locator("img").count(), 0);
    assert.deepEqual(
      await log.locator("a").evaluateAll((links) => links.map((link) => [link.href, link.rel])),
      ["", "terms", "terms.txt"].map((name) => [`https://example.com/${name}`, "noopener noreferrer"]),
    );
    assert.deepEqual(await log.locator("li").allInnerTexts(), ["one", "two"]);
    assert.match(await log.locator("details pre").textContent(), /"number": 4711/);
    await page.close();
  });

  test("reload while waiting and while connected: the chat goes on, and all of it is shown", async () => {
    const page = await Page.open(chromium, host, "?desk=manual");
    await page.startChat({ topic: "A broken lamp" });
    await page.state("waiting");
    await page.tab.reload();
    await page.state("waiting");
    const { key } = await manual.latest();
    await manual.act(key, "ada", { join: "ada" }, { say: "How can I help?" });
    await page.heard("How can I help?");
    await page.write("My lamp is broken.");
    await page.wrote("My lamp is broken.", "delivered");
    const said = await page.said();
    await page.tab.reload();
    await page.wrote("My lamp is broken.", "delivered");
    assert.deepEqual(await page.said(), said);
    assert.deepEqual(said, ["agent: How can I help?", "user: My lamp is broken."]);
    await page.close();
  });

  test("a person at the console in the page plays the agent", async () => {
    const page = await Page.open(chromium, host, "?desk=manual");
    await page.startChat({ name: "Robin", topic: "A broken lamp" });
    await page.state("waiting");
    const agent = page.tab.frameLocator("[data-testid=console]");
    await agent.getByRole("button", { name: "Robin" }).click();
    await agent.getByRole("button", { name: "Join", exact: true }).click();
    await page.state("connected");
    assert.equal(await page.at("agent-name").innerText(), "Ada");

    const line = agent.getByLabel("Message to the customer");
    await line.pressSequentially("How can I help?");
    await page.shows("typing");
    await line.press("Enter");
    await page.heard("How can I help?");
    await page.shows("typing", false);

    await page.at("input").pressSequentially("My lamp");
    await agent.getByText("Robin is typing").waitFor({ state: "attached" });
    await page.at("input").press("Enter");
    await page.wrote("My lamp", "read");
    await agent.getByRole("log").getByText("My lamp").waitFor();
    await agent.getByText("Seen by the customer").waitFor();

    await agent.getByLabel("Transfer to").selectOption("Grace");
    await page.shows("banner-transfer");
    await agent.getByLabel("You are").selectOption("Grace");
    await agent.getByRole("button", { name: /^(Join|Take over)$/ }).click();
    await page.shows("banner-transfer", false);
    assert.equal(await page.at("agent-name").innerText(), "Grace");

    await agent.getByRole("button", { name: "End", exact: true }).click();
    await page.state("ended");
    assert.equal(await page.at("ended-reason").innerText(), "Grace ended the chat.");
    await page.close();
  });

  test("cancelled while waiting, ended while connected", async () => {
    const page = await Page.open(chromium, host, "?desk=manual");
    await page.startChat();
    await page.state("waiting");
    await page.at("cancel").click();
    await page.state("ended");
    await page.at("new-chat").click();
    await page.startChat();
    await page.state("waiting");
    const { key } = await manual.latest();
    await manual.act(key, "ada", { join: "ada" });
    await page.state("connected");
    await page.at("end-button").click();
    await page.at("end-confirm").click();
    await page.state("ended");
    assert.equal(await page.at("ended-reason").innerText(), "You ended the chat.");
    await page.close();
  });

  test("the host is killed under an open page: nothing is lost or shown twice", async () => {
    const { page, key, ada } = await withAda();
    await page.write("before");
    await page.wrote("before", "delivered");
    await host.kill();
    await page.shows("banner-offline");
    await page.write("meanwhile, from the page");
    await page.wrote("meanwhile, from the page", "sending");
    await ada({ say: "meanwhile, from the desk" });
    await host.start();
    await page.shows("banner-offline", false);
    await page.wrote("meanwhile, from the page", "delivered");
    await page.heard("meanwhile, from the desk");
    await page.write("after");
    await page.wrote("after", "delivered");
    await ada({ say: "the end" });
    await page.heard("the end");

    const said = await page.said();
    assert.deepEqual([...said].sort(), [
      "agent: meanwhile, from the desk",
      "agent: the end",
      "user: after",
      "user: before",
      "user: meanwhile, from the page",
    ]);
    const users = ["before", "meanwhile, from the page", "after"];
    assert.deepEqual(said.filter((line) => line.startsWith("user")), users.map((text) => `user: ${text}`));
    assert.deepEqual(await manual.userTexts(key), users);
    await page.close();
  });

  test("the plugin is killed during a chat: the page is told, nothing is lost or shown twice", async () => {
    const { page, key, ada } = await withAda();
    await page.write("before");
    await page.wrote("before", "delivered");
    await host.killPlugin("manual");
    await page.shows("banner-desk-away");
    await page.write("meanwhile, from the page");
    await ada({ say: "meanwhile, from the desk" });
    await page.shows("banner-desk-away", false);
    await page.wrote("meanwhile, from the page", "delivered");
    await page.heard("meanwhile, from the desk");
    await ada({ say: "the end" });
    await page.heard("the end");

    assert.deepEqual((await page.said()).sort(), [
      "agent: meanwhile, from the desk",
      "agent: the end",
      "user: before",
      "user: meanwhile, from the page",
    ]);
    assert.deepEqual(await manual.userTexts(key), ["before", "meanwhile, from the page"]);
    await page.close();
  });

  test("the network goes away and comes back", async () => {
    const { page, ada } = await withAda();
    await page.tab.context().setOffline(true);
    await page.shows("banner-offline");
    await page.write("written offline");
    await ada({ say: "said meanwhile" });
    await page.tab.context().setOffline(false);
    await page.shows("banner-offline", false);
    await page.wrote("written offline", "delivered");
    await page.heard("said meanwhile");
    assert.equal((await page.said()).length, 2);
    await page.close();
  });

  test("where no WebSocket can be opened the chat runs over streams", async () => {
    const page = await Page.open(chromium, host, "", { withoutSockets: true });
    await page.startChat();
    await page.state("connected");
    await page.write("streamed");
    await page.heard("You said: streamed");
    await host.kill();
    await page.shows("banner-offline");
    await host.start();
    await page.shows("banner-offline", false);
    await page.write("again");
    await page.heard("You said: again");
    assert.equal((await page.said()).length, 4);
    await page.close();
  });

  test("a host that has lost its data: the page says so, and can begin anew", async () => {
    const page = await Page.open(chromium, host);
    await page.startChat();
    await page.state("connected");
    await host.kill();
    host.loseData();
    await host.start();
    await page.state("ended");
    assert.equal(await page.at("ended-reason").innerText(), "This chat is no longer available.");
    await page.at("new-chat").click();
    await page.startChat();
    await page.state("connected");
    await page.close();
  });

  test("two tabs of one session each show the chat", async () => {
    const { page, ada } = await withAda();
    const [second] = await Promise.all([
      page.tab.context().waitForEvent("page"),
      page.tab.evaluate(() => void window.open(location.href)),
    ]);
    const other = Object.assign(new Page(), { tab: second });
    await other.state("connected");
    await other.write("from the second tab");
    await ada({ say: "to both" });
    for (const tab of [page, other]) {
      await tab.heard("to both");
      await tab.wrote("from the second tab", "delivered");
      assert.equal((await tab.said()).length, 2);
    }
    await page.close();
  });
});
