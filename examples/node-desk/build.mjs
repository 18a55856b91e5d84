// Bundles src into one file that deskhost can start: a script that needs
// nothing beside it but Node. Usage: node build.mjs FILE
import { chmodSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import protobuf from "protobufjs";

const [file] = process.argv.slice(2);
if (!file) {
  console.error("usage: node build.mjs FILE");
  process.exit(1);
}

// A .proto file becomes the JSON form of what it defines, so that the bundle
// needs neither the file nor a parser at its start. Names stay as they are there.
const proto = {
  name: "proto",
  setup(esbuild) {
    esbuild.onLoad({ filter: /\.proto$/ }, ({ path }) => ({
      contents: JSON.stringify(new protobuf.Root().loadSync(path, { keepCase: true })),
      loader: "json",
      watchFiles: [path],
    }));
  },
};

await build({
  entryPoints: [fileURLToPath(new URL("src/main.js", import.meta.url))],
  outfile: file,
  bundle: true,
  platform: "node",
  target: "node20",
  // The host runs a copy without a file ending, which Node reads as CommonJS.
  format: "cjs",
  banner: { js: "#!/usr/bin/env node" },
  plugins: [proto],
  // The schema is handed to the host as it stands.
  loader: { ".schema.json": "text" },
  legalComments: "eof",
});
chmodSync(file, 0o755);
