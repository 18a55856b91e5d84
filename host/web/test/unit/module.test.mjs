import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

test("the module stays small", () => {
  const size = gzipSync(readFileSync(new URL("../../dist/bridge.js", import.meta.url))).length;
  assert.ok(size <= 12 * 1024, `${size} bytes gzipped`);
});
