// The page on which a person plays the agents of a vendor's simulator, beside the
// demo page: plugins/internal/console in Chromium, with Genesys Cloud's.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { browser, Host, Page, Simulator } from "./harness.mjs";

let chromium;
let simulator;
let host;

before(async () => {
  [chromium, simulator] = await Promise.all([browser(), Simulator.start("genesys")]);
  host = new Host({ support: { api_url: simulator.url, deployment_id: simulator.line.match(/deployment ([^,]+),/)[1] } }, {}, "genesys");
  await host.start();
});

after(async () => {
  await chromium?.close();
  await host?.kill();
  await simulator?.program.kill();
  host?.remove();
});

test("a person at the simulator's console serves a customer", async () => {
  const page = await Page.open(chromium, host, "?console=" + encodeURIComponent(simulator.url + "/console/"));
  const desk = page.tab.frameLocator("[data-testid=console]");
  const say = async (text) => {
    await desk.getByLabel("Message to the customer").fill(text);
    await desk.getByRole("button", { name: "Send" }).click();
    await page.heard(text);
  };

  await page.startChat({ name: "Kim <b>", topic: "A broken lamp" });
  await desk.getByRole("heading", { name: "Kim <b>" }).waitFor();
  await desk.locator(".msg.user", { hasText: "A broken lamp" }).waitFor();
  await desk.getByRole("button", { name: "Join", exact: true }).click();
  await say("Hello, I am Ada.");
  await page.state("connected");
  await page.write("It flickers.");
  await page.wrote("It flickers.", "delivered");
  await desk.locator(".msg.user", { hasText: "It flickers." }).waitFor();

  await desk.getByRole("button", { name: "Cut the line" }).click();
  await say("Still there?");
  await desk.getByLabel("Transfer to").selectOption("Grace");
  await desk.getByText("For Grace").first().waitFor();
  await desk.getByLabel("You are").selectOption("Grace");
  await desk.getByRole("button", { name: "Join", exact: true }).click();
  await say("I am Grace.");
  assert.equal(await page.at("agent-name").innerText(), "Grace");

  await desk.getByRole("button", { name: "End", exact: true }).click();
  await page.state("ended");
  await desk.getByText("Ended by the agent").waitFor();
  assert.deepEqual(page.errors, []);
});
