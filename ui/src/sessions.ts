// Sessions, as every view that names a lock's holder needs them.
import { type Answer, call, json, useWatch, type Watched } from "./api";

export type Session = {
  ID: string;
  Name: string;
  Node: string;
  /** Nanoseconds. */
  LockDelay: number;
  Behavior: "release" | "delete";
  /** Empty: it does not end by itself. */
  TTL: string;
  NodeChecks: string[] | null;
  ServiceChecks: { ID: string }[] | null;
  CreateIndex: number;
  ModifyIndex: number;
  /** The keys that it holds; only where the server can tell. */
  Locks?: { Key: string; LockIndex: number; ModifyIndex: number }[];
};

function read(answer: Answer): Session[] {
  return json<Session[]>(answer);
}

export function useSessions(): Watched<Session[]> {
  return useWatch("/v1/session/list", "", read);
}

/** The same with the keys that each session holds; changes with every lock. */
export function useLocks(): Watched<Session[]> {
  return useWatch("/v1/session/list", "locks=", read);
}

export function nameOf(id: string, sessions: Session[] = []): string {
  return sessions.find((session) => session.ID === id)?.Name || id.slice(0, 8);
}

export async function end(id: string): Promise<void> {
  await call(`/v1/session/destroy/${encodeURIComponent(id)}`, { method: "PUT" });
}

/** Nanoseconds as people say them. */
export function seconds(nanoseconds: number): string {
  return nanoseconds === 0 ? "none" : `${nanoseconds / 1e9} s`;
}
