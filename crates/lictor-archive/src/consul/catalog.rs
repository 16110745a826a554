//! Nodes, services and checks: each registration carries a node, and one service or check of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use lictor_proto::v1::{CheckRow, NodeRow, ServiceAddress, ServiceRow};
use lictor_state::{Write, fold_name};

use super::strings;
use crate::msgpack::Value;

/// Rows by their names, since each node comes several times.
#[derive(Default)]
pub(super) struct Catalog {
    nodes: BTreeMap<Vec<u8>, NodeRow>,
    services: Vec<ServiceRow>,
    checks: Vec<CheckRow>,
}

impl Catalog {
    /// Takes a registration; `None` for one that makes no sense. What a peer cluster lent is left out.
    pub(super) fn take(&mut self, value: &Value) -> Option<()> {
        if !value.field("PeerName").text()?.is_empty() {
            return Some(());
        }
        let node = node(value)?;
        let (service_of, check_of) = (value.field("Service"), value.field("Check"));
        if !service_of.is_nil() {
            self.services.push(service(service_of, &node.node)?);
        }
        if !check_of.is_nil() {
            self.checks.push(check(check_of, &node.node)?);
        }
        self.nodes.insert(fold_name(&node.node).to_vec(), node);
        Some(())
    }

    pub(super) fn into_rows(self) -> impl Iterator<Item = Write> {
        let nodes = self.nodes.into_values().map(|row| Write::Node(Arc::new(row)));
        let services = self.services.into_iter().map(|row| Write::Service(Arc::new(row)));
        let checks = self.checks.into_iter().map(|row| Write::Check(Arc::new(row)));
        nodes.chain(services).chain(checks)
    }
}

fn node(value: &Value) -> Option<NodeRow> {
    let text = |field| Some(value.field(field).text()?.to_owned());
    let (tagged_addresses, tagged_addresses_null) = map(value.field("TaggedAddresses"), texts)?;
    let (meta, meta_null) = map(value.field("NodeMeta"), texts)?;
    let name = text("Node")?;
    Some(NodeRow {
        id: text("ID")?,
        node: Some(name).filter(|name| !name.is_empty())?,
        address: text("Address")?,
        datacenter: text("Datacenter")?,
        tagged_addresses,
        meta,
        create_index: value.field("CreateIndex").uint()?,
        modify_index: value.field("ModifyIndex").uint()?,
        tagged_addresses_null,
        meta_null,
        client: None,
    })
}

/// A service as the catalog shows it; what belongs to the mesh is left out.
fn service(value: &Value, node: &str) -> Option<ServiceRow> {
    let text = |field| Some(value.field(field).text()?.to_owned());
    let (tagged_addresses, tagged_addresses_null) = map(value.field("TaggedAddresses"), |value| {
        Some(ServiceAddress {
            address: value.field("Address").text()?.to_owned(),
            port: value.field("Port").uint()?.try_into().ok()?,
        })
    })?;
    let (meta, meta_null) = map(value.field("Meta"), texts)?;
    let weights = value.field("Weights");
    let weight = |field| {
        if weights.is_nil() {
            Some(1)
        } else {
            weights.field(field).int()
        }
    };
    Some(ServiceRow {
        node: node.to_owned(),
        id: text("ID")?,
        service: text("Service")?,
        tags: strings(value.field("Tags"))?,
        tags_null: value.field("Tags").is_nil(),
        address: text("Address")?,
        tagged_addresses,
        tagged_addresses_null,
        meta,
        meta_null,
        port: value.field("Port").uint()?.try_into().ok()?,
        weight_passing: weight("Passing")?,
        weight_warning: weight("Warning")?,
        enable_tag_override: *value.field("EnableTagOverride") == Value::Bool(true),
        create_index: value.field("CreateIndex").uint()?,
        modify_index: value.field("ModifyIndex").uint()?,
        kind: text("Kind")?,
        socket_path: text("SocketPath")?,
        ..ServiceRow::default()
    })
}

fn check(value: &Value, node: &str) -> Option<CheckRow> {
    let text = |field| Some(value.field(field).text()?.to_owned());
    Some(CheckRow {
        node: node.to_owned(),
        check_id: text("CheckID")?,
        name: text("Name")?,
        status: text("Status")?,
        notes: text("Notes")?,
        output: text("Output")?,
        service_id: text("ServiceID")?,
        service_name: text("ServiceName")?,
        service_tags: strings(value.field("ServiceTags"))?,
        r#type: text("Type")?,
        interval: text("Interval")?,
        timeout: text("Timeout")?,
        exposed_port: value.field("ExposedPort").uint()?.try_into().ok()?,
        definition_json: String::new(),
        create_index: value.field("CreateIndex").uint()?,
        modify_index: value.field("ModifyIndex").uint()?,
    })
}

fn texts(value: &Value) -> Option<String> {
    value.text().map(str::to_owned)
}

/// A map with names, and whether it was nil.
fn map<T>(value: &Value, each: impl Fn(&Value) -> Option<T>) -> Option<(BTreeMap<String, T>, bool)> {
    match value {
        Value::Nil => Some((BTreeMap::new(), true)),
        Value::Map(entries) => {
            let entry = |(name, value): &(Value, Value)| Some((name.text()?.to_owned(), each(value)?));
            Some((entries.iter().map(entry).collect::<Option<_>>()?, false))
        }
        _ => None,
    }
}
