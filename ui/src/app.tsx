// The frame of the page: where one is, which server one talks to, and the keys that work everywhere.
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { call, forgetIndex, json, useNewestIndex, usePoll } from "./api";
import { Dialog, Told } from "./parts/dialog";
import { Empty, Notice } from "./parts/bits";
import { Icon, type IconName, Mark } from "./parts/icons";
import { go, to, usePlace } from "./route";
import { change, type Theme, token, useSettings } from "./settings";
import { Connection } from "./views/connection";
import { Cluster } from "./views/cluster";
import { Keys } from "./views/keys";
import { Locks } from "./views/locks";
import { Services } from "./views/services";

const VIEWS = [
  { view: "keys", name: "Keys", hotkey: "1" },
  { view: "locks", name: "Locks", hotkey: "2" },
  { view: "services", name: "Services", hotkey: "3" },
  { view: "cluster", name: "Cluster", hotkey: "4" },
];

export function App(): JSX.Element {
  const { view, query } = usePlace();
  const settings = useSettings();
  const [isConnecting, setConnecting] = useState(false);
  const [isHelping, setHelping] = useState(false);
  // Another server or token means other data everywhere: all is built anew.
  const whom = `${settings.server} ${token()}`;
  useEffect(forgetIndex, [whom]);
  useEffect(() => {
    const title = VIEWS.find((one) => one.view === view)?.name ?? "Not found";
    document.title = `${query.key ?? query.in ?? title} · Lictor`;
  }, [view, query]);
  useHotkeys(() => setHelping(true));
  return (
    <>
      <a class="skip" href="#main">Skip to the content</a>
      <header class="top">
        <a class="brand" href={to("keys")}><Mark />Lictor</a>
        <nav aria-label="Views">
          {VIEWS.map((one) => <a href={to(one.view)} aria-current={one.view === view ? "page" : undefined}>{one.name}</a>)}
        </nav>
        <Wire key={whom} onConnect={() => setConnecting(true)} />
        <Look theme={settings.theme} />
        <button type="button" class="quiet" aria-label="Keyboard" title="Keyboard (?)" onClick={() => setHelping(true)}>?</button>
      </header>
      <main id="main" key={whom}>
        {view === "keys" && <Keys query={query} />}
        {view === "locks" && <Locks query={query} />}
        {view === "services" && <Services query={query} />}
        {view === "cluster" && <Cluster />}
        {view === "missing" && <Missing />}
      </main>
      {isConnecting && <Connection onClose={() => setConnecting(false)} />}
      {isHelping && <Help onClose={() => setHelping(false)} />}
      <Told />
    </>
  );
}

function Missing(): JSX.Element {
  return (
    <Empty title="View not found.">
      <p>There is nothing at <code>{location.pathname}</code>. See <a href={to("keys")}>the keys</a> or <a href={to("cluster")}>the cluster</a>.</p>
    </Empty>
  );
}

type About = { Config: { NodeName: string; Datacenter: string } };

/** Whether the server answers, and how far its state is. */
function Wire({ onConnect }: { onConnect: () => void }): JSX.Element {
  const [about, setAbout] = useState<About>();
  const [hasLeader, setHasLeader] = useState(true);
  const index = useNewestIndex();
  const { server } = useSettings();
  const failure = usePoll(async (signal) => {
    setHasLeader(json<string>(await call("/v1/status/leader", { signal })) !== "");
    // A token may do without the right to read this.
    if (!about) await call("/v1/agent/self", { signal }).then((answer) => setAbout(json<About>(answer)), () => {});
  }, 5000, []);
  const trouble = failure ?? (hasLeader ? undefined : "The cluster has no leader at the moment.");
  return (
    <>
      <button type="button" class={`wire ${trouble ? "bad" : "good"}`} onClick={onConnect} title="Connection: server and token">
        <span class="hidden">Connection {trouble ? "lost" : "live"}: </span>
        <span class="dot" aria-hidden="true" />
        <span class="whom">{about ? `${about.Config.NodeName} · ${about.Config.Datacenter}` : server || location.host}</span>
        {index > 1 && <span class="index" title="The newest index seen">{index.toLocaleString("en")}</span>}
      </button>
      {trouble && <Notice tone="bad">{trouble}</Notice>}
    </>
  );
}

const THEMES: Record<Theme, { next: Theme; icon: IconName; name: string }> = {
  system: { next: "light", icon: "system", name: "as the system" },
  light: { next: "dark", icon: "sun", name: "light" },
  dark: { next: "system", icon: "moon", name: "dark" },
};

function Look({ theme }: { theme: Theme }): JSX.Element {
  const { next, icon, name } = THEMES[theme];
  const label = `Look: ${name}. Change to ${THEMES[next].name}.`;
  return <button type="button" class="quiet" aria-label={label} title={label} onClick={() => change({ theme: next })}><Icon name={icon} /></button>;
}

/** Keys that work wherever nothing is being typed. Elements name theirs with `data-hotkey`. */
function useHotkeys(onHelp: () => void): void {
  useEffect(() => {
    const keyed = (event: KeyboardEvent) => {
      const isTyped = (event.target as Element).closest("input, textarea, select, dialog");
      if (event.key === "Escape" && isTyped?.matches("input[type=search]")) (isTyped as HTMLElement).blur();
      if (isTyped || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
      const view = VIEWS.find(({ hotkey }) => hotkey === event.key);
      const named = document.querySelector<HTMLElement>(`[data-hotkey="${CSS.escape(event.key)}"]`);
      if (view) go(to(view.view));
      else if (event.key === "?") onHelp();
      else if (event.key === "Escape") document.querySelector<HTMLElement>(".side .close")?.click();
      else if (named) named instanceof HTMLInputElement ? named.focus() : named.click();
      else return;
      event.preventDefault();
    };
    addEventListener("keydown", keyed);
    return () => removeEventListener("keydown", keyed);
  }, []);
}

const HELP: [string, string][] = [
  ["1 2 3 4", "Keys, locks, services, cluster"],
  ["/", "Filter, or go to a path"],
  ["↑ ↓ or k j", "Move in a list"],
  ["Enter or →", "Open"],
  ["← or Backspace", "Up one folder"],
  ["n", "New key"],
  ["e", "Edit the key that is shown"],
  ["Delete", "Delete the key or folder in the list"],
  ["Ctrl+S", "Save the edit"],
  ["Esc", "Close what is open"],
];

function Help({ onClose }: { onClose: () => void }): JSX.Element {
  return (
    <Dialog title="Keyboard" onClose={onClose}>
      <dl class="keys">
        {HELP.map(([keys, what]) => <><dt><kbd>{keys}</kbd></dt><dd>{what}</dd></>)}
      </dl>
      <form method="dialog" class="actions"><button class="primary">Close</button></form>
    </Dialog>
  );
}
