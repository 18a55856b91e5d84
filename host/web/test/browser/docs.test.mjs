// The page without a widget in docs/widget.md, as it stands there.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { browser, Host, Page } from "./harness.mjs";

let chromium;
let host;

before(async () => {
  chromium = await browser();
  host = new Host({ support: {} });
  await host.start();
});

after(async () => {
  await chromium?.close();
  await host?.kill();
  host?.remove();
});

test("the example for a page with no widget", async () => {
  const docs = readFileSync(new URL("../../../../docs/widget.md", import.meta.url), "utf8");
  const [example] = docs.match(/<pre id="log">.*?<\/script>/s);
  const page = await Page.open(chromium, host);
  await page.tab.route("**/example", (route) =>
    route.fulfill({ contentType: "text/html", body: example.replace("https://desk.example.com", host.url) }),
  );
  await page.tab.goto(`${host.url}/example`);
  await page.tab.fill("#line", "Hello");
  await page.tab.press("#line", "Enter");
  const log = page.tab.locator("#log");
  await log.getByText("agent: You said: Hello").waitFor();
  const told = await log.innerText();
  assert.deepEqual(told.trim().split("\n").sort(), ["Ada is here.", "agent: You said: Hello", "user: Hello"]);
  await page.tab.reload();
  await log.getByText("agent: You said: Hello").waitFor();
  assert.equal(await log.innerText(), told);
  await page.close();
});
