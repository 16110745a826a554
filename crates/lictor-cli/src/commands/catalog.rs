//! `catalog`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Failure, Outcome, Ui, no_arguments, table};
use crate::args::catalog::{CatalogCommand, DatacentersArgs, NodesArgs, ServicesArgs};
use crate::client::Call;

/// How much of a node's id is shown to people.
const SHORT_ID_CHARS: usize = 8;
/// Blanks between a service and its tags.
const TAGS_GAP: usize = 6;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(rename = "Node")]
    name: String,
    address: String,
    #[serde(default)]
    datacenter: String,
    #[serde(default)]
    tagged_addresses: Option<BTreeMap<String, String>>,
    // A row of a service carries its node's metadata under another name.
    #[serde(default, alias = "NodeMeta")]
    meta: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NodeServices {
    #[serde(default)]
    services: BTreeMap<String, Instance>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    service: String,
    #[serde(default)]
    tags: Option<Vec<String>>,
}

pub(crate) async fn run(command: CatalogCommand, ui: &mut Ui<'_>) -> Outcome {
    match command {
        CatalogCommand::Datacenters(args) => datacenters(&args, ui).await,
        CatalogCommand::Nodes(args) => nodes(&args, ui).await,
        CatalogCommand::Services(args) => services(&args, ui).await,
    }
}

async fn datacenters(args: &DatacentersArgs, ui: &mut Ui<'_>) -> Outcome {
    no_arguments(&args.rest)?;
    let mut client = ui.client(&args.client)?;
    let found: Result<Vec<String>, _> = client.fetch(Call::get("catalog/datacenters")).await;
    for name in found.map_err(|error| Failure(format!("Error listing datacenters: {error}")))? {
        ui.line(name)?;
    }
    Ok(())
}

async fn nodes(args: &NodesArgs, ui: &mut Ui<'_>) -> Outcome {
    no_arguments(&args.rest)?;
    let (path, doing) = match &args.service {
        Some(name) => (format!("catalog/service/{name}"), "listing nodes for service"),
        None => ("catalog/nodes".to_owned(), "listing nodes"),
    };
    let call = with_meta(Call::get(&path), &args.node_meta)
        .with_some("near", args.near.as_deref())
        .with_some("filter", args.filter.as_deref());
    let found: Result<Vec<Node>, _> = ui.client(&args.client)?.fetch(call).await;
    let mut found = found.map_err(|error| Failure(format!("Error {doing}: {error}")))?;
    // Several instances of a service on a node are one node.
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|node| seen.insert(node.name.clone()));
    if found.is_empty() {
        ui.warn("No nodes match the given query - try expanding your search.")?;
        return Ok(());
    }
    if args.near.is_none() {
        found.sort_by(|a, b| a.name.cmp(&b.name));
    }
    if args.detailed == Some(true) {
        let head = ["Node", "ID", "Address", "DC", "TaggedAddresses", "Meta"].map(str::to_owned);
        let row = |node: Node| {
            let (addresses, meta) = (pairs(node.tagged_addresses), pairs(node.meta));
            [node.name, node.id, node.address, node.datacenter, addresses, meta]
        };
        let rows: Vec<_> = std::iter::once(head).chain(found.into_iter().map(row)).collect();
        table(ui, &rows)?;
    } else {
        let head = ["Node", "ID", "Address", "DC"].map(str::to_owned);
        let row = |node: Node| {
            let id = node.id.chars().take(SHORT_ID_CHARS).collect();
            [node.name, id, node.address, node.datacenter]
        };
        let rows: Vec<_> = std::iter::once(head).chain(found.into_iter().map(row)).collect();
        table(ui, &rows)?;
    }
    Ok(())
}

async fn services(args: &ServicesArgs, ui: &mut Ui<'_>) -> Outcome {
    no_arguments(&args.rest)?;
    let mut client = ui.client(&args.client)?;
    let found: BTreeMap<String, Vec<String>> = if let Some(node) = &args.node {
        let path = format!("catalog/node/{node}");
        let call = with_meta(Call::get(&path), &args.node_meta);
        let found: Result<Option<NodeServices>, _> = client.fetch(call).await;
        let found = found
            .map_err(|error| Failure(format!("Error listing services for node: {error}")))?
            .map_or_else(BTreeMap::new, |node| node.services);
        let mut named: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for instance in found.into_values() {
            let tags = instance.tags.unwrap_or_default();
            named.entry(instance.service).or_default().extend(tags);
        }
        named
    } else {
        let call = with_meta(Call::get("catalog/services"), &args.node_meta);
        let found = client.fetch(call).await;
        found.map_err(|error| Failure(format!("Error listing services: {error}")))?
    };
    if found.is_empty() {
        ui.warn("No services match the given query - try expanding your search.")?;
        return Ok(());
    }
    let width = found.keys().map(|name| name.chars().count()).max().unwrap_or(0) + TAGS_GAP;
    for (name, mut tags) in found {
        if args.tags == Some(true) {
            tags.sort();
            tags.dedup();
            ui.line(format_args!("{name:width$}{}", tags.join(",")))?;
        } else {
            ui.line(name)?;
        }
    }
    Ok(())
}

fn with_meta<'a>(mut call: Call<'a>, meta: &[(String, String)]) -> Call<'a> {
    for (name, value) in meta {
        call = call.with("node-meta", format!("{name}:{value}"));
    }
    call
}

fn pairs(map: Option<BTreeMap<String, String>>) -> String {
    let all: Vec<_> = map
        .unwrap_or_default()
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use crate::testing::run;

    const NODES: &str = r#"[{"ID":"bd2f4435-6ec4","Node":"vm","Address":"127.0.0.1","Datacenter":"dc1",
        "TaggedAddresses":{"lan":"127.0.0.1"},"Meta":{"k":"v","a":"b"},"CreateIndex":1,"ModifyIndex":1},
        {"ID":"","Node":"ext","Address":"10.0.0.1","Datacenter":"dc1","TaggedAddresses":null,"Meta":null}]"#;

    #[test]
    fn datacenters_are_listed() {
        let ran = run("lictor catalog datacenters", "", &[(200, r#"["dc1","dc2"]"#)]);

        assert_eq!(ran.asked, ["GET /v1/catalog/datacenters"]);
        assert_eq!(ran.out, "dc1\ndc2\n");
    }

    #[test]
    fn nodes_are_a_table_by_name() {
        let ran = run("lictor catalog nodes", "", &[(200, NODES)]);
        assert_eq!(ran.asked, ["GET /v1/catalog/nodes"]);
        let table = "Node  ID        Address    DC\n\
                     ext             10.0.0.1   dc1\n\
                     vm    bd2f4435  127.0.0.1  dc1\n";
        assert_eq!(ran.out, table);

        let ran = run("lictor catalog nodes -detailed", "", &[(200, NODES)]);
        assert!(
            ran.out
                .ends_with("bd2f4435-6ec4  127.0.0.1  dc1  lan=127.0.0.1    a=b, k=v\n"),
            "{}",
            ran.out
        );
    }

    #[test]
    fn conditions_go_to_the_server() {
        let line =
            "lictor catalog nodes -service=web -near=_agent -node-meta=a=b -node-meta c=d -filter=x==y";
        let ran = run(line, "", &[(200, "[]")]);

        let asked = "GET /v1/catalog/service/web?node-meta=a%3Ab&node-meta=c%3Ad&near=_agent&filter=x%3D%3Dy";
        assert_eq!(ran.asked, [asked]);
        let nothing = "No nodes match the given query - try expanding your search.\n";
        assert_eq!((ran.err.as_str(), ran.code), (nothing, 0));
    }

    #[test]
    fn services_are_listed_with_their_tags() {
        let all = r#"{"web":["b","a"],"consul":[]}"#;
        let ran = run("lictor catalog services", "", &[(200, all)]);
        assert_eq!(ran.out, "consul\nweb\n");

        let ran = run("lictor catalog services -tags", "", &[(200, all)]);
        assert_eq!(ran.out, "consul      \nweb         a,b\n");
    }

    #[test]
    fn services_of_a_node_are_named_once() {
        let node = r#"{"Node":{},"Services":{"web1":{"Service":"web","Tags":["a"]},"web2":{"Service":"web","Tags":["a","b"]}}}"#;
        let ran = run("lictor catalog services -node=vm -tags", "", &[(200, node)]);
        assert_eq!(ran.asked, ["GET /v1/catalog/node/vm"]);
        assert_eq!(ran.out, "web      a,b\n");

        let ran = run("lictor catalog services -node=no", "", &[(200, "null")]);
        let nothing = "No services match the given query - try expanding your search.\n";
        assert_eq!((ran.err.as_str(), ran.code), (nothing, 0));
    }

    #[test]
    fn arguments_are_refused() {
        for what in ["datacenters", "nodes", "services"] {
            let ran = run(&format!("lictor catalog {what} x"), "", &[]);
            assert_eq!(
                ran.failed.as_deref(),
                Some("Too many arguments (expected 0, got 1)")
            );
        }
    }
}
