// The servers: who leads, how far everybody is, and how that goes over time.
import type { JSX } from "preact";
import { useRef, useState } from "preact/hooks";
import { call, json, usePoll } from "../api";
import { Chip, Empty, Notice, type Tone } from "../parts/bits";
import { Chart } from "../parts/chart";

type Server = {
  ID: string; Name: string; Address: string; SerfStatus: string; Leader: boolean; LastContact: string; LastTerm: number;
  LastIndex: number; Healthy: boolean; Voter: boolean; StableSince: string;
};
type Health = { Healthy: boolean; FailureTolerance: number; Servers: Server[] };
type About = { Config: { NodeName: string; Datacenter: string }; Stats: { raft: Record<string, string>; consul: Record<string, string> } };
type Metrics = { Gauges: { Name: string; Value: number }[] };

/** One look at the cluster. */
type Look = { at: number; health: Health | null; about: About; gauges: Record<string, number>; leader: string };

const GAUGES = ["raft.term", "kv.entries", "state.sessions", "runtime.alloc_bytes"];
const EVERY_MS = 1000;
const LOOKS = 120;

export function Cluster(): JSX.Element {
  const looks = useRef<Look[]>([]);
  const [, again] = useState(0);
  const failure = usePoll(async (signal) => {
    const [health, about, metrics, leader] = await Promise.all([
      // Without a leader nobody knows how the others are; the rest of the view still says something.
      call("/v1/operator/autopilot/health", { signal }).then((answer) => json<Health>(answer)).catch(() => null),
      call("/v1/agent/self", { signal }).then((answer) => json<About>(answer)),
      call("/v1/agent/metrics", { signal }).then((answer) => json<Metrics>(answer)).catch(() => ({ Gauges: [] })),
      call("/v1/status/leader", { signal }).then((answer) => json<string>(answer)),
    ]);
    // Names of gauges begin with the program's and the host's: `consul.HOST.raft.term`.
    const found = GAUGES.map((end) => [end, metrics.Gauges.find(({ Name }) => Name.endsWith(`.${end}`))?.Value] as const);
    const gauges = Object.fromEntries(found.filter(([, value]) => value !== undefined)) as Record<string, number>;
    looks.current = [...looks.current.slice(1 - LOOKS), { at: performance.now(), health, about, gauges, leader }];
    again((count) => count + 1);
  }, EVERY_MS, []);
  const look = looks.current.at(-1);
  return (
    <div class="page" tabIndex={0}>
      {failure && <Notice tone="bad">{failure}</Notice>}
      {look ? <Shown look={look} looks={looks.current} /> : !failure && <Empty title="Looking at the servers." />}
    </div>
  );
}

function Shown({ look, looks }: { look: Look; looks: Look[] }): JSX.Element {
  const { about, health, gauges, leader } = look;
  const leads = health?.Servers.find((server) => server.Leader);
  const raft = about.Stats.raft;
  return (
    <>
      <header class="headline">
        <h1>{headline(look)}</h1>
        <p class="muted">Seen from <b>{about.Config.NodeName}</b> in datacenter <b>{about.Config.Datacenter}</b></p>
      </header>
      <dl class="figures">
        <Figure name="Leader" value={leads?.Name ?? (leader || "none")} tone={leader ? undefined : "bad"} />
        <Figure name="Term" value={grouped(gauges["raft.term"] ?? Number(raft.term))} />
        <Figure name="Commit index" value={grouped(Number(raft.commit_index))} />
        <Figure name="Applied index" value={grouped(Number(raft.applied_index))} />
        {gauges["kv.entries"] !== undefined && <Figure name="Keys" value={grouped(gauges["kv.entries"])} />}
        {gauges["state.sessions"] !== undefined && <Figure name="Sessions" value={grouped(gauges["state.sessions"])} />}
      </dl>
      {health && <Servers health={health} />}
      <Charts looks={looks} />
    </>
  );
}

/** The state of the cluster in one sentence. */
function headline({ health, leader }: Look): string {
  if (!leader) return "No leader: reads and writes wait.";
  if (!health) return "There is a leader. How the others are is not known.";
  const well = health.Servers.filter((server) => server.Healthy).length;
  const all = health.Servers.length;
  if (all === 1) return well ? "One server, and it is healthy." : "The only server is not healthy.";
  const may = health.FailureTolerance === 0 ? "No more may fail." : `${health.FailureTolerance} may fail.`;
  return `${well === all ? `All ${all}` : `${well} of ${all}`} servers are healthy. ${may}`;
}

function Figure({ name, value, tone }: { name: string; value: string; tone?: Tone }): JSX.Element {
  return <div class={`figure ${tone ?? ""}`}><dt>{name}</dt><dd>{value}</dd></div>;
}

function grouped(value: number): string {
  return value.toLocaleString("en");
}

/** Go's durations in milliseconds: `1m2.5s`, `12ms`, `3.2µs`; null for `never`. */
function milliseconds(duration: string): number | null {
  const units: Record<string, number> = { h: 3_600_000, m: 60_000, s: 1000, ms: 1, µs: 0.001, us: 0.001, ns: 0.000_001 };
  const parts = [...duration.matchAll(/([\d.]+)(h|ms|m|s|µs|us|ns)/g)];
  return parts.length ? parts.reduce((sum, [, value, unit]) => sum + Number(value) * units[unit!]!, 0) : null;
}

/** How many entries a server is behind the leader. */
function lag(server: Server, health: Health): number | null {
  const leader = health.Servers.find((one) => one.Leader);
  return leader ? Math.max(0, leader.LastIndex - server.LastIndex) : null;
}

function Servers({ health }: { health: Health }): JSX.Element {
  return (
    <section class="servers" aria-label="Servers" tabIndex={0}>
      <table>
        <thead>
          <tr><th>Server</th><th>Role</th><th>Health</th><th class="number">Behind</th><th class="number">Last contact</th><th class="number">Last index</th><th>Stable since</th></tr>
        </thead>
        <tbody>
          {health.Servers.map((server) => {
            const behind = lag(server, health);
            return (
              <tr>
                <td><b>{server.Name}</b> <span class="muted mono">{server.Address}</span></td>
                <td>{server.Leader ? <Chip tone="accent">Leader</Chip> : server.Voter ? "Follower" : "Learner, has no vote yet"}</td>
                <td><Chip tone={server.Healthy ? "good" : "bad"}>{server.Healthy ? "healthy" : server.SerfStatus === "alive" ? "not healthy" : server.SerfStatus}</Chip></td>
                <td class="number">{server.Leader ? "–" : behind === null ? "?" : behind === 0 ? "up to date" : `${grouped(behind)} entries`}</td>
                <td class="number">{server.Leader ? "–" : server.LastContact}</td>
                <td class="number">{grouped(server.LastIndex)}</td>
                <td class="muted">{since(server.StableSince)}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </section>
  );
}

function since(time: string): string {
  const date = new Date(time);
  return Number.isNaN(date.getTime()) || date.getFullYear() < 2000 ? "" : date.toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
}

function Charts({ looks }: { looks: Look[] }): JSX.Element {
  const last = looks.at(-1)!;
  const gauge = (name: string) => looks.map(({ gauges }) => gauges[name] ?? null);
  const rate = looks.map((look, at) => {
    const before = looks[at - 1];
    if (!before) return null;
    const done = Number(look.about.Stats.raft.commit_index) - Number(before.about.Stats.raft.commit_index);
    return Math.max(0, (done * 1000) / (look.at - before.at));
  });
  const followers = (last.health?.Servers ?? []).filter((server) => !server.Leader);
  const ofFollowers = (read: (server: Server, health: Health) => number | null) =>
    followers.map(({ ID, Name }) => ({
      name: Name,
      points: looks.map(({ health }) => {
        const server = health?.Servers.find((server) => server.ID === ID);
        return server && health && !server.Leader ? read(server, health) : null;
      }),
    }));
  const most = (lines: { points: (number | null)[] }[]) => Math.max(0, ...lines.map(({ points }) => points.at(-1) ?? 0));
  const lags = ofFollowers(lag);
  const contacts = ofFollowers(({ LastContact }) => milliseconds(LastContact));
  const memory = gauge("runtime.alloc_bytes").map((bytes) => bytes && bytes / 1024 / 1024);
  const mib = (value: number) => `${value.toFixed(0)} MiB`;
  const whole = (value: number) => grouped(Math.round(value));
  const shown = { span: LOOKS, format: whole };
  return (
    <section class="charts" aria-label="Stats of the last two minutes">
      <Chart {...shown} title="Entries committed per second" now={whole(rate.at(-1) ?? 0)} lines={[{ name: "rate", points: rate }]} />
      {followers.length > 0 && <Chart {...shown} title="Followers behind, entries" now={whole(most(lags))} lines={lags} />}
      {followers.length > 0 && <Chart {...shown} title="Last contact, ms" now={whole(most(contacts))} lines={contacts} />}
      <Chart {...shown} title="Keys" now={whole(last.gauges["kv.entries"] ?? 0)} lines={[{ name: "keys", points: gauge("kv.entries") }]} />
      <Chart {...shown} title="Sessions" now={whole(last.gauges["state.sessions"] ?? 0)} lines={[{ name: "sessions", points: gauge("state.sessions") }]} />
      {memory.some((point) => point !== null) && <Chart {...shown} format={mib} title="Memory of this server" now={mib(memory.at(-1) ?? 0)} lines={[{ name: "memory", points: memory }]} />}
    </section>
  );
}
