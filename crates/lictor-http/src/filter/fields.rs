//! The fields of catalog rows in expressions (Consul: the "filtering" table of each list endpoint).

use std::sync::Arc;

use lictor_proto::v1::{CheckRow, NodeRow, ServiceAddress, ServiceRow};

use super::{Field, Kind, Row, Value};

/// Nodes in `/v1/catalog/nodes`.
pub(crate) const NODE: &[Field] = &[
    Field::new("ID", Kind::Text),
    Field::new("Node", Kind::Text),
    Field::new("Address", Kind::Text),
    Field::new("Datacenter", Kind::Text),
    Field::new("TaggedAddresses", Kind::Map),
    Field::new("Meta", Kind::Map),
    Field::new("PeerName", Kind::Text),
];

/// Checks in `/v1/health` and `/v1/agent/checks`.
pub(crate) const CHECK: &[Field] = &[
    Field::new("Node", Kind::Text),
    Field::new("CheckID", Kind::Text),
    Field::new("Name", Kind::Text),
    Field::new("Status", Kind::Text),
    Field::new("Notes", Kind::Text),
    Field::new("Output", Kind::Text),
    Field::new("ServiceID", Kind::Text),
    Field::new("ServiceName", Kind::Text),
    Field::new("ServiceTags", Kind::List),
    Field::new("Type", Kind::Text),
    Field::new("Interval", Kind::Text),
    Field::new("Timeout", Kind::Text),
    Field::new("ExposedPort", Kind::Number),
    Field::new("PeerName", Kind::Text),
];

/// Services in `/v1/agent/services` and `/v1/catalog/node`.
pub(crate) const SERVICE: &[Field] = &[
    Field::new("Kind", Kind::Text),
    Field::new("ID", Kind::Text),
    Field::new("Service", Kind::Text),
    Field::new("Tags", Kind::List),
    Field::new("Address", Kind::Text),
    Field::new("TaggedAddresses", Kind::RowMap(ADDRESS)),
    Field::new("Meta", Kind::Map),
    Field::new("Port", Kind::Number),
    Field::new("SocketPath", Kind::Text),
    Field::new("Weights", Kind::Row(WEIGHTS)),
    Field::new("EnableTagOverride", Kind::Bool),
    Field::new("PeerName", Kind::Text),
];

/// Instances in `/v1/catalog/service` and `/v1/catalog/services`.
pub(crate) const CATALOG_SERVICE: &[Field] = &[
    Field::new("ID", Kind::Text),
    Field::new("Node", Kind::Text),
    Field::new("Address", Kind::Text),
    Field::new("Datacenter", Kind::Text),
    Field::new("TaggedAddresses", Kind::Map),
    Field::new("NodeMeta", Kind::Map),
    Field::new("ServiceKind", Kind::Text),
    Field::new("ServiceID", Kind::Text),
    Field::new("ServiceName", Kind::Text),
    Field::new("ServiceTags", Kind::List),
    Field::new("ServiceAddress", Kind::Text),
    Field::new("ServiceTaggedAddresses", Kind::RowMap(ADDRESS)),
    Field::new("ServiceWeights", Kind::Row(WEIGHTS)),
    Field::new("ServiceMeta", Kind::Map),
    Field::new("ServicePort", Kind::Number),
    Field::new("ServiceSocketPath", Kind::Text),
    Field::new("ServiceEnableTagOverride", Kind::Bool),
];

/// Instances with their checks in `/v1/health/service`.
pub(crate) const SERVICE_HEALTH: &[Field] = &[
    Field::new("Node", Kind::Row(NODE)),
    Field::new("Service", Kind::Row(SERVICE)),
    Field::new("Checks", Kind::Rows(CHECK)),
];

const ADDRESS: &[Field] = &[
    Field::new("Address", Kind::Text),
    Field::new("Port", Kind::Number),
];
const WEIGHTS: &[Field] = &[
    Field::new("Passing", Kind::Number),
    Field::new("Warning", Kind::Number),
];

/// An instance with its node.
pub(crate) struct CatalogService<'a> {
    pub(crate) node: &'a NodeRow,
    pub(crate) service: &'a ServiceRow,
}

/// An instance with its node and checks.
pub(crate) struct ServiceHealth<'a> {
    pub(crate) node: &'a NodeRow,
    pub(crate) service: &'a ServiceRow,
    pub(crate) checks: &'a [Arc<CheckRow>],
}

impl Row for NodeRow {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        Some(match name {
            "ID" => Value::Text(&self.id),
            "Node" => Value::Text(&self.node),
            "Address" => Value::Text(&self.address),
            "Datacenter" => Value::Text(&self.datacenter),
            "TaggedAddresses" => Value::Map(&self.tagged_addresses),
            "Meta" => Value::Map(&self.meta),
            "PeerName" => Value::Text(""),
            _ => return None,
        })
    }
}

impl Row for CheckRow {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        Some(match name {
            "Node" => Value::Text(&self.node),
            "CheckID" => Value::Text(&self.check_id),
            "Name" => Value::Text(&self.name),
            "Status" => Value::Text(&self.status),
            "Notes" => Value::Text(&self.notes),
            "Output" => Value::Text(&self.output),
            "ServiceID" => Value::Text(&self.service_id),
            "ServiceName" => Value::Text(&self.service_name),
            "ServiceTags" => Value::List(&self.service_tags),
            "Type" => Value::Text(&self.r#type),
            "Interval" => Value::Text(&self.interval),
            "Timeout" => Value::Text(&self.timeout),
            "ExposedPort" => Value::Number(self.exposed_port.into()),
            "PeerName" => Value::Text(""),
            _ => return None,
        })
    }
}

impl Row for ServiceAddress {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        match name {
            "Address" => Some(Value::Text(&self.address)),
            "Port" => Some(Value::Number(self.port.into())),
            _ => None,
        }
    }
}

impl Row for ServiceRow {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        Some(match name {
            "Kind" => Value::Text(&self.kind),
            "ID" => Value::Text(&self.id),
            "Service" => Value::Text(&self.service),
            "Tags" => Value::List(&self.tags),
            "Address" => Value::Text(&self.address),
            "TaggedAddresses" => {
                let entries = self.tagged_addresses.iter();
                Value::RowMap(
                    entries
                        .map(|(tag, address)| (tag.as_str(), address as &dyn Row))
                        .collect(),
                )
            }
            "Meta" => Value::Map(&self.meta),
            "Port" => Value::Number(self.port.into()),
            "SocketPath" => Value::Text(&self.socket_path),
            "EnableTagOverride" => Value::Bool(self.enable_tag_override),
            // The weights have no row of their own; their two fields are answered here.
            "Weights" => Value::Row(self),
            "Passing" => Value::Number(self.weight_passing),
            "Warning" => Value::Number(self.weight_warning),
            "PeerName" => Value::Text(""),
            _ => return None,
        })
    }
}

impl Row for CatalogService<'_> {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        match name {
            "NodeMeta" => self.node.field("Meta"),
            "ServiceName" => self.service.field("Service"),
            _ => match name.strip_prefix("Service") {
                Some(of_service) => self.service.field(of_service),
                None => self.node.field(name),
            },
        }
    }
}

impl Row for ServiceHealth<'_> {
    fn field(&self, name: &str) -> Option<Value<'_>> {
        match name {
            "Node" => Some(Value::Row(self.node)),
            "Service" => Some(Value::Row(self.service)),
            "Checks" => Some(Value::Rows(
                self.checks.iter().map(|check| &**check as &dyn Row).collect(),
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every declared field is there, with a value of its kind.
    fn all_are_there(row: &dyn Row, fields: &[Field]) {
        for field in fields {
            let value = row
                .field(field.name)
                .unwrap_or_else(|| panic!("{} is missing", field.name));
            match (field.kind, value) {
                (Kind::Row(fields), Value::Row(row)) => all_are_there(row, fields),
                (Kind::Rows(fields), Value::Rows(rows)) => {
                    for row in rows {
                        all_are_there(row, fields);
                    }
                }
                (Kind::RowMap(fields), Value::RowMap(rows)) => {
                    for (_, row) in rows {
                        all_are_there(row, fields);
                    }
                }
                (Kind::Text, Value::Text(_))
                | (Kind::Number, Value::Number(_))
                | (Kind::Bool, Value::Bool(_))
                | (Kind::List, Value::List(_))
                | (Kind::Map, Value::Map(_)) => {}
                _ => panic!("{} is of another kind", field.name),
            }
        }
    }

    #[test]
    fn rows_have_the_fields_that_are_declared() {
        let address = ServiceAddress {
            address: "192.0.2.1".into(),
            port: 80,
        };
        let tagged_addresses = [("lan".to_owned(), address)].into();
        let (node, check) = (NodeRow::default(), Arc::<CheckRow>::default());
        let service = ServiceRow {
            tagged_addresses,
            ..ServiceRow::default()
        };

        all_are_there(&node, NODE);
        all_are_there(&*check, CHECK);
        all_are_there(&service, SERVICE);
        all_are_there(
            &CatalogService {
                node: &node,
                service: &service,
            },
            CATALOG_SERVICE,
        );
        all_are_there(
            &ServiceHealth {
                node: &node,
                service: &service,
                checks: &[Arc::clone(&check)],
            },
            SERVICE_HEALTH,
        );
    }
}
