//! The lists of `/v1/catalog` and `/v1/health`.

use std::collections::BTreeMap;

use lictor_proto::v1;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Check, Node, Service, ServiceAddress, Weights, kept_json, tagged_addresses};

/// An instance in `/v1/catalog/service`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CatalogService<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    node: &'a str,
    address: &'a str,
    datacenter: &'a str,
    tagged_addresses: Option<&'a BTreeMap<String, String>>,
    node_meta: Option<&'a BTreeMap<String, String>>,
    service_kind: &'a str,
    #[serde(rename = "ServiceID")]
    service_id: &'a str,
    service_name: &'a str,
    service_tags: &'a [String],
    service_address: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    service_tagged_addresses: BTreeMap<&'a str, ServiceAddress<'a>>,
    service_weights: Weights,
    service_meta: &'a BTreeMap<String, String>,
    service_port: u32,
    service_socket_path: &'a str,
    service_enable_tag_override: bool,
    service_proxy: Value,
    service_connect: Value,
    service_locality: Value,
    create_index: u64,
    modify_index: u64,
}

impl<'a> CatalogService<'a> {
    pub(crate) fn of(node: &'a v1::NodeRow, service: &'a v1::ServiceRow) -> Self {
        Self {
            id: &node.id,
            node: &node.node,
            address: &node.address,
            datacenter: &node.datacenter,
            tagged_addresses: (!node.tagged_addresses_null).then_some(&node.tagged_addresses),
            node_meta: (!node.meta_null).then_some(&node.meta),
            service_kind: &service.kind,
            service_id: &service.id,
            service_name: &service.service,
            service_tags: &service.tags,
            service_address: &service.address,
            service_tagged_addresses: tagged_addresses(service),
            service_weights: Weights::of(service),
            service_meta: &service.meta,
            service_port: service.port,
            service_socket_path: &service.socket_path,
            service_enable_tag_override: service.enable_tag_override,
            service_proxy: kept_json(
                &service.proxy_json,
                || json!({"Mode": "", "MeshGateway": {}, "Expose": {}}),
            ),
            service_connect: kept_json(&service.connect_json, || json!({})),
            service_locality: kept_json(&service.locality_json, || Value::Null),
            create_index: service.create_index,
            modify_index: service.modify_index,
        }
    }
}

/// An instance in `/v1/health/service`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ServiceHealth<'a> {
    pub(crate) node: Node<'a>,
    pub(crate) service: Service<'a>,
    pub(crate) checks: Vec<Check<'a>>,
}
