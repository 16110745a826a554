// What was chosen in a list, beside it; on narrow screens in its place.
import type { ComponentChildren, JSX } from "preact";
import { Icon } from "./icons";

type Props = {
  title: string;
  /** What it is, for those who do not see where it stands. */
  label: string;
  /** Where closing it leads. */
  back: string;
  actions?: ComponentChildren;
  children: ComponentChildren;
};

export function Pane({ title, label, back, actions, children }: Props): JSX.Element {
  return (
    <section class="side" aria-label={label}>
      <header class="bar">
        <a class="button quiet back" href={back} aria-label="Back to the list"><Icon name="back" /></a>
        <h1 title={title}>{title}</h1>
        {actions}
        <a class="button quiet close" href={back} aria-label="Close" title="Close (Esc)"><Icon name="close" /></a>
      </header>
      <div class="body">{children}</div>
    </section>
  );
}
