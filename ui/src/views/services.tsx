// Services, the nodes they run on, and their checks.
import type { JSX } from "preact";
import { useMemo, useState } from "preact/hooks";
import { type Answer, json, useWatch } from "../api";
import { Chip, count, Empty, Notice, type Tone } from "../parts/bits";
import { Pane } from "../parts/pane";
import { Rows } from "../parts/rows";
import { to } from "../route";

type Check = {
  Node: string; CheckID: string; Name: string; Status: string; Notes: string; Output: string;
  ServiceID: string; ServiceName: string; Type: string;
};
type Node = { Node: string; Address: string; Meta: Record<string, string> | null };
type Instance = {
  Node: Node;
  Service: { ID: string; Service: string; Tags: string[] | null; Address: string; Port: number; Meta: Record<string, string> | null };
  Checks: Check[];
};
type Row = { name: string; kind: "service" | "node"; tags: string[]; checks: Check[] };

const readChecks = (answer: Answer) => json<Check[]>(answer);
const readServices = (answer: Answer) => json<Record<string, string[]>>(answer);
const readNodes = (answer: Answer) => json<Node[]>(answer);
const readInstances = (answer: Answer) => json<Instance[]>(answer);

const COLUMNS = ["Name", "Health", "Tags"].map((name) => ({ name, class: `col-${name.toLowerCase()}` }));

const TONES: Record<string, Tone> = { passing: "good", warning: "warn", critical: "bad" };

/** The worst of some checks. */
function worst(checks: Check[]): string {
  return ["critical", "warning"].find((status) => checks.some((check) => check.Status === status)) ?? "passing";
}

export function Services({ query }: { query: Record<string, string> }): JSX.Element {
  const services = useWatch("/v1/catalog/services", "", readServices);
  const nodes = useWatch("/v1/catalog/nodes", "", readNodes);
  const checks = useWatch("/v1/health/state/any", "", readChecks);
  const [filter, setFilter] = useState("");
  const kind = query.node !== undefined || query.kind === "nodes" ? "node" : "service";
  const rows = useMemo(() => {
    const all = checks.data ?? [];
    const found: Row[] = kind === "node"
      ? (nodes.data ?? []).map(({ Node, Address }) => ({ name: Node, kind, tags: [Address], checks: all.filter((check) => check.Node === Node) }))
      : Object.entries(services.data ?? {}).map(([name, tags]) => ({ name, kind, tags, checks: all.filter((check) => check.ServiceName === name) }));
    return found.filter(({ name, tags }) => `${name} ${tags.join(" ")}`.toLowerCase().includes(filter.toLowerCase()));
  }, [services.data, nodes.data, checks.data, filter, kind]);
  const failure = services.failure ?? nodes.failure ?? checks.failure;
  const selected = kind === "node" ? query.node : query.service;
  return (
    <div class={`panes ${selected ? "with-side" : ""}`}>
      <section class="list" aria-label="Services and nodes">
        <div class="bar">
          <h1 class="hidden">Services and checks</h1>
          <nav class="segments" aria-label="What to list">
            <a href={to("services")} aria-current={kind === "service" ? "page" : undefined}>Services</a>
            <a href={to("services", { kind: "nodes" })} aria-current={kind === "node" ? "page" : undefined}>Nodes</a>
          </nav>
          <form class="filter" role="search" onSubmit={(event) => event.preventDefault()}>
            <input type="search" data-hotkey="/" aria-label="Filter by name or tag" placeholder="Filter by name or tag" value={filter}
              autocomplete="off" spellcheck={false} onInput={(event) => setFilter(event.currentTarget.value)} />
          </form>
        </div>
        {failure && <Notice tone="bad">{failure}</Notice>}
        {(kind === "node" ? nodes.data : services.data) && (rows.length > 0
          ? <Rows label={kind === "node" ? "Nodes" : "Services"} columns={COLUMNS} items={rows} idOf={({ name }) => name} selected={selected}
              row={(row) => <ServiceRow row={row} />} />
          : <Empty title="Nothing matches." />)}
        <p class="foot" aria-live="polite">{count(rows.length, kind)}</p>
      </section>
      {selected !== undefined && (kind === "node"
        ? <NodePane key={selected} name={selected} checks={checks.data?.filter((check) => check.Node === selected)} />
        : <ServicePane key={selected} name={selected} />)}
    </div>
  );
}

function ServiceRow({ row }: { row: Row }): JSX.Element {
  const status = worst(row.checks);
  const bad = row.checks.filter((check) => check.Status !== "passing").length;
  return (
    <>
      <span role="cell" class="col-name"><a href={to("services", { [row.kind]: row.name })}>{row.name}</a></span>
      <span role="cell" class="col-health">
        {row.checks.length === 0
          ? <span class="muted">no checks</span>
          : <Chip tone={TONES[status]}>{status === "passing" ? count(row.checks.length, "check") + " passing" : `${bad} of ${row.checks.length} ${status}`}</Chip>}
      </span>
      <span role="cell" class="col-tags">{row.tags.map((tag) => <Chip>{tag}</Chip>)}</span>
    </>
  );
}

function ServicePane({ name }: { name: string }): JSX.Element {
  const { data, failure } = useWatch(`/v1/health/service/${encodeURIComponent(name)}`, "", readInstances);
  return (
    <Pane title={name} label="Service" back={to("services")}>
      {failure && <Notice tone="bad">{failure}</Notice>}
      {data?.length === 0 && <Empty title="There is no instance of this service." />}
      {data?.map(({ Node, Service, Checks }) => (
        <section class="instance">
          <h2>{Service.ID}</h2>
          <p>
            on <a href={to("services", { node: Node.Node })}>{Node.Node}</a> at <code>{Service.Address || Node.Address}{Service.Port ? `:${Service.Port}` : ""}</code>{" "}
            {Service.Tags?.map((tag) => <Chip>{tag}</Chip>)}
          </p>
          <CheckList of={Checks} />
        </section>
      ))}
    </Pane>
  );
}

function NodePane({ name, checks }: { name: string; checks?: Check[] }): JSX.Element {
  return (
    <Pane title={name} label="Node" back={to("services", { kind: "nodes" })}>
      {checks && <CheckList of={checks} />}
    </Pane>
  );
}

function CheckList({ of }: { of: Check[] }): JSX.Element {
  if (of.length === 0) return <p class="muted">No checks.</p>;
  return (
    <ul class="checks">
      {of.map((check) => (
        <li>
          <p><Chip tone={TONES[check.Status]}>{check.Status}</Chip> <b>{check.Name || check.CheckID}</b> <span class="muted">{[check.Type, check.ServiceName].filter(Boolean).join(", ")}</span></p>
          {check.Notes && <p>{check.Notes}</p>}
          {check.Output && <pre tabIndex={0}>{check.Output}</pre>}
        </li>
      ))}
    </ul>
  );
}
