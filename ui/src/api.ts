// The one place that speaks HTTP: requests, errors in words, and reads that wait for changes.
import { useEffect, useState } from "preact/hooks";
import { current, token } from "./settings";

/** What went wrong, in words. `status` is 0 when there was no answer at all. */
export class Failure extends Error {
  constructor(words: string, readonly status: number) {
    super(words);
  }
}

export type Answer = {
  status: number;
  /** X-Consul-Index; 0 where there is none, or where another server's may not be read. */
  index: number;
  text: string;
};

type Options = {
  method?: string;
  query?: Record<string, string | number | undefined>;
  body?: Uint8Array<ArrayBuffer> | string;
  signal?: AbortSignal;
};

/** The newest index that any answer carried. */
let newest = 0;
const heard = new Set<(index: number) => void>();

export function useNewestIndex(): number {
  const [index, setIndex] = useState(newest);
  useEffect(() => {
    heard.add(setIndex);
    return () => void heard.delete(setIndex);
  }, []);
  return index;
}

export function forgetIndex(): void {
  newest = 0;
  heard.forEach((hear) => hear(0));
}

/** Sends a request. 404 is an answer: of a key, it says that there is none.
 * @throws {Failure} */
export async function call(path: string, options: Options = {}): Promise<Answer> {
  const headers: Record<string, string> = {};
  if (token()) headers["X-Consul-Token"] = token();
  let response: Response;
  let text: string;
  try {
    response = await fetch(current().server + path + queryText(options.query), {
      method: options.method ?? "GET",
      body: options.body,
      headers,
      signal: options.signal,
      cache: "no-store",
      credentials: "same-origin",
    });
    text = await response.text();
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Failure(silence(), 0);
  }
  if (!response.ok && response.status !== 404) throw new Failure(words(response.status, text), response.status);
  const index = Number(response.headers.get("X-Consul-Index") ?? 0);
  if (index > newest) {
    newest = index;
    heard.forEach((hear) => hear(index));
  }
  return { status: response.status, index, text };
}

/** The JSON of an answer.
 * @throws {Failure} */
export function json<T>(answer: Answer): T {
  if (answer.status === 404) throw new Failure(words(404, answer.text), 404);
  try {
    return JSON.parse(answer.text) as T;
  } catch {
    throw new Failure("The answer is not JSON. Is this the address of a Lictor server?", answer.status);
  }
}

function queryText(query: Options["query"] = {}): string {
  const pairs = Object.entries(query).filter(([, value]) => value !== undefined);
  return pairs.length ? "?" + pairs.map(([name, value]) => `${name}=${encodeURIComponent(value!)}`).join("&") : "";
}

function silence(): string {
  const { server } = current();
  if (!server) return "The server does not answer.";
  return `${server} does not answer. Either it is down, or it does not let this page in: start it with -cors='${location.origin}'.`;
}

function words(status: number, text: string): string {
  const said = text.trim().slice(0, 300);
  if (status === 401 || status === 403) {
    return `The server refuses: ${said || "permission denied"}. Set a token that may do this under “Connection”.`;
  }
  if (/no cluster leader/i.test(said)) return "The cluster has no leader at the moment. It goes on when one is elected.";
  if (status === 404) return said || "There is no such thing on this server.";
  if (status === 501) return "This server does not have that.";
  return said ? `The server says: ${said}` : `The server answered with status ${status}.`;
}

export function inWords(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** How long one read waits for a change. */
const WAIT = "55s";
/** Changes that follow each other closely are seen together. */
const PAUSE_MS = 150;
/** Between reads where the server gives no index to wait for. */
const POLL_MS = 2000;

/** Reads a path again whenever it changes, until the signal ends it. A hidden page does not: the browser shares few
 * connections among all pages of a server. */
export async function follow(
  path: string,
  query: Options["query"],
  signal: AbortSignal,
  onAnswer: (answer: Answer) => void,
  onFailure: (words: string) => void,
): Promise<void> {
  let index = 0;
  let failures = 0;
  while (!signal.aborted) {
    await shown(signal);
    const hidden = new AbortController();
    const hide = () => document.hidden && hidden.abort();
    document.addEventListener("visibilitychange", hide);
    try {
      const waiting = index ? { index, wait: WAIT } : {};
      const either = AbortSignal.any([signal, hidden.signal]);
      const answer = await call(path, { query: { ...query, ...waiting }, signal: either });
      failures = 0;
      const isNew = answer.index === 0 || answer.index !== index;
      // An index that went back means another history, after a restore: read from the start.
      index = answer.index < index ? 0 : answer.index;
      if (isNew && !signal.aborted) onAnswer(answer);
      await sleep(!isNew || index <= 1 ? POLL_MS : PAUSE_MS, signal);
    } catch (error) {
      if (signal.aborted) return;
      if (hidden.signal.aborted) continue;
      onFailure(inWords(error));
      index = 0;
      await sleep(Math.min(1000 * 2 ** failures++, 10_000), signal);
    } finally {
      document.removeEventListener("visibilitychange", hide);
    }
  }
}

/** Waits for so long, or until the signal ends it. */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((done) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      done();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
    if (signal.aborted) end();
  });
}

/** Waits until the page is shown. */
export function shown(signal: AbortSignal): Promise<void> {
  if (!document.hidden) return Promise.resolve();
  return new Promise((done) => {
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener("visibilitychange", look);
      done();
    };
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", look, { once: true });
  });
}

export type Watched<T> = {
  /** Undefined until the first answer. */
  data?: T;
  index: number;
  failure?: string;
};

/** What a path shows, kept up to date by blocking queries. `path` null watches nothing. `read` must be a constant. */
export function useWatch<T>(path: string | null, query: string, read: (answer: Answer) => T): Watched<T> {
  const [seen, setSeen] = useState<Watched<T> & { of: string | null }>({ index: 0, of: null });
  const of = path === null ? null : `${path}?${query}`;
  useEffect(() => {
    if (path === null) return;
    const ended = new AbortController();
    const onAnswer = (answer: Answer) => {
      try {
        setSeen({ data: read(answer), index: answer.index, of });
      } catch (error) {
        setSeen((old) => ({ ...(old.of === of ? old : { index: 0, of }), failure: inWords(error) }));
      }
    };
    const onFailure = (failure: string) => setSeen((old) => ({ ...(old.of === of ? old : { index: 0, of }), failure }));
    void follow(path, Object.fromEntries(new URLSearchParams(query)), ended.signal, onAnswer, onFailure);
    return () => ended.abort();
  }, [of]);
  return seen.of === of ? seen : { index: 0 };
}

/** Reads something every so often while the page is shown. */
export function usePoll(read: (signal: AbortSignal) => Promise<void>, everyMs: number, keys: unknown[]): string | undefined {
  const [failure, setFailure] = useState<string>();
  useEffect(() => {
    const ended = new AbortController();
    const { signal } = ended;
    void (async () => {
      while (!signal.aborted) {
        await shown(signal);
        try {
          await read(signal);
          if (!signal.aborted) setFailure(undefined);
        } catch (error) {
          if (!signal.aborted) setFailure(inWords(error));
        }
        await sleep(everyMs, signal);
      }
    })();
    return () => ended.abort();
  }, keys);
  return failure;
}
