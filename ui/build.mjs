// Builds the page into `dist/`, which is committed, so that a server is built without Node.
import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { build } from "esbuild";

const at = (path) => new URL(path, import.meta.url).pathname;

await build({
  entryPoints: { app: at("src/main.tsx") },
  outdir: at("dist"),
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022"],
  legalComments: "none",
  jsx: "automatic",
  jsxImportSource: "preact",
});
await writeFile(at("dist/icon.svg"), await readFile(at("src/icon.svg")));

// The page asks for its parts by the hash of their content. The server, which counts the same hash, lets browsers
// keep such an answer for ever.
let page = await readFile(at("src/index.html"), "utf8");
for (const name of ["app.js", "app.css", "icon.svg"]) {
  const version = createHash("sha256").update(await readFile(at(`dist/${name}`))).digest("hex").slice(0, 12);
  page = page.replace(`static/${name}`, `static/${name}?${version}`);
}
await writeFile(at("dist/index.html"), page);
