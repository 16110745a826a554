// Edits that are not saved yet. They outlive the view that they were made in, so that looking elsewhere loses nothing.
import { current } from "../settings";
import { fromHex, fromText, toText } from "../bytes";
import type { Entry } from "../kv";
import { asDraft, type Form, formFor } from "../parts/value";

export type Draft = {
  text: string;
  form: Form;
  flags: string;
  /** What the edit began from; null: there was no entry. */
  base: Entry | null;
};

/** The name under which a key that has no name yet is kept. No key has this one: it would begin with NUL. */
export const NEW = "\0new";

const kept = new Map<string, Draft>();
const idOf = (name: string) => `${current().server} ${name}`;

export const drafts = {
  get: (name: string) => kept.get(idOf(name)),
  set: (name: string, draft: Draft) => void kept.set(idOf(name), draft),
  delete: (name: string) => void kept.delete(idOf(name)),
  has: (name: string) => kept.has(idOf(name)),
};

addEventListener("beforeunload", (event) => {
  if (kept.size > 0) event.preventDefault();
});

export function begun(base: Entry | null): Draft {
  const value = base?.value ?? new Uint8Array();
  const form = formFor(value);
  return { text: asDraft(value, form), form, flags: base?.flags ?? "0", base };
}

/** The bytes that a draft stands for; line ends as they were.
 * @throws {Error} in words, for what is not hexadecimal */
export function bytesOf({ text, form, base }: Draft): Uint8Array {
  if (form === "hex") return fromHex(text);
  const had = base && toText(base.value);
  return fromText(had?.includes("\r\n") ? text.replace(/\n/g, "\r\n") : text);
}

export function isChanged(draft: Draft): boolean {
  const from = begun(draft.base);
  if (draft.flags !== from.flags) return true;
  if (draft.form === from.form) return draft.text !== from.text;
  try {
    const bytes = bytesOf(draft);
    const base = draft.base?.value ?? new Uint8Array();
    return bytes.length !== base.length || bytes.some((byte, at) => byte !== base[at]);
  } catch {
    return true;
  }
}

/** Flags are an unsigned number of 64 bits. */
export function flagsError(flags: string): string | null {
  const isFine = /^\d{1,20}$/.test(flags) && BigInt(flags) < 1n << 64n;
  return isFine ? null : "Flags are a whole number from 0 to 18446744073709551615.";
}
