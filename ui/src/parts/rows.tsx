// A table of any length: only the rows in view are there. Arrow keys, Home, End and the letters j and k move in it.
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

type Props<T> = {
  label: string;
  columns: { name: string; class: string }[];
  items: T[];
  idOf: (item: T) => string;
  /** The cells of a row. The first holds a link, which is what the keyboard reaches. */
  row: (item: T) => JSX.Element;
  rowClass?: (item: T) => string;
  selected?: string;
  /** Told which items are in view. */
  onView?: (items: T[]) => void;
  onKey?: (event: KeyboardEvent, item: T) => void;
};

/** As `--row` in the style sheet. */
const ROW_PX = 34;
const BEYOND = 10;

export function Rows<T>({ label, columns, items, idOf, row, rowClass, selected, onView, onKey }: Props<T>): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(800);
  const [active, setActive] = useState(0);
  const wantsFocus = useRef(false);
  const at = Math.min(active, Math.max(0, items.length - 1));
  const first = Math.max(0, Math.floor(top / ROW_PX) - BEYOND);
  const last = Math.min(items.length, Math.ceil((top + height) / ROW_PX) + BEYOND);

  useEffect(() => {
    const seen = new ResizeObserver(([entry]) => setHeight(entry!.contentRect.height));
    seen.observe(box.current!);
    return () => seen.disconnect();
  }, []);
  useEffect(() => {
    const found = selected === undefined ? -1 : items.findIndex((item) => idOf(item) === selected);
    if (found >= 0) setActive(found);
  }, [selected]);
  useEffect(() => onView?.(items.slice(first, last)), [items, first, last]);
  useLayoutEffect(() => {
    if (!wantsFocus.current) return;
    wantsFocus.current = false;
    const outer = box.current!;
    const head = outer.querySelector<HTMLElement>(".head")!.offsetHeight;
    const y = at * ROW_PX;
    if (y < outer.scrollTop) outer.scrollTop = y;
    else if (y + ROW_PX + head > outer.scrollTop + outer.clientHeight) outer.scrollTop = y + ROW_PX + head - outer.clientHeight;
    outer.querySelector<HTMLElement>(`[data-at="${at}"] a`)?.focus();
  }, [at, top]);

  const move = (to: number) => {
    const next = Math.max(0, Math.min(items.length - 1, to));
    wantsFocus.current = true;
    setActive(next);
    // A row that is not there yet cannot take the focus: bring it into view first.
    if (next < first || next >= last) {
      box.current!.scrollTop = next * ROW_PX;
      setTop(next * ROW_PX);
    }
  };
  const keyed = (event: KeyboardEvent) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const page = Math.max(1, Math.floor(height / ROW_PX) - 2);
    const steps: Record<string, number> = {
      ArrowDown: at + 1, j: at + 1, ArrowUp: at - 1, k: at - 1,
      PageDown: at + page, PageUp: at - page, Home: 0, End: items.length - 1,
    };
    const to = steps[event.key];
    if (to !== undefined) {
      event.preventDefault();
      move(to);
    } else if (items[at]) {
      onKey?.(event, items[at]);
    }
  };
  return (
    <div class="rows" ref={box} role="table" aria-label={label} aria-rowcount={items.length + 1} onScroll={() => setTop(box.current!.scrollTop)} onKeyDown={keyed}>
      <div class="row head" role="row" aria-rowindex={1}>
        {columns.map(({ name, class: cell }) => <span role="columnheader" class={cell}>{name}</span>)}
      </div>
      <div class="space" role="rowgroup" style={{ height: `${items.length * ROW_PX}px` }}>
        {items.slice(first, last).map((item, i) => {
          const id = idOf(item);
          const style = { transform: `translateY(${(first + i) * ROW_PX}px)` };
          const classes = `row ${id === selected ? "selected" : ""} ${rowClass?.(item) ?? ""}`;
          return (
            <div key={id} class={classes} role="row" aria-rowindex={first + i + 2} data-at={first + i} style={style}
              onFocusCapture={() => setActive(first + i)}>
              {row(item)}
            </div>
          );
        })}
      </div>
    </div>
  );
}
