//! `operator usage`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;

use super::{Failure, Outcome, Ui};
use crate::args::operator::{InstancesArgs, UsageCommand};
use crate::client::Call;

/// Blanks between columns.
const GAP: usize = 6;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Usage {
    usage: BTreeMap<String, Datacenter>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Datacenter {
    services: u64,
    billable_service_instances: u64,
    nodes: u64,
    #[serde(default)]
    connect_service_instances: BTreeMap<String, u64>,
}

pub(super) async fn run(command: UsageCommand, ui: &mut Ui<'_>) -> Outcome {
    let UsageCommand::Instances(args) = command;
    instances(&args, ui).await
}

async fn instances(args: &InstancesArgs, ui: &mut Ui<'_>) -> Outcome {
    let (billable, connect) = (args.billable == Some(true), args.connect == Some(true));
    if billable && connect {
        return Err(Failure(
            "Cannot specify both -billable and -connect flags".to_owned(),
        ));
    }
    let call = Call::get("operator/usage").with_flag("global", args.all_datacenters);
    let found: Result<Usage, _> = ui.client(&args.client)?.fetch(call).await;
    let usage = found.map_err(|error| Failure(format!("Error fetching usage information: {error}")))?;
    let all = args.all_datacenters == Some(true);
    if !connect {
        show_billable(&usage.usage, all, ui)?;
    }
    if !connect && !billable {
        ui.line("")?;
    }
    if !billable {
        show_connect(&usage.usage, all, ui)?;
    }
    Ok(())
}

fn show_billable(usage: &BTreeMap<String, Datacenter>, all: bool, ui: &mut Ui<'_>) -> Outcome {
    let sum = |count: fn(&Datacenter) -> u64| usage.values().map(count).sum::<u64>();
    let billable = sum(|one| one.billable_service_instances);
    ui.line(format_args!("Billable Service Instances Total: {billable}"))?;
    for (name, one) in usage {
        let count = one.billable_service_instances;
        ui.line(format_args!("{name} Billable Service Instances: {count}"))?;
    }
    ui.line("\nBillable Services")?;
    let mut rows = vec![cells(["Datacenter", "Services", "Service instances"])];
    for (name, one) in usage {
        rows.push(cells([
            name,
            &one.services.to_string(),
            &one.billable_service_instances.to_string(),
        ]));
    }
    if all {
        rows.push(Vec::new());
        let services = sum(|one| one.services).to_string();
        rows.push(cells(["Total", &services, &billable.to_string()]));
    } else {
        for row in &mut rows {
            row.drain(..1.min(row.len()));
        }
    }
    columns(&rows, ui)?;
    ui.line("\n\nNodes")?;
    let mut rows = vec![cells(["Datacenter", "Count"])];
    for (name, one) in usage {
        rows.push(cells([name, &one.nodes.to_string()]));
    }
    rows.push(Vec::new());
    rows.push(cells(["Total", &sum(|one| one.nodes).to_string()]));
    columns(&rows, ui)?;
    ui.line("")?;
    Ok(())
}

fn show_connect(usage: &BTreeMap<String, Datacenter>, all: bool, ui: &mut Ui<'_>) -> Outcome {
    ui.line("Connect Services")?;
    let mut rows = vec![cells(["Datacenter", "Type", "Service instances"])];
    for (name, one) in usage {
        for (kind, count) in &one.connect_service_instances {
            rows.push(cells([name, kind, &count.to_string()]));
        }
    }
    if all {
        let counts = usage
            .values()
            .flat_map(|one| one.connect_service_instances.values());
        rows.push(Vec::new());
        rows.push(cells(["Total", "", &counts.sum::<u64>().to_string()]));
    } else {
        for row in &mut rows {
            row.drain(..1.min(row.len()));
        }
    }
    columns(&rows, ui)
}

fn cells<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn columns(rows: &[Vec<String>], ui: &mut Ui<'_>) -> Outcome {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0) + GAP
    };
    for row in rows {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(line, "{cell:width$}", width = width(at));
        }
        ui.line(line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::run;

    const USAGE: &str = r#"{"Usage":{"dc1":{"Services":2,"ServiceInstances":3,"BillableServiceInstances":2,"Nodes":1,
        "ConnectServiceInstances":{"connect-proxy":0,"mesh-gateway":0}}},"Index":35}"#;

    #[test]
    fn usage_of_one_datacenter_is_two_reports() {
        let ran = run("lictor operator usage instances", "", &[(200, USAGE)]);

        assert_eq!(ran.asked, ["GET /v1/operator/usage"]);
        let shown = "Billable Service Instances Total: 2\ndc1 Billable Service Instances: 2\n\nBillable Services\n\
                     Services      Service instances\n2             2\n\n\nNodes\nDatacenter      Count\ndc1             1\n\n\
                     Total           1\n\n\nConnect Services\nType               Service instances\n\
                     connect-proxy      0\nmesh-gateway       0\n";
        assert_eq!(ran.out, shown);
    }

    #[test]
    fn each_report_can_be_had_alone_and_not_both_alone() {
        let ran = run("lictor operator usage instances -connect", "", &[(200, USAGE)]);
        assert!(ran.out.starts_with("Connect Services\n"), "{}", ran.out);
        let all = "lictor operator usage instances -connect -all-datacenters";
        let ran = run(all, "", &[(200, USAGE)]);
        assert!(ran.out.contains("\n\nTotal "), "{}", ran.out);
        let ran = run("lictor operator usage instances -billable", "", &[(200, USAGE)]);
        assert!(!ran.out.contains("Connect Services"), "{}", ran.out);
        let ran = run("lictor operator usage instances -billable -connect", "", &[]);
        assert_eq!(
            ran.failed.as_deref(),
            Some("Cannot specify both -billable and -connect flags")
        );
    }
}
