// The parts of the page that need no browser.
import assert from "node:assert/strict";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

async function load(name, type = "ts") {
  const entryPoints = [fileURLToPath(new URL(`../src/${name}.${type}`, import.meta.url))];
  const { outputFiles } = await build({ entryPoints, write: false, bundle: true, format: "esm" });
  return import(`data:text/javascript;base64,${Buffer.from(outputFiles[0].contents).toString("base64")}`);
}

const { fromHex, kindOf, sizeInWords, toHex, toText } = await load("bytes");
const { formatted } = await load("json");
const { diff } = await load("diff");
const { lasts } = await load("parts/left", "tsx");
const bytes = (...all) => Uint8Array.from(all);
const utf8 = (text) => new TextEncoder().encode(text);

test("bytes are text only if a text field gives them back unchanged", () => {
  for (const text of ["", "a\tb\nc", "Grüße ✓", "\ufeffmark", "a\r\nb\r\n"]) assert.equal(toText(utf8(text)), text);
  for (const text of ["a\0b", "a\rb", "a\r\nb\nc", "\x1b[0m"]) assert.equal(toText(utf8(text)), null);
  assert.equal(toText(bytes(0xff)), null);
});

test("hexadecimal digits come and go in pairs", () => {
  const all = Uint8Array.from({ length: 256 }, (_, at) => at);
  assert.deepEqual(fromHex(toHex(all)), all);
  assert.deepEqual(fromHex(" FF0a\n1 2 "), bytes(255, 10, 18));
  assert.throws(() => fromHex("0g"), /“g” is no hexadecimal digit/);
  assert.throws(() => fromHex("abc"), /last byte/);
});

test("a value's kind is what a person would call it", () => {
  const kinds = { "": "empty", "12": "text", "true": "text", '{"a":1}': "json", " [1]": "json", "{a}": "text" };
  for (const [text, kind] of Object.entries(kinds)) assert.equal(kindOf(utf8(text)), kind, text);
  assert.equal(kindOf(bytes(1, 2)), "binary");
  assert.deepEqual([sizeInWords(1), sizeInWords(1023), sizeInWords(1536)], ["1 byte", "1023 bytes", "1.5 KiB"]);
});

test("JSON is laid out with every literal as it was", () => {
  const text = '{"a":[1.0,-2e+10,12345678901234567890,"x\\"{[,:é"],"b":{},"c":[],"d":{"e":null}}';
  const laidOut = formatted(text);
  assert.equal(laidOut.replace(/\n */g, "").replace(/": /g, '":'), text);
  assert.ok(laidOut.includes('  "b": {},\n  "c": [],\n  "d": {\n    "e": null\n  }\n}'));
});

test("two texts differ in the lines that are not in both", () => {
  const [left, right] = diff("a\nb\nc\nd", "a\nx\nc\nd\ne");
  const marked = (side) => side.filter(({ differs }) => differs).map(({ text }) => text);
  assert.deepEqual([marked(left), marked(right)], [["b"], ["x", "e"]]);
  assert.equal(left.map(({ text }) => text).join("\n"), "a\nb\nc\nd");
});

test("time that is left is told in seconds while they count, and never rounded to none", () => {
  const told = { "-5": "0 s", 0: "0 s", 1: "1 s", 119000: "119 s", 119001: "2 min", 3599999: "60 min", 7200000: "2 h", 172800000: "48 h" };
  for (const [ms, words] of Object.entries(told)) assert.equal(lasts(Number(ms)), words, ms);
});
