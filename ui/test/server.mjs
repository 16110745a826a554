// A server on ports of its own, and what tests do to it behind the page's back.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";

const BINARY = process.env.LICTOR_BIN;
const PATIENCE_MS = 120_000;

/** Ports that were free a moment ago. */
async function freePorts(count) {
  const listeners = Array.from({ length: count }, () => createServer().listen(0, "127.0.0.1"));
  await Promise.all(listeners.map((one) => once(one, "listening")));
  const ports = listeners.map((one) => one.address().port);
  await Promise.all(listeners.map((one) => (one.close(), once(one, "close"))));
  return ports;
}

export class Server {
  /** Starts one and waits until it leads. */
  static async start(name, flags = []) {
    const [http, server, serf] = await freePorts(3);
    const args = ["agent", "-dev", `-node=${name}`, `-http-port=${http}`, `-server-port=${server}`, `-serf-lan-port=${serf}`];
    const child = spawn(BINARY, [...args, "-log-level=err", ...flags], { stdio: ["ignore", "ignore", "inherit"] });
    const started = new Server();
    Object.assign(started, { child, base: `http://127.0.0.1:${http}` });
    const until = Date.now() + PATIENCE_MS;
    while (!(await started.leads())) {
      if (child.exitCode !== null || Date.now() > until) {
        child.kill("SIGKILL");
        throw new Error(`${BINARY} does not start`);
      }
      await new Promise((done) => setTimeout(done, 50));
    }
    return started;
  }

  async leads() {
    const answer = await fetch(`${this.base}/v1/catalog/nodes`).catch(() => null);
    return answer?.ok && (await answer.json()).length > 0;
  }

  async stop() {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    this.child.kill("SIGKILL");
    await once(this.child, "exit");
  }

  async call(method, path, body) {
    const answer = await fetch(this.base + path, { method, body });
    return answer.text();
  }

  async put(key, value, query = "") {
    return this.call("PUT", `/v1/kv/${encodeURIComponent(key)}${query}`, value);
  }

  /** The value; null if there is none. */
  async value(key) {
    const answer = await fetch(`${this.base}/v1/kv/${encodeURIComponent(key)}?raw`);
    return answer.status === 404 ? null : Buffer.from(await answer.arrayBuffer());
  }

  async session(fields) {
    return JSON.parse(await this.call("PUT", "/v1/session/create", JSON.stringify({ LockDelay: "0s", ...fields }))).ID;
  }
}
