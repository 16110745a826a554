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
};

function read(answer: Answer): Session[] {
  return json<Session[]>(answer);
}

export function useSessions(): Watched<Session[]> {
  return useWatch("/v1/session/list", "", read);
}

/** A key that is held, or that its lock-delay keeps from being taken: then there is no session. */
export type Lock = {
  Key: string;
  Session: string;
  LockDelay: number;
  LockIndex: number;
  ModifyIndex: number;
  /** The sessions in line for it, the next first. */
  Waiting?: string[];
};

/** Null where the server cannot tell, as a Consul. */
function readLocks(answer: Answer): Lock[] | null {
  return answer.status === 404 ? null : json<Lock[]>(answer);
}

export function useLocks(): Watched<Lock[] | null> {
  return useWatch("/v1/locks", "", readLocks);
}

/** A place in the line for a fair lock: the one who holds it, or one who waits. */
export type Place = { Name: string; Index: number; Value: string | null; TTL: number; Holds: boolean };

function readPlaces(answer: Answer): Place[] | null {
  return answer.status === 404 ? null : json<Place[]>(answer);
}

export function usePlaces(): Watched<Place[] | null> {
  return useWatch("/v1/fair-locks", "", readPlaces);
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
