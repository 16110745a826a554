// Editing an entry. It is saved only if nobody changed it meanwhile; if somebody did, both versions are shown, and
// nothing is lost until one of them is chosen.
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { kindOf, sizeInWords, toText } from "../bytes";
import { diff, type Side } from "../diff";
import { formatted } from "../json";
import type { Entry } from "../kv";
import { write } from "../kv";
import { Field, Notice, useAction } from "../parts/bits";
import { tell } from "../parts/dialog";
import { asDraft, draftError, type Form, formFor, Forms } from "../parts/value";
import { begun, bytesOf, type Draft, drafts, flagsError, isChanged, NEW } from "./draft";

type Props = {
  name: string;
  /** Given for a new key, whose name is part of the edit. */
  onName?: (name: string) => void;
  /** The entry as it is on the server now. */
  live: Entry | null;
  refresh: () => Promise<Entry | null>;
  onDone: (saved: boolean) => void;
};

export function Editor({ name, onName, live, refresh, onDone }: Props): JSX.Element {
  const place = onName ? NEW : name;
  const [draft, setDraft] = useState(() => drafts.get(place) ?? begun(onName ? null : live));
  const [failure, isBusy, run] = useAction();
  const form = useRef<HTMLFormElement>(null);
  const changed = isChanged(draft);
  const change = (part: Partial<Draft>) => {
    const next = { ...draft, ...part };
    setDraft(next);
    if (isChanged(next)) drafts.set(place, next);
    else drafts.delete(place);
  };
  const leave = (saved: boolean) => {
    drafts.delete(place);
    onDone(saved);
  };
  const indexOf = (entry: Entry | null) => entry?.modifyIndex ?? 0;
  const isOvertaken = indexOf(live) !== indexOf(draft.base);
  const wrong = (name === "" ? "A key needs a name." : null) ?? flagsError(draft.flags) ?? draftError(draft.text, draft.form);

  const save = (over: Entry | null) => run(async () => {
    if (await write(name, bytesOf(draft), draft.flags, indexOf(over))) {
      await refresh();
      tell(`Saved ${name}.`);
      leave(true);
    } else if (indexOf(await refresh()) === indexOf(over)) {
      throw new Error("The server did not take it. Try again.");
    }
  });
  const submitted = (event: Event) => {
    event.preventDefault();
    if (!wrong && !isBusy && !isOvertaken) save(draft.base);
  };
  const keyed = (event: KeyboardEvent) => {
    event.stopPropagation();
    if ((event.ctrlKey || event.metaKey) && (event.key === "s" || event.key === "Enter")) {
      event.preventDefault();
      form.current!.requestSubmit();
    } else if (event.key === "Escape" && !changed) {
      leave(false);
    }
  };
  const upload = async (file?: File) => {
    if (!file) return;
    const value = new Uint8Array(await file.arrayBuffer());
    const as = formFor(value);
    change({ form: as, text: asDraft(value, as) });
  };
  return (
    <form class="editor" ref={form} onSubmit={submitted} onKeyDown={keyed}>
      {onName && <NameField name={name} onName={onName} />}
      {isOvertaken && (
        <Conflict draft={draft} live={live} isNew={onName !== undefined} isBusy={isBusy || wrong !== null}
          onMine={() => save(live)} onTheirs={() => leave(live !== null)} onBoth={() => change({ base: live })} />
      )}
      <ValueField draft={draft} onChange={change} isNew={onName !== undefined} onFile={upload} />
      <Field name="Flags" isShort input={(ids) => (
        <input {...ids} inputMode="numeric" value={draft.flags} autocomplete="off" onInput={(event) => change({ flags: event.currentTarget.value.trim() })} />
      )} />
      {wrong && (changed || !onName) && <Notice tone="warn">{wrong}</Notice>}
      {failure && <Notice tone="bad">{failure}</Notice>}
      <div class="actions">
        <button type="button" onClick={() => leave(false)}>{changed ? "Discard" : "Cancel"}</button>
        <button class="primary" disabled={isBusy || wrong !== null || isOvertaken || (!changed && !onName && draft.base !== null)} title="Ctrl+S">Save</button>
      </div>
    </form>
  );
}

function NameField({ name, onName }: { name: string; onName: (name: string) => void }): JSX.Element {
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    field.current!.focus();
    field.current!.setSelectionRange(name.length, name.length);
  }, []);
  return (
    <Field name="Key" hint="Slashes make folders. A name that ends in a slash makes an empty one."
      input={(ids) => (
        <input {...ids} ref={field} class="mono" value={name} autocomplete="off" spellcheck={false} onInput={(event) => onName(event.currentTarget.value)} />
      )} />
  );
}

type ValueProps = { draft: Draft; isNew: boolean; onChange: (part: Partial<Draft>) => void; onFile: (file?: File) => void };

function ValueField({ draft, isNew, onChange, onFile }: ValueProps): JSX.Element {
  const field = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    if (!isNew) field.current!.focus();
  }, []);
  const bytes = (() => {
    try {
      return bytesOf(draft);
    } catch {
      return null;
    }
  })();
  const isText = bytes !== null && toText(bytes) !== null;
  const recast = (form: Form) => onChange({ form, text: draft.form === "hex" || form === "hex" ? asDraft(bytes!, form) : draft.text });
  const allowed: Form[] = bytes === null ? ["hex"] : isText ? ["text", "json", "hex"] : ["hex"];
  const isJson = bytes !== null && kindOf(bytes) === "json";
  return (
    <div class="field">
      <div class="bar">
        <label for="value">Value</label>
        <Forms form={draft.form} onForm={recast} allowed={allowed} />
        {draft.form === "json" && (
          <button type="button" disabled={!isJson} onClick={() => onChange({ text: formatted(draft.text) })}>Format</button>
        )}
        <label class="button">
          From file
          <input type="file" class="hidden" onChange={(event) => onFile(event.currentTarget.files?.[0])} />
        </label>
        {bytes && <span class="muted">{sizeInWords(bytes.length)}</span>}
      </div>
      <textarea id="value" ref={field} class="mono" value={draft.text} spellcheck={false} autocomplete="off" wrap={draft.form === "hex" ? "soft" : "off"}
        onInput={(event) => onChange({ text: event.currentTarget.value })} />
    </div>
  );
}

type ConflictProps = {
  draft: Draft;
  live: Entry | null;
  isNew: boolean;
  isBusy: boolean;
  onMine: () => void;
  onTheirs: () => void;
  onBoth: () => void;
};

function Conflict({ draft, live, isNew, isBusy, onMine, onTheirs, onBoth }: ConflictProps): JSX.Element {
  const what = live === null ? "This key was deleted while you were editing it."
    : isNew ? "There is a key of this name already."
    : draft.base === null ? "Somebody else has made this key meanwhile."
    : "Somebody else has changed this key since you began.";
  const theirs = live === null ? "" : asDraft(live.value, draft.form === "hex" || toText(live.value) === null ? "hex" : "text");
  const [left, right] = diff(theirs, draft.text);
  return (
    <section class="conflict" role="alert" aria-label="Conflict">
      <p><b>{what}</b> Nothing is lost: both are here, and you choose.</p>
      <div class="sides">
        <Version title={live === null ? "On the server: nothing" : `On the server, index ${live.modifyIndex}`} side={live === null ? [] : left} />
        <Version title="Your edit" side={right} />
      </div>
      {live && live.flags !== draft.flags && <p>Flags: {live.flags} on the server, {draft.flags} in your edit.</p>}
      <div class="actions">
        <button type="button" onClick={onTheirs}>{live === null ? "Leave it deleted" : "Take theirs"}</button>
        <button type="button" onClick={onBoth}>Go on editing</button>
        <button type="button" class="primary" disabled={isBusy} onClick={onMine}>{live === null ? "Create it again" : "Keep mine"}</button>
      </div>
    </section>
  );
}

function Version({ title, side }: { title: string; side: Side }): JSX.Element {
  return (
    <figure>
      <figcaption>{title}</figcaption>
      <pre tabIndex={0}>{side.map(({ text, differs }) => <span class={differs ? "differs" : ""}>{text + "\n"}</span>)}</pre>
    </figure>
  );
}
