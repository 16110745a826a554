// Questions that must be answered before anything happens, and short words about what has happened.
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

type Props = { title: string; onClose: () => void; children: ComponentChildren };

/** A modal dialog: the browser keeps the focus in it, and Escape closes it. */
export function Dialog({ title, onClose, children }: Props): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement as HTMLElement | null;
    dialog.current!.showModal();
    return () => before?.focus?.();
  }, []);
  return (
    <dialog ref={dialog} aria-label={title} onClose={onClose} onKeyDown={(event) => event.stopPropagation()}>
      <h2>{title}</h2>
      {children}
    </dialog>
  );
}

type ConfirmProps = {
  title: string;
  children: ComponentChildren;
  /** What the button says that does it. */
  action: string;
  /** What must be typed before it can be done. */
  typed?: string;
  onConfirm: () => Promise<void>;
  onClose: () => void;
};

export function Confirm({ title, children, action, typed, onConfirm, onClose }: ConfirmProps): JSX.Element {
  const [text, setText] = useState("");
  const [failure, setFailure] = useState<string>();
  const [isBusy, setBusy] = useState(false);
  const submit = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await onConfirm();
      onClose();
    } catch (error) {
      setFailure((error as Error).message);
      setBusy(false);
    }
  };
  return (
    <Dialog title={title} onClose={onClose}>
      <form onSubmit={submit}>
        {children}
        {typed !== undefined && (
          <label class="field">
            <span>Type <code>{typed}</code> to confirm</span>
            <input value={text} onInput={(event) => setText(event.currentTarget.value)} autocomplete="off" spellcheck={false} />
          </label>
        )}
        {failure && <p class="notice bad" role="alert">{failure}</p>}
        <div class="actions">
          <button type="button" onClick={onClose}>Cancel</button>
          <button class="danger" disabled={isBusy || (typed !== undefined && text !== typed)}>{action}</button>
        </div>
      </form>
    </Dialog>
  );
}

let say: (words: string) => void = () => {};

/** Says what was done. */
export function tell(words: string): void {
  say(words);
}

const SHOWN_MS = 5000;

export function Told(): JSX.Element {
  const [words, setWords] = useState("");
  useEffect(() => {
    say = setWords;
  }, []);
  useEffect(() => {
    if (!words) return;
    const timer = setTimeout(() => setWords(""), SHOWN_MS);
    return () => clearTimeout(timer);
  }, [words]);
  return <div class="told" role="status">{words && <span>{words}</span>}</div>;
}
