//! `snapshot`: archives of the whole state, saved, looked into, and restored.

mod table;

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lictor_archive::{Inspection, KvSizes};

use super::{Failure, Outcome, Ui};
use crate::args::snapshot::{InspectArgs, RestoreArgs, SaveArgs, SnapshotCommand};
use crate::client::transfer::Sent;
use crate::client::{Call, os_error};
use crate::commands::version::CONSUL_VERSION;

pub(crate) async fn run(command: SnapshotCommand, ui: &mut Ui<'_>) -> Outcome {
    match command {
        SnapshotCommand::Save(args) => save(args, ui).await,
        SnapshotCommand::Restore(args) => restore(args, ui).await,
        SnapshotCommand::Inspect(args) => inspect(&args, ui),
    }
}

/// The file only gets its name once it is whole and right.
async fn save(args: SaveArgs, ui: &mut Ui<'_>) -> Outcome {
    let file = one(&args.file)?;
    let mut client = ui.client(&args.client)?;
    let failed = |error| Failure(format!("Error saving snapshot: {error}"));
    let datacenter = if args.append_filename.contains("dc") {
        let answer = client.send(Call::get("agent/self")).await.map_err(failed)?;
        datacenter(&answer.body)
    } else {
        None
    };
    let file = with_names(file, &args.append_filename, datacenter.as_deref());
    let unverified = format!("{file}.unverified.tmp{}", std::process::id());
    let unwritten = |error: &std::io::Error| {
        let reason = os_error(error);
        Failure(format!(
            "Error writing unverified snapshot file: open {unverified}: {reason}"
        ))
    };
    let mut stream = client.stream(Call::get("snapshot")).await.map_err(failed)?;
    let bar = progress(ui, None);
    let out = File::options().write(true).create_new(true).open(&unverified);
    let half = Half(Path::new(&unverified));
    let mut out = BufWriter::new(out.map_err(|error| unwritten(&error))?);
    while let Some(piece) = stream.next().await.map_err(failed)? {
        out.write_all(&piece).map_err(|error| unwritten(&error))?;
        bar.inc(piece.len() as u64);
    }
    let out = out.into_inner().map_err(|error| unwritten(error.error()))?;
    out.sync_all().map_err(|error| unwritten(&error))?;
    bar.finish_and_clear();
    let found = File::open(&unverified)
        .map_err(|error| Failure(format!("Error opening snapshot file for verify: {error}")))
        .and_then(|file| {
            let found = lictor_archive::inspect(file, None);
            found.map_err(|error| Failure(format!("Error verifying snapshot file: {error}")))
        })?;
    fs::rename(&unverified, &file).map_err(|error| {
        let reason = os_error(&error);
        Failure(format!("Error renaming {unverified:?} to {file:?}: {reason}"))
    })?;
    std::mem::forget(half);
    ui.line(format_args!(
        "Saved and verified snapshot to index {}",
        found.meta.index
    ))?;
    Ok(())
}

/// A file that goes unless it is kept.
struct Half<'a>(&'a Path);

impl Drop for Half<'_> {
    fn drop(&mut self) {
        // It is of no use; why it was not finished is told already.
        let _ = fs::remove_file(self.0);
    }
}

/// `backup.snap` with `version,dc` is `backup-1.20.6-dc1.snap`.
fn with_names(file: &str, names: &str, datacenter: Option<&str>) -> String {
    let mut appended = String::new();
    for name in names.split(',') {
        let text = match name.trim() {
            "version" => Some(CONSUL_VERSION),
            "dc" => datacenter,
            _ => None,
        };
        if let Some(text) = text {
            appended.push('-');
            appended.push_str(text);
        }
    }
    let folder_len = file.rfind('/').map_or(0, |at| at + 1);
    let dot = file[folder_len..]
        .rfind('.')
        .map_or(file.len(), |at| folder_len + at);
    format!("{}{appended}{}", &file[..dot], &file[dot..])
}

fn datacenter(about: &[u8]) -> Option<String> {
    let about: serde_json::Value = serde_json::from_slice(about).ok()?;
    Some(about.get("Config")?.get("Datacenter")?.as_str()?.to_owned())
}

async fn restore(args: RestoreArgs, ui: &mut Ui<'_>) -> Outcome {
    let (file, _) = open(&args.file)?;
    let mut client = ui.client(&args.client)?;
    let failed = |error: &dyn std::fmt::Display| Failure(format!("Error restoring snapshot: {error}"));
    let len_bytes = file.metadata().map_err(|error| failed(&error))?.len();
    let bar = progress(ui, Some(len_bytes));
    let body = Sent::file(file, bar.clone()).map_err(|error| failed(&error))?;
    let restored = client
        .send(Call {
            body,
            ..Call::put("snapshot", "")
        })
        .await;
    bar.finish_and_clear();
    restored.map_err(|error| failed(&error))?;
    ui.line("Restored snapshot")?;
    Ok(())
}

fn inspect(args: &InspectArgs, ui: &mut Ui<'_>) -> Outcome {
    let (file, _) = open(&args.file)?;
    let keys = KvSizes {
        depth: args.kvdepth,
        filter: args.kvfilter.clone(),
    };
    let with_keys = args.kvdetails == Some(true);
    let found = lictor_archive::inspect(file, with_keys.then_some(&keys))
        .map_err(|error| Failure(format!("Error reading snapshot: {error}")))?;
    match args.format.as_str() {
        "pretty" => pretty(&found, with_keys, ui)?,
        "json" => ui.line(table::json(&found, with_keys)?)?,
        other => {
            let text = format!("Error outputting enhanced snapshot data: Unknown format: {other}");
            return Err(Failure(text));
        }
    }
    Ok(())
}

fn pretty(found: &Inspection, with_keys: bool, ui: &mut Ui<'_>) -> Outcome {
    for line in table::pretty(found, with_keys) {
        ui.line(line)?;
    }
    Ok(())
}

fn one(files: &[String]) -> Result<&str, Failure> {
    match files {
        [] => Err(Failure("Missing FILE argument".to_owned())),
        [file] => Ok(file),
        more => {
            let text = format!("Too many arguments (expected 1, got {})", more.len());
            Err(Failure(text))
        }
    }
}

fn open(files: &[String]) -> Result<(File, &str), Failure> {
    let name = one(files)?;
    let file = File::open(name).map_err(|error| {
        let reason = os_error(&error);
        Failure(format!("Error opening snapshot file: open {name}: {reason}"))
    })?;
    Ok((file, name))
}

/// On a terminal only, and on standard error. How much comes is not known before.
fn progress(ui: &Ui<'_>, total_bytes: Option<u64>) -> ProgressBar {
    if !ui.interactive {
        return ProgressBar::hidden();
    }
    let (bar, template) = match total_bytes {
        Some(total) => (
            ProgressBar::new(total),
            "{bar:40} {bytes}/{total_bytes} ({bytes_per_sec}, {eta})",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {bytes} ({bytes_per_sec}) {elapsed}",
        ),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run as run_line;

    #[test]
    fn names_go_before_the_end_of_the_file_name() {
        for (file, names, expected) in [
            ("backup.snap", "", "backup.snap"),
            ("backup.snap", "version,dc", "backup-1.20.6-dc1.snap"),
            ("backup", "dc", "backup-dc1"),
            ("a.b/backup", "dc", "a.b/backup-dc1"),
            ("backup", "other", "backup"),
        ] {
            assert_eq!(with_names(file, names, Some("dc1")), expected);
        }
    }

    #[test]
    fn wrong_arguments_are_told_in_consuls_words() {
        for (line, expected) in [
            ("lictor snapshot save", "Missing FILE argument"),
            (
                "lictor snapshot restore a b",
                "Too many arguments (expected 1, got 2)",
            ),
            (
                "lictor snapshot restore /no/such/file",
                "Error opening snapshot file: open /no/such/file: no such file or directory",
            ),
            (
                "lictor snapshot inspect /no/such/file",
                "Error opening snapshot file: open /no/such/file: no such file or directory",
            ),
        ] {
            assert_eq!(
                run_line(line, "", &[]).failed.as_deref(),
                Some(expected),
                "{line}"
            );
        }
    }

    #[test]
    fn a_snapshot_that_is_none_is_not_kept() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("backup.snap");
        let line = format!("lictor snapshot save {}", file.display());

        let ran = run_line(&line, "", &[(200, "junk")]);

        assert_eq!(ran.asked, ["GET /v1/snapshot"]);
        assert_eq!(
            ran.failed.as_deref(),
            Some("Error verifying snapshot file: failed to decompress snapshot: unexpected EOF")
        );
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 0);
    }

    #[test]
    fn restore_sends_the_whole_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("backup.snap");
        fs::write(&file, "x".repeat(300_000)).expect("writable");
        let line = format!("lictor snapshot restore {}", file.display());

        let ran = run_line(&line, "", &[(200, "")]);
        let refused = run_line(&line, "", &[(500, "no good")]);

        assert_eq!(ran.asked, [format!("PUT /v1/snapshot {}", "x".repeat(300_000))]);
        assert_eq!((ran.out.as_str(), ran.failed), ("Restored snapshot\n", None));
        let expected = "Error restoring snapshot: Unexpected response code: 500 (no good)";
        assert_eq!(refused.failed.as_deref(), Some(expected));
    }
}
