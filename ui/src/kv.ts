// Keys: their entries, and what can be done with them.
import { type Answer, call, Failure, json } from "./api";
import { fromBase64, toBase64 } from "./bytes";

export type Entry = {
  key: string;
  value: Uint8Array;
  /** An unsigned number of 64 bits, as text: JavaScript's numbers are shorter. */
  flags: string;
  session: string | null;
  lockIndex: number;
  createIndex: number;
  modifyIndex: number;
};

type Row = {
  Key: string;
  Value: string | null;
  Flags: string;
  Session?: string;
  LockIndex: number;
  CreateIndex: number;
  ModifyIndex: number;
};

/** Quotes within JSON texts are escaped, so this can only be the field. */
const FLAGS = /"Flags":\s*(\d+)/g;

function entry(row: Row): Entry {
  return {
    key: row.Key,
    value: row.Value === null ? new Uint8Array() : fromBase64(row.Value),
    flags: row.Flags,
    session: row.Session || null,
    lockIndex: row.LockIndex,
    createIndex: row.CreateIndex,
    modifyIndex: row.ModifyIndex,
  };
}

export function path(key: string): string {
  return `/v1/kv/${encodeURIComponent(key)}`;
}

/** Whether a path can carry this key: not alone dots, which browsers resolve, nor characters that do not print, which
 * the server refuses. All others are reached by transactions. */
export function isInPath(key: string): boolean {
  return key !== "" && key !== "." && key !== ".." && !/[\p{C}\p{Zl}\p{Zp}]/u.test(key);
}

export function readOne(answer: Answer): Entry | null {
  if (answer.status === 404) return null;
  const rows = json<Row[]>({ ...answer, text: answer.text.replace(FLAGS, '"Flags":"$1"') });
  return rows[0] ? entry(rows[0]) : null;
}

export function readNames(answer: Answer): string[] {
  return answer.status === 404 ? [] : json<string[]>(answer);
}

type Operation = { Verb: string; Key: string; Value?: string; Flags?: string; Index?: number; Session?: string };

/** The entries after the operations; null where there is none. A refused transaction answers null as a whole. */
async function transact(operations: Operation[], signal?: AbortSignal): Promise<(Entry | null)[] | null> {
  const body = JSON.stringify(operations.map((KV) => ({ KV }))).replace(/"Flags":"(\d+)"/g, '"Flags":$1');
  try {
    const answer = await call("/v1/txn", { method: "PUT", body, signal });
    const text = answer.text.replace(FLAGS, '"Flags":"$1"');
    const results = json<{ Results: { KV: Row }[] | null }>({ ...answer, text }).Results ?? [];
    return results.map(({ KV }) => (KV.ModifyIndex ? entry(KV) : null));
  } catch (error) {
    if (error instanceof Failure && error.status === 409) return null;
    throw error;
  }
}

/** Most operations of one transaction. */
const BATCH = 64;

/** Entries by their keys; null where there is none. Many in one request where the server allows it. */
export async function readMany(keys: string[], signal: AbortSignal): Promise<(Entry | null)[]> {
  const found: (Entry | null)[] = [];
  for (let at = 0; at < keys.length; at += BATCH) {
    const batch = keys.slice(at, at + BATCH);
    const entries = await transact(batch.map((Key) => ({ Verb: "get-or-empty", Key })), signal).catch(() => null);
    found.push(...(entries ?? (await oneByOne(batch, signal))));
  }
  return found;
}

/** For servers that refuse the whole batch, because one of its keys may not be read or transactions are blocked. */
async function oneByOne(keys: string[], signal: AbortSignal): Promise<(Entry | null)[]> {
  const found: (Entry | null)[] = [];
  for (const key of keys.filter(isInPath)) {
    found.push(await call(path(key), { signal }).then(readOne).catch(() => null));
  }
  return found;
}

export async function readEntry(key: string, signal?: AbortSignal): Promise<Entry | null> {
  if (isInPath(key)) return readOne(await call(path(key), { signal }));
  return (await transact([{ Verb: "get-or-empty", Key: key }], signal))?.[0] ?? null;
}

/** Writes if the entry is still the one with this ModifyIndex; 0: if there is none. False if it is not so. */
export async function write(key: string, value: Uint8Array, flags: string, cas: number): Promise<boolean> {
  if (!isInPath(key)) {
    const Value = toBase64(value);
    return (await transact([{ Verb: "cas", Key: key, Value, Flags: flags, Index: cas }])) !== null;
  }
  const query = { cas, flags: flags === "0" ? undefined : flags };
  const body = new Uint8Array(value);
  return said(await call(path(key), { method: "PUT", query, body }));
}

/** Deletes if the entry is still the one with this ModifyIndex. */
export async function remove(key: string, cas: number): Promise<boolean> {
  if (!isInPath(key)) return (await transact([{ Verb: "delete-cas", Key: key, Index: cas }])) !== null;
  return said(await call(path(key), { method: "DELETE", query: { cas } }));
}

/** Deletes everything that begins with a prefix. */
export async function removeTree(prefix: string): Promise<void> {
  if (isInPath(prefix)) await call(path(prefix), { method: "DELETE", query: { recurse: "" } });
  else await transact([{ Verb: "delete-tree", Key: prefix }]);
}

export async function namesBelow(prefix: string): Promise<string[]> {
  return readNames(await call(path(prefix), { query: { keys: "" } }));
}

/** Gives a lock back in the name of its holder, if the entry is still as it was seen: a release writes the value too. */
export async function release({ key, value, flags, session, modifyIndex }: Entry): Promise<boolean> {
  const unlock = { Verb: "unlock", Key: key, Value: toBase64(value), Flags: flags, Session: session! };
  return (await transact([{ Verb: "check-index", Key: key, Index: modifyIndex }, unlock])) !== null;
}

function said(answer: Answer): boolean {
  return answer.text.trim() === "true";
}

/** The folder that a key stands in: everything up to its last slash that does not end it. */
export function folderOf(key: string): string {
  return key.slice(0, key.lastIndexOf("/", key.length - 2) + 1);
}
