// A line over the last minutes, drawn by hand.
import type { JSX } from "preact";

export type Line = { name: string; points: (number | null)[] };

type Props = {
  title: string;
  /** What the newest value reads as. */
  now: string;
  lines: Line[];
  /** How many points fit in the width. */
  span: number;
  format: (value: number) => string;
};

const [WIDTH, HEIGHT] = [300, 84];

/** The next number above that reads well: 1, 2 or 5 with zeros. */
function ceiling(value: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value) ?? value;
}

export function Chart({ title, now, lines, span, format }: Props): JSX.Element {
  const values = lines.flatMap(({ points }) => points).filter((point) => point !== null);
  const top = ceiling(Math.max(1, ...values));
  const y = (value: number) => HEIGHT - (value / top) * (HEIGHT - 4) - 1;
  return (
    <figure class="chart">
      <figcaption>
        <span>{title}</span>
        <b>{now}</b>
      </figcaption>
      <div class="plot">
        <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={`${title}: ${now}`}>
          <path class="grid" d={`M0 ${y(top)}H${WIDTH}M0 ${y(top / 2)}H${WIDTH}M0 ${y(0)}H${WIDTH}`} />
          {lines.map(({ name, points }, at) => {
            const path = pathOf(points, span, y);
            return (
              <g key={name} class={`line line-${at % 5}`}>
                {lines.length === 1 && path && <path class="area" d={areaOf(points, span, y)} />}
                <path d={path} />
              </g>
            );
          })}
        </svg>
        <span class="scale" aria-hidden="true">{format(top)}</span>
      </div>
      {lines.length > 1 && (
        <p class="legend">{lines.map(({ name }, at) => <span class={`line-${at % 5}`}>{name}</span>)}</p>
      )}
    </figure>
  );
}

/** The newest point is at the right edge; gaps stay gaps. */
function pathOf(points: (number | null)[], span: number, y: (value: number) => number): string {
  let path = "";
  let isOpen = false;
  points.forEach((point, at) => {
    if (point === null) {
      isOpen = false;
      return;
    }
    path += `${isOpen ? "L" : "M"}${xOf(at, points.length, span)} ${y(point).toFixed(1)}`;
    isOpen = true;
  });
  return path;
}

function areaOf(points: (number | null)[], span: number, y: (value: number) => number): string {
  const known = points.findIndex((point) => point !== null);
  const line = pathOf(points.map((point) => point ?? 0), span, y);
  return known < 0 ? "" : `${line}L${WIDTH} ${y(0)}L${xOf(0, points.length, span)} ${y(0)}Z`;
}

function xOf(at: number, length: number, span: number): string {
  return (WIDTH - ((length - 1 - at) * WIDTH) / (span - 1)).toFixed(1);
}
