// Builds the page into `dist/`, which is committed, so that a server is built without Node.
import { createHash } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

export const DIST = new URL("dist/", import.meta.url);

/** The files of the page: names and bytes. */
export async function files() {
  const at = (path) => fileURLToPath(new URL(path, import.meta.url));
  const { outputFiles } = await build({
    entryPoints: { app: at("src/main.tsx") },
    outdir: at("dist"),
    write: false,
    bundle: true,
    minify: true,
    format: "esm",
    target: ["es2022"],
    legalComments: "none",
    jsx: "automatic",
    jsxImportSource: "preact",
  });
  const found = new Map(outputFiles.map(({ path, contents }) => [path.split("/").pop(), Buffer.from(contents)]));
  found.set("icon.svg", await readFile(at("src/icon.svg")));
  // The page asks for its parts by the hash of their content. The server, which counts the same hash, lets browsers
  // keep such an answer for ever.
  let page = await readFile(at("src/index.html"), "utf8");
  for (const [name, content] of found) {
    const version = createHash("sha256").update(content).digest("hex").slice(0, 12);
    page = page.replace(`static/${name}`, `static/${name}?${version}`);
  }
  return found.set("index.html", Buffer.from(page));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await mkdir(DIST, { recursive: true });
  for (const [name, content] of await files()) await writeFile(new URL(name, DIST), content);
}
