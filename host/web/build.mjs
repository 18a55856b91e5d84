// Builds dist/bridge.js and dist/bridge.d.ts. The same sources give the same bytes.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = fileURLToPath(new URL(".", import.meta.url));
process.chdir(here);

await build({
  entryPoints: ["src/bridge.ts"],
  outfile: "dist/bridge.js",
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  legalComments: "none",
  banner: { js: "// deskhost's module for pages. Built from host/web/src; types are in bridge.d.ts." },
});

// One declaration file: the types, then what is exported beside them.
const declarations = mkdtempSync("dist/.types-");
try {
  execFileSync(process.execPath, [
    "node_modules/typescript/bin/tsc",
    "--declaration",
    "--emitDeclarationOnly",
    "--outDir",
    declarations,
  ], { stdio: "inherit" });
  const part = (name) => readFileSync(join(declarations, `${name}.d.ts`), "utf8");
  const exported = part("bridge").replace(/^(import|export \*) .*\n/gm, "");
  writeFileSync("dist/bridge.d.ts", `${part("types")}${part("contract")}${exported}`);
} finally {
  rmSync(declarations, { recursive: true });
}
