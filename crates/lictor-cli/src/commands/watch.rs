//! `watch`: waits for changes with blocking queries and hands each new state to a command.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::io::AsyncWriteExt as _;

use super::process::{self, Stops};
use super::{Exit, Failure, Outcome, Ui, query_failed};
use crate::args::watch::WatchArgs;
use crate::client::endpoint::parse_bool;
use crate::client::{Answer, Call, Client, ClientError};

/// Pause after the first failure; it grows with the square of their number.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(180);

/// What is asked for again and again.
#[derive(Debug, PartialEq, Eq)]
struct Query {
    path: String,
    parameters: Vec<(&'static str, String)>,
    shape: Shape,
}

/// What comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// A list of one entry or none.
    Key,
    /// A list of entries, or none.
    Prefix,
    /// The newest events, of which those are passed on that were not before.
    Events,
    /// JSON, passed on as it is.
    Any,
}

pub(crate) async fn run(args: &WatchArgs, ui: &mut Ui<'_>) -> Exit {
    let query = query(args).map_err(Failure)?;
    let mut client = ui.client(&args.client)?;
    client
        .send(Call::get("status/leader"))
        .await
        .map_err(query_failed)?;
    let mut stops = Stops::new()?;
    let mut state = Watched::default();
    let mut failures: u32 = 0;
    loop {
        let asked = tokio::select! {
            asked = ask(&mut client, &query, state.index) => asked,
            _ = stops.next() => return Ok(0),
        };
        let answer = match asked {
            Ok(answer) => answer,
            Err(error) => {
                failures = failures.saturating_add(1);
                state.index = 0;
                let pause = pause_after(failures);
                let (kind, seconds) = (&args.kind, pause.as_secs());
                ui.warn(format_args!(
                    "[ERROR] watch.watch: Watch errored: type={kind} error={:?} retry={seconds}s",
                    error.to_string()
                ))?;
                tokio::select! {
                    () = tokio::time::sleep(pause) => continue,
                    _ = stops.next() => return Ok(0),
                }
            }
        };
        failures = 0;
        let Some(value) = state.change(&answer, query.shape)? else {
            continue;
        };
        if args.child.is_empty() {
            super::json(ui, &value)?;
            return Ok(0);
        }
        let asked_to_stop = handle(args, &value, state.index, &mut stops, ui).await?;
        if asked_to_stop {
            return Ok(0);
        }
    }
}

fn pause_after(failures: u32) -> Duration {
    RETRY_PAUSE
        .saturating_mul(failures.saturating_mul(failures))
        .min(RETRY_PAUSE_MAX)
}

/// The path and parameters of a watch, or what is wrong with it.
fn query(args: &WatchArgs) -> Result<Query, String> {
    if args.kind.is_empty() {
        return Err("Watch type must be specified".to_owned());
    }
    let one = |value: &str, what: &str| {
        if value.is_empty() {
            Err(format!("Must specify a single {what} to watch"))
        } else {
            Ok(value.to_owned())
        }
    };
    let (allowed, path, shape): (&[&str], _, _) = match args.kind.as_str() {
        "key" => (&["key"], format!("kv/{}", one(&args.key, "key")?), Shape::Key),
        "keyprefix" => (
            &["prefix"],
            format!("kv/{}", one(&args.prefix, "prefix")?),
            Shape::Prefix,
        ),
        "services" => (&["filter"], "catalog/services".to_owned(), Shape::Any),
        "nodes" => (&["filter"], "catalog/nodes".to_owned(), Shape::Any),
        "service" => (
            &["service", "tag", "passingonly", "filter"],
            format!("health/service/{}", one(&args.service, "service")?),
            Shape::Any,
        ),
        "checks" => (
            &["service", "state", "filter"],
            match (args.service.as_str(), args.state.as_str()) {
                ("", "") => "health/state/any".to_owned(),
                ("", state) => format!("health/state/{state}"),
                (service, "") => format!("health/checks/{service}"),
                _ => return Err("Cannot specify service and state".to_owned()),
            },
            Shape::Any,
        ),
        "event" => (&["name"], "event/list".to_owned(), Shape::Events),
        "connect_roots" | "connect_leaf" | "agent_service" => {
            return Err(format!("Type {} is not supported in the CLI tool", args.kind));
        }
        other => return Err(format!("Unsupported watch type: {other}")),
    };
    let given = [
        ("key", !args.key.is_empty()),
        ("prefix", !args.prefix.is_empty()),
        ("service", !args.service.is_empty()),
        ("tag", !args.tag.is_empty()),
        ("passingonly", !args.passingonly.is_empty()),
        ("state", !args.state.is_empty()),
        ("name", !args.name.is_empty()),
        ("filter", !args.filter.is_empty()),
    ];
    let wrong: Vec<_> = given
        .iter()
        .filter(|(name, given)| *given && !allowed.contains(name))
        .map(|(name, _)| *name)
        .collect();
    if !wrong.is_empty() {
        return Err(format!("Invalid parameters: [{}]", wrong.join(" ")));
    }
    Ok(Query {
        path,
        parameters: parameters(args, shape)?,
        shape,
    })
}

fn parameters(args: &WatchArgs, shape: Shape) -> Result<Vec<(&'static str, String)>, String> {
    let mut all = Vec::new();
    if shape == Shape::Prefix {
        all.push(("recurse", String::new()));
    }
    if !args.name.is_empty() {
        all.push(("name", args.name.clone()));
    }
    if !args.passingonly.is_empty() {
        let passing = parse_bool(&args.passingonly).ok_or_else(|| {
            format!(
                "Failed to parse passingonly flag: strconv.ParseBool: parsing {:?}: invalid syntax",
                args.passingonly
            )
        })?;
        if passing {
            all.push(("passing", "1".to_owned()));
        }
    }
    all.extend(args.tag.iter().map(|tag| ("tag", tag.clone())));
    if !args.filter.is_empty() {
        all.push(("filter", args.filter.clone()));
    }
    Ok(all)
}

async fn ask(client: &mut Client, query: &Query, index: u64) -> Result<Answer, ClientError> {
    let mut call = Call::get(&query.path);
    for (name, value) in &query.parameters {
        call = call.with(name, value);
    }
    if index > 0 {
        call = call.with("index", index.to_string());
    }
    let answer = client.send(call).await?;
    match query.shape {
        Shape::Key | Shape::Prefix => Ok(answer),
        Shape::Events | Shape::Any => answer.found(),
    }
}

/// What was seen last.
#[derive(Debug, Default)]
struct Watched {
    index: u64,
    value: Option<Value>,
    /// The newest event that was passed on.
    event: Option<String>,
}

impl Watched {
    /// Takes an answer in; answers the new state if there is one.
    fn change(&mut self, answer: &Answer, shape: Shape) -> Result<Option<Value>, Failure> {
        let index = answer.index.unwrap_or(0);
        if index == self.index && self.value.is_some() {
            return Ok(None);
        }
        // After a restore or a rebuilt server indexes can be lower; then waiting begins anew. Those of events have no order.
        let begins_anew = index < self.index && shape != Shape::Events;
        self.index = if begins_anew { 0 } else { index };
        let value = match shape {
            Shape::Events => match self.new_events(answer.json().map_err(query_failed)?) {
                Some(events) => events.into_iter().collect(),
                None => return Ok(None),
            },
            Shape::Any => answer.json().map_err(query_failed)?,
            Shape::Key | Shape::Prefix if !answer.status.is_success() => Value::Null,
            Shape::Key => {
                let mut entries: Vec<Map<String, Value>> = answer.json().map_err(query_failed)?;
                entries.pop().map_or(Value::Null, entry)
            }
            Shape::Prefix => {
                let entries: Vec<Map<String, Value>> = answer.json().map_err(query_failed)?;
                entries.into_iter().map(entry).collect()
            }
        };
        if self.value.as_ref() == Some(&value) {
            return Ok(None);
        }
        self.value = Some(value.clone());
        Ok(Some(value))
    }

    /// Those after the newest that was passed on, or all if it is not remembered any more; `None` if there are no others.
    fn new_events(&mut self, mut events: Vec<Value>) -> Option<Vec<Value>> {
        let id = |event: &Value| event["ID"].as_str().map(str::to_owned);
        let seen = self.event.as_ref();
        if let Some(at) =
            seen.and_then(|seen| events.iter().rposition(|event| id(event).as_ref() == Some(seen)))
        {
            events.drain(..=at);
            if events.is_empty() {
                return None;
            }
        }
        self.event = events.last().and_then(id);
        Some(events)
    }
}

/// An entry with its fields in the order in which Consul's watches have them, and an empty session for none.
fn entry(mut found: Map<String, Value>) -> Value {
    let mut ordered = Map::new();
    for name in ["Key", "CreateIndex", "ModifyIndex", "LockIndex", "Flags", "Value"] {
        ordered.insert(name.to_owned(), found.remove(name).unwrap_or(Value::Null));
    }
    let session = found.remove("Session");
    ordered.insert(
        "Session".to_owned(),
        session.unwrap_or_else(|| Value::String(String::new())),
    );
    Value::Object(ordered)
}

/// Runs the command with the state on its standard input, and answers whether this process was asked to end
/// meanwhile: the command is then asked as well, and this process ends after it.
async fn handle(
    args: &WatchArgs,
    value: &Value,
    index: u64,
    stops: &mut Stops,
    ui: &mut Ui<'_>,
) -> Result<bool, Failure> {
    std::io::Write::flush(&mut ui.out)?;
    let mut command = process::command(&args.child, args.shell.unwrap_or(true), ui);
    command
        .env("CONSUL_INDEX", index.to_string())
        .stdin(Stdio::piped());
    let mut child = command.spawn().map_err(|error| {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let why = process::start_error(&program, &error);
        Failure(format!("Error starting handler: {why}"))
    })?;
    let input = child.stdin.take();
    let text = format!("{value}\n");
    let feed = async {
        if let Some(mut input) = input {
            // A command need not read.
            let _ = input.write_all(text.as_bytes()).await;
        }
    };
    let mut stopped = false;
    let ended = async {
        loop {
            tokio::select! {
                status = child.wait() => return status,
                signal = stops.next() => {
                    process::send(&child, signal);
                    stopped = true;
                }
            }
        }
    };
    let ((), status) = tokio::join!(feed, ended);
    let status = status?;
    // Asked to end, it may well end by the signal.
    if stopped {
        return Ok(true);
    }
    check(status).map(|()| false)
}

/// A command that fails ends the watch.
fn check(status: std::process::ExitStatus) -> Outcome {
    match process::failure(status) {
        None => Ok(()),
        Some(why) => Err(Failure(format!("Error executing handler: {why}"))),
    }
}

#[cfg(test)]
mod tests;
