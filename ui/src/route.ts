// The page's own addresses: a view, and what it shows. Keys stand in the query, since a path cannot carry them all.
import { useEffect, useState } from "preact/hooks";

const HOMES = ["/ui/", "/mod/dashboard/"];
export const HOME = HOMES.find((home) => location.pathname.startsWith(home)) ?? HOMES[0]!;

/** Views and the names under which they can be reached; the first is the one in use. */
const VIEWS: Record<string, string[]> = {
  keys: ["keys", "", "browser", "kv"],
  locks: ["locks", "sessions"],
  services: ["services", "nodes"],
  cluster: ["cluster", "stats"],
};

export type Place = { view: string; query: Record<string, string> };

function here(): Place {
  const name = location.pathname.slice(HOME.length).replace(/\/$/, "");
  const view = Object.keys(VIEWS).find((view) => VIEWS[view]!.includes(name)) ?? "missing";
  return { view, query: Object.fromEntries(new URLSearchParams(location.search)) };
}

/** The address of a place. What is undefined or empty is left out. */
export function to(view: string, query: Record<string, string | undefined> = {}): string {
  const pairs = Object.entries(query).filter(([, value]) => value);
  const text = pairs.map(([name, value]) => `${name}=${encodeURIComponent(value!).replace(/%2F/g, "/")}`).join("&");
  return HOME + view + (text && `?${text}`);
}

export function go(address: string, how: "push" | "replace" = "push"): void {
  if (address === location.pathname + location.search) return;
  history[how === "push" ? "pushState" : "replaceState"](null, "", address);
  dispatchEvent(new PopStateEvent("popstate"));
}

export function usePlace(): Place {
  const [place, setPlace] = useState(here);
  useEffect(() => {
    const moved = () => setPlace(here());
    addEventListener("popstate", moved);
    document.addEventListener("click", followed);
    return () => {
      removeEventListener("popstate", moved);
      document.removeEventListener("click", followed);
    };
  }, []);
  return place;
}

/** Links within the page change the view without loading it again. */
function followed(event: MouseEvent): void {
  const link = (event.target as Element | null)?.closest?.("a");
  const isPlain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
  if (!link || !isPlain || event.defaultPrevented || link.hasAttribute("download") || link.target) return;
  if (link.origin !== location.origin || !link.pathname.startsWith(HOME)) return;
  event.preventDefault();
  go(link.pathname + link.search);
}
