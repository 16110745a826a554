// The page in a real browser, against real servers.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { after, before, beforeEach, test } from "node:test";
import { chromium } from "playwright-core";
import { Server } from "./server.mjs";
import { fill } from "./sample.mjs";
import { complaints } from "./access.mjs";

const SHOTS = process.env.LICTOR_SHOTS;
const ARGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];

/** Machines that build beside are slow. What a test waits for comes sooner. */
const PATIENCE_MS = 120_000;

let browser, server, page, errors, requests;

before(async () => {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ARGS, timeout: PATIENCE_MS });
  server = await Server.start("alpha");
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

beforeEach(async () => {
  for (const context of browser.contexts()) await context.close();
  page = await fresh();
});

/** A page in a browser that remembers nothing. */
async function fresh(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  [errors, requests] = [[], []];
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("console", (message) => /content security policy/i.test(message.text()) && errors.push(message.text()));
  page.on("request", (request) => requests.push(request.url()));
  return page;
}

const at = (view, query = {}) => `${server.base}/ui/${view}?${new URLSearchParams(query)}`;
const entry = () => page.locator("section.side");
const button = (name) => entry().getByRole("button", { name, exact: true });
const dialog = () => page.getByRole("dialog");
const valueField = () => page.getByLabel("Value", { exact: true });
/** Waits for what the page does not announce. */
async function until(isSo) {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await isSo())) {
    assert.ok(Date.now() < deadline, `never: ${isSo}`);
    await new Promise((done) => setTimeout(done, 100));
  }
}
const shown = (text, within = page) => within.getByText(text).first().waitFor();

test("a key is created, edited and deleted", async () => {
  await page.goto(at("keys", { in: "made/" }));
  await page.getByRole("link", { name: "New key" }).click();
  await page.getByLabel("Key", { exact: true }).fill("made/by/hand");
  await valueField().fill("first");
  await page.getByLabel("Flags").fill("18446744073709551615");
  await button("Save").click();
  await shown("first", entry());
  assert.equal(String(await server.value("made/by/hand")), "first");
  await shown("18446744073709551615", entry());

  await button("Edit").click();
  await valueField().fill("second ✓");
  await page.keyboard.press("Control+s");
  await shown("second ✓", entry());
  assert.equal(String(await server.value("made/by/hand")), "second ✓");
  assert.match(await server.call("GET", "/v1/kv/made/by/hand"), /"Flags": 18446744073709551615/);

  await button("Delete").click();
  await dialog().getByRole("button", { name: "Delete" }).click();
  await dialog().waitFor({ state: "detached" });
  await shown("This folder is empty.");
  assert.equal(await server.value("made/by/hand"), null);
});

for (const [choice, expected] of [["Keep mine", "mine"], ["Take theirs", "theirs"]]) {
  test(`a conflicting edit loses nothing: ${choice}`, async () => {
    await server.put("conflict", "before");
    await page.goto(at("keys", { key: "conflict" }));
    await button("Edit").click();
    await valueField().fill("mine");

    await server.put("conflict", "theirs");

    const conflict = page.getByRole("alert", { name: "Conflict" });
    await conflict.getByText("theirs", { exact: false }).first().waitFor();
    await conflict.getByText("mine", { exact: false }).first().waitFor();
    assert.equal(await button("Save").isDisabled(), true);
    assert.equal(await valueField().inputValue(), "mine");
    await conflict.getByRole("button", { name: choice }).click();
    await button("Edit").waitFor();
    await shown(expected, entry());
    assert.equal(String(await server.value("conflict")), expected);
  });
}

test("after a conflict one may go on editing, and an edit outlives a look elsewhere", async () => {
  await server.put("drafts/one", "before");
  await server.put("drafts/two", "other");
  await page.goto(at("keys", { key: "drafts/one" }));
  await button("Edit").click();
  await valueField().fill("mine");
  await page.getByRole("link", { name: "two" }).click();
  await shown("other", entry());
  await shown("edited");

  await server.call("DELETE", "/v1/kv/drafts/one");
  await page.goBack();
  const conflict = page.getByRole("alert", { name: "Conflict" });
  await shown("was deleted", conflict);
  await conflict.getByRole("button", { name: "Go on editing" }).click();
  assert.equal(await valueField().inputValue(), "mine");
  await button("Save").click();
  await button("Edit").waitFor();
  assert.equal(String(await server.value("drafts/one")), "mine");
});

test("a new key does not overwrite one of the same name", async () => {
  await server.put("taken", "theirs");
  await page.goto(at("keys", { new: "1" }));
  await page.getByLabel("Key", { exact: true }).fill("taken");
  await valueField().fill("mine");
  await button("Save").click();

  const conflict = page.getByRole("alert", { name: "Conflict" });
  await shown("There is a key of this name already.", conflict);
  assert.equal(String(await server.value("taken")), "theirs");
});

test("changes of others are shown at once, in the list and in the entry", async () => {
  await server.put("live/a", "one");
  await page.goto(at("keys", { key: "live/a" }));
  await shown("one", entry());

  await server.put("live/a", "two");
  await server.put("live/b", "new");

  await shown("two", entry());
  await page.getByRole("table").getByText("two").waitFor();
  await page.getByRole("table").getByText("new").waitFor();
});

test("a lock changes hands before one's eyes", async () => {
  const [one, two] = [await server.session({ Name: "first" }), await server.session({ Name: "second" })];
  await server.put("hands/lock", "1", `?acquire=${one}`);
  await page.goto(at("keys", { key: "hands/lock" }));
  await entry().getByRole("link", { name: "first" }).waitFor();

  await server.put("hands/lock", "1", `?release=${one}`);
  await server.put("hands/lock", "2", `?acquire=${two}`);
  await entry().getByRole("link", { name: "second" }).waitFor();
  await page.getByRole("table").getByText("second").waitFor();

  await entry().getByRole("button", { name: "End session" }).click();
  await dialog().getByRole("button", { name: "End session" }).click();
  await entry().getByRole("region", { name: "Lock" }).waitFor({ state: "detached" });
  assert.doesNotMatch(await server.call("GET", "/v1/kv/hands/lock"), /"Session"/);
});

test("the view of locks follows holders and releases them", async () => {
  const id = await server.session({ Name: "holder", TTL: "600s" });
  await page.goto(at("locks"));
  const locks = page.getByRole("table", { name: "Locks" });
  await server.put("followed/lock", "", `?acquire=${id}`);
  await locks.getByRole("link", { name: "followed/lock" }).waitFor();

  await page.getByRole("link", { name: "Sessions" }).click();
  await page.getByRole("table", { name: "Sessions" }).getByRole("link", { name: "holder" }).click();
  await entry().getByRole("link", { name: "followed/lock" }).waitFor();
  await shown("600s without a renewal", entry());
  await button("End session").click();
  await dialog().getByRole("button", { name: "End session" }).click();
  await shown("This session has ended.", entry());
});

test("those in line for a key's lock are counted", async () => {
  const [first, next] = [await server.session({ LockDelay: "0s" }), await server.session({ LockDelay: "0s" })];
  await server.put("line/lock", "", `?acquire=${first}`);
  const waits = server.put("line/lock", "", `?acquire=${next}&queue&wait=60s`);
  await page.goto(at("locks"));
  const row = page.getByRole("table", { name: "Locks" }).getByRole("row", { name: "line/lock" });
  await row.getByText("1 waiting").waitFor();

  await server.put("line/lock", "", `?release=${first}`);

  await row.getByText("1 waiting").waitFor({ state: "detached" });
  await waits;
});

test("a lock-delay is counted down to its end, whenever the page is opened", async () => {
  const id = await server.session({ Name: "short", LockDelay: "60s" });
  await server.put("delayed/lock", "", `?acquire=${id}`);
  await page.goto(at("locks"));
  const row = page.getByRole("table", { name: "Locks" }).getByRole("row", { name: "delayed/lock" });
  await row.getByText("short").waitFor();

  await server.call("PUT", `/v1/session/destroy/${id}`);

  await row.getByText(/^lock-delay, \d+ s$/).waitFor();
  await until(async () => JSON.parse(await server.call("GET", "/v1/locks/times?key=delayed/lock")).LockDelays["delayed/lock"] < 57_000);
  await page.reload();
  const text = await row.getByText(/^lock-delay, \d+ s$/).textContent();
  assert.ok(Number(text.match(/\d+/)[0]) <= 57, text);
});

test("the time that sessions have left is counted down, and goes up when they are renewed", async () => {
  const id = await server.session({ Name: "renewed", TTL: "50s" });
  await server.session({ Name: "endless" });
  await page.goto(at("locks", { kind: "sessions", session: id }));
  const sessions = page.getByRole("table", { name: "Sessions" });
  const left = sessions.getByRole("row", { name: "renewed" }).locator(".col-left");
  const seconds = async () => Number((await left.textContent()).match(/^(\d+) s$/)?.[1]);
  // It ends two TTLs after its last renewal.
  await until(async () => (await seconds()) <= 100);
  await entry().getByText(/^\d+ s, unless it is renewed$/).waitFor();
  assert.equal(await sessions.getByRole("row", { name: "endless" }).locator(".col-left").textContent(), "");

  await until(async () => (await seconds()) <= 90);
  await server.call("PUT", `/v1/session/renew/${id}`);

  await until(async () => (await seconds()) > 90);
});

test("the lease of a fair lock is counted down where it is held", async () => {
  await server.call("POST", "/mod/v2/lock/leased?ttl=90&value=me");
  await page.goto(at("locks", { kind: "fair", lock: "leased" }));
  const left = page.getByRole("table", { name: "Fair locks" }).getByRole("row", { name: "leased" }).locator(".col-left");

  await left.getByText(/^(90|[1-8]?\d) s$/).waitFor();

  await entry().getByText(/holds it, TTL 90 s, ends in \d+ s, index/).waitFor();
});

test("a server that does not tell the time left is shown without it", async () => {
  const id = await server.session({ LockDelay: "60s", TTL: "60s" });
  await server.put("untold/lock", "", `?acquire=${id}`);
  await server.call("PUT", `/v1/session/destroy/${id}`);
  await server.session({ Name: "untold", TTL: "60s" });
  await page.route("**/v1/locks/times?**", (route) => route.fulfill({ status: 404 }));

  await page.goto(at("locks"));
  await page.getByRole("row", { name: "untold/lock" }).getByText(/^lock-delay, \d+ s at most$/).waitFor();
  await page.getByRole("link", { name: "Sessions" }).click();
  await page.getByRole("table", { name: "Sessions" }).getByRole("link", { name: "untold" }).waitFor();
  await page.getByRole("columnheader", { name: "Ends in" }).waitFor({ state: "detached" });
  assert.equal(await page.locator(".col-left").count(), 0);
});

test("the time left is asked for again and again, but not by a hidden page", async () => {
  await server.session({ TTL: "600s" });
  await page.clock.install();
  await page.addInitScript("Object.defineProperty(document, 'hidden', { get: () => window.isHidden === true })");
  const hide = (isHidden) => page.evaluate(`window.isHidden = ${isHidden}; document.dispatchEvent(new Event("visibilitychange"))`);
  const times = (url) => String(url).includes("/v1/locks/times?");
  await page.goto(at("locks", { kind: "sessions" }));
  await page.locator(".col-left", { hasText: "min" }).first().waitFor();
  const again = page.waitForRequest((request) => times(request.url()));
  await page.clock.runFor(10_000);
  await again;

  await hide(true);
  const asked = requests.filter(times).length;
  await page.clock.runFor(120_000);
  assert.equal(requests.filter(times).length, asked);

  const shownAgain = page.waitForRequest((request) => times(request.url()));
  await hide(false);
  await shownAgain;
});

test("names and values are shown as text, whatever they look like", async () => {
  const name = '<img src=x onerror="window.broken=1">';
  await server.put(`html/${name}`, '<script>window.broken=1</script>');
  await server.session({ Name: name });
  await page.goto(at("keys", { key: `html/${name}` }));
  await shown("<script>window.broken=1</script>", entry());
  await page.getByRole("table").getByText(name).waitFor();
  await page.goto(at("locks", { kind: "sessions" }));
  await shown(name);

  assert.equal(await page.evaluate("window.broken"), undefined);
  assert.equal(await page.locator("img").count(), 0);
  assert.deepEqual(errors, []);
});

test("names that no path can carry are shown, edited and deleted", async () => {
  for (const [at, name] of ["odd/a//b", "odd/..", "..", "odd/line\nfeed", "odd/Grüße 100%?#&"].entries()) {
    const write = [{ KV: { Verb: "set", Key: name, Value: Buffer.from(`v${at}`).toString("base64") } }];
    await server.call("PUT", "/v1/txn", JSON.stringify(write));
    await page.goto(`${server.base}/ui/keys?key=${encodeURIComponent(name)}`);
    await shown(`v${at}`, entry());
    await button("Edit").click();
    await valueField().fill(`w${at}`);
    await button("Save").click();
    await shown(`w${at}`, entry());
    await button("Delete").click();
    await dialog().getByRole("button", { name: "Delete" }).click();
    await entry().waitFor({ state: "detached" });
  }
  assert.equal((await fetch(`${server.base}/v1/kv/odd/?keys`)).status, 404);
});

test("JSON is checked and laid out without touching its numbers, bytes stay bytes", async () => {
  await server.put("forms/json", '{"big":12345678901234567890,"list":[1.0,{}]}');
  await page.goto(at("keys", { key: "forms/json" }));
  await button("Edit").click();
  await button("Format").click();
  assert.equal(await valueField().inputValue(), '{\n  "big": 12345678901234567890,\n  "list": [\n    1.0,\n    {}\n  ]\n}');
  await valueField().fill('{"a":}');
  await shown("Not valid JSON");
  assert.equal(await button("Save").isDisabled(), true);
  await button("Discard").click();

  await server.put("forms/bytes", new Uint8Array([0xff, 0x00, 0x41]));
  await page.goto(at("keys", { key: "forms/bytes" }));
  await shown("ff 00 41", entry());
  await button("Edit").click();
  await valueField().fill("ff 00 4");
  await shown("The last byte has one digit only.");
  await valueField().fill("ff 00 42 0d");
  await button("Save").click();
  await shown("ff 00 42 0d", entry());
  assert.deepEqual([...(await server.value("forms/bytes"))], [0xff, 0x00, 0x42, 0x0d]);

  await server.put("forms/lines", "a\r\nb");
  await page.goto(at("keys", { key: "forms/lines" }));
  await button("Edit").click();
  await valueField().fill("a\nc");
  await button("Save").click();
  await button("Edit").waitFor();
  assert.equal(String(await server.value("forms/lines")), "a\r\nc");
});

test("a folder is deleted only when its name is typed", async () => {
  await server.put("tree/a", "");
  await server.put("tree/b/c", "");
  await page.goto(at("keys", { in: "tree/" }));
  await page.getByRole("button", { name: "Delete the folder" }).click();
  await shown("holds 2 keys", dialog());
  assert.equal(await dialog().getByRole("button", { name: "Delete all" }).isDisabled(), true);
  await dialog().getByLabel("to confirm").fill("tree/");
  await dialog().getByRole("button", { name: "Delete all" }).click();
  await dialog().waitFor({ state: "detached" });
  assert.equal(await server.value("tree/b/c"), null);
});

test("the keyboard is enough", async () => {
  await server.put("walk/a/x", "ax");
  await server.put("walk/b", "bee");
  await page.goto(at("keys", { in: "walk/" }));
  await page.getByRole("link", { name: "b", exact: true }).waitFor();
  await page.keyboard.press("/");
  assert.equal(await page.evaluate("document.activeElement.type"), "search");
  await page.keyboard.type("b");
  await page.keyboard.press("Enter");
  await shown("bee", entry());
  await page.keyboard.press("Escape");
  await page.keyboard.press("e");
  await page.waitForFunction("document.activeElement?.tagName === 'TEXTAREA'");
  await page.keyboard.press("Control+A");
  await page.keyboard.type("typed");
  await page.keyboard.press("Control+s");
  await button("Edit").waitFor();
  assert.equal(String(await server.value("walk/b")), "typed");
  await page.keyboard.press("Escape");
  await entry().waitFor({ state: "detached" });

  await page.goto(at("keys", { in: "walk/" }));
  await page.getByRole("link", { name: "a/", exact: true }).focus();
  await page.keyboard.press("ArrowDown");
  assert.equal(await page.evaluate("document.activeElement.textContent"), "b");
  await page.keyboard.press("k");
  await page.keyboard.press("ArrowRight");
  await page.getByRole("link", { name: "x", exact: true }).focus();
  await page.keyboard.press("Delete");
  await shown("Delete this key?", dialog());
  await page.keyboard.press("Escape");
  await dialog().waitFor({ state: "detached" });
  await page.keyboard.press("Backspace");
  await page.getByRole("link", { name: "b", exact: true }).waitFor();
  await page.keyboard.press("n");
  await page.getByLabel("Key", { exact: true }).waitFor();
  await page.keyboard.press("Escape");
  await entry().waitFor({ state: "detached" });
  await page.keyboard.press("4");
  await shown("One server, and it is healthy.");
  await page.keyboard.press("?");
  await shown("Keyboard", dialog());
});

test("a folder of many keys shows and reaches all of them", async () => {
  const COUNT = 3000;
  for (let from = 0; from < COUNT; from += 60) {
    const writes = Array.from({ length: 60 }, (_, at) => ({ KV: { Verb: "set", Key: `many/${String(from + at).padStart(5, "0")}`, Value: "eA==" } }));
    await server.call("PUT", "/v1/txn", JSON.stringify(writes));
  }
  await page.goto(at("keys", { in: "many/" }));
  await shown("3,000 items");
  assert.ok((await page.getByRole("row").count()) < 100);
  await page.getByRole("link", { name: "00000" }).focus();
  await page.keyboard.press("End");
  await page.getByRole("link", { name: "02999" }).waitFor();
  assert.equal(await page.evaluate("document.activeElement.textContent"), "02999");
  await page.getByRole("row", { name: "02999" }).getByText("x").waitFor();
});

test("the page of one server works against another that allows it", async () => {
  let other, closed;
  try {
    other = await Server.start("beta", [`-cors=${server.base}`]);
    closed = await Server.start("gamma");
    await other.put("over/there", "from beta");
    await page.goto(at("keys"));
    const connect = async (base) => {
      await page.getByRole("button", { name: "Connection" }).click();
      await dialog().getByLabel("Server", { exact: true }).fill(base);
      await dialog().getByRole("button", { name: "Connect" }).click();
    };
    await connect(closed.base);
    await shown("-cors=", dialog());
    await dialog().getByLabel("Server", { exact: true }).fill(other.base);
    await dialog().getByLabel("ACL token").fill("a-secret");
    await dialog().getByRole("button", { name: "Connect" }).click();
    await dialog().waitFor({ state: "detached" });
    await shown("beta");
    await page.goto(at("keys", { key: "over/there" }));
    await shown("from beta", entry());
    await other.put("over/there", "changed");
    await shown("changed", entry());
    await button("Edit").click();
    await valueField().fill("written across");
    await button("Save").click();
    await button("Edit").waitFor();
    assert.equal(String(await other.value("over/there")), "written across");
    assert.equal(await server.value("over/there"), null);

    await other.stop();
    await shown("does not answer");
  } finally {
    await other?.stop();
    await closed?.stop();
  }
});

test("etcd's addresses of the dashboard lead to the same views", async () => {
  await page.goto(`${server.base}/mod/dashboard`);
  await page.getByRole("region", { name: "Browser" }).waitFor();
  await page.goto(`${server.base}/mod/dashboard/stats`);
  await shown("Commit index");
  await shown("Memory of this server");
  await page.goto(`${server.base}/mod/dashboard/no/such/view`);
  await shown("View not found.");
});

const VIEWS = {
  keys: ["keys", { in: "app/config/" }],
  entry: ["keys", { key: "app/config/database" }],
  locked: ["keys", { key: "app/config/migration" }],
  bytes: ["keys", { key: "app/config/logo.png" }],
  new: ["keys", { in: "app/", new: "1" }],
  locks: ["locks", {}],
  fair: ["locks", { kind: "fair", lock: "deploys" }],
  sessions: ["locks", { kind: "sessions" }],
  services: ["services", { service: "postgres" }],
  cluster: ["cluster", {}],
  missing: ["nowhere", {}],
};

test("every view, in light, dark and narrow, can be read and used by all", async () => {
  await fill(server);
  if (SHOTS) mkdirSync(SHOTS, { recursive: true });
  const found = [];
  for (const [look, options] of Object.entries({
    light: { colorScheme: "light" },
    dark: { colorScheme: "dark" },
    narrow: { colorScheme: "light", viewport: { width: 390, height: 800 } },
  })) {
    page = await fresh(options);
    for (const [name, [view, query]] of Object.entries(VIEWS)) {
      await page.goto(at(view, query));
      await page.locator("main > *").first().waitFor();
      await page.waitForLoadState("load");
      await page.locator(":is(.rows .row:not(.head), .value, .figures, .empty, .editor, .line, .instance):visible").first().waitFor();
      if (SHOTS) await page.screenshot({ path: `${SHOTS}/${name}-${look}.png` });
      found.push(...(await complaints(page)).map((complaint) => `${name}, ${look}: ${complaint}`));
      const isTooWide = await page.evaluate("document.documentElement.scrollWidth > innerWidth");
      if (isTooWide) found.push(`${name}, ${look}: wider than the window`);
    }
    assert.deepEqual(errors, []);
    const elsewhere = requests.filter((url) => !url.startsWith(server.base));
    assert.deepEqual(elsewhere, []);
  }
  assert.deepEqual(found, []);
});
