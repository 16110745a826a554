use std::io::{self, Write as _};

use super::{Entry, Failure, Outcome, Ui, entries, missing_key, one, without_slash};
use crate::args::kv::GetArgs;
use crate::client::Call;
use crate::commands::query_failed;

pub(super) async fn run(args: GetArgs, ui: &mut Ui<'_>) -> Outcome {
    let key = without_slash(one(&args.key)?.unwrap_or_default());
    let (names, tree) = (args.keys.unwrap_or(false), args.recurse.unwrap_or(false));
    if key.is_empty() && !names && !tree {
        return Err(missing_key());
    }
    let mut client = ui.client(&args.client)?;
    let path = format!("kv/{key}");
    let call = Call::get(&path);
    let call = match (names, tree) {
        (true, recurse) if recurse || args.separator.is_empty() => call.with("keys", ""),
        (true, _) => call.with("keys", "").with("separator", &args.separator),
        (false, true) => call.with("recurse", ""),
        (false, false) => call,
    };
    let answer = client.send(call).await.map_err(query_failed)?;
    let found = answer.status.is_success();
    if names {
        let keys: Vec<String> = if found {
            serde_json::from_slice(&answer.body)
                .map_err(|error| Failure(format!("Error querying Consul agent: {error}")))?
        } else {
            Vec::new()
        };
        for key in keys {
            ui.line(key)?;
        }
        return Ok(());
    }
    let entries = if found { entries(&answer.body)? } else { Vec::new() };
    let show = Show {
        detailed: args.detailed.unwrap_or(false),
        base64: args.base64.unwrap_or(false),
    };
    if tree {
        return show.tree(&entries, ui);
    }
    match entries.first() {
        Some(entry) => show.one(entry, ui),
        None => Err(Failure::error(format_args!("No key exists at: {key}"))),
    }
}

struct Show {
    detailed: bool,
    base64: bool,
}

impl Show {
    fn value(&self, entry: &Entry) -> Result<Vec<u8>, Failure> {
        if self.base64 {
            Ok(entry.base64().as_bytes().to_vec())
        } else {
            entry.bytes()
        }
    }

    fn one(&self, entry: &Entry, ui: &mut Ui<'_>) -> Outcome {
        let value = self.value(entry)?;
        if self.detailed {
            details(entry, &value, ui)?;
        } else {
            ui.out.write_all(&value)?;
            ui.line("")?;
        }
        Ok(())
    }

    fn tree(&self, entries: &[Entry], ui: &mut Ui<'_>) -> Outcome {
        for (at, entry) in entries.iter().enumerate() {
            let value = self.value(entry)?;
            if self.detailed {
                if at > 0 {
                    ui.line("")?;
                }
                details(entry, &value, ui)?;
            } else {
                write!(ui.out, "{}:", entry.key)?;
                ui.out.write_all(&value)?;
                ui.line("")?;
            }
        }
        Ok(())
    }
}

/// Width of the column of names.
const NAMES: usize = 17;

fn details(entry: &Entry, value: &[u8], ui: &mut Ui<'_>) -> io::Result<()> {
    let session = if entry.session.is_empty() {
        "-"
    } else {
        &entry.session
    };
    for (name, field) in [
        ("CreateIndex", &entry.create_index.to_string()),
        ("Flags", &entry.flags.to_string()),
        ("Key", &entry.key),
        ("LockIndex", &entry.lock_index.to_string()),
        ("ModifyIndex", &entry.modify_index.to_string()),
    ] {
        ui.line(format_args!("{name:NAMES$}{field}"))?;
    }
    ui.line(format_args!("{:NAMES$}{session}", "Session"))?;
    if value.is_empty() {
        return ui.line("Value");
    }
    write!(ui.out, "{:NAMES$}", "Value")?;
    ui.out.write_all(value)?;
    ui.line("")
}
