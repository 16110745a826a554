//! `operator autopilot`.

use std::collections::BTreeMap;
use std::time::Duration;

use lictor_proto::go;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Failure, Outcome, Ui};
use crate::args::Output;
use crate::args::node::PlainArgs;
use crate::args::operator::{AutopilotCommand, SetConfigArgs, StateArgs};
use crate::client::Call;

const SETTINGS: &str = "operator/autopilot/configuration";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    healthy: bool,
    failure_tolerance: i64,
    #[serde(default)]
    optimistic_failure_tolerance: i64,
    leader: String,
    #[serde(default)]
    voters: Vec<String>,
    #[serde(default)]
    servers: BTreeMap<String, Server>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Server {
    name: String,
    address: String,
    version: String,
    status: String,
    #[serde(default)]
    node_type: String,
    node_status: String,
    healthy: bool,
    last_contact: Option<String>,
    last_term: u64,
    last_index: u64,
    #[serde(default)]
    meta: Option<BTreeMap<String, String>>,
}

pub(super) async fn run(command: AutopilotCommand, ui: &mut Ui<'_>) -> Outcome {
    match command {
        AutopilotCommand::GetConfig(args) => get_config(&args, ui).await,
        AutopilotCommand::SetConfig(args) => set_config(args, ui).await,
        AutopilotCommand::State(args) => state(&args, ui).await,
    }
}

async fn get_config(args: &PlainArgs, ui: &mut Ui<'_>) -> Outcome {
    let found: Result<Map<String, Value>, _> = ui.client(&args.client)?.fetch(Call::get(SETTINGS)).await;
    let settings =
        found.map_err(|error| Failure(format!("Error querying Autopilot configuration: {error}")))?;
    for name in [
        "CleanupDeadServers",
        "LastContactThreshold",
        "MaxTrailingLogs",
        "MinQuorum",
        "ServerStabilizationTime",
    ] {
        let value = settings.get(name).map_or(String::new(), |value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        ui.line(format_args!("{name} = {value}"))?;
    }
    let text = |name: &str| settings.get(name).and_then(Value::as_str).unwrap_or_default();
    let migrations = settings.get("DisableUpgradeMigration").and_then(Value::as_bool);
    ui.line(format_args!(
        "RedundancyZoneTag = {:?}",
        text("RedundancyZoneTag")
    ))?;
    ui.line(format_args!(
        "DisableUpgradeMigration = {}",
        migrations.unwrap_or(false)
    ))?;
    ui.line(format_args!(
        "UpgradeVersionTag = {:?}",
        text("UpgradeVersionTag")
    ))?;
    Ok(())
}

/// Reads the settings, changes those that were given, and writes them back unless somebody else has in between.
async fn set_config(args: SetConfigArgs, ui: &mut Ui<'_>) -> Outcome {
    let mut client = ui.client(&args.client)?;
    let found: Result<Map<String, Value>, _> = client.fetch(Call::get(SETTINGS)).await;
    let mut settings =
        found.map_err(|error| Failure(format!("Error querying Autopilot configuration: {error}")))?;
    let truth = |text: Option<String>| text.map(|text| json!(text == "true"));
    let duration = |given: Option<Duration>| {
        given.map(|given| {
            json!(go::format_duration(
                given.as_nanos().try_into().unwrap_or(i64::MAX)
            ))
        })
    };
    for (name, value) in [
        ("CleanupDeadServers", truth(args.cleanup_dead_servers)),
        ("LastContactThreshold", duration(args.last_contact_threshold)),
        ("MaxTrailingLogs", args.max_trailing_logs.map(Value::from)),
        ("MinQuorum", args.min_quorum.map(Value::from)),
        (
            "ServerStabilizationTime",
            duration(args.server_stabilization_time),
        ),
        ("RedundancyZoneTag", args.redundancy_zone_tag.map(Value::from)),
        ("DisableUpgradeMigration", truth(args.disable_upgrade_migration)),
        ("UpgradeVersionTag", args.upgrade_version_tag.map(Value::from)),
    ] {
        if let Some(value) = value {
            settings.insert(name.to_owned(), value);
        }
    }
    let index = settings.get("ModifyIndex").and_then(Value::as_u64).unwrap_or(0);
    let call = Call::put(SETTINGS, Value::Object(settings).to_string()).with("cas", index.to_string());
    let written = client.send(call).await;
    let written =
        written.map_err(|error| Failure(format!("Error setting Autopilot configuration: {error}")))?;
    if !written.is_true() {
        return Err(Failure(
            "Configuration could not be atomically updated, please try again".to_owned(),
        ));
    }
    ui.line("Configuration updated!")?;
    Ok(())
}

async fn state(args: &StateArgs, ui: &mut Ui<'_>) -> Outcome {
    let mut client = ui.client(&args.client)?;
    let failed = |error| Failure(format!("Error querying Autopilot state: {error}"));
    let answer = client.send(Call::get("operator/autopilot/state")).await;
    let answer = answer.and_then(crate::client::Answer::found).map_err(failed)?;
    if args.format == Output::Json {
        return crate::commands::json(ui, &answer.json::<Value>().map_err(failed)?);
    }
    let state: State = answer.json().map_err(failed)?;
    ui.line(format_args!("Healthy:                      {}", state.healthy))?;
    ui.line(format_args!(
        "Failure Tolerance:            {}",
        state.failure_tolerance
    ))?;
    ui.line(format_args!(
        "Optimistic Failure Tolerance: {}",
        state.optimistic_failure_tolerance
    ))?;
    ui.line(format_args!("Leader:                       {}", state.leader))?;
    ui.line("Voters:")?;
    for id in &state.voters {
        ui.line(format_args!("   {id}"))?;
    }
    ui.line("Servers:")?;
    for (id, server) in &state.servers {
        show(id, server, ui)?;
    }
    ui.line("")?;
    Ok(())
}

fn show(id: &str, server: &Server, ui: &mut Ui<'_>) -> Outcome {
    ui.line(format_args!("   {id}"))?;
    for (name, value) in [
        ("Name", server.name.clone()),
        ("Address", server.address.clone()),
        ("Version", server.version.clone()),
        ("Status", server.status.clone()),
        ("Node Type", server.node_type.clone()),
        ("Node Status", server.node_status.clone()),
        ("Healthy", server.healthy.to_string()),
        (
            "Last Contact",
            server.last_contact.clone().unwrap_or_else(|| "<none>".to_owned()),
        ),
        ("Last Term", server.last_term.to_string()),
        ("Last Index", server.last_index.to_string()),
    ] {
        ui.line(format_args!("      {:16} {value}", format!("{name}:")))?;
    }
    if let Some(meta) = server.meta.as_ref().filter(|meta| !meta.is_empty()) {
        ui.line("      Meta")?;
        for (name, value) in meta {
            ui.line(format_args!("         {name:?}: {value:?}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::run;

    const SETTINGS: &str = r#"{"CleanupDeadServers":true,"LastContactThreshold":"200ms","MaxTrailingLogs":250,"MinQuorum":0,
        "ServerStabilizationTime":"10s","RedundancyZoneTag":"","DisableUpgradeMigration":false,"UpgradeVersionTag":"",
        "CreateIndex":4,"ModifyIndex":40}"#;

    #[test]
    fn settings_are_shown() {
        let ran = run("lictor operator autopilot get-config", "", &[(200, SETTINGS)]);

        assert_eq!(ran.asked, ["GET /v1/operator/autopilot/configuration"]);
        let shown = "CleanupDeadServers = true\nLastContactThreshold = 200ms\nMaxTrailingLogs = 250\nMinQuorum = 0\n\
                     ServerStabilizationTime = 10s\nRedundancyZoneTag = \"\"\nDisableUpgradeMigration = false\n\
                     UpgradeVersionTag = \"\"\n";
        assert_eq!(ran.out, shown);
    }

    #[test]
    fn only_what_is_given_changes_and_only_if_nobody_else_changed_it() {
        let line = "lictor operator autopilot set-config -cleanup-dead-servers=false -server-stabilization-time=20s -min-quorum=3";
        let ran = run(line, "", &[(200, SETTINGS), (200, "true")]);

        assert_eq!(ran.out, "Configuration updated!\n");
        let written = &ran.asked[1];
        let (target, body) = written.split_once(" {").expect("a body");
        assert_eq!(target, "PUT /v1/operator/autopilot/configuration?cas=40");
        let body: serde_json::Value = serde_json::from_str(&format!("{{{body}")).expect("JSON");
        assert_eq!(body["CleanupDeadServers"], false);
        assert_eq!(body["ServerStabilizationTime"], "20s");
        assert_eq!(body["MinQuorum"], 3);
        assert_eq!(body["MaxTrailingLogs"], 250);

        let ran = run(line, "", &[(200, SETTINGS), (200, "false")]);
        assert!(ran.failed.expect("refused").contains("try again"));
    }

    #[test]
    fn the_state_is_shown_for_people_and_for_programs() {
        let answer = r#"{"Healthy":true,"FailureTolerance":1,"OptimisticFailureTolerance":1,"Leader":"i-1","Voters":["i-1"],
            "Servers":{"i-1":{"ID":"i-1","Name":"n","Address":"127.0.0.1:1","NodeStatus":"alive","Version":"1.20.6",
            "LastContact":"0s","LastTerm":2,"LastIndex":37,"Healthy":true,"Status":"leader","NodeType":"voter","Meta":{"a":"b"}}}}"#;
        let ran = run("lictor operator autopilot state", "", &[(200, answer)]);
        let shown = "Healthy:                      true\nFailure Tolerance:            1\nOptimistic Failure Tolerance: 1\n\
                     Leader:                       i-1\nVoters:\n   i-1\nServers:\n   i-1\n      Name:            n\n\
                     \x20     Address:         127.0.0.1:1\n      Version:         1.20.6\n      Status:          leader\n\
                     \x20     Node Type:       voter\n      Node Status:     alive\n      Healthy:         true\n\
                     \x20     Last Contact:    0s\n      Last Term:       2\n      Last Index:      37\n      Meta\n\
                     \x20        \"a\": \"b\"\n\n";
        assert_eq!(ran.out, shown);

        let ran = run(
            "lictor operator autopilot state -format=json",
            "",
            &[(200, answer)],
        );
        assert!(ran.out.starts_with("{\n    \"Healthy\": true,\n"), "{}", ran.out);
    }
}
