//! Catalog rows from the JSON of registrations and transactions. `null` is kept apart from what is empty.

use std::collections::BTreeMap;

use lictor_agent::definition;
use lictor_proto::{go, v1};
use serde_json::{Map, Value};

use crate::decode;

/// The error for a name that an object does not have.
pub(crate) fn unknown_field(name: &str) -> String {
    format!("json: unknown field {}", go::quote(name.as_bytes()))
}

/// A node.
///
/// # Errors
/// The decoder's words.
pub(crate) fn node_row(fields: Map<String, Value>) -> Result<v1::NodeRow, String> {
    let mut row = v1::NodeRow {
        tagged_addresses_null: true,
        meta_null: true,
        ..v1::NodeRow::default()
    };
    for (name, value) in fields {
        match name.to_ascii_lowercase().as_str() {
            "id" => row.id = decode::string(value, &name)?,
            "node" => row.node = decode::string(value, &name)?,
            "address" => row.address = decode::string(value, &name)?,
            "datacenter" => row.datacenter = decode::string(value, &name)?,
            "taggedaddresses" => {
                (row.tagged_addresses, row.tagged_addresses_null) = string_map(value, &name)?;
            }
            "meta" => (row.meta, row.meta_null) = string_map(value, &name)?,
            "modifyindex" => row.modify_index = number(&value, &name)?,
            "partition" => drop(decode::string(value, &name)?),
            "createindex" | "peername" | "locality" => {}
            _ => return Err(unknown_field(&name)),
        }
    }
    Ok(row)
}

/// A service instance; its node is not part of it.
///
/// # Errors
/// The decoder's words.
pub(crate) fn service_row(fields: Map<String, Value>) -> Result<v1::ServiceRow, String> {
    let mut row = v1::ServiceRow {
        weight_passing: 1,
        weight_warning: 1,
        tags_null: true,
        meta_null: true,
        tagged_addresses_null: true,
        ..v1::ServiceRow::default()
    };
    for (name, value) in fields {
        match name.to_ascii_lowercase().as_str() {
            "kind" => row.kind = decode::string(value, &name)?,
            "id" => row.id = decode::string(value, &name)?,
            "service" => row.service = decode::string(value, &name)?,
            "tags" => {
                let tags = decode::strings(value, &name)?;
                row.tags_null = tags.is_none();
                row.tags = tags.unwrap_or_default();
            }
            "meta" => (row.meta, row.meta_null) = string_map(value, &name)?,
            "port" => row.port = number(&value, &name)?,
            "address" => row.address = decode::string(value, &name)?,
            "socketpath" => row.socket_path = decode::string(value, &name)?,
            "taggedaddresses" => set_tagged_addresses(&mut row, value, &name)?,
            "weights" => set_weights(&mut row, value, &name)?,
            "enabletagoverride" => row.enable_tag_override = flag(&value, &name)?,
            "modifyindex" => row.modify_index = number(&value, &name)?,
            "proxy" => row.proxy_json = kept(&value),
            "connect" => row.connect_json = kept(&value),
            "ports" => row.ports_json = kept(&value),
            "locality" => row.locality_json = kept(&value),
            "namespace" | "partition" => drop(decode::string(value, &name)?),
            "createindex" | "contenthash" | "peername" | "datacenter" => {}
            _ => return Err(unknown_field(&name)),
        }
    }
    Ok(row)
}

/// What is wrong with a service that decodes; the texts are Consul's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceFault {
    /// Nobody can connect to it.
    #[error("Invalid service address")]
    Address,
    /// Metadata over its bounds.
    #[error("Invalid Service Meta for node {node} and serviceID {id}: {why}")]
    Meta { node: String, id: String, why: String },
}

/// The first fault of a service that is to be on a node.
pub(crate) fn service_fault(service: &v1::ServiceRow, node: &str) -> Option<ServiceFault> {
    if definition::is_no_address(&service.address) {
        return Some(ServiceFault::Address);
    }
    let why = definition::check_meta(&service.meta).err()?;
    Some(ServiceFault::Meta {
        node: node.to_owned(),
        id: service.id.clone(),
        why,
    })
}

/// Why a text is no id of a node, in Go's words; an empty one is none and is taken.
pub(crate) fn node_id_fault(id: &str) -> Option<String> {
    const DASHES: [usize; 4] = [8, 13, 18, 23];
    match id.len() {
        0 => return None,
        36 => {}
        _ => return Some("uuid string is wrong length".to_owned()),
    }
    if DASHES.iter().any(|at| id.as_bytes()[*at] != b'-') {
        return Some("uuid is improperly formatted".to_owned());
    }
    let mut digits = id.bytes().enumerate().filter(|(at, _)| !DASHES.contains(at));
    let (_, wrong) = digits.find(|(_, digit)| !digit.is_ascii_hexdigit())?;
    let shown = match char::from(wrong) {
        c if c.is_ascii_graphic() || c == ' ' || wrong >= 0xa1 => format!(" '{c}'"),
        _ => String::new(),
    };
    Some(format!("encoding/hex: invalid byte: U+{wrong:04X}{shown}"))
}

/// A check.
///
/// # Errors
/// The decoder's words.
pub(crate) fn check_row(fields: Map<String, Value>) -> Result<v1::CheckRow, String> {
    let mut row = v1::CheckRow::default();
    for (name, value) in fields {
        match name.to_ascii_lowercase().as_str() {
            "node" => row.node = decode::string(value, &name)?,
            "checkid" => row.check_id = decode::string(value, &name)?,
            "name" => row.name = decode::string(value, &name)?,
            "status" => row.status = decode::string(value, &name)?,
            "notes" => row.notes = decode::string(value, &name)?,
            "output" => row.output = decode::string(value, &name)?,
            "serviceid" => row.service_id = decode::string(value, &name)?,
            "servicename" => row.service_name = decode::string(value, &name)?,
            "servicetags" => row.service_tags = decode::strings(value, &name)?.unwrap_or_default(),
            "type" => row.r#type = decode::string(value, &name)?,
            "interval" => row.interval = decode::string(value, &name)?,
            "timeout" => row.timeout = decode::string(value, &name)?,
            "exposedport" => row.exposed_port = number(&value, &name)?,
            "definition" => row.definition_json = kept(&value),
            "modifyindex" => row.modify_index = number(&value, &name)?,
            "namespace" | "partition" => drop(decode::string(value, &name)?),
            "createindex" | "peername" => {}
            _ => return Err(unknown_field(&name)),
        }
    }
    Ok(row)
}

fn set_tagged_addresses(row: &mut v1::ServiceRow, value: Value, field: &str) -> Result<(), String> {
    row.tagged_addresses_null = value.is_null();
    for (tag, address) in object(value, field)? {
        let mut parsed = v1::ServiceAddress::default();
        for (name, value) in object(address, field)? {
            match name.to_ascii_lowercase().as_str() {
                "address" => parsed.address = decode::string(value, &name)?,
                "port" => parsed.port = number(&value, &name)?,
                _ => return Err(unknown_field(&name)),
            }
        }
        row.tagged_addresses.insert(tag, parsed);
    }
    Ok(())
}

fn set_weights(row: &mut v1::ServiceRow, value: Value, field: &str) -> Result<(), String> {
    if value.is_null() {
        return Ok(());
    }
    (row.weight_passing, row.weight_warning) = (0, 0);
    for (name, value) in object(value, field)? {
        match name.to_ascii_lowercase().as_str() {
            "passing" => row.weight_passing = number(&value, &name)?,
            "warning" => row.weight_warning = number(&value, &name)?,
            _ => return Err(unknown_field(&name)),
        }
    }
    if (row.weight_passing, row.weight_warning) == (0, 0) {
        // What Go's client sends for weights that nobody set.
        (row.weight_passing, row.weight_warning) = (1, 1);
    }
    Ok(())
}

/// The fields of an object; none for `null`.
///
/// # Errors
/// The decoder's words.
pub(crate) fn object(value: Value, field: &str) -> Result<Map<String, Value>, String> {
    match value {
        Value::Null => Ok(Map::new()),
        Value::Object(fields) => Ok(fields),
        other => Err(decode::wrong_kind(&other, field, "object")),
    }
}

/// A map of texts, and whether it was `null`.
///
/// # Errors
/// The decoder's words.
pub(crate) fn string_map(value: Value, field: &str) -> Result<(BTreeMap<String, String>, bool), String> {
    let is_null = value.is_null();
    let fields = object(value, field)?.into_iter();
    let map = fields
        .map(|(key, value)| Ok((key, decode::string(value, field)?)))
        .collect::<Result<_, String>>()?;
    Ok((map, is_null))
}

/// A whole number; 0 for `null`.
///
/// # Errors
/// The decoder's words.
pub(crate) fn number<N: TryFrom<i128> + Default>(value: &Value, field: &str) -> Result<N, String> {
    if value.is_null() {
        return Ok(N::default());
    }
    let whole = value
        .as_u64()
        .map(i128::from)
        .or_else(|| value.as_i64().map(i128::from));
    whole
        .and_then(|n| N::try_from(n).ok())
        .ok_or_else(|| decode::wrong_kind(value, field, "int"))
}

/// A boolean; false for `null`.
///
/// # Errors
/// The decoder's words.
pub(crate) fn flag(value: &Value, field: &str) -> Result<bool, String> {
    match value {
        Value::Null => Ok(false),
        Value::Bool(flag) => Ok(*flag),
        other => Err(decode::wrong_kind(other, field, "bool")),
    }
}

/// A part that is kept as it is; `null` and `{}` are nothing.
fn kept(value: &Value) -> String {
    match value {
        Value::Object(fields) if !fields.is_empty() => value.to_string(),
        Value::Array(items) if !items.is_empty() => value.to_string(),
        _ => String::new(),
    }
}
