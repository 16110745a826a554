// What this browser remembers: the look, the server that the page works against, and a token for each server.
import { useEffect, useState } from "preact/hooks";

export type Theme = "system" | "light" | "dark";

type Settings = {
  theme: Theme;
  /** Address of the server, such as `https://b.example:8501`; empty for the one that the page came from. */
  server: string;
  /** ACL tokens by server, so that none goes to a server that it was not given for. */
  tokens: Record<string, string>;
};

const STORE = "lictor";
let settings: Settings = { theme: "system", server: "", tokens: {} };
try {
  settings = { ...settings, ...JSON.parse(localStorage.getItem(STORE) ?? "{}") };
} catch {
  // Nothing is kept, or what is kept is not ours: the defaults do.
}

const heard = new Set<() => void>();

export function current(): Settings {
  return settings;
}

export function token(): string {
  return settings.tokens[settings.server] ?? "";
}

export function change(part: Partial<Settings>): void {
  settings = { ...settings, ...part };
  try {
    localStorage.setItem(STORE, JSON.stringify(settings));
  } catch {
    // Kept until the page is closed.
  }
  document.documentElement.dataset.theme = settings.theme;
  heard.forEach((hear) => hear());
}

export function useSettings(): Settings {
  const [, again] = useState({});
  useEffect(() => {
    const hear = () => again({});
    heard.add(hear);
    return () => void heard.delete(hear);
  }, []);
  return settings;
}

document.documentElement.dataset.theme = settings.theme;
