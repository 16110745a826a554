//! The body of a transaction: a list of operations, each with one of the members KV, Node, Service or Check.
//!
//! The KV member is read straight from the text, without a tree between: a large transaction is mostly that.

use std::fmt;

use bytes::Bytes;
use lictor_proto::go;
use lictor_proto::v1::txn_op::Op;
use lictor_proto::v1::{self, CatalogVerb, KvVerb};
use lictor_state::TxnError;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::decode::{self, Text};
use crate::rows::{check_row, node_id_fault, node_row, object, service_fault, service_row, unknown_field};

/// A decoded transaction.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) txn: v1::Txn,
    /// How many operations the body has, empty ones included.
    pub(super) count: usize,
    /// Whether any operation writes.
    pub(super) writes: bool,
    /// What is wrong with operations before they are tried.
    pub(super) errors: Vec<TxnError>,
}

impl Request {
    /// The keys of the lock operations, with their positions.
    pub(super) fn lock_keys(&self) -> Vec<(usize, Bytes)> {
        let lock = |(at, op): (usize, &v1::TxnOp)| match &op.op {
            Some(Op::Kv(op)) if op.verb() == KvVerb::Lock => Some((at, op.key.clone())),
            _ => None,
        };
        self.txn.ops.iter().enumerate().filter_map(lock).collect()
    }

    fn push(&mut self, op: Result<Op, String>) {
        let op = op.unwrap_or_else(|what| {
            self.errors.push(TxnError {
                op_index: self.txn.ops.len(),
                what,
            });
            Op::Kv(v1::KvTxnOp::default())
        });
        self.txn.ops.push(v1::TxnOp { op: Some(op) });
    }
}

/// Reads a body.
///
/// # Errors
/// What comes after `Failed to parse body: `.
pub(super) fn decode(body: &[u8], datacenter: &str) -> Result<Request, String> {
    let text = decode::text(body);
    let members = decode::first::<Option<Vec<Option<Members<'_>>>>>(&text)?.unwrap_or_default();
    let mut request = Request {
        count: members.len(),
        ..Request::default()
    };
    for member in members.into_iter().flatten() {
        // Of several members the first in this order counts.
        if let Some(op) = member.kv {
            request.writes |= op.verb.is_some_and(kv_writes);
            request.push(op.checked());
        } else if let Some(op) = member.node {
            let (verb, op) = node_op(op, datacenter)?;
            request.writes |= verb != Some(CatalogVerb::Get);
            request.push(op);
        } else if let Some(op) = member.service {
            let (verb, op) = service_op(op)?;
            request.writes |= verb != Some(CatalogVerb::Get);
            request.push(op);
        } else if let Some(op) = member.check {
            let (verb, op) = check_op(op)?;
            request.writes |= verb != Some(CatalogVerb::Get);
            request.push(op);
        }
    }
    Ok(request)
}

/// Whether a verb writes; checks do not.
pub(super) fn kv_writes(verb: KvVerb) -> bool {
    match verb {
        KvVerb::Set
        | KvVerb::Cas
        | KvVerb::Lock
        | KvVerb::Unlock
        | KvVerb::Delete
        | KvVerb::DeleteTree
        | KvVerb::DeleteCas => true,
        KvVerb::Unspecified
        | KvVerb::Get
        | KvVerb::GetOrEmpty
        | KvVerb::GetTree
        | KvVerb::CheckIndex
        | KvVerb::CheckSession
        | KvVerb::CheckNotExists => false,
    }
}

fn kv_verb(text: &str) -> Option<KvVerb> {
    Some(match text {
        "set" => KvVerb::Set,
        "cas" => KvVerb::Cas,
        "lock" => KvVerb::Lock,
        "unlock" => KvVerb::Unlock,
        "get" => KvVerb::Get,
        "get-or-empty" => KvVerb::GetOrEmpty,
        "get-tree" => KvVerb::GetTree,
        "check-index" => KvVerb::CheckIndex,
        "check-session" => KvVerb::CheckSession,
        "check-not-exists" => KvVerb::CheckNotExists,
        "delete" => KvVerb::Delete,
        "delete-tree" => KvVerb::DeleteTree,
        "delete-cas" => KvVerb::DeleteCas,
        _ => return None,
    })
}

/// One element of the list.
#[derive(Debug, Default)]
struct Members<'a> {
    kv: Option<KvMember<'a>>,
    node: Option<Map<String, Value>>,
    service: Option<Map<String, Value>>,
    check: Option<Map<String, Value>>,
}

#[derive(Debug, Default)]
struct KvMember<'a> {
    verb: Option<KvVerb>,
    /// As written, for the error.
    verb_text: Text<'a>,
    key: Text<'a>,
    value: Bytes,
    flags: u64,
    index: u64,
    session: Text<'a>,
}

impl KvMember<'_> {
    fn checked(self) -> Result<Op, String> {
        if self.key.0.is_empty() && self.verb != Some(KvVerb::DeleteTree) {
            return Err("Must provide key".to_owned());
        }
        let Some(verb) = self.verb else {
            return Err(format!("unknown KV operation: {}", self.verb_text.0));
        };
        Ok(Op::Kv(v1::KvTxnOp {
            verb: verb.into(),
            key: Bytes::from(self.key.0.into_owned()),
            value: self.value,
            flags: self.flags,
            index: self.index,
            session: self.session.0.into_owned(),
        }))
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;

        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an operation")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Members::default();
                while let Some(Text(name)) = map.next_key()? {
                    match name {
                        n if n.eq_ignore_ascii_case("KV") => members.kv = map.next_value()?,
                        n if n.eq_ignore_ascii_case("Node") => members.node = map.next_value()?,
                        n if n.eq_ignore_ascii_case("Service") => members.service = map.next_value()?,
                        n if n.eq_ignore_ascii_case("Check") => members.check = map.next_value()?,
                        other => return Err(Error::custom(unknown_field(&other))),
                    }
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(MembersVisitor)
    }
}

impl<'de> Deserialize<'de> for KvMember<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KvVisitor;

        impl<'de> Visitor<'de> for KvVisitor {
            type Value = KvMember<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a KV operation")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<KvMember<'de>, A::Error> {
                let mut member = KvMember::default();
                while let Some(Text(name)) = map.next_key()? {
                    match name {
                        n if n.eq_ignore_ascii_case("Verb") => {
                            member.verb_text = map.next_value()?;
                            member.verb = kv_verb(&member.verb_text.0);
                        }
                        n if n.eq_ignore_ascii_case("Key") => member.key = map.next_value()?,
                        n if n.eq_ignore_ascii_case("Value") => {
                            let Text(value) = map.next_value()?;
                            let value =
                                go::decode_base64(&value, |text| base64_simd::STANDARD.decode_to_vec(text));
                            member.value = value.map_err(|_| Error::custom("illegal base64 data"))?.into();
                        }
                        n if n.eq_ignore_ascii_case("Flags") => {
                            member.flags = map.next_value::<Option<u64>>()?.unwrap_or_default();
                        }
                        n if n.eq_ignore_ascii_case("Index") => {
                            member.index = map.next_value::<Option<u64>>()?.unwrap_or_default();
                        }
                        n if n.eq_ignore_ascii_case("Session") => member.session = map.next_value()?,
                        n if n.eq_ignore_ascii_case("Namespace") || n.eq_ignore_ascii_case("Partition") => {
                            map.next_value::<Text<'_>>()?;
                        }
                        other => return Err(Error::custom(unknown_field(&other))),
                    }
                }
                Ok(member)
            }
        }

        deserializer.deserialize_map(KvVisitor)
    }
}

/// An operation on the catalog: its verb if it is one, and the operation or what is wrong with it.
type CatalogOp = (Option<CatalogVerb>, Result<Op, String>);

fn catalog_verb(text: &str) -> Option<CatalogVerb> {
    Some(match text {
        "get" => CatalogVerb::Get,
        "set" => CatalogVerb::Set,
        "cas" => CatalogVerb::Cas,
        "delete" => CatalogVerb::Delete,
        "delete-cas" => CatalogVerb::DeleteCas,
        _ => return None,
    })
}

fn node_op(member: Map<String, Value>, datacenter: &str) -> Result<CatalogOp, String> {
    let mut verb = String::new();
    let mut row = node_row(Map::new())?;
    for (name, value) in member {
        match name.to_ascii_lowercase().as_str() {
            "verb" => verb = decode::string(value, &name)?,
            "node" => row = node_row(object(value, &name)?)?,
            _ => return Err(unknown_field(&name)),
        }
    }
    if row.datacenter.is_empty() {
        datacenter.clone_into(&mut row.datacenter);
    }
    let parsed = catalog_verb(&verb);
    let bad_id = node_id_fault(&row.id).filter(|_| parsed != Some(CatalogVerb::Get));
    let op = match parsed {
        None => Err(format!("unknown node operation: {verb}")),
        Some(verb) if verb != CatalogVerb::Get && row.node.is_empty() && row.id.is_empty() => {
            Err("Must provide node".to_owned())
        }
        Some(verb) => bad_id.map_or_else(
            || {
                Ok(Op::Node(v1::NodeTxnOp {
                    verb: verb.into(),
                    node: Some(row),
                }))
            },
            |why| Err(format!("Bad node ID: {why}")),
        ),
    };
    Ok((parsed, op))
}

fn service_op(member: Map<String, Value>) -> Result<CatalogOp, String> {
    let mut verb = String::new();
    let mut node = String::new();
    let mut row = service_row(Map::new())?;
    for (name, value) in member {
        match name.to_ascii_lowercase().as_str() {
            "verb" => verb = decode::string(value, &name)?,
            "node" => node = decode::string(value, &name)?,
            "service" => row = service_row(object(value, &name)?)?,
            _ => return Err(unknown_field(&name)),
        }
    }
    row.node = node;
    if row.id.is_empty() {
        row.id.clone_from(&row.service);
    }
    let parsed = catalog_verb(&verb);
    let op = match parsed {
        None => Err(format!("unknown service operation: {verb}")),
        // Deleting asks for it too, reading does not (recorded answers).
        Some(verb) if verb != CatalogVerb::Get && row.service.is_empty() => {
            Err("Must provide service name (Service.Service) when service ID is provided".to_owned())
        }
        Some(verb) => {
            let writes = matches!(verb, CatalogVerb::Set | CatalogVerb::Cas);
            let fault = service_fault(&row, &row.node).filter(|_| writes);
            fault.map_or_else(
                || {
                    Ok(Op::Service(v1::ServiceTxnOp {
                        verb: verb.into(),
                        service: Some(row),
                    }))
                },
                |fault| Err(fault.to_string()),
            )
        }
    };
    Ok((parsed, op))
}

fn check_op(member: Map<String, Value>) -> Result<CatalogOp, String> {
    let mut verb = String::new();
    let mut row = v1::CheckRow::default();
    for (name, value) in member {
        match name.to_ascii_lowercase().as_str() {
            "verb" => verb = decode::string(value, &name)?,
            "check" => row = check_row(object(value, &name)?)?,
            _ => return Err(unknown_field(&name)),
        }
    }
    if row.check_id.is_empty() {
        row.check_id.clone_from(&row.name);
    }
    let parsed = catalog_verb(&verb);
    let op = match parsed {
        None => Err(format!("unknown check operation: {verb}")),
        Some(_) if row.check_id.is_empty() => Err("Must provide check ID or name".to_owned()),
        Some(verb) => Ok(Op::Check(v1::CheckTxnOp {
            verb: verb.into(),
            check: Some(row),
        })),
    };
    Ok((parsed, op))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: &str) -> Request {
        decode(body.as_bytes(), "dc1").unwrap()
    }

    #[test]
    fn a_kv_operation_is_read_in_any_case() {
        let request = asked(r#"[{"kv":{"verb":"set","KEY":"a\/b","Value":"MQ==","Flags":7,"Index":null}}]"#);

        let expected = v1::KvTxnOp {
            verb: KvVerb::Set.into(),
            key: "a/b".into(),
            value: "1".into(),
            flags: 7,
            index: 0,
            session: String::new(),
        };
        assert_eq!(request.txn.ops[0].op, Some(Op::Kv(expected)));
        assert!(request.writes && request.errors.is_empty());
    }

    #[test]
    fn values_may_have_line_breaks_as_base64_programs_write_them() {
        let request = asked(r#"[{"KV":{"Verb":"set","Key":"k","Value":"MT\r\nIz\n"}}]"#);

        let Some(Op::Kv(op)) = &request.txn.ops[0].op else {
            panic!("no operation on a key");
        };
        assert_eq!(op.value, "123");
    }

    #[test]
    fn nothing_is_a_transaction_too() {
        for (body, count) in [
            ("[]", 0),
            ("null", 0),
            ("[{}]", 1),
            (r#"[{"KV":null}]"#, 1),
            ("[null]", 1),
        ] {
            let request = asked(body);
            assert_eq!(
                (request.txn.ops.len(), request.count, request.writes),
                (0, count, false),
                "{body}"
            );
        }
    }

    #[test]
    fn bodies_of_other_kinds_are_refused() {
        for body in [
            "",
            "{",
            "{}",
            "[1]",
            "[\"x\"]",
            r#"[{"KV":1}]"#,
            r#"[{"KV":{"Verb":1}}]"#,
            r#"[{"KV":{"Verb":"set","Key":"k","Value":"YQ"}}]"#,
            r#"[{"KV":{"Verb":"set","Key":"k","Value":5}}]"#,
            r#"[{"Node":{"Verb":"set","Node":{"Meta":[]}}}]"#,
        ] {
            assert!(decode(body.as_bytes(), "dc1").is_err(), "{body}");
        }
    }

    #[test]
    fn unknown_fields_are_named() {
        for (body, name) in [
            (r#"[{"Session":{}}]"#, "Session"),
            (r#"[{"KV":{"Foo":1}}]"#, "Foo"),
            (r#"[{"Check":{"Check":{"Bar":1}}}]"#, "Bar"),
        ] {
            let error = decode(body.as_bytes(), "dc1").unwrap_err();
            assert_eq!(error, format!("json: unknown field \"{name}\""));
        }
    }

    #[test]
    fn what_is_wrong_before_the_apply_is_told_by_position() {
        let body = r#"[{"KV":{"Verb":"set","Key":"a"}},{"KV":{"Verb":"SET","Key":"a"}},{"KV":{"Verb":"lock"}},
            {"KV":{"Verb":"delete-tree"}},{"Node":{"Verb":"junk","Node":{"Node":"n"}}},
            {"Service":{"Verb":"delete","Node":"n","Service":{"ID":"s"}}}]"#;

        let errors: Vec<_> = asked(body)
            .errors
            .into_iter()
            .map(|e| (e.op_index, e.what))
            .collect();

        let name = "Must provide service name (Service.Service) when service ID is provided";
        let expected = [
            (1, "unknown KV operation: SET"),
            (2, "Must provide key"),
            (4, "unknown node operation: junk"),
            (5, name),
        ];
        assert_eq!(errors, expected.map(|(at, what)| (at, what.to_owned())));
    }

    /// Bodies and texts as they were recorded.
    #[test]
    fn operations_that_cannot_be_are_told_from_those_that_can() {
        let meta = "Invalid Service Meta for node n and serviceID s: Couldn't load metadata pair ('a b', 'c'): \
                    Key contains invalid characters";
        for (body, what) in [
            (r#"[{"KV":{}}]"#, Some("Must provide key")),
            (r#"[{"KV":{"Verb":"get-tree"}}]"#, Some("Must provide key")),
            (r#"[{"KV":{"Verb":"delete-tree"}}]"#, None),
            (
                r#"[{"Node":{"Verb":"delete","Node":{"Node":"n","ID":"x"}}}]"#,
                Some("Bad node ID: uuid string is wrong length"),
            ),
            (r#"[{"Node":{"Verb":"get","Node":{"Node":"n","ID":"x"}}}]"#, None),
            (
                r#"[{"Service":{"Verb":"set","Node":"n","Service":{"Service":"s","Meta":{"a b":"c"}}}}]"#,
                Some(meta),
            ),
            (
                r#"[{"Service":{"Verb":"delete","Node":"n","Service":{"Service":"s","Meta":{"a b":"c"}}}}]"#,
                None,
            ),
            (
                r#"[{"Service":{"Verb":"cas","Node":"n","Service":{"Service":"s","Address":"0.0.0.0"}}}]"#,
                Some("Invalid service address"),
            ),
        ] {
            let errors = asked(body).errors;
            let first = errors.first().map(|error| error.what.as_str());
            assert_eq!(first, what, "{body}");
        }
    }

    #[test]
    fn checks_and_unknown_kv_verbs_do_not_write_and_other_unknown_verbs_do() {
        assert!(
            !asked(r#"[{"KV":{"Verb":"check-index","Key":"a"}},{"KV":{"Verb":"junk","Key":"a"}}]"#).writes
        );
        assert!(!asked(r#"[{"Node":{"Verb":"get","Node":{"Node":"n"}}}]"#).writes);
        assert!(asked(r#"[{"Node":{"Verb":"junk","Node":{"Node":"n"}}}]"#).writes);
        assert!(asked(r#"[{"KV":{"Verb":"get","Key":"a"}},{"KV":{"Verb":"delete","Key":"a"}}]"#).writes);
    }

    #[test]
    fn catalog_rows_keep_null_apart_from_empty() {
        let request =
            asked(r#"[{"Node":{"Verb":"set","Node":{"Node":"n","Address":"192.0.2.7","Meta":{"a":"b"}}}}]"#);

        let Some(Op::Node(v1::NodeTxnOp { node: Some(row), .. })) = &request.txn.ops[0].op else {
            panic!("not a node operation");
        };
        assert_eq!(
            (row.datacenter.as_str(), row.tagged_addresses_null, row.meta_null),
            ("dc1", true, false)
        );
    }
}
