import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import test from "node:test";
import { call, file, host, plugins, run, start, startDesk } from "./harness.mjs";

const plugin = join(plugins, "deskhost-plugin-node-desk");

test("it keeps the contract", { timeout: 180_000 }, async (t) => {
  const desk = await startDesk(t);
  const config = file("config.json", { url: desk.url });
  const { stdout, stderr } = await run(host, [
    "plugin", "verify", plugin, "--config", config, "--script", `${desk.url}/script`, "--json",
  ]);
  assert.ok(stdout, stderr);
  const results = JSON.parse(stdout);
  assert.deepEqual(results.filter(({ outcome }) => outcome === "fail"), []);
  // The command is given no bad configuration, and the plugin takes no webhooks. All
  // else has to be put to the test.
  const untested = results.filter(({ outcome }) => outcome === "not_tested").map(({ check }) => check);
  assert.deepEqual(untested.filter((check) => !["configure/bad", "optional/http"].includes(check)), []);
});

test("what agents say while its process is dead arrives once", { timeout: 120_000 }, async (t) => {
  const desk = await startDesk(t);
  const deskhost = await startHost(t, desk.url);
  const page = await deskhost.open();
  await page.post("/chat", { id: "c1" });
  const { chat_id } = await page.entry((entry) => entry.type === "chat_started");
  const agent = (text) => desk.play({ do: "agent_says", chat_id, text });

  await agent("Before.");
  await page.entry((entry) => entry.text === "Before.");
  const { pid } = await deskhost.ready();
  process.kill(pid, "SIGKILL");
  for (const text of ["While.", "It.", "Was.", "Dead."]) await agent(text);
  await page.post("/messages", { id: "m1", text: "Are you there?" });
  await agent("After.");
  await page.entry((entry) => entry.text === "After.");

  assert.notEqual((await deskhost.ready()).pid, pid);
  await page.entry((entry) => entry.status === "delivered");
  assert.deepEqual(page.agentTexts(), ["Before.", "While.", "It.", "Was.", "Dead.", "After."]);
  assert.deepEqual((await desk.play({ do: "heard", chat_id })).heard, ["Are you there?"]);
});

/** Runs a host with this plugin's desk as its only one. */
async function startHost(t, url) {
  const desks = [{ name: "support", plugin: "node-desk", config: { url } }];
  const config = file("deskhost.yaml", { // JSON is YAML
    listen: "127.0.0.1:0",
    admin: { listen: "127.0.0.1:0" },
    plugin_dir: plugins,
    desks,
  });
  const line = await start(t, host, ["run", "--config", config], /ready/);
  const [door, admin] = line.match(/http:[^\s,]+/g);
  return {
    /** Resolves with the desk's state once it is ready. */
    async ready() {
      for (;;) {
        const { desks: [desk] } = await call(`${admin}/v1/desks`, { method: "GET" });
        if (desk.state === "ready") return desk;
      }
    },
    /** Opens a session as a page does. */
    async open() {
      const { session_id, token } = await call(`${door}/v1/sessions`, { body: {} });
      const session = `${door}/v1/sessions/${session_id}`;
      const left = new AbortController();
      t.after(() => left.abort());
      const events = await fetch(`${session}/events`, {
        headers: { Authorization: `Bearer ${token}`, Accept: "text/event-stream" },
        signal: left.signal,
      });
      const entries = [];
      const coming = read(events.body);
      return {
        post: (path, body) => call(session + path, { token, body }),
        /** Resolves with the first entry that matches, which may have come before. */
        async entry(match) {
          for (;;) {
            const found = entries.find(match);
            if (found) return found;
            const { value, done } = await coming.next();
            if (done) throw new Error(`the events ended with ${JSON.stringify(entries)}`);
            entries.push(value);
          }
        },
        agentTexts: () => entries.filter((entry) => entry.from === "agent").map((entry) => entry.text),
      };
    },
  };
}

/** Yields the entries of a stream of server-sent events. */
async function* read(body) {
  let rest = "";
  for await (const text of body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines.filter((line) => line.startsWith("data:"))) {
      yield JSON.parse(line.slice("data:".length));
    }
  }
}
