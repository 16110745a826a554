// Time that runs out.
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";

const ticked = new Set<() => void>();
let timer: ReturnType<typeof setInterval> | undefined;

/** Draws anew each second, all that do together; not while the page is hidden. */
export function useSeconds(): void {
  const [, again] = useState(0);
  useEffect(() => {
    const tick = () => again((count) => count + 1);
    ticked.add(tick);
    timer ??= setInterval(() => document.hidden || ticked.forEach((tick) => tick()), 1000);
    return () => {
      ticked.delete(tick);
      if (ticked.size > 0) return;
      clearInterval(timer);
      timer = undefined;
    };
  }, []);
}

/** Counts down to a moment by `performance.now()`. */
export function Left({ end }: { end?: number }): JSX.Element | null {
  useSeconds();
  return end === undefined ? null : <>{lasts(end - performance.now())}</>;
}

/** Milliseconds as people say them. */
export function lasts(ms: number): string {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds / 3600)} h`;
}
