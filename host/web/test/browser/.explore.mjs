import { browser, Desk, Host, eventually } from "./harness.mjs";
import { Widget } from "./widget.mjs";
const [chromium, manual] = await Promise.all([browser(), Desk.start("--console")]);
const host = new Host({ manual: { url: manual.url }, a: {}, b: {}, c: {}, d: {} });
await host.start();
for (let i = 0; i < 8; i++) {
  const page = await Widget.open(chromium, host);
  const log = [];
  page.tab.on("request", (r) => log.push(`${Date.now() % 100000} ${r.method()} ${new URL(r.url()).pathname}`));
  page.tab.on("requestfailed", (r) => log.push(`${Date.now() % 100000} FAILED ${r.method()} ${new URL(r.url()).pathname}`));
  page.tab.on("response", (r) => log.push(`${Date.now() % 100000} ${r.status()} ${r.request().method()} ${new URL(r.url()).pathname}`));
  page.tab.on("console", (l) => log.push(`${Date.now() % 100000} ${l.text().slice(0, 200)}`));
  try {
    await page.waits();
    const { key } = await eventually(async () => { const l = await manual.latest(); return l?.state === "waiting" && l; });
    await manual.act(key, "ada", { join: "ada" });
    await page.is("connected");
    log.length = 0;
    await host.kill();
    await page.sees("your connection to the live agent was lost");
    await page.disconnects();
    log.push("disconnected");
    await host.start();
    log.push("started");
    await eventually(async () => (await manual.call("GET", "/console/api/state")).conversations.find((c) => c.key === key).state === "ended");
    log.push("over");
    await page.asksAgain();
    console.log(i, "ok");
  } catch (e) {
    console.log(i, String(e).slice(0, 500), log.slice(-60).join("\n"));
    await page.tab.screenshot({ path: `/tmp/shots/flake${i}.png` });
  }
  await page.tab.context().close();
}
await chromium.close(); await host.kill(); await manual.program.kill(); host.remove();
