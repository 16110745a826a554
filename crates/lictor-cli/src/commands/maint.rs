//! `maint`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Failure, Outcome, Ui, query_failed};
use crate::args::node::MaintArgs;
use crate::client::{Call, Client};

/// The check that a node in maintenance has.
const NODE_CHECK: &str = "_node_maintenance";
/// What the ids of such checks of services begin with.
const SERVICE_CHECK: &str = "_service_maintenance:";

#[derive(Debug, Deserialize)]
struct Check {
    #[serde(rename = "Node")]
    node: String,
    #[serde(rename = "CheckID")]
    id: String,
    #[serde(rename = "Notes")]
    notes: String,
    #[serde(rename = "ServiceID")]
    service: String,
}

pub(crate) async fn run(args: &MaintArgs, ui: &mut Ui<'_>) -> Outcome {
    let (enable, disable) = (args.enable == Some(true), args.disable == Some(true));
    let refuse = |text: &str| Err(Failure(text.to_owned()));
    if enable && disable {
        return refuse("Only one of -enable or -disable may be provided");
    }
    if !enable && !args.reason.is_empty() {
        return refuse("Reason may only be provided with -enable");
    }
    if !enable && !disable && !args.service.is_empty() {
        return refuse("Service requires either -enable or -disable");
    }
    let mut client = ui.client(&args.client)?;
    if !enable && !disable {
        return show(&mut client, ui).await;
    }
    let service = (!args.service.is_empty()).then_some(args.service.as_str());
    let path = match service {
        Some(id) => format!("agent/service/maintenance/{id}"),
        None => "agent/maintenance".to_owned(),
    };
    let reason = (!args.reason.is_empty()).then_some(args.reason.as_str());
    let call = Call::put(&path, "")
        .with("enable", enable.to_string())
        .with_some("reason", reason);
    let what = if service.is_some() { "service" } else { "node" };
    let doing = if enable { "enabling" } else { "disabling" };
    let done = client.send(call).await;
    done.map_err(|error| Failure(format!("Error {doing} {what} maintenance: {error}")))?;
    let now = if enable { "enabled" } else { "disabled" };
    match service {
        Some(id) => ui.line(format_args!("Service maintenance is now {now} for {id:?}"))?,
        None => ui.line(format_args!("Node maintenance is now {now}"))?,
    }
    Ok(())
}

/// Prints what is under maintenance; nothing if nothing is.
async fn show(client: &mut Client, ui: &mut Ui<'_>) -> Outcome {
    let checks: BTreeMap<String, Check> = client
        .fetch(Call::get("agent/checks"))
        .await
        .map_err(query_failed)?;
    for check in checks.values() {
        if check.id == NODE_CHECK {
            ui.line("Node:")?;
            ui.line(format_args!("  Name:   {}", check.node))?;
        } else if check.id.starts_with(SERVICE_CHECK) {
            ui.line("Service:")?;
            ui.line(format_args!("  ID:     {}", check.service))?;
        } else {
            continue;
        }
        ui.line(format_args!("  Reason: {}\n", check.notes))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::run;

    #[test]
    fn maintenance_of_the_node_and_of_a_service() {
        for (line, asked, said) in [
            (
                "lictor maint -enable -reason=why",
                "PUT /v1/agent/maintenance?enable=true&reason=why",
                "Node maintenance is now enabled\n",
            ),
            (
                "lictor maint -disable",
                "PUT /v1/agent/maintenance?enable=false",
                "Node maintenance is now disabled\n",
            ),
            (
                "lictor maint -enable -service=web",
                "PUT /v1/agent/service/maintenance/web?enable=true",
                "Service maintenance is now enabled for \"web\"\n",
            ),
        ] {
            let ran = run(line, "", &[(200, "")]);
            assert_eq!((ran.asked, ran.out.as_str()), (vec![asked.to_owned()], said));
        }
    }

    #[test]
    fn what_is_under_maintenance_is_shown() {
        let checks = r#"{"_node_maintenance":{"Node":"n","CheckID":"_node_maintenance","Notes":"why","ServiceID":""},
            "_service_maintenance:web":{"Node":"n","CheckID":"_service_maintenance:web","Notes":"z","ServiceID":"web"},
            "other":{"Node":"n","CheckID":"other","Notes":"","ServiceID":""}}"#;
        let ran = run("lictor maint", "", &[(200, checks)]);

        assert_eq!(
            ran.out,
            "Node:\n  Name:   n\n  Reason: why\n\nService:\n  ID:     web\n  Reason: z\n\n"
        );
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused() {
        for (line, expected) in [
            (
                "lictor maint -enable -disable",
                "Only one of -enable or -disable may be provided",
            ),
            (
                "lictor maint -disable -reason=x",
                "Reason may only be provided with -enable",
            ),
            (
                "lictor maint -service=x",
                "Service requires either -enable or -disable",
            ),
        ] {
            assert_eq!(run(line, "", &[]).failed.as_deref(), Some(expected));
        }
    }
}
