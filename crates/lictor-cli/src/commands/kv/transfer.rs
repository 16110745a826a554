//! `export` and `import`: a JSON array with one object a key, in Consul's layout, so that either program reads the
//! other's files.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lictor_proto::go;
use serde::{Deserialize, Serialize};

use super::{Failure, Outcome, Ui, entries, one, without_slash};
use crate::args::kv::{ExportArgs, ImportArgs};
use crate::client::Call;
use crate::commands::query_failed;

#[derive(Debug, Serialize, Deserialize)]
struct Exported {
    key: String,
    #[serde(default)]
    flags: u64,
    #[serde(default)]
    value: String,
}

pub(super) async fn export(args: ExportArgs, ui: &mut Ui<'_>) -> Outcome {
    let prefix = without_slash(one(&args.prefix)?.unwrap_or_default());
    let mut client = ui.client(&args.client)?;
    let spinner = progress(ui, None, "waiting for the server");
    let path = format!("kv/{prefix}");
    let answer = client
        .send(Call::get(&path).with("recurse", ""))
        .await
        .map_err(query_failed)?;
    spinner.finish_and_clear();
    let found = if answer.status.is_success() {
        entries(&answer.body)?
    } else {
        Vec::new()
    };
    let exported: Vec<Exported> = found
        .into_iter()
        .map(|entry| Exported {
            value: entry.value.unwrap_or_default(),
            key: entry.key,
            flags: entry.flags,
        })
        .collect();
    let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    exported
        .serialize(&mut serde_json::Serializer::with_formatter(&mut ui.out, tabs))
        .map_err(|error| Failure::error(format_args!("Failed to write the output: {error}")))?;
    ui.line("")?;
    Ok(())
}

pub(super) async fn import(args: ImportArgs, ui: &mut Ui<'_>) -> Outcome {
    let data = match args.data.as_slice() {
        [] => return Err(Failure::error("Missing DATA argument")),
        [data] => data.clone(),
        more => {
            return Err(Failure(format!(
                "Too many arguments (expected 1, got {})",
                more.len()
            )));
        }
    };
    let data = ui.data(&data)?;
    let all: Vec<Exported> =
        serde_json::from_slice(&data).map_err(|error| Failure(format!("Cannot unmarshal data: {error}")))?;
    let mut client = ui.client(&args.client)?;
    let bar = progress(ui, Some(all.len()), "keys");
    for entry in all {
        let key = format!("{}{}", args.prefix, entry.key);
        let value = go::decode_base64(&entry.value, |text| STANDARD.decode(text))
            .map_err(|error| Failure(format!("Error base 64 decoding value for key {key}: {error}")))?;
        let failed =
            |reason: String| Failure::error(format_args!("Failed writing data for key {key}: {reason}"));
        if key.starts_with('/') {
            return Err(failed(format!(
                "Invalid key. Key must not begin with a '/': {key}"
            )));
        }
        let path = format!("kv/{key}");
        let mut call = Call::put(&path, value);
        if entry.flags != 0 {
            call = call.with("flags", entry.flags.to_string());
        }
        let answer = client
            .send(call)
            .await
            .map_err(|error| failed(error.to_string()))?;
        if !answer.is_true() {
            return Err(failed(String::from_utf8_lossy(&answer.body).into_owned()));
        }
        bar.inc(1);
        bar.suspend(|| ui.line(format_args!("Imported: {key}")))?;
    }
    bar.finish_and_clear();
    Ok(())
}

/// On a terminal only, and on standard error, so that it never gets into the data.
fn progress(ui: &Ui<'_>, total: Option<usize>, what: &'static str) -> ProgressBar {
    if !ui.interactive {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total.try_into().unwrap_or(u64::MAX)),
            "{bar:40} {pos}/{len} {msg} ({per_sec}, {eta})",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
