//! `debug`: gathers what helps to look into a problem, over some time, into a folder or an archive.
//!
//! ```text
//! agent.json, host.json, members.json, raft.json   once, at the start
//! metrics.json                                     one line each interval
//! metrics-N.prom                                   the same in the text format of Prometheus, a file each interval
//! consul.log                                       the log as it is written, at the finest level
//! index.json                                       what was gathered, when, and what could not be
//! ```

mod bundle;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use lictor_proto::go;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::process::Stops;
use super::{Failure, Outcome, Ui, query_failed};
use crate::args::node::DebugArgs;
use crate::client::{Call, Client, ClientError};
use bundle::Bundle;

const DURATION_MIN: Duration = Duration::from_secs(10);
const INTERVAL_MIN: Duration = Duration::from_secs(5);

/// What can be gathered, and what it comes from if that is one question.
const TARGETS: [(&str, Option<&str>); 6] = [
    ("metrics", None),
    ("logs", None),
    ("host", Some("agent/host")),
    ("agent", Some("agent/self")),
    ("members", Some("agent/members")),
    ("raft", Some("operator/raft/configuration")),
];
/// Profiles of a Go program; there are none here.
const PPROF: &str = "pprof";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct About {
    config: AboutConfig,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AboutConfig {
    version: String,
}

pub(crate) async fn run(args: DebugArgs, ui: &mut Ui<'_>) -> Outcome {
    let targets = check(&args).map_err(|why| Failure(format!("==> {why}")))?;
    let mut client = ui.client(&args.client)?;
    let about: About = client
        .fetch(Call::get("agent/self"))
        .await
        .map_err(query_failed)?;
    let archive = args.archive.unwrap_or(true);
    let folder = args.output.unwrap_or_else(default_folder);
    let mut stops = Stops::new()?;
    let mut bundle = Bundle::create(folder, archive).map_err(cannot_write)?;
    let show = |duration: Duration| go::format_duration(duration.as_nanos().try_into().unwrap_or(i64::MAX));
    let (interval, duration) = (show(args.interval), show(args.duration));
    ui.tell(format_args!(
        "==> Starting debugger and capturing static information...\n     \
         Agent Version: '{}'\n          Interval: '{interval}'\n          Duration: '{duration}'\n            \
         Output: '{}'\n           Capture: '{}'",
        about.config.version,
        bundle.result().display(),
        targets.join(", ")
    ))?;
    gather_once(&mut client, &targets, &mut bundle, ui).await?;
    let changing = targets.contains(&"metrics") || targets.contains(&"logs");
    if changing {
        let gathering = Gathering {
            metrics: targets.contains(&"metrics"),
            logs: targets.contains(&"logs"),
            interval: args.interval,
            duration: args.duration,
        };
        gathering.run(&mut client, &mut bundle, &mut stops, ui).await?;
    }
    let index = json!({
        "Version": 1,
        "AgentVersion": about.config.version,
        "Interval": interval,
        "Duration": duration,
        "Targets": targets,
        "Missing": bundle.missing(),
    });
    bundle
        .write("index.json", &pretty(&index))
        .map_err(cannot_write)?;
    let saved = bundle.finish().map_err(cannot_write)?;
    ui.line(format_args!("    Saved debug archive: {}", saved.display()))?;
    Ok(())
}

/// The targets, or what is wrong with the flags.
fn check(args: &DebugArgs) -> Result<Vec<&'static str>, String> {
    if !args.rest.is_empty() {
        return Err("debug: Too many arguments provided, expected 0".to_owned());
    }
    let invalid = |why: String| Err(format!("Capture validation failed: {why}"));
    if args.duration < DURATION_MIN {
        return invalid(format!(
            "duration must be longer than {}s",
            DURATION_MIN.as_secs()
        ));
    }
    if args.interval < INTERVAL_MIN {
        return invalid(format!(
            "interval must be longer than {}s",
            INTERVAL_MIN.as_secs()
        ));
    }
    if args.duration < args.interval {
        return invalid("duration must be longer than interval".to_owned());
    }
    let all = TARGETS.iter().map(|(name, _)| *name);
    if let Some(unknown) = args
        .capture
        .iter()
        .find(|wanted| *wanted != PPROF && !all.clone().any(|name| name == **wanted))
    {
        return invalid(format!("target not found: {unknown}"));
    }
    let wanted = |name: &&str| args.capture.is_empty() || args.capture.iter().any(|wanted| wanted == name);
    Ok(all.filter(wanted).collect())
}

fn default_folder() -> PathBuf {
    let now = OffsetDateTime::from(SystemTime::now()).truncate_to_second();
    // A colon is no good in a name of a file.
    let now = now.format(&Rfc3339).unwrap_or_default().replace(':', "-");
    PathBuf::from(format!("lictor-debug-{now}"))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn cannot_write(error: bundle::BundleError) -> Failure {
    Failure(format!("==> {error}"))
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

async fn gather_once(client: &mut Client, targets: &[&str], bundle: &mut Bundle, ui: &mut Ui<'_>) -> Outcome {
    for (name, path) in TARGETS {
        let Some(path) = path.filter(|_| targets.contains(&name)) else {
            continue;
        };
        match client.fetch::<Value>(Call::get(path)).await {
            Ok(value) => bundle
                .write(&format!("{name}.json"), &pretty(&value))
                .map_err(cannot_write)?,
            Err(error) => missed(name, &error, bundle, ui)?,
        }
    }
    Ok(())
}

/// One thing that is not there is no reason to have nothing.
fn missed(name: &str, error: &ClientError, bundle: &mut Bundle, ui: &mut Ui<'_>) -> Outcome {
    ui.warn(format_args!("==> Cannot capture {name}: {error}"))?;
    bundle.miss(name, error.to_string());
    Ok(())
}

/// What changes is read for a while.
struct Gathering {
    metrics: bool,
    logs: bool,
    interval: Duration,
    duration: Duration,
}

impl Gathering {
    /// Until the time is over, or this process is asked to end.
    async fn run(
        &self,
        client: &mut Client,
        bundle: &mut Bundle,
        stops: &mut Stops,
        ui: &mut Ui<'_>,
    ) -> Outcome {
        let begun = Instant::now();
        let mut ticks = interval_at(begun, self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let end = tokio::time::sleep_until(begun + self.duration);
        tokio::pin!(end);
        let mut log = None;
        if self.logs {
            let call = Call::get("agent/monitor").with("loglevel", "TRACE");
            match client.another().stream(call).await {
                Ok(stream) => log = Some(stream),
                Err(error) => missed("logs", &error, bundle, ui)?,
            }
        }
        let mut round = 0;
        loop {
            let piece = async {
                match &mut log {
                    Some(log) => log.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                piece = piece => match piece {
                    Ok(Some(piece)) => bundle.append("consul.log", &piece).map_err(cannot_write)?,
                    Ok(None) => log = None,
                    Err(error) => {
                        missed("logs", &error, bundle, ui)?;
                        log = None;
                    }
                },
                _ = ticks.tick() => {
                    if self.metrics {
                        read_metrics(client, bundle, round, ui).await?;
                    }
                    round += 1;
                }
                () = &mut end => return Ok(()),
                _ = stops.next() => {
                    ui.tell("==> Stopped early; what is there is kept")?;
                    return Ok(());
                }
            }
        }
    }
}

async fn read_metrics(client: &mut Client, bundle: &mut Bundle, round: u64, ui: &mut Ui<'_>) -> Outcome {
    match client.fetch::<Value>(Call::get("agent/metrics")).await {
        Ok(metrics) => {
            let line = format!("{metrics}\n");
            bundle
                .append("metrics.json", line.as_bytes())
                .map_err(cannot_write)?;
            read_prometheus(client, bundle, round, ui).await?;
            let now = OffsetDateTime::from(SystemTime::now());
            let now = now.format(&Rfc3339).unwrap_or_default();
            ui.tell(format_args!("==> Capture successful {now} ({round})"))?;
            Ok(())
        }
        Err(error) => missed("metrics", &error, bundle, ui),
    }
}

/// The same metrics, and more of each histogram, for tools that read the text format of Prometheus.
async fn read_prometheus(client: &mut Client, bundle: &mut Bundle, round: u64, ui: &mut Ui<'_>) -> Outcome {
    let call = Call::get("agent/metrics").with("format", "prometheus");
    let answer = match client.send(call).await {
        Ok(answer) => answer.found(),
        Err(error) => Err(error),
    };
    match answer {
        Ok(answer) => bundle
            .write(&format!("metrics-{round}.prom"), &answer.body)
            .map_err(cannot_write),
        Err(error) => missed("metrics in the format of Prometheus", &error, bundle, ui),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run;

    #[test]
    fn what_does_not_change_is_gathered_at_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let output = folder.path().join("d");
        let shown = output.display();
        let line = format!("lictor debug -capture=members -capture=raft -archive=false -output={shown}");
        let about = r#"{"Config":{"Version":"1.20.6"}}"#;
        let ran = run(&line, "", &[(200, about), (200, "[]"), (501, "not here")]);

        assert_eq!(
            ran.asked,
            [
                "GET /v1/agent/self",
                "GET /v1/agent/members",
                "GET /v1/operator/raft/configuration"
            ]
        );
        assert!(
            ran.out
                .contains("    Interval: '30s'\n          Duration: '5m0s'\n"),
            "{}",
            ran.out
        );
        assert!(ran.err.contains("Cannot capture raft"), "{}", ran.err);
        let read = |name: &str| std::fs::read_to_string(output.join(name)).expect(name);
        assert_eq!(read("members.json"), "[]\n");
        let index: Value = serde_json::from_str(&read("index.json")).expect("JSON");
        assert_eq!(index["Targets"], json!(["members", "raft"]));
        assert!(
            index["Missing"]["raft"]
                .as_str()
                .is_some_and(|why| why.contains("not here"))
        );
    }

    #[test]
    fn the_archive_holds_the_folder_which_is_gone_then() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let output = folder.path().join("d");
        let line = format!("lictor debug -capture=members -output={}", output.display());
        let about = r#"{"Config":{"Version":"1.20.6"}}"#;
        let ran = run(&line, "", &[(200, about), (200, "[]")]);

        assert_eq!(ran.failed, None);
        let file = std::fs::File::open(folder.path().join("d.tar.gz")).expect("an archive");
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
        let names: Vec<_> = archive
            .entries()
            .expect("a list")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .path()
                    .expect("a name")
                    .display()
                    .to_string()
            })
            .collect();
        assert!(names.contains(&"d/members.json".to_owned()), "{names:?}");
        assert!(names.contains(&"d/index.json".to_owned()), "{names:?}");
        assert!(!output.exists());
    }

    #[test]
    fn flags_that_make_no_sense_are_refused() {
        for (flags, expected) in [
            ("-duration=1s", "duration must be longer than 10s"),
            ("-duration=10s -interval=1s", "interval must be longer than 5s"),
            ("-capture=zz", "target not found: zz"),
        ] {
            let ran = run(&format!("lictor debug {flags}"), "", &[]);
            assert_eq!(
                ran.failed,
                Some(format!("==> Capture validation failed: {expected}"))
            );
        }
        let ran = run("lictor debug x", "", &[]);
        assert_eq!(
            ran.failed.as_deref(),
            Some("==> debug: Too many arguments provided, expected 0")
        );
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let line = format!(
            "lictor debug -capture=members -output={}",
            folder.path().display()
        );
        let ran = run(&line, "", &[(200, r#"{"Config":{"Version":"1.20.6"}}"#)]);

        assert!(ran.failed.expect("refused").contains("exists"));
    }
}
