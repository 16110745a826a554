// Which server the page works against, and with which ACL token.
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { Field, Notice } from "../parts/bits";
import { Dialog } from "../parts/dialog";
import { change, current, token } from "../settings";

/** The origin that was meant, empty for this page's own; null if it is none. */
function origin(text: string): string | null {
  if (!text) return "";
  try {
    const url = new URL(/^[a-z]+:\/\//i.test(text) ? text : `http://${text}`);
    const isPlain = /^https?:$/.test(url.protocol) && url.pathname === "/" && !url.search && !url.hash && !url.username;
    return isPlain ? (url.origin === location.origin ? "" : url.origin) : null;
  } catch {
    return null;
  }
}

export function Connection({ onClose }: { onClose: () => void }): JSX.Element {
  const [server, setServer] = useState(current().server);
  const [secret, setSecret] = useState(token());
  const [failure, setFailure] = useState<string>();
  const [isBusy, setBusy] = useState(false);
  const elsewhere = (text: string) => {
    setServer(text);
    const known = origin(text);
    if (known !== null) setSecret(current().tokens[known] ?? "");
  };
  const submit = async (event: Event) => {
    event.preventDefault();
    const to = origin(server.trim());
    if (to === null) return setFailure("Write the address as http://host:port, without a path.");
    setBusy(true);
    try {
      const headers: Record<string, string> = secret ? { "X-Consul-Token": secret } : {};
      const answer = await fetch(`${to}/v1/status/leader`, { cache: "no-store" });
      const known = secret ? await fetch(`${to}/v1/acl/token/self`, { headers, cache: "no-store" }) : answer;
      if (known.status === 403) return setFailure("The server does not know this token.");
      if (!answer.ok) return setFailure(`The server answered with status ${answer.status}. Is this a Lictor server?`);
    } catch {
      return setFailure(`${to || "The server"} does not answer. Either it is down, or it does not let this page in: start it with -cors='${location.origin}'.`);
    } finally {
      setBusy(false);
    }
    const { [to]: _, ...others } = current().tokens;
    change({ server: to, tokens: secret ? { ...others, [to]: secret } : others });
    onClose();
  };
  return (
    <Dialog title="Connection" onClose={onClose}>
      <form onSubmit={submit}>
        <Field name="Server" hint={<>Empty: the server that this page came from. Another one must be started with <code>-cors</code>.</>}
          input={(ids) => (
            <input {...ids} type="text" inputMode="url" placeholder={location.origin} value={server} autocomplete="off" spellcheck={false}
              onInput={(event) => elsewhere(event.currentTarget.value)} />
          )} />
        <Field name="ACL token" hint="Kept in this browser and sent to this server alone."
          input={(ids) => (
            <input {...ids} type="password" value={secret} autocomplete="off" onInput={(event) => setSecret(event.currentTarget.value.trim())} />
          )} />
        {failure && <Notice tone="bad">{failure}</Notice>}
        <div class="actions">
          <button type="button" onClick={onClose}>Cancel</button>
          <button class="primary" disabled={isBusy}>Connect</button>
        </div>
      </form>
    </Dialog>
  );
}
