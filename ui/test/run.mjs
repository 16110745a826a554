// Runs the tests and ends with a line like that of `cargo test`, which the sums of `make test` are made of.
import { readdirSync } from "node:fs";
import { run } from "node:test";
import { spec } from "node:test/reporters";

const here = new URL("./", import.meta.url).pathname;
const files = readdirSync(here).filter((name) => name.endsWith(".test.mjs")).map((name) => here + name);
let [passed, failed] = [0, 0];
const isTest = ({ details, file, name }) => details?.type !== "suite" && name !== file;
const tests = run({ files, concurrency: 1 });
tests.on("test:pass", (one) => (passed += isTest(one) ? 1 : 0));
tests.on("test:fail", (one) => (failed += isTest(one) ? 1 : 0));
tests.on("end", () => {
  const isOk = failed === 0 && passed > 0;
  setImmediate(() => console.log(`test result: ${isOk ? "ok" : "FAILED"}. ${passed} passed; ${failed} failed; 0 ignored;`));
  process.exitCode = isOk ? 0 : 1;
});
tests.compose(new spec()).pipe(process.stdout);
