// One entry: its value, its lock, and what can be done with it.
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { useWatch } from "../api";
import { sizeInWords, toHex, toText } from "../bytes";
import * as kv from "../kv";
import type { Entry } from "../kv";
import { Confirm, tell } from "../parts/dialog";
import { Copy, Empty, Fact, Notice } from "../parts/bits";
import { Icon } from "../parts/icons";
import { Pane } from "../parts/pane";
import { type Form, formFor, Forms, Value } from "../parts/value";
import { go, to } from "../route";
import { end, nameOf, seconds, type Session } from "../sessions";
import { drafts } from "./draft";
import { Editor } from "./editor";
import { removeSeen } from "./keys";

type Looked = { entry?: Entry | null; failure?: string; refresh: () => Promise<Entry | null> };

/** An entry as it is now; null if there is none. */
function useEntry(name: string): Looked {
  const isWatched = kv.isInPath(name);
  const watched = useWatch(isWatched ? kv.path(name) : null, "", kv.readOne);
  const [fresh, setFresh] = useState<{ entry: Entry | null; since: number }>();
  const [failure, setFailure] = useState<string>();
  const refresh = async () => {
    const entry = await kv.readEntry(name);
    setFresh({ entry, since: entry?.modifyIndex ?? watched.index });
    return entry;
  };
  useEffect(() => {
    if (!isWatched) refresh().catch((error: Error) => setFailure(error.message));
  }, []);
  // What was read after a write may be ahead of the watch.
  const isAhead = fresh !== undefined && (watched.data === undefined || fresh.since > watched.index);
  return { entry: isAhead ? fresh.entry : watched.data, failure: watched.failure ?? failure, refresh };
}

type PaneProps = { name: string; folder: string; sessions?: Session[] };

export function EntryPane({ name, folder, sessions }: PaneProps): JSX.Element {
  const { entry, failure, refresh } = useEntry(name);
  const [isEdited, setEdited] = useState(() => drafts.has(name));
  const [asks, setAsks] = useState<"delete" | "release" | "end">();
  const back = to("keys", { in: folder });
  const edit = () => setEdited(true);
  const actions = (
    <>
      <Copy text={name} what="the key" />
      {entry && !isEdited && (
        <>
          <button type="button" onClick={edit} data-hotkey="e">Edit</button>
          <button type="button" class="danger" onClick={() => setAsks("delete")}>Delete</button>
        </>
      )}
    </>
  );
  const remove = async () => {
    await removeSeen(name, entry ?? null);
    go(back);
  };
  const release = async () => {
    if (!(await kv.release(entry!))) throw new Error("The lock changed hands just now. Look at it again.");
    await refresh();
    tell(`Released ${name}.`);
  };
  const endSession = async () => {
    await end(entry!.session!);
    tell("Ended the session.");
  };
  return (
    <Pane title={name} label="Entry" back={back} actions={actions}>
      {failure && <Notice tone="bad">{failure}</Notice>}
      {isEdited && entry !== undefined && (
        <Editor name={name} live={entry} refresh={refresh} onDone={() => setEdited(false)} />
      )}
      {!isEdited && entry === null && (
        <Empty title="There is no such key.">
          <p><button type="button" class="primary" onClick={edit}>Create it</button></p>
        </Empty>
      )}
      {!isEdited && entry && (
        <>
          {entry.session && <Lock entry={entry} sessions={sessions} onAsk={setAsks} />}
          <Shown entry={entry} />
          <Facts entry={entry} />
        </>
      )}
      {asks === "delete" && (
        <Confirm title="Delete this key?" action="Delete" onConfirm={remove} onClose={() => setAsks(undefined)}>
          <p><code>{name}</code> goes, for good, if it is still as you see it.</p>
          {entry?.session && <Notice tone="warn">It is locked. Its holder loses the lock without being told.</Notice>}
        </Confirm>
      )}
      {asks === "release" && (
        <Confirm title="Release this lock?" action="Release" onConfirm={release} onClose={() => setAsks(undefined)}>
          <p>The lock is given back in the name of its holder, which may still believe that it has it. The session lives on.</p>
        </Confirm>
      )}
      {asks === "end" && (
        <Confirm title="End this session?" action="End session" onConfirm={endSession} onClose={() => setAsks(undefined)}>
          <p>All locks of <b>{nameOf(entry?.session ?? "", sessions)}</b> are released, or their keys deleted, as the session says.</p>
        </Confirm>
      )}
    </Pane>
  );
}

type LockProps = { entry: Entry; sessions?: Session[]; onAsk: (what: "release" | "end") => void };

function Lock({ entry, sessions, onAsk }: LockProps): JSX.Element {
  const session = sessions?.find((one) => one.ID === entry.session);
  return (
    <section class="lock" aria-label="Lock">
      <Icon name="lock" />
      <div>
        <p>
          Locked by <a href={to("locks", { session: entry.session! })}><b>{nameOf(entry.session!, sessions)}</b></a>
          {session && <> on node <b>{session.Node}</b></>}
        </p>
        <p class="muted">
          {session && (session.TTL ? `TTL ${session.TTL}. ` : "No TTL. ")}
          {session && (session.Behavior === "delete" ? "The key goes with the session. " : "")}
          {session && (session.LockDelay ? `Free ${seconds(session.LockDelay)} after the session ends. ` : "Free as soon as the session ends. ")}
          Taken {entry.lockIndex === 1 ? "once" : `${entry.lockIndex} times`} so far.
        </p>
      </div>
      <div class="actions">
        <button type="button" onClick={() => onAsk("release")}>Release</button>
        <button type="button" onClick={() => onAsk("end")}>End session</button>
      </div>
    </section>
  );
}

function Shown({ entry }: { entry: Entry }): JSX.Element {
  const [chosen, setChosen] = useState<Form>();
  const form = chosen ?? formFor(entry.value);
  const text = toText(entry.value);
  const allowed: Form[] = text === null ? ["hex"] : formFor(entry.value) === "json" ? ["text", "json", "hex"] : ["text", "hex"];
  return (
    <section class="shown" aria-label="Value">
      <div class="bar">
        <Forms form={form} onForm={setChosen} allowed={allowed} />
        <span class="muted">{sizeInWords(entry.value.length)}</span>
        <Copy text={form === "hex" ? toHex(entry.value) : (text ?? "")} what="the value" />
        <Download entry={entry} />
      </div>
      <Value key={entry.key} value={entry.value} form={form} />
    </section>
  );
}

function Download({ entry }: { entry: Entry }): JSX.Element {
  const save = () => {
    const address = URL.createObjectURL(new Blob([new Uint8Array(entry.value)]));
    const link = Object.assign(document.createElement("a"), { href: address, download: entry.key.split("/").pop() || "value" });
    link.click();
    URL.revokeObjectURL(address);
  };
  return (
    <button type="button" class="quiet" aria-label="Save the value as a file" title="Save the value as a file" onClick={save}>
      <Icon name="download" />
    </button>
  );
}

function Facts({ entry }: { entry: Entry }): JSX.Element {
  return (
    <dl class="facts">
      <Fact name="ModifyIndex">{entry.modifyIndex}</Fact>
      <Fact name="CreateIndex">{entry.createIndex}</Fact>
      <Fact name="LockIndex">{entry.lockIndex}</Fact>
      <Fact name="Flags">{entry.flags}</Fact>
      <Fact name="Session">{entry.session ? <a href={to("locks", { session: entry.session })}><code>{entry.session}</code></a> : "none"}</Fact>
    </dl>
  );
}

/** A key that is not there yet. */
export function NewPane({ folder }: { folder: string }): JSX.Element {
  const [name, setName] = useState(folder);
  const [found, setFound] = useState<Entry | null>(null);
  const back = to("keys", { in: folder });
  const refresh = async () => {
    const entry = await kv.readEntry(name);
    setFound(entry);
    return entry;
  };
  return (
    <Pane title="New key" label="New key" back={back}>
      <Editor name={name} onName={(name) => (setName(name), setFound(null))} live={found} refresh={refresh}
        onDone={(saved) => go(saved ? to("keys", { key: name }) : back)} />
    </Pane>
  );
}
