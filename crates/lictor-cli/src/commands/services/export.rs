//! `services export`: a list, kept as a configuration entry, of what other clusters may see.

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::{Failure, Outcome, Ui};
use crate::args::services::ExportArgs;
use crate::client::Call;

const ENTRY: &str = "config/exported-services/default";

pub(super) async fn run(args: &ExportArgs, ui: &mut Ui<'_>) -> Outcome {
    if args.name.is_empty() {
        return Err(Failure("Missing the required -name flag".to_owned()));
    }
    let names = |list: &str| -> Vec<String> {
        let names = list.split(',').map(str::trim);
        names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
    };
    let (peers, partitions) = (names(&args.consumer_peers), names(&args.consumer_partitions));
    if peers.is_empty() && partitions.is_empty() {
        return Err(Failure(
            "Missing the required -consumer-peers or -consumer-partitions flag".to_owned(),
        ));
    }
    let mut client = ui.client(&args.client)?;
    let failed = |error| {
        Failure(format!(
            "Error reading config entry exported-services/default: {error}"
        ))
    };
    let answer = client.send(Call::get(ENTRY)).await.map_err(failed)?;
    let mut entry: Map<String, Value> = if answer.status == StatusCode::NOT_FOUND {
        Map::new()
    } else {
        answer.json().map_err(failed)?
    };
    let index = entry.get("ModifyIndex").and_then(Value::as_u64).unwrap_or(0);
    entry.insert("Kind".to_owned(), json!("exported-services"));
    entry.insert("Name".to_owned(), json!("default"));
    let wanted: Vec<Value> = peers
        .iter()
        .map(|name| json!({ "Peer": name }))
        .chain(partitions.iter().map(|name| json!({ "Partition": name })))
        .collect();
    add(&mut entry, &args.name, wanted);
    let call = Call::put("config", Value::Object(entry).to_string()).with("cas", index.to_string());
    let written = client.send(call).await;
    let written = written.map_err(|error| Failure(format!("Error writing config entry: {error}")))?;
    if !written.is_true() {
        return Err(Failure(
            "The list of exported services was changed by somebody else meanwhile; try again".to_owned(),
        ));
    }
    let mut consumers = Vec::new();
    if !peers.is_empty() {
        consumers.push(format!("cluster peers {:?}", peers.join(",")));
    }
    if !partitions.is_empty() {
        consumers.push(format!("partitions {:?}", partitions.join(",")));
    }
    ui.line(format_args!(
        "Successfully exported service {:?} to {}",
        args.name,
        consumers.join(" and to ")
    ))?;
    Ok(())
}

/// Adds those of `wanted` that are not yet among the consumers of `service`.
fn add(entry: &mut Map<String, Value>, service: &str, wanted: Vec<Value>) {
    let mut services = match entry.remove("Services") {
        Some(Value::Array(services)) => services,
        _ => Vec::new(),
    };
    let known = services.iter_mut().find(|known| known["Name"] == service);
    match known.and_then(|known| known["Consumers"].as_array_mut()) {
        Some(consumers) => {
            for one in wanted {
                if !consumers.contains(&one) {
                    consumers.push(one);
                }
            }
        }
        None => services.push(json!({ "Name": service, "Consumers": wanted })),
    }
    entry.insert("Services".to_owned(), Value::Array(services));
}
