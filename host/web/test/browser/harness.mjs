// Starts what the browser tests need: the built host, the mock desk as a
// process of its own, and Chromium. It ends what it started, and nothing else.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { accessSync, constants, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

/** Bounds each wait. A test that comes near it has failed. */
const patience = 60_000;

/** Where `make build` leaves the binaries; another build's folder is named by DESKHOST_BIN. */
const bin = process.env.DESKHOST_BIN ?? fileURLToPath(new URL("../../../../bin/", import.meta.url));
const plugins = join(bin, "plugins.d");

/** A process of a test. */
class Program {
  constructor(file, args) {
    this.process = spawn(file, args, { stdio: ["ignore", "pipe", "pipe"] });
    this.errors = "";
    this.process.stderr.on("data", (text) => (this.errors = (this.errors + text).slice(-20_000)));
    this.exited = new Promise((done) => this.process.once("exit", done));
    this.lines = createInterface({ input: this.process.stdout });
    this.file = file;
  }

  /** The first line of its output that matches. */
  async line(pattern) {
    const found = new Promise((done) => this.lines.on("line", (line) => pattern.test(line) && done(line)));
    const failed = this.exited.then((code) => {
      throw new Error(`${this.file} ended with ${code} before it said ${pattern}:\n${this.errors}`);
    });
    return within(Promise.race([found, failed]), `${this.file} to say ${pattern}`);
  }

  /** Ends it as kill -9 does. */
  async kill() {
    this.process.kill("SIGKILL");
    await this.exited;
  }
}

/** Asks again until the answer is as wanted. */
export async function eventually(ask, what) {
  for (const end = Date.now() + patience; ; ) {
    const answer = await ask();
    if (answer) return answer;
    assert.ok(Date.now() < end, `waited too long for ${what}`);
    await new Promise((done) => setTimeout(done, 50));
  }
}

async function within(promise, what) {
  let timer;
  const late = new Promise((_, fail) => (timer = setTimeout(() => fail(new Error(`waited too long for ${what}`)), patience)));
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

const urls = (line) => line.match(/http:\/\/[^\s,/]+/g);

/** A mock desk: it outlives hosts and plugins, as a vendor's desk does. */
export class Desk {
  static async start(script = {}) {
    const desk = new Desk();
    const folder = mkdtempSync(join(tmpdir(), "deskhost-desk-"));
    const file = join(folder, "script.json");
    writeFileSync(file, JSON.stringify(script));
    desk.program = new Program(join(plugins, "deskhost-plugin-mock"), ["desk", "--listen", "127.0.0.1:0", "--script", file]);
    [desk.url] = urls(await desk.program.line(/http:/));
    rmSync(folder, { recursive: true }); // it was read before
    return desk;
  }

  async call(method, path, body) {
    const response = await fetch(this.url + path, {
      method,
      ...(body && { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
      signal: AbortSignal.timeout(patience),
    });
    assert.ok(response.ok, `${method} ${path}: the desk answered ${response.status}`);
    return response.status === 204 ? undefined : JSON.parse((await response.text()) || "null");
  }

  /** The conversation that was started last. */
  async latest() {
    const { conversations } = await this.call("GET", "/console/api/state");
    return conversations.sort((a, b) => b.started.localeCompare(a.started))[0];
  }

  /** Has an agent do something in a conversation. */
  act(key, agent, ...steps) {
    return this.call("POST", `/console/api/conversations/${encodeURIComponent(key)}`, { agent, do: steps });
  }

  /** What the desk has of the user's messages, in its order. */
  async userTexts(key) {
    const { events } = await this.call("GET", `/v1/conversations/${encodeURIComponent(key)}/events?after=0`);
    return events.filter((event) => event.type === "user_message").map((event) => event.text);
  }
}

/** The simulator of a vendor's desk, as a process of its own. */
export class Simulator {
  static async start(name) {
    const simulator = new Simulator();
    simulator.program = new Program(join(bin, "simulators", name), ["--listen", "127.0.0.1:0"]);
    const line = await simulator.program.line(/http:/);
    [simulator.url] = urls(line);
    return Object.assign(simulator, { line });
  }
}

/** A host with the demo page. It keeps its ports and its data when it is started again. */
export class Host {
  listen = "127.0.0.1:0";
  admin = "127.0.0.1:0";

  /** desks: {name: settings of the plugin}; the first one is the default. */
  constructor(desks, limits = {}, plugin = "mock") {
    this.folder = mkdtempSync(join(tmpdir(), "deskhost-page-"));
    this.desks = desks;
    this.limits = limits;
    this.plugin = plugin;
  }

  async start() {
    const file = join(this.folder, "deskhost.yaml");
    const names = Object.keys(this.desks);
    // JSON is YAML.
    writeFileSync(file, JSON.stringify({
      listen: this.listen,
      admin: { listen: this.admin },
      data_dir: join(this.folder, "data"),
      plugin_dir: plugins,
      demo: true,
      desks: names.map((name) => ({ name, plugin: this.plugin, config: this.desks[name] })),
      default_desk: names[0],
      limits: this.limits,
    }, null, 2));
    this.program = new Program(join(bin, "deskhost"), ["run", "--config", file]);
    const [url, admin] = urls(await this.program.line(/ready/));
    this.url = url;
    this.listen = new URL(url).host;
    this.admin = new URL(admin).host;
  }

  kill() {
    return this.program.kill();
  }

  /** Ends a desk's plugin as kill -9 does. */
  async killPlugin(desk) {
    const { desks } = await (await fetch(`http://${this.admin}/v1/desks`)).json();
    process.kill(desks.find(({ name }) => name === desk).pid, "SIGKILL");
  }

  loseData() {
    rmSync(join(this.folder, "data"), { recursive: true });
  }

  remove() {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** The way from a page to a host. A page is opened over it as over the host itself. */
export class Line {
  static async open(host) {
    const line = new Line();
    line.sockets = new Set();
    line.server = createServer((near) => {
      if (line.isCut) return void near.resetAndDestroy();
      const far = connect(Number(new URL(host.url).port), "127.0.0.1");
      for (const [from, to] of [[near, far], [far, near]]) {
        line.sockets.add(from);
        from.on("data", (bytes) => to.write(bytes));
        from.on("error", () => undefined); // "close" follows
        from.on("close", () => (line.sockets.delete(from), to.destroySoon()));
        if (line.isStuck) from.pause();
      }
    });
    line.server.unref(); // It keeps no test from its end.
    await new Promise((done) => line.server.listen(0, "127.0.0.1", done));
    line.listen = `127.0.0.1:${line.server.address().port}`;
    line.url = `http://${line.listen}`;
    return line;
  }

  /** Breaks what is open, and refuses what is new. */
  cut() {
    this.isCut = true;
    for (const socket of this.sockets) socket.resetAndDestroy();
  }

  /** Lets nothing through, and tells nobody. */
  stick() {
    this.isStuck = true;
    for (const socket of this.sockets) socket.pause();
  }

  mend() {
    this.isCut = this.isStuck = false;
    for (const socket of this.sockets) socket.resume();
  }

  close() {
    this.server.close();
    for (const socket of this.sockets) socket.destroy();
  }
}

function chromiumPath() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    for (const name of ["chromium", "chromium-browser", "google-chrome"]) {
      try {
        accessSync(join(folder, name), constants.X_OK);
        return join(folder, name);
      } catch {
        // Not here.
      }
    }
  }
  throw new Error("the browser tests need Chromium: install it, or name it in CHROMIUM");
}

export function browser() {
  return chromium.launch({
    executablePath: chromiumPath(),
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}

/** The demo page, or another page of the host, in a browser context of its own. */
export class Page {
  static async open(chromium, host, path = "", { withoutSockets = false, ...options } = {}) {
    const context = await chromium.newContext({ viewport: { width: 1280, height: 800 }, ...options });
    if (withoutSockets) await context.addInitScript(() => delete globalThis.WebSocket);
    const page = new this();
    page.foreign = [];
    page.errors = [];
    const note = (made) => new URL(made.url()).host === host.listen || page.foreign.push(made.url());
    context.on("request", note);
    context.on("page", (tab) => tab.on("websocket", note));
    page.tab = await context.newPage();
    page.tab.setDefaultTimeout(patience);
    page.tab.on("pageerror", (error) => page.errors.push(String(error)));
    page.tab.on("console", (line) => {
      if (/Content Security Policy/.test(line.text())) page.errors.push(line.text());
    });
    await page.tab.goto(`${host.url}/${path}`);
    return page;
  }

  at(testid) {
    return this.tab.getByTestId(testid);
  }

  /** Waits until something is shown, or with false until it is not. */
  shows(testid, shown = true) {
    return this.at(testid).waitFor({ state: shown ? "visible" : "hidden" });
  }

  state(name) {
    return this.tab.locator(`[data-testid=chat][data-state="${name}"]`).waitFor();
  }

  async startChat({ name, topic } = {}) {
    await this.shows("start-card");
    if (name) await this.at("start-name").fill(name);
    if (topic) await this.at("start-topic").fill(topic);
    await this.at("start-button").click();
  }

  async write(text) {
    await this.at("input").fill(text);
    await this.at("input").press("Enter");
  }

  /** Waits for a message by its text; of the user's with its status. */
  heard(text) {
    return this.tab.locator('[data-testid=message][data-from="agent"]', { hasText: text }).first().waitFor();
  }

  /** What an agent has read was delivered before. */
  wrote(text, status) {
    const statuses = status === "delivered" ? ["delivered", "read"] : [status];
    const rows = statuses.map((each) => `[data-testid=message][data-from="user"][data-status="${each}"]`).join();
    return this.tab.locator(rows, { hasText: text }).waitFor();
  }

  noted(type) {
    return this.tab.locator(`[data-testid=note][data-type="${type}"]`).last().waitFor();
  }

  /** All that was said, in the page's order: "user: text", "agent: text". */
  said() {
    return this.at("message").evaluateAll((rows) =>
      rows.map((row) => `${row.dataset.from}: ${row.querySelector(".bubble").innerText.trim()}`),
    );
  }

  async close() {
    await this.tab.context().close();
    assert.deepEqual(this.errors, [], "errors in the page");
    assert.deepEqual(this.foreign, [], "requests to somewhere else than the host");
  }
}
