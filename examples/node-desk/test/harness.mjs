// Runs programs of this repository for the tests: the mock desk, the host, the
// plugin's own file. "make test-web" builds all of them first.
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const bin = fileURLToPath(new URL("../../../bin/", import.meta.url));
export const host = join(bin, "deskhost");
export const plugins = join(bin, "plugins.d");

/** Starts a program for as long as the test runs, and resolves with its first line that matches. */
export async function start(t, program, args, pattern) {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
  const exited = once(child, "exit");
  let errors = "";
  child.stderr.on("data", (text) => { errors += text; });
  t.after(async () => {
    child.kill("SIGTERM");
    await exited;
  });
  for await (const line of createInterface({ input: child.stdout })) {
    if (pattern.test(line)) return line;
  }
  throw new Error(`${program} ended before it was ready:\n${errors}`);
}

/** Runs a program to its end, and resolves with what it printed, whatever its exit code. */
export function run(program, args) {
  return new Promise((resolve) => {
    execFile(program, args, { maxBuffer: 1 << 24 }, (_, stdout, stderr) => resolve({ stdout, stderr }));
  });
}

/** A folder for the files of the tests. */
const folder = mkdtempSync(join(tmpdir(), "node-desk-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));

/** Writes JSON into a file in a folder of its own, and returns its path. */
export function file(name, content) {
  const path = join(mkdtempSync(join(folder, "f")), name);
  writeFileSync(path, JSON.stringify(content));
  return path;
}

/** Makes a call with JSON both ways, and throws unless it is answered well. */
export async function call(url, { method = "POST", token, body } = {}) {
  const response = await fetch(url, {
    method,
    headers: {
      ...(body && { "Content-Type": "application/json" }),
      ...(token && { Authorization: `Bearer ${token}` }),
    },
    body: body && JSON.stringify(body),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${url} was answered ${response.status}: ${text}`);
  return text && JSON.parse(text);
}

/** Runs a mock desk of which nobody but the test is the agent. */
export async function startDesk(t) {
  const script = file("script.json", { console: true });
  const line = await start(t, join(plugins, "deskhost-plugin-mock"), ["desk", "--listen", "127.0.0.1:0", "--script", script], /http:/);
  const [url] = line.match(/http:[^\s,]+/);
  return { url, play: (step) => call(`${url}/script`, { body: step }) };
}
