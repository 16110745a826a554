// What differs between two texts, by lines.

export type Side = { text: string; differs: boolean }[];

/** Longer texts are shown whole: a table of every line against every line would cost too much. */
const LINES_MAX = 1500;

export function diff(left: string, right: string): [Side, Side] {
  const [a, b] = [left.split("\n"), right.split("\n")];
  if (a.length > LINES_MAX || b.length > LINES_MAX) {
    const whole = (lines: string[]) => lines.map((text) => ({ text, differs: false }));
    return [whole(a), whole(b)];
  }
  // common[i][j]: lines in common of a[i..] and b[j..].
  const common = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      common[i]![j] = a[i] === b[j] ? common[i + 1]![j + 1]! + 1 : Math.max(common[i + 1]![j]!, common[i]![j + 1]!);
    }
  }
  const sides: [Side, Side] = [[], []];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      sides[0].push({ text: a[i++]!, differs: false });
      sides[1].push({ text: b[j++]!, differs: false });
    } else if (j >= b.length || (i < a.length && common[i + 1]![j]! >= common[i]![j + 1]!)) {
      sides[0].push({ text: a[i++]!, differs: true });
    } else {
      sides[1].push({ text: b[j++]!, differs: true });
    }
  }
  return sides;
}
