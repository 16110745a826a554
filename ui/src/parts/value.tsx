// A value as people read it: text, JSON with its parts told apart, or bytes.
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { fromHex, jsonError, kindOf, toHex, toText } from "../bytes";
import { laidOut, tokens } from "../json";

export type Form = "text" | "json" | "hex";

export const FORM_NAMES: Record<Form, string> = { text: "Text", json: "JSON", hex: "Hex" };

export function formFor(value: Uint8Array): Form {
  const kind = kindOf(value);
  return kind === "binary" ? "hex" : kind === "json" ? "json" : "text";
}

/** What of a value is shown before one asks for all of it. */
const SHOWN_BYTES = 64 * 1024;

export function Value({ value, form }: { value: Uint8Array; form: Form }): JSX.Element {
  const [all, setAll] = useState(false);
  if (value.length === 0) return <p class="muted">The value is empty.</p>;
  const isCut = !all && value.length > SHOWN_BYTES;
  const shown = isCut ? value.subarray(0, SHOWN_BYTES) : value;
  return (
    <>
      {form === "hex" ? <Dump bytes={shown} /> : <Text bytes={shown} asJson={form === "json" && !isCut} />}
      {isCut && <p><button type="button" onClick={() => setAll(true)}>Show all of it</button></p>}
    </>
  );
}

function Text({ bytes, asJson }: { bytes: Uint8Array; asJson: boolean }): JSX.Element {
  const text = toText(bytes) ?? new TextDecoder().decode(bytes);
  if (!asJson || jsonError(text) !== null) return <pre class="value" tabIndex={0}>{text}</pre>;
  return (
    <pre class="value" tabIndex={0}>
      {laidOut(tokens(text)).map(({ kind, text }) => (kind === "mark" ? text : <span class={`json-${kind}`}>{text}</span>))}
    </pre>
  );
}

/** Offset, bytes, and the letters among them. */
function Dump({ bytes }: { bytes: Uint8Array }): JSX.Element {
  const lines = toHex(bytes).split("\n").map((hex, at) => {
    const letters = Array.from(bytes.subarray(at * 16, at * 16 + 16), (byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : "·"));
    return { offset: (at * 16).toString(16).padStart(8, "0"), hex: hex.padEnd(47), letters: letters.join("") };
  });
  return (
    <pre class="value" tabIndex={0}>
      {lines.map(({ offset, hex, letters }) => <><span class="muted">{offset}</span>{`  ${hex}  `}<span class="muted">{letters}</span>{"\n"}</>)}
    </pre>
  );
}

/** A value as it stands in a text field. */
export function asDraft(value: Uint8Array, form: Form): string {
  return form === "hex" ? toHex(value) : (toText(value) ?? "").replace(/\r\n/g, "\n");
}

/** What is wrong with a draft, in words; null if it can be saved. */
export function draftError(text: string, form: Form): string | null {
  if (form === "text") return null;
  if (form === "json") {
    const error = jsonError(text);
    return error && `Not valid JSON: ${error}`;
  }
  try {
    fromHex(text);
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}

export function Forms({ form, onForm, allowed }: { form: Form; onForm: (form: Form) => void; allowed: Form[] }): JSX.Element {
  return (
    <div class="segments" role="group" aria-label="Form of the value">
      {(Object.keys(FORM_NAMES) as Form[]).map((one) => (
        <button type="button" aria-pressed={form === one} disabled={!allowed.includes(one)} onClick={() => onForm(one)}>
          {FORM_NAMES[one]}
        </button>
      ))}
    </div>
  );
}
