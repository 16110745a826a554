// Values are bytes. This file turns them into what people read and write, and back, without losing any.

const DECODER = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const ENCODER = new TextEncoder();

export function fromBase64(text: string): Uint8Array {
  const binary = atob(text);
  return Uint8Array.from(binary, (c) => c.charCodeAt(0));
}

export function toBase64(bytes: Uint8Array): string {
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}

export function fromText(text: string): Uint8Array {
  return ENCODER.encode(text);
}

/** The text, or null if it could not be edited as text: not UTF-8, control characters, bare carriage returns. */
export function toText(bytes: Uint8Array): string | null {
  let text: string;
  try {
    text = DECODER.decode(bytes);
  } catch {
    return null;
  }
  // A text field turns CR LF into LF; that is undone when saving, which needs all line ends to be alike.
  const returns = text.split("\r").length - 1;
  const isAlike = returns === 0 || (text.split("\r\n").length - 1 === returns && text.split("\n").length - 1 === returns);
  return isAlike && !/[\0-\x08\x0b\x0c\x0e-\x1f\x7f]/.test(text) ? text : null;
}

export function toHex(bytes: Uint8Array): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += 16) {
    lines.push(Array.from(bytes.subarray(at, at + 16), (byte) => byte.toString(16).padStart(2, "0")).join(" "));
  }
  return lines.join("\n");
}

/** The bytes that pairs of hexadecimal digits stand for.
 * @throws {Error} in words */
export function fromHex(text: string): Uint8Array {
  const digits = text.replace(/\s+/g, "");
  const odd = /[^0-9a-fA-F]/.exec(digits);
  if (odd) throw new Error(`“${odd[0]}” is no hexadecimal digit.`);
  if (digits.length % 2) throw new Error("The last byte has one digit only.");
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

export type Kind = "empty" | "json" | "text" | "binary";

export function kindOf(bytes: Uint8Array): Kind {
  if (bytes.length === 0) return "empty";
  const text = toText(bytes);
  if (text === null) return "binary";
  // A bare word or number is JSON too, but nobody thinks of it so.
  return /^\s*[[{]/.test(text) && jsonError(text) === null ? "json" : "text";
}

/** What is wrong with a JSON text, in words; null if nothing. */
export function jsonError(text: string): string | null {
  try {
    JSON.parse(text);
    return null;
  } catch (error) {
    return (error as Error).message.replace(/^JSON\.parse: /, "");
  }
}

/** A row of text that stands for a value in a list. */
export function preview(bytes: Uint8Array, kind: Kind): string {
  const LENGTH = 160;
  if (kind === "binary") return toHex(bytes.subarray(0, 24)).replace(/\n/g, " ") + (bytes.length > 24 ? " …" : "");
  const text = toText(bytes.subarray(0, LENGTH * 4)) ?? toText(bytes) ?? "";
  return text.replace(/\s+/g, " ").slice(0, LENGTH);
}

export function sizeInWords(count: number): string {
  if (count < 1024) return count === 1 ? "1 byte" : `${count} bytes`;
  if (count < 1024 * 1024) return `${(count / 1024).toFixed(1)} KiB`;
  return `${(count / 1024 / 1024).toFixed(1)} MiB`;
}
