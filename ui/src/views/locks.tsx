// Locks and the sessions that hold them.
import type { JSX } from "preact";
import { useMemo, useState } from "preact/hooks";
import { Chip, Copy, count, Empty, Fact, Notice, shortId } from "../parts/bits";
import { Confirm, tell } from "../parts/dialog";
import { Icon } from "../parts/icons";
import { Rows } from "../parts/rows";
import { to } from "../route";
import { end, seconds, type Session, useLocks } from "../sessions";

type Lock = { key: string; count: number; session: Session };

const LOCK_COLUMNS = ["Key", "Holder", "Node", "Taken", "ModifyIndex"].map((name) => ({ name, class: `col-${name.toLowerCase()}` }));
const SESSION_COLUMNS = [
  { name: "Session", class: "col-holder" }, { name: "Node", class: "col-node" }, { name: "TTL", class: "col-ttl" },
  { name: "Lock-delay", class: "col-delay" }, { name: "At its end", class: "col-behavior" }, { name: "Holds", class: "col-holds" },
];

export function Locks({ query }: { query: Record<string, string> }): JSX.Element {
  const { data: sessions, failure } = useLocks();
  const [filter, setFilter] = useState("");
  const wanted = filter.toLowerCase();
  const isTold = sessions?.some((session) => session.Locks !== undefined) ?? false;
  const locks = useMemo(() => {
    const all = (sessions ?? []).flatMap((session) =>
      (session.Locks ?? []).map(({ Key, LockIndex }) => ({ key: Key, count: LockIndex, session })));
    const matches = ({ key, session }: Lock) => `${key} ${session.Name} ${session.ID} ${session.Node}`.toLowerCase().includes(wanted);
    return all.filter(matches).sort((a, b) => (a.key < b.key ? -1 : 1));
  }, [sessions, wanted]);
  const shown = useMemo(
    () => (sessions ?? []).filter(({ Name, ID, Node }) => `${Name} ${ID} ${Node}`.toLowerCase().includes(wanted)),
    [sessions, wanted],
  );
  const selected = query.session;
  const session = sessions?.find((one) => one.ID === selected);
  return (
    <div class={`panes ${selected ? "with-side" : ""}`}>
      <section class="list" aria-label="Locks and sessions">
        <div class="bar">
          <h1>Locks</h1>
          <form class="filter" role="search" onSubmit={(event) => event.preventDefault()}>
            <input type="search" data-hotkey="/" aria-label="Filter by key, session or node" placeholder="Filter by key, session or node"
              value={filter} autocomplete="off" spellcheck={false} onInput={(event) => setFilter(event.currentTarget.value)} />
          </form>
        </div>
        {failure && <Notice tone="bad">{failure}</Notice>}
        {sessions && (locks.length > 0
          ? <Rows label="Locks" columns={LOCK_COLUMNS} items={locks} idOf={({ key }) => key} row={(lock) => <LockRow lock={lock} />} />
          : <NoLocks hasSessions={sessions.length > 0} isTold={isTold || sessions.length === 0} filter={filter} />)}
        <div class="bar"><h2>Sessions</h2><span class="muted" aria-live="polite">{sessions && count(shown.length, "session")}</span></div>
        {sessions && (shown.length > 0
          ? <Rows label="Sessions" columns={SESSION_COLUMNS} items={shown} idOf={({ ID }) => ID} selected={selected} row={(one) => <SessionRow session={one} />} />
          : <Empty title={filter ? "No session matches." : "No sessions."}>{!filter && <p>A session stands for a client that is alive. It is what holds locks.</p>}</Empty>)}
      </section>
      {selected && sessions && <SessionPane key={selected} id={selected} session={session} />}
    </div>
  );
}

function NoLocks({ hasSessions, isTold, filter }: { hasSessions: boolean; isTold: boolean; filter: string }): JSX.Element {
  if (filter) return <Empty title="No lock matches." />;
  if (!isTold) return <Empty title="This server does not tell which keys are locked."><p>Each key shows its holder under Keys.</p></Empty>;
  return (
    <Empty title="Nothing is locked.">
      <p>{hasSessions ? "There are sessions, and none holds a key." : "A client takes a lock on a key with a session:"}</p>
      {!hasSessions && <pre>lictor lock my/lock ./job</pre>}
    </Empty>
  );
}

function holder(session: Session): string {
  return session.Name || shortId(session.ID);
}

function LockRow({ lock: { key, count, session } }: { lock: Lock }): JSX.Element {
  return (
    <>
      <span role="cell" class="col-key"><Icon name="lock" /><a href={to("keys", { key })} title={key}>{key}</a></span>
      <span role="cell" class="col-holder"><a tabIndex={-1} href={to("locks", { session: session.ID })} title={session.ID}>{holder(session)}</a></span>
      <span role="cell" class="col-node">{session.Node}</span>
      <span role="cell" class="col-taken">{count}×</span>
      <span role="cell" class="col-modifyindex">{session.Locks!.find((lock) => lock.Key === key)!.ModifyIndex}</span>
    </>
  );
}

function SessionRow({ session }: { session: Session }): JSX.Element {
  return (
    <>
      <span role="cell" class="col-holder"><a href={to("locks", { session: session.ID })} title={session.ID}>{holder(session)}</a> <span class="muted mono">{session.Name && shortId(session.ID)}</span></span>
      <span role="cell" class="col-node">{session.Node}</span>
      <span role="cell" class="col-ttl">{session.TTL || <span class="muted">none</span>}</span>
      <span role="cell" class="col-delay">{seconds(session.LockDelay)}</span>
      <span role="cell" class="col-behavior">{session.Behavior === "delete" ? "keys are deleted" : "locks are released"}</span>
      <span role="cell" class="col-holds">{session.Locks === undefined ? "" : session.Locks.length ? <Chip tone="warn">{count(session.Locks.length, "key")}</Chip> : <span class="muted">nothing</span>}</span>
    </>
  );
}

function SessionPane({ id, session }: { id: string; session?: Session }): JSX.Element {
  const [asks, setAsks] = useState(false);
  const back = to("locks");
  const checks = [...(session?.NodeChecks ?? []), ...(session?.ServiceChecks ?? []).map(({ ID }) => ID)];
  const endIt = async () => {
    await end(id);
    tell("Ended the session.");
  };
  return (
    <section class="side" aria-label="Session">
      <header class="bar">
        <a class="button quiet back" href={back} aria-label="Close"><Icon name="back" /></a>
        <h1 class="name">{session ? holder(session) : shortId(id)}</h1>
        {session && <button type="button" class="danger" onClick={() => setAsks(true)}>End session</button>}
        <a class="button quiet close" href={back} aria-label="Close"><Icon name="close" /></a>
      </header>
      <div class="body">
        {!session && <Empty title="This session has ended."><p>Its locks are released, or their keys deleted, as it said.</p></Empty>}
        {session && (
          <>
            <dl class="facts">
              <Fact name="Id"><code>{id}</code><Copy text={id} what="the id" /></Fact>
              <Fact name="Node">{session.Node}</Fact>
              <Fact name="TTL">{session.TTL ? `${session.TTL} without a renewal, at least` : "none: it lives until it is ended or a check fails"}</Fact>
              <Fact name="Lock-delay">{session.LockDelay ? `${seconds(session.LockDelay)} before the next holder, when it ends` : "none"}</Fact>
              <Fact name="At its end">{session.Behavior === "delete" ? "its keys are deleted" : "its locks are released, its keys stay"}</Fact>
              <Fact name="Lives by checks">{checks.length ? checks.map((check) => <Chip>{check}</Chip>) : "none"}</Fact>
              <Fact name="CreateIndex">{session.CreateIndex}</Fact>
            </dl>
            {session.Locks && <h2>Holds {session.Locks.length ? count(session.Locks.length, "key") : "nothing"}</h2>}
            <ul class="plain">
              {session.Locks?.map(({ Key }) => <li><a class="mono" href={to("keys", { key: Key })}>{Key}</a></li>)}
            </ul>
          </>
        )}
      </div>
      {asks && (
        <Confirm title="End this session?" action="End session" onConfirm={endIt} onClose={() => setAsks(false)}>
          <p>
            Its holder loses {session?.Locks ? count(session.Locks.length, "lock") : "all its locks"}.
            {session?.Behavior === "delete" && " The keys are deleted."}
          </p>
        </Confirm>
      )}
    </section>
  );
}
