// JSON as it stands, laid out anew. Literals are copied, never converted: a parser would round long numbers.

export type Token = { kind: "key" | "string" | "number" | "word" | "mark"; text: string };

const TOKENS = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|[{}[\],:]/g;

/** The tokens of a text that is known to be JSON. */
export function tokens(text: string): Token[] {
  const found = text.match(TOKENS) ?? [];
  return found.map((text, at) => {
    const first = text[0]!;
    if (first === '"') return { kind: found[at + 1] === ":" ? "key" : "string", text };
    if (/[\d-]/.test(first)) return { kind: "number", text };
    return { kind: /[a-z]/.test(first) ? "word" : "mark", text };
  });
}

/** The same with blanks and line ends between them: two blanks a level. */
export function laidOut(found: Token[]): Token[] {
  const out: Token[] = [];
  let depth = 0;
  const blank = (text: string) => out.push({ kind: "mark", text });
  const line = () => blank("\n" + "  ".repeat(depth));
  found.forEach((token, at) => {
    const closes = token.text === "}" || token.text === "]";
    const before = found[at - 1]?.text;
    if (closes) {
      depth -= 1;
      if (before !== "{" && before !== "[") line();
    } else if (before === "{" || before === "[" || before === ",") {
      line();
    }
    out.push(token);
    if (token.kind !== "string" && token.kind !== "key") {
      if (token.text === "{" || token.text === "[") depth += 1;
      if (token.text === ":") blank(" ");
    }
  });
  return out;
}

export function formatted(text: string): string {
  return laidOut(tokens(text)).map((token) => token.text).join("");
}
