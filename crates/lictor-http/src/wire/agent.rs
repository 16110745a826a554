//! What `/v1/agent` shows of local services and checks.

use std::collections::BTreeMap;

use lictor_proto::v1;
use serde::Serialize;
use serde_json::{Value, json};

use super::{ServiceAddress, Weights, kept_json, tagged_addresses};

/// A local service.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AgentService<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    kind: &'a str,
    #[serde(rename = "ID")]
    id: &'a str,
    service: &'a str,
    tags: &'a [String],
    meta: &'a BTreeMap<String, String>,
    port: u32,
    address: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    socket_path: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tagged_addresses: BTreeMap<&'a str, ServiceAddress<'a>>,
    weights: Weights,
    enable_tag_override: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_hash: Option<&'a str>,
    #[serde(skip_serializing_if = "Value::is_null")]
    proxy: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    connect: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    ports: Value,
    datacenter: &'a str,
    #[serde(skip_serializing_if = "Value::is_null")]
    locality: Value,
}

impl<'a> AgentService<'a> {
    pub(crate) fn of(row: &'a v1::ServiceRow, datacenter: &'a str) -> Self {
        Self {
            kind: &row.kind,
            id: &row.id,
            service: &row.service,
            tags: &row.tags,
            meta: &row.meta,
            port: row.port,
            address: &row.address,
            socket_path: &row.socket_path,
            tagged_addresses: tagged_addresses(row),
            weights: Weights::of(row),
            enable_tag_override: row.enable_tag_override,
            content_hash: None,
            proxy: kept_json(&row.proxy_json, || Value::Null),
            connect: kept_json(&row.connect_json, || Value::Null),
            ports: kept_json(&row.ports_json, || Value::Null),
            datacenter,
            locality: kept_json(&row.locality_json, || Value::Null),
        }
    }

    /// The same with a hash of its content.
    pub(crate) fn with_hash(mut self, hash: &'a str) -> Self {
        self.content_hash = Some(hash);
        self
    }
}

/// A check in `/v1/agent/health`: other fields than everywhere else.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HealthCheck<'a> {
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
    kind: &'static str,
    exposed_port: u32,
    definition: Value,
    create_index: u64,
    modify_index: u64,
}

impl<'a> HealthCheck<'a> {
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
            // `null` for checks of the node, and of services without tags.
            service_tags: (!row.service_tags.is_empty()).then_some(&row.service_tags),
            // Consul leaves the kind and the definition out here, whatever the check is.
            kind: "",
            exposed_port: row.exposed_port,
            definition: json!({
                "Interval": "0s", "Timeout": "0s", "DeregisterCriticalServiceAfter": "0s", "HTTP": "",
                "Header": null, "Method": "", "Body": "", "TLSServerName": "", "TLSSkipVerify": false,
                "TCP": "", "TCPUseTLS": false, "UDP": "", "GRPC": "", "OSService": "", "GRPCUseTLS": false,
            }),
            create_index: row.create_index,
            modify_index: row.modify_index,
        }
    }
}

/// A service in `/v1/agent/health`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ServiceStatus<'a> {
    pub(crate) aggregated_status: &'a str,
    pub(crate) service: Option<AgentService<'a>>,
    pub(crate) checks: Option<Vec<HealthCheck<'a>>>,
}

/// A member of the cluster.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) addr: String,
    pub(crate) port: u16,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) status: u8,
    pub(crate) protocol_min: u8,
    pub(crate) protocol_max: u8,
    pub(crate) protocol_cur: u8,
    pub(crate) delegate_min: u8,
    pub(crate) delegate_max: u8,
    pub(crate) delegate_cur: u8,
}

impl Member {
    pub(crate) fn set_tag(&mut self, name: &str, value: impl Into<String>) {
        self.tags.insert(name.to_owned(), value.into());
    }
}
