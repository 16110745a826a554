// The browser of keys: one folder on the left, one entry on the right.
import type { JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { useWatch } from "../api";
import { kindOf, preview, sizeInWords } from "../bytes";
import * as kv from "../kv";
import type { Entry } from "../kv";
import { Confirm, tell } from "../parts/dialog";
import { Chip, count, Empty, Notice } from "../parts/bits";
import { Icon } from "../parts/icons";
import { Rows } from "../parts/rows";
import { go, to } from "../route";
import { nameOf, type Session, useSessions } from "../sessions";
import { drafts } from "./draft";
import { EntryPane, NewPane } from "./entry";

const COLUMNS = ["Key", "Value", "Session", "Flags", "ModifyIndex"].map((name) => ({ name, class: `col-${name.toLowerCase()}` }));

export function Keys({ query }: { query: Record<string, string> }): JSX.Element {
  const selected = query.key;
  const folder = query.in ?? (selected ? kv.folderOf(selected) : "");
  const listed = useWatch(kv.path(folder), "keys=&separator=/", kv.readNames);
  const sessions = useSessions().data;
  const [filter, setFilter] = useState("");
  const [doomed, setDoomed] = useState<string>();
  const filterField = useRef<HTMLInputElement>(null);
  useEffect(() => setFilter(""), [folder]);

  const names = useMemo(() => {
    const wanted = filter.toLowerCase();
    const found = (listed.data ?? []).filter((name) => name.slice(folder.length).toLowerCase().includes(wanted));
    const isFolder = (name: string) => name !== folder && name.endsWith("/");
    return [...found.filter(isFolder), ...found.filter((name) => !isFolder(name))];
  }, [listed.data, filter, folder]);
  const [entries, onView] = useEntries(names, folder, listed.index);

  const open = (name: string) => go(addressOf(name, folder));
  const keyed = (event: KeyboardEvent, name: string) => {
    const keys: Record<string, () => void> = {
      ArrowRight: () => open(name),
      ArrowLeft: () => folder && go(to("keys", { in: kv.folderOf(folder) })),
      Backspace: () => folder && go(to("keys", { in: kv.folderOf(folder) })),
      Delete: () => setDoomed(name),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]!();
  };
  const entered = (event: Event) => {
    event.preventDefault();
    const path = filter.startsWith("/") ? filter.slice(1) : folder + filter;
    if (names.length && !filter.includes("/")) open(names[0]!);
    else if (path.endsWith("/") || path === "") go(to("keys", { in: path }));
    else go(to("keys", { key: path }));
  };
  const isPaneOpen = selected !== undefined || query.new !== undefined;
  return (
    <div class={`panes ${isPaneOpen ? "with-side" : ""}`}>
      <section class="list" aria-label="Browser">
        <div class="bar">
          <Crumbs folder={folder} />
          <form class="filter" role="search" onSubmit={entered}>
            <input ref={filterField} type="search" data-hotkey="/" aria-label="Filter this folder, or type a path and press Enter"
              placeholder="Filter or go to path" value={filter} autocomplete="off" spellcheck={false}
              onInput={(event) => setFilter(event.currentTarget.value)} />
          </form>
          {folder && (
            <button type="button" class="quiet" onClick={() => setDoomed(folder)} aria-label={`Delete the folder ${folder}`} title="Delete this folder"><Icon name="trash" /></button>
          )}
          <a class="button primary" href={to("keys", { in: folder, new: "1" })} data-hotkey="n"><Icon name="plus" />New key</a>
        </div>
        {listed.failure && <Notice tone="bad">{listed.failure}</Notice>}
        {listed.data && (names.length
          ? <Rows label={`Keys in ${folder || "the root"}`} columns={COLUMNS} items={names} idOf={(name) => name} selected={selected}
              onView={onView} onKey={keyed} rowClass={(name) => (entries.get(name)?.isFresh ? "fresh" : "")}
              row={(name) => <KeyRow name={name} folder={folder} entry={entries.get(name)?.entry} sessions={sessions} />} />
          : <Nothing folder={folder} filter={filter} />)}
        <p class="foot" aria-live="polite">{listed.data && (filter ? `${count(names.length, "match", "matches")} of ${listed.data.length}` : count(names.length, "item"))}</p>
      </section>
      {query.new !== undefined && <NewPane key={`new ${folder}`} folder={folder} />}
      {query.new === undefined && selected !== undefined && <EntryPane key={selected} name={selected} folder={folder} sessions={sessions} />}
      {doomed !== undefined && <Delete name={doomed} folder={folder} onClose={() => setDoomed(undefined)} />}
    </div>
  );
}

function addressOf(name: string, folder: string): string {
  if (name !== folder && name.endsWith("/")) return to("keys", { in: name });
  return to("keys", { in: kv.folderOf(name) === folder ? undefined : folder, key: name });
}

function Crumbs({ folder }: { folder: string }): JSX.Element {
  const parts = folder.split("/").slice(0, -1);
  return (
    <nav class="crumbs" aria-label="Folder">
      <a href={to("keys")} aria-current={folder === "" ? "location" : undefined}>All keys</a>
      {parts.map((part, at) => {
        const path = parts.slice(0, at + 1).join("/") + "/";
        return (
          <>
            <span aria-hidden="true">/</span>
            <a href={to("keys", { in: path })} aria-current={path === folder ? "location" : undefined}>{part || "(no name)"}</a>
          </>
        );
      })}
    </nav>
  );
}

type KeyRowProps = { name: string; folder: string; entry?: Entry | null; sessions?: Session[] };

function KeyRow({ name, folder, entry, sessions }: KeyRowProps): JSX.Element {
  const isFolder = name !== folder && name.endsWith("/");
  const shown = name.slice(folder.length) || "(the folder's own entry)";
  const kind = entry && kindOf(entry.value);
  return (
    <>
      <span role="cell" class="col-key">
        <Icon name={isFolder ? "folder" : entry?.session ? "lock" : "key"} />
        <a href={addressOf(name, folder)} title={name}>{shown}</a>
        {drafts.has(name) && <Chip tone="accent" title="Has an edit that is not saved">edited</Chip>}
      </span>
      <span role="cell" class="col-value">
        {kind === "binary" && <Chip>{sizeInWords(entry!.value.length)}</Chip>}
        {kind === "empty" && <span class="muted">empty</span>}
        {entry && kind && preview(entry.value, kind)}
      </span>
      <span role="cell" class="col-session">
        {entry?.session && <Chip tone="warn" title={`Locked by session ${entry.session}`}><Icon name="lock" />{nameOf(entry.session, sessions)}</Chip>}
      </span>
      <span role="cell" class="col-flags">{entry && entry.flags !== "0" ? entry.flags : ""}</span>
      <span role="cell" class="col-modifyindex">{entry?.modifyIndex}</span>
    </>
  );
}

function Nothing({ folder, filter }: { folder: string; filter: string }): JSX.Element {
  if (filter) return <Empty title="No name here matches."><p>Press Enter to go to <code>{folder + filter}</code>.</p></Empty>;
  if (folder) return <Empty title="This folder is empty."><p>A folder is there as long as a key begins with its name.</p></Empty>;
  return (
    <Empty title="No keys yet.">
      <p>Make the first one with <b>New key</b>, or from a shell:</p>
      <pre>lictor kv put greeting hello</pre>
    </Empty>
  );
}

type Held = { entry: Entry | null; isFresh: boolean };

/** Between two reads of the rows in view, however fast the folder changes. */
const PAUSE_MS = 200;

/** The entries of the rows in view, read again when the folder changes: one read at a time, and none is given up. */
function useEntries(names: string[], folder: string, index: number): [Map<string, Held>, (names: string[]) => void] {
  const [entries, setEntries] = useState(new Map<string, Held>());
  const [view, setView] = useState<string[]>([]);
  const latest = useRef({ names, folder, index, view });
  latest.current = { names, folder, index, view };
  /** The folder's index when each entry was read. */
  const readAt = useRef(new Map<string, number>());
  const isReading = useRef(false);
  const ended = useRef(new AbortController());
  const wanted = () => {
    const { names, folder, index, view } = latest.current;
    const here = new Set(names);
    const isKey = (name: string) => name === folder || !name.endsWith("/");
    return view.filter((name) => here.has(name) && isKey(name) && readAt.current.get(name) !== index);
  };
  const read = async () => {
    isReading.current = true;
    for (let batch = wanted(); batch.length && !ended.current.signal.aborted; batch = wanted()) {
      const { index } = latest.current;
      const found = await kv.readMany(batch, ended.current.signal);
      batch.forEach((name) => readAt.current.set(name, index));
      setEntries((old) => {
        const next = new Map(old);
        batch.forEach((name, at) => {
          const [before, entry] = [old.get(name)?.entry, found[at] ?? null];
          next.set(name, { entry, isFresh: before != null && entry?.modifyIndex !== before.modifyIndex });
        });
        return next;
      });
      await new Promise((done) => setTimeout(done, PAUSE_MS));
    }
    isReading.current = false;
  };
  useEffect(() => () => ended.current.abort(), []);
  useEffect(() => {
    readAt.current.clear();
    setEntries(new Map());
  }, [folder]);
  useEffect(() => {
    if (!isReading.current) void read();
  }, [view, names, folder, index]);
  return [entries, setView];
}

/** Asks before it deletes: a key if it is still as it was seen, a folder with everything in it. */
function Delete({ name, folder, onClose }: { name: string; folder: string; onClose: () => void }): JSX.Element {
  const isTree = name.endsWith("/");
  const [below, setBelow] = useState<number>();
  const [entry, setEntry] = useState<Entry | null>();
  const [failure, setFailure] = useState<string>();
  useEffect(() => {
    const look = isTree ? kv.namesBelow(name).then((names) => setBelow(names.length)) : kv.readEntry(name).then(setEntry);
    look.catch((error: Error) => setFailure(error.message));
  }, []);
  const doIt = async () => {
    if (isTree) {
      await kv.removeTree(name);
      tell(`Deleted ${name} and everything in it.`);
      if (name === folder) go(to("keys", { in: kv.folderOf(folder) }));
    } else {
      await removeSeen(name, entry ?? null);
    }
  };
  if (failure) return <Confirm title="Cannot look at it" action="Try anyway" onConfirm={doIt} onClose={onClose}><Notice tone="bad">{failure}</Notice></Confirm>;
  if (isTree) {
    return (
      <Confirm title="Delete this folder?" action="Delete all" typed={name} onConfirm={doIt} onClose={onClose}>
        <p><code>{name}</code> {below === undefined ? "is being counted." : `holds ${count(below, "key")}. All of them go, for good.`}</p>
      </Confirm>
    );
  }
  return (
    <Confirm title="Delete this key?" action="Delete" onConfirm={doIt} onClose={onClose}>
      <p><code>{name}</code> goes, for good.</p>
      {entry?.session && <Notice tone="warn">It is locked. Its holder loses the lock without being told.</Notice>}
    </Confirm>
  );
}

/** @throws {Error} in words, if the entry is not as it was seen */
export async function removeSeen(name: string, seen: Entry | null): Promise<void> {
  if (seen && !(await kv.remove(name, seen.modifyIndex))) {
    throw new Error("It was changed by someone else just now, so it was not deleted. Look at it again.");
  }
  drafts.delete(name);
  tell(`Deleted ${name}.`);
}
