// Builds the pages into dist/root, where the host's binary takes them from.
import { copyFileSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

process.chdir(fileURLToPath(new URL(".", import.meta.url)));

const out = "dist/root/carbon";
rmSync("dist/root", { recursive: true, force: true });
await build({
  entryPoints: { element: "src/element.ts", react: "src/react.tsx" },
  outdir: out,
  bundle: true,
  splitting: true,
  chunkNames: "chunk-[hash]",
  format: "esm",
  target: "es2022",
  minify: true,
  legalComments: "none",
  define: { "process.env.NODE_ENV": '"production"' },
  plugins: [
    {
      // The pages import what the host serves, as any page does.
      name: "bridge",
      setup: ({ onResolve }) => onResolve({ filter: /\/dist\/bridge\.js$/ }, () => ({ path: "../bridge.js", external: true })),
    },
  ],
});
// Last, as make takes index.html for the sign that all is there.
for (const page of ["page.css", "react.html", "index.html"]) copyFileSync(`src/${page}`, `${out}/${page}`);
