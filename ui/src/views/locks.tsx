// Locks, the lines before fair locks, and the sessions that hold keys.
import type { JSX } from "preact";
import { useMemo, useRef, useState } from "preact/hooks";
import { Chip, Copy, count, Empty, Fact, Notice, shortId } from "../parts/bits";
import { Confirm, tell } from "../parts/dialog";
import { Icon } from "../parts/icons";
import { lasts, Left, useSeconds } from "../parts/left";
import { Pane } from "../parts/pane";
import { Rows } from "../parts/rows";
import { to } from "../route";
import { end, type Lock, type Place, seconds, type Session, useLocks, usePlaces, useSessions } from "../sessions";
import { type Names, type Times, useTimes } from "../times";

const column = (name: string, of: string) => ({ name, class: `col-${of}` });
const LOCK_COLUMNS = [column("Key", "key"), column("Holder", "holder"), column("Node", "node"), column("Taken", "taken"), column("ModifyIndex", "modifyindex")];
const FAIR_COLUMNS = [column("Lock", "key"), column("Holder", "holder"), column("TTL", "ttl"), column("Ends in", "left"), column("In line", "holds")];
const SESSION_COLUMNS = [
  column("Session", "holder"), column("Node", "node"), column("TTL", "ttl"), column("Ends in", "left"), column("Lock-delay", "delay"),
  column("At its end", "behavior"), column("Holds", "holds"),
];

/** Without the time left, where the server does not tell it. */
const told = (columns: typeof LOCK_COLUMNS, times?: Times | null) => (times === null ? columns.filter(({ name }) => name !== "Ends in") : columns);

/** What the list has in view, of the kind that it lists. */
type InView = { locks?: Lock[]; lines?: Line[]; sessions?: Session[] };

/** What of it ends by the clock. */
function timed({ locks = [], lines = [], sessions = [] }: InView): Names {
  return {
    sessions: sessions.filter(({ TTL }) => TTL).map(({ ID }) => ID),
    // A key that is not UTF-8 has no name to ask by.
    keys: locks.filter(({ Key, Session }) => Session === "" && !Key.includes("\ufffd")).map(({ Key }) => Key),
    fairLocks: lines.filter(({ places: [first] }) => first!.TTL > 0).map(({ name }) => name),
  };
}

/** A fair lock with everybody in line for it; the first holds it. */
type Line = { name: string; places: Place[] };

export function Locks({ query }: { query: Record<string, string> }): JSX.Element {
  const sessions = useSessions();
  const locks = useLocks();
  const places = usePlaces();
  const [filter, setFilter] = useState("");
  const wanted = filter.toLowerCase();
  const kind = query.kind ?? "held";
  const byId = useMemo(() => new Map((sessions.data ?? []).map((session) => [session.ID, session])), [sessions.data]);
  const held = useMemo(() => {
    const about = ({ Key, Session, Waiting = [] }: Lock) => `${Key} ${Session} ${Waiting.join(" ")} ${byId.get(Session)?.Name} ${byId.get(Session)?.Node}`;
    return (locks.data ?? []).filter((lock) => about(lock).toLowerCase().includes(wanted)).sort((a, b) => (a.Key < b.Key ? -1 : 1));
  }, [locks.data, byId, wanted]);
  const lines = useMemo(() => {
    const found = new Map<string, Place[]>();
    for (const place of places.data ?? []) found.set(place.Name, [...(found.get(place.Name) ?? []), place]);
    const all = [...found].map(([name, places]) => ({ name, places }));
    return all.filter(({ name, places }) => `${name} ${places.map(({ Value }) => Value).join(" ")}`.toLowerCase().includes(wanted));
  }, [places.data, wanted]);
  const alive = useMemo(
    () => (sessions.data ?? []).filter(({ Name, ID, Node }) => `${Name} ${ID} ${Node}`.toLowerCase().includes(wanted)),
    [sessions.data, wanted],
  );
  const holds = (id: string) => locks.data?.filter((lock) => lock.Session === id);
  const failure = sessions.failure ?? locks.failure ?? places.failure;
  const isLoaded = sessions.data !== undefined && locks.data !== undefined && places.data !== undefined;
  const selected = query.session ?? query.lock;
  const line = lines.find(({ name }) => name === query.lock);
  const [inView, setInView] = useState<InView>({});
  const kinds = [["held", "Locks", held.length], ["fair", "Fair locks", lines.length], ["sessions", "Sessions", alive.length]] as const;
  const isEmpty = kinds.some(([one, , number]) => one === kind && number === 0);
  const names = useMemo(() => {
    const { locks, lines = [], sessions = [] } = isEmpty ? {} : inView;
    const aside = byId.get(query.session ?? "");
    return timed({
      locks,
      lines: line && !lines.includes(line) ? [...lines, line] : lines,
      sessions: aside && !sessions.includes(aside) ? [...sessions, aside] : sessions,
    });
  }, [inView, isEmpty, byId, line, query.session]);
  const times = useTimes(names, [sessions.index, locks.index, places.index]);
  return (
    <div class={`panes ${selected ? "with-side" : ""}`}>
      <section class="list" aria-label="Locks and sessions">
        <div class="bar">
          <h1 class="hidden">Locks and sessions</h1>
          <nav class="segments" aria-label="What to list">
            {kinds.map(([one, name, number]) => (
              <a href={to("locks", { kind: one })} aria-current={kind === one ? "page" : undefined}>{name} <span class="number">{isLoaded && number}</span></a>
            ))}
          </nav>
          <form class="filter" role="search" onSubmit={(event) => event.preventDefault()}>
            <input type="search" data-hotkey="/" aria-label="Filter by key, session or node" placeholder="Filter by key, session or node"
              value={filter} autocomplete="off" spellcheck={false} onInput={(event) => setFilter(event.currentTarget.value)} />
          </form>
        </div>
        {failure && <Notice tone="bad">{failure}</Notice>}
        {isLoaded && kind === "held" && (held.length > 0
          ? <Rows label="Locks" columns={LOCK_COLUMNS} items={held} idOf={({ Key }) => Key} onView={(locks) => setInView({ locks })}
              row={(lock) => <LockRow lock={lock} session={byId.get(lock.Session)} times={times} />} />
          : <NoLocks isTold={locks.data !== null} hasSessions={byId.size > 0} filter={filter} />)}
        {isLoaded && kind === "fair" && (lines.length > 0
          ? <Rows label="Fair locks" columns={told(FAIR_COLUMNS, times)} items={lines} idOf={({ name }) => name} selected={query.lock} onView={(lines) => setInView({ lines })}
              row={(line) => <LineRow line={line} times={times} />} />
          : <NoLines isTold={places.data !== null} filter={filter} />)}
        {isLoaded && kind === "sessions" && (alive.length > 0
          ? <Rows label="Sessions" columns={told(SESSION_COLUMNS, times)} items={alive} idOf={({ ID }) => ID} selected={query.session} onView={(sessions) => setInView({ sessions })}
              row={(one) => <SessionRow session={one} holds={holds(one.ID)} times={times} />} />
          : <Empty title={filter ? "No session matches." : "No sessions."}>{!filter && <p>A session stands for a client that is alive. It is what holds locks.</p>}</Empty>)}
      </section>
      {query.session && isLoaded && <SessionPane key={query.session} id={query.session} session={byId.get(query.session)} holds={holds(query.session)} times={times} back={to("locks", { kind })} />}
      {query.lock && isLoaded && <LinePane name={query.lock} line={line} times={times} />}
    </div>
  );
}

function NoLocks({ hasSessions, isTold, filter }: { hasSessions: boolean; isTold: boolean; filter: string }): JSX.Element {
  if (filter) return <Empty title="No lock matches." />;
  if (!isTold) return <Empty title="This server does not tell which keys are locked."><p>Each key shows its holder under Keys.</p></Empty>;
  return (
    <Empty title="Nothing is locked.">
      <p>{hasSessions ? "There are sessions, and none of them holds a key." : "A client takes a lock on a key with a session:"}</p>
      {!hasSessions && <pre>lictor lock my/lock ./job</pre>}
    </Empty>
  );
}

function NoLines({ isTold, filter }: { isTold: boolean; filter: string }): JSX.Element {
  if (filter) return <Empty title="No fair lock matches." />;
  if (!isTold) return <Empty title="This server has no fair locks." />;
  return (
    <Empty title="Nobody holds a fair lock or waits for one.">
      <p>A fair lock goes to whoever came first:</p>
      <pre>curl -X POST '{location.origin}/mod/v2/lock/deploys?ttl=60'</pre>
    </Empty>
  );
}

function nameOf(session: Session): string {
  return session.Name || shortId(session.ID);
}

type Timed = { times?: Times | null };

function LockRow({ lock, session, times }: { lock: Lock; session?: Session } & Timed): JSX.Element {
  return (
    <>
      <span role="cell" class="col-key"><Icon name="lock" /><a href={to("keys", { key: lock.Key })} title={lock.Key}>{lock.Key}</a></span>
      <span role="cell" class="col-holder">
        {session && <a href={to("locks", { session: session.ID })} title={session.ID}>{nameOf(session)}</a>}
        {lock.Session === "" && <Delay key={lock.ModifyIndex} lock={lock} times={times} />}
        {lock.Waiting && lock.Waiting.length > 0 && <>{" "}<Chip tone="accent">{lock.Waiting.length} waiting</Chip></>}
      </span>
      <span role="cell" class="col-node">{session?.Node}</span>
      <span role="cell" class="col-taken">{lock.LockIndex}×</span>
      <span role="cell" class="col-modifyindex">{lock.ModifyIndex}</span>
    </>
  );
}

/** Counts down a lock-delay. Where the server does not tell what is left, it is that at most: it may have begun before this
 * page saw it. */
function Delay({ lock, times }: { lock: Lock } & Timed): JSX.Element {
  const began = useRef(performance.now());
  useSeconds();
  const end = times === null ? began.current + lock.LockDelay / 1e6 : times?.keys.get(lock.Key);
  if (end === undefined) return <Chip tone="warn">lock-delay</Chip>;
  const left = end - performance.now();
  if (left <= 0) return <span class="muted">free</span>;
  return <Chip tone="warn">lock-delay, {lasts(left)}{times === null && " at most"}</Chip>;
}

function LineRow({ line: { name, places }, times }: { line: Line } & Timed): JSX.Element {
  const [first] = places;
  const waiting = places.filter(({ Holds }) => !Holds).length;
  return (
    <>
      <span role="cell" class="col-key"><Icon name="lock" /><a href={to("locks", { kind: "fair", lock: name })} title={name}>{name}</a></span>
      <span role="cell" class="col-holder"><Who place={first!} /></span>
      <span role="cell" class="col-ttl">{first!.TTL} s</span>
      {times !== null && <span role="cell" class="col-left"><Left end={times?.fairLocks.get(name)} /></span>}
      <span role="cell" class="col-holds">{waiting ? <Chip tone="accent">{waiting} waiting</Chip> : <span class="muted">nobody</span>}</span>
    </>
  );
}

function Who({ place }: { place: Place }): JSX.Element {
  return place.Value === null ? <span class="muted">no name, place {place.Index}</span> : <span class="mono">{place.Value}</span>;
}

function SessionRow({ session, holds, times }: { session: Session; holds?: Lock[] } & Timed): JSX.Element {
  return (
    <>
      <span role="cell" class="col-holder">
        <a href={to("locks", { kind: "sessions", session: session.ID })} title={session.ID}>{nameOf(session)}</a>{" "}
        <span class="muted mono">{session.Name && shortId(session.ID)}</span>
      </span>
      <span role="cell" class="col-node">{session.Node}</span>
      <span role="cell" class="col-ttl">{session.TTL || <span class="muted">none</span>}</span>
      {times !== null && <span role="cell" class="col-left"><Left end={times?.sessions.get(session.ID)} /></span>}
      <span role="cell" class="col-delay">{seconds(session.LockDelay)}</span>
      <span role="cell" class="col-behavior">{session.Behavior === "delete" ? "keys are deleted" : "locks are released"}</span>
      <span role="cell" class="col-holds">{holds && (holds.length ? <Chip tone="warn">{count(holds.length, "key")}</Chip> : <span class="muted">nothing</span>)}</span>
    </>
  );
}

function LinePane({ name, line, times }: { name: string; line?: Line } & Timed): JSX.Element {
  const end = times?.fairLocks.get(name);
  return (
    <Pane title={name} label="Fair lock" back={to("locks", { kind: "fair" })}>
      {!line && <Empty title="Nobody holds this lock or waits for it." />}
      {line && (
        <ol class="line" aria-label="In line">
          {line.places.map((place, at) => (
            <li class={place.Holds ? "holds" : ""}>
              <span class="place">{place.Holds ? <Icon name="lock" /> : at}</span>
              <span><Who place={place} /></span>
              <span class="muted">{place.Holds ? "holds it" : at === 1 ? "is next" : "waits"}, TTL {place.TTL} s{place.Holds && end !== undefined && <>, ends in <Left end={end} /></>}, index {place.Index}</span>
            </li>
          ))}
        </ol>
      )}
    </Pane>
  );
}

type SessionProps = { id: string; session?: Session; holds?: Lock[]; back: string } & Timed;

function SessionPane({ id, session, holds, back, times }: SessionProps): JSX.Element {
  const [asks, setAsks] = useState(false);
  const checks = [...(session?.NodeChecks ?? []), ...(session?.ServiceChecks ?? []).map(({ ID }) => ID)];
  const endIt = async () => {
    await end(id);
    tell("Ended the session.");
  };
  const action = session && <button type="button" class="danger" onClick={() => setAsks(true)}>End session</button>;
  return (
    <Pane title={session ? nameOf(session) : shortId(id)} label="Session" back={back} actions={action}>
      {!session && <Empty title="This session has ended."><p>Its locks are released, or their keys deleted, as it said.</p></Empty>}
      {session && (
        <>
          <dl class="facts">
            <Fact name="Id"><code>{id}</code><Copy text={id} what="the id" /></Fact>
            <Fact name="Node">{session.Node}</Fact>
            <Fact name="TTL">{session.TTL ? `${session.TTL} without a renewal, at least` : "none: it lives until it is ended or a check fails"}</Fact>
            {session.TTL && times !== null && (
              <Fact name="Ends in">{times?.sessions.has(id) ? <><Left end={times.sessions.get(id)} />, unless it is renewed</> : <span class="muted">not known now</span>}</Fact>
            )}
            <Fact name="Lock-delay">{session.LockDelay ? `${seconds(session.LockDelay)} before the next holder, when it ends` : "none"}</Fact>
            <Fact name="At its end">{session.Behavior === "delete" ? "its keys are deleted" : "its locks are released, its keys stay"}</Fact>
            <Fact name="Lives by checks">{checks.length ? checks.map((check) => <Chip>{check}</Chip>) : "none"}</Fact>
            <Fact name="CreateIndex">{session.CreateIndex}</Fact>
          </dl>
          {holds && <h2>Holds {holds.length ? count(holds.length, "key") : "nothing"}</h2>}
          <ul class="plain">
            {holds?.map(({ Key }) => <li><Icon name="lock" /><a class="mono" href={to("keys", { key: Key })}>{Key}</a></li>)}
          </ul>
        </>
      )}
      {asks && (
        <Confirm title="End this session?" action="End session" onConfirm={endIt} onClose={() => setAsks(false)}>
          <p>
            Its holder loses {holds ? count(holds.length, "lock") : "all its locks"}.
            {session?.Behavior === "delete" && " The keys are deleted."}
          </p>
        </Confirm>
      )}
    </Pane>
  );
}
