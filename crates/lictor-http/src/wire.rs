//! Catalog rows as Consul shows them: field order, `null` against `{}` and `[]`, and what is left out.
//!
//! These are not the rows themselves, so that a change of a row cannot change the wire.

pub(crate) mod agent;
pub(crate) mod catalog;

use std::collections::BTreeMap;

use lictor_proto::v1;
use serde::Serialize;
use serde_json::{Value, json};

/// A node in lists, health answers and transactions.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(clippy::struct_field_names, reason = "the names are Consul's")]
pub(crate) struct Node<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    node: &'a str,
    address: &'a str,
    datacenter: &'a str,
    tagged_addresses: Option<&'a BTreeMap<String, String>>,
    meta: Option<&'a BTreeMap<String, String>>,
    create_index: u64,
    modify_index: u64,
}

impl<'a> Node<'a> {
    pub(crate) fn of(row: &'a v1::NodeRow) -> Self {
        Self {
            id: &row.id,
            node: &row.node,
            address: &row.address,
            datacenter: &row.datacenter,
            tagged_addresses: (!row.tagged_addresses_null).then_some(&row.tagged_addresses),
            meta: (!row.meta_null).then_some(&row.meta),
            create_index: row.create_index,
            modify_index: row.modify_index,
        }
    }
}

/// How checks of a service weigh for DNS.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Weights {
    passing: i64,
    warning: i64,
}

impl Weights {
    fn of(row: &v1::ServiceRow) -> Self {
        Self {
            passing: row.weight_passing,
            warning: row.weight_warning,
        }
    }
}

/// An address that a service has under a tag.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ServiceAddress<'a> {
    address: &'a str,
    port: u32,
}

fn tagged_addresses(row: &v1::ServiceRow) -> BTreeMap<&str, ServiceAddress<'_>> {
    let entries = row.tagged_addresses.iter();
    let shown = entries.map(|(tag, of_tag)| {
        let v1::ServiceAddress { address, port } = of_tag;
        (tag.as_str(), ServiceAddress { address, port: *port })
    });
    shown.collect()
}

/// A service instance in health answers and transactions.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(clippy::struct_field_names, reason = "the names are Consul's")]
pub(crate) struct Service<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    kind: &'a str,
    #[serde(rename = "ID")]
    id: &'a str,
    service: &'a str,
    tags: Option<&'a [String]>,
    address: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tagged_addresses: BTreeMap<&'a str, ServiceAddress<'a>>,
    meta: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "is_zero")]
    port: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    socket_path: &'a str,
    weights: Weights,
    enable_tag_override: bool,
    #[serde(skip_serializing_if = "Value::is_null")]
    locality: Value,
    proxy: Value,
    connect: Value,
    peer_name: &'a str,
    create_index: u64,
    modify_index: u64,
}

impl<'a> Service<'a> {
    /// A service with `[]` for no tags, as lists show it.
    pub(crate) fn listed(row: &'a v1::ServiceRow) -> Self {
        Self {
            tags: Some(&row.tags),
            ..Self::of(row)
        }
    }

    /// A service with `null` for no tags, as transactions show it.
    pub(crate) fn of(row: &'a v1::ServiceRow) -> Self {
        Self {
            kind: &row.kind,
            id: &row.id,
            service: &row.service,
            tags: (!row.tags_null).then_some(&row.tags),
            address: &row.address,
            tagged_addresses: tagged_addresses(row),
            meta: (!row.meta_null).then_some(&row.meta),
            port: row.port,
            socket_path: &row.socket_path,
            weights: Weights::of(row),
            enable_tag_override: row.enable_tag_override,
            locality: kept_json(&row.locality_json, || Value::Null),
            proxy: kept_json(
                &row.proxy_json,
                || json!({"Mode": "", "MeshGateway": {}, "Expose": {}}),
            ),
            connect: kept_json(&row.connect_json, || json!({})),
            peer_name: "",
            create_index: row.create_index,
            modify_index: row.modify_index,
        }
    }
}

/// A check in health answers and transactions.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
#[expect(clippy::struct_field_names, reason = "the names are Consul's")]
pub(crate) struct Check<'a> {
    node: &'a str,
    #[serde(rename = "CheckID")]
    check_id: &'a str,
    name: &'a str,
    status: &'a str,
    notes: &'a str,
    output: &'a str,
    #[serde(rename = "ServiceID")]
    service_id: &'a str,
    service_name: &'a str,
    service_tags: Option<&'a [String]>,
    #[serde(rename = "Type")]
    kind: &'a str,
    interval: &'a str,
    timeout: &'a str,
    exposed_port: u32,
    definition: Value,
    create_index: u64,
    modify_index: u64,
}

impl<'a> Check<'a> {
    /// A check with `[]` for no tags, as lists show it.
    pub(crate) fn listed(row: &'a v1::CheckRow) -> Self {
        Self {
            service_tags: Some(&row.service_tags),
            ..Self::of(row)
        }
    }

    /// A check with `null` for no tags, as transactions show it.
    pub(crate) fn of(row: &'a v1::CheckRow) -> Self {
        Self {
            node: &row.node,
            check_id: &row.check_id,
            name: &row.name,
            status: &row.status,
            notes: &row.notes,
            output: &row.output,
            service_id: &row.service_id,
            service_name: &row.service_name,
            service_tags: (!row.service_tags.is_empty()).then_some(&row.service_tags),
            kind: &row.r#type,
            interval: &row.interval,
            timeout: &row.timeout,
            exposed_port: row.exposed_port,
            definition: kept_json(&row.definition_json, || json!({})),
            create_index: row.create_index,
            modify_index: row.modify_index,
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes the field by reference"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// JSON that is kept for clients as they gave it.
fn kept_json(text: &str, default: impl FnOnce() -> Value) -> Value {
    if text.is_empty() {
        default()
    } else {
        serde_json::from_str(text).unwrap_or_else(|_| default())
    }
}
