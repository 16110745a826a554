// What is committed as the page is what its sources give.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { DIST, files } from "../build.mjs";

/** A page of more would be slow to come over a thin line. */
const SCRIPT_MAX_BYTES = 100 * 1024;

test("the page in dist/ was built from the sources", async () => {
  const built = await files();
  for (const [name, content] of built) {
    const isSame = content.equals(await readFile(new URL(name, DIST)));
    assert.ok(isSame, `${name} is older than its sources: run "make ui" and commit ui/dist`);
  }
  assert.ok(built.get("app.js").length <= SCRIPT_MAX_BYTES);
});
