// Small things that every view uses.
import type { ComponentChildren, JSX } from "preact";
import { useId, useState } from "preact/hooks";
import { Icon } from "./icons";
import { tell } from "./dialog";

export type Tone = "plain" | "good" | "warn" | "bad" | "accent";

export function Chip({ tone = "plain", title, children }: { tone?: Tone; title?: string; children: ComponentChildren }): JSX.Element {
  return <span class={`chip ${tone}`} title={title}>{children}</span>;
}

/** A name and what it stands for. */
export function Fact({ name, children }: { name: string; children: ComponentChildren }): JSX.Element {
  return (
    <div class="fact">
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  );
}

export function Copy({ text, what }: { text: string; what: string }): JSX.Element {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      tell(`Copied ${what}.`);
    } catch {
      tell(`The browser does not let the page copy ${what}.`);
    }
  };
  return (
    <button type="button" class="quiet" aria-label={`Copy ${what}`} title={`Copy ${what}`} onClick={copy}>
      <Icon name="copy" />
    </button>
  );
}

export function Notice({ tone = "plain", children }: { tone?: Tone; children: ComponentChildren }): JSX.Element {
  return <div class={`notice ${tone}`} role={tone === "bad" ? "alert" : undefined}>{children}</div>;
}

export function Empty({ title, children }: { title: string; children?: ComponentChildren }): JSX.Element {
  return (
    <div class="empty">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

/** A button that says what is wrong when it cannot do its work. */
export function useAction(): [string | undefined, boolean, (work: () => Promise<void>) => void] {
  const [failure, setFailure] = useState<string>();
  const [isBusy, setBusy] = useState(false);
  const run = (work: () => Promise<void>) => {
    setBusy(true);
    setFailure(undefined);
    work()
      .catch((error: Error) => setFailure(error.message))
      .finally(() => setBusy(false));
  };
  return [failure, isBusy, run];
}

type FieldProps = {
  name: string;
  /** What there is to know about it. */
  hint?: ComponentChildren;
  isShort?: boolean;
  input: (ids: { id: string; "aria-describedby"?: string }) => JSX.Element;
};

/** A field with its name above and a hint below. */
export function Field({ name, hint, isShort, input }: FieldProps): JSX.Element {
  const id = useId();
  return (
    <div class={`field ${isShort ? "short" : ""}`}>
      <label for={id}>{name}</label>
      {input(hint ? { id, "aria-describedby": `${id}-hint` } : { id })}
      {hint && <small id={`${id}-hint`}>{hint}</small>}
    </div>
  );
}

export function count(number: number, one: string, many = `${one}s`): string {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

/** Short form of an id that stands beside its name. */
export function shortId(id: string): string {
  return id.slice(0, 8);
}
