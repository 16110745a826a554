// How long sessions, lock-delays and fair locks still last, as the leader tells. A renewal changes no index that could be
// waited for: so it is asked again and again, for what is in view alone.
import { useEffect, useRef, useState } from "preact/hooks";
import { call, Failure, json, shown, sleep } from "./api";

/** What is asked about. */
export type Names = { sessions: string[]; keys: string[]; fairLocks: string[] };

/** When things end, by `performance.now()`. What is not there does not end by the clock, or was not asked about. A lock-delay
 * that was is over, if the leader knows of none. */
export type Times = Record<keyof Names, Map<string, number>>;

type Told = { Sessions: Record<string, number>; LockDelays: Record<string, number>; FairLocks: Record<string, number> };

/** Between two answers while nothing is seen to change. */
const EVERY_MS = 3000;
/** Changes that follow each other closely are asked about together. */
const PAUSE_MS = 200;
/** The same where the server cannot tell: it may be another by then. */
const AGAIN_MS = 60_000;
/** Of one question. The server takes 256 names; some proxies no long paths. */
const NAMES_MAX = 128;
const QUERY_MAX = 4000;

/** Undefined while it is not known; null where the server cannot tell, as a Consul. Asks at once when the names or one of
 * `changes` are others. */
export function useTimes(names: Names, changes: unknown[]): Times | null | undefined {
  const [times, setTimes] = useState<Times | null>();
  const wanted = useRef(names);
  wanted.current = names;
  const hurry = useRef(new AbortController());
  useEffect(() => {
    const ended = new AbortController();
    const { signal } = ended;
    void (async () => {
      while (!signal.aborted) {
        await shown(signal);
        const changed = (hurry.current = new AbortController());
        const asked = wanted.current;
        if (questions(asked).length > 0) {
          const told = await ask(asked, signal).catch(() => undefined);
          if (signal.aborted) return;
          setTimes(told);
          await sleep(told === null ? AGAIN_MS : PAUSE_MS, signal);
        }
        await sleep(EVERY_MS, AbortSignal.any([signal, changed.signal]));
      }
    })();
    return () => ended.abort();
  }, []);
  useEffect(() => hurry.current.abort(), [questions(names).join(), ...changes]);
  return times;
}

/** Null where the server, or the leader that it asked, does not know the question.
 * @throws {Failure} */
async function ask(names: Names, signal: AbortSignal): Promise<Times | null> {
  const times: Times = { sessions: new Map(), keys: new Map(), fairLocks: new Map() };
  for (const key of names.keys) times.keys.set(key, 0);
  try {
    const answers = await Promise.all(questions(names).map((query) => call(`/v1/locks/times?${query}`, { signal })));
    if (answers.some(({ status }) => status === 404)) return null;
    const now = performance.now();
    const note = (kind: keyof Names, told: Record<string, number>) =>
      Object.entries(told).forEach(([name, ms]) => times[kind].set(name, now + ms));
    for (const answer of answers) {
      const { Sessions, LockDelays, FairLocks } = json<Told>(answer);
      note("sessions", Sessions);
      note("keys", LockDelays);
      note("fairLocks", FairLocks);
    }
    return times;
  } catch (error) {
    if (error instanceof Failure && error.status === 501) return null;
    throw error;
  }
}

function questions({ sessions, keys, fairLocks }: Names): string[] {
  const pairs = (parameter: string, names: string[]) => names.map((name) => `${parameter}=${encodeURIComponent(name)}`);
  const found: string[][] = [];
  let length = 0;
  for (const pair of [...pairs("session", sessions), ...pairs("key", keys), ...pairs("fair-lock", fairLocks)]) {
    const last = found.at(-1);
    length += pair.length + 1;
    if (last && last.length < NAMES_MAX && length <= QUERY_MAX) {
      last.push(pair);
    } else {
      found.push([pair]);
      length = pair.length;
    }
  }
  return found.map((pairs) => pairs.join("&"));
}
