//! Rows out of a Consul's archive.
//!
//! A record's type says what it is; a value's fields have the names that the API shows. Keys, sessions, nodes, services and
//! checks are taken over with their indexes. A tombstone there stands for a key or for all below a prefix, without saying
//! which: here it becomes the mark of a recursive delete, which answers for both.

mod catalog;

use std::collections::BTreeMap;
use std::sync::Arc;

use lictor_proto::v1::{MetaRow, SessionBehavior, SessionRow, SessionServiceCheck, StringList, TableIndexes};
use lictor_proto::{SessionId, go};
use lictor_state::{KvParts, KvRow, Loader, State, Write};

use crate::ArchiveError;
use crate::msgpack::Value;

pub(crate) const REGISTER: u8 = 0;
pub(crate) const KVS: u8 = 2;
const SESSION: u8 = 3;
const TOMBSTONE: u8 = 5;
const INDEX: u8 = 16;

/// The names of the types, as `consul snapshot inspect` shows them.
const NAMES: [&str; 44] = [
    "Register",
    "Deregister",
    "KVS",
    "Session",
    "ACL",
    "Tombstone",
    "CoordinateBatchUpdate",
    "PreparedQuery",
    "Txn",
    "Autopilot",
    "Area",
    "ACLBootstrap",
    "Intention",
    "ConnectCA",
    "ConnectCAProviderState",
    "ConnectCAConfig",
    "Index",
    "ACLToken",
    "ACLTokenDelete",
    "ACLPolicy",
    "ACLPolicyDelete",
    "ConnectCALeaf",
    "ConfigEntry",
    "ACLRole",
    "ACLRoleDelete",
    "ACLBindingRule",
    "ACLBindingRuleDelete",
    "ACLAuthMethod",
    "ACLAuthMethodDelete",
    "ChunkingState",
    "FederationState",
    "SystemMetadata",
    "ServiceVirtualIP",
    "FreeVirtualIP",
    "KindServiceName",
    "Peering",
    "PeeringDelete",
    "Unknown(37)",
    "PeeringTrustBundle",
    "PeeringTrustBundleDelete",
    "PeeringSecret",
    "RaftLogVerifierCheckpoint",
    "Resource",
    "UpdateManualVirtualIPRequestType",
];

/// The name of a type.
pub(crate) fn name(kind: u8) -> String {
    NAMES
        .get(usize::from(kind))
        .map_or_else(|| format!("Unknown({kind})"), |name| (*name).to_owned())
}

pub(crate) fn damaged(what: &str) -> ArchiveError {
    ArchiveError::Content(format!("state.bin is damaged: {what}"))
}

/// Gathers rows.
#[derive(Default)]
pub(crate) struct Import {
    kv: Vec<KvRow>,
    marks: BTreeMap<Vec<u8>, u64>,
    rows: Vec<Write>,
    catalog: catalog::Catalog,
    indexes: TableIndexes,
    left_out: BTreeMap<u8, u64>,
}

impl Import {
    /// Takes one record.
    pub(crate) fn take(&mut self, kind: u8, value: &Value) -> Result<(), ArchiveError> {
        let taken = match kind {
            KVS => kv(value).map(|row| self.kv.push(row)),
            SESSION => session(value).map(|row| self.rows.push(Write::Session(Arc::new(row)))),
            TOMBSTONE => tombstone(value).map(|(key, index)| {
                self.marks.insert(key, index);
            }),
            REGISTER => self.catalog.take(value),
            INDEX => self.index(value),
            _ => {
                *self.left_out.entry(kind).or_default() += 1;
                Some(())
            }
        };
        taken.ok_or_else(|| damaged(&format!("a {} that makes no sense", name(kind))))
    }

    /// Kinds that mean nothing here, with their number.
    pub(crate) fn left_out(&self) -> Vec<(String, u64)> {
        self.left_out
            .iter()
            .map(|(kind, count)| (name(*kind), *count))
            .collect()
    }

    /// The state, standing at `meta`.
    pub(crate) fn finish(mut self, meta: MetaRow) -> Result<State, ArchiveError> {
        let meta = MetaRow {
            indexes: Some(self.indexes),
            ..meta
        };
        let mut loader = Loader::new(&meta);
        self.kv.sort_by(|a, b| a.key().cmp(b.key()));
        let kv = self.kv.into_iter().map(Write::Kv);
        let marks = self.marks.into_iter().map(|(prefix, index)| Write::TreeMark {
            prefix: prefix.into(),
            index,
        });
        for row in kv.chain(marks).chain(self.rows).chain(self.catalog.into_rows()) {
            loader.push(row).map_err(ArchiveError::content)?;
        }
        Ok(loader.finish())
    }

    fn index(&mut self, value: &Value) -> Option<()> {
        let index = value.field("Value").uint()?;
        let at = match value.field("Key").text()? {
            "kvs" => &mut self.indexes.kv,
            "tombstones" => &mut self.indexes.tombstones,
            "sessions" => &mut self.indexes.sessions,
            "nodes" => &mut self.indexes.nodes,
            "services" => &mut self.indexes.services,
            "checks" => &mut self.indexes.checks,
            _ => return Some(()),
        };
        *at = index;
        Some(())
    }
}

fn kv(value: &Value) -> Option<KvRow> {
    let session = value.field("Session").text()?;
    let key = value.field("Key").bytes()?;
    if key.is_empty() || session.len() > usize::from(u8::MAX) {
        return None;
    }
    Some(KvRow::new(&KvParts {
        key,
        value: value.field("Value").bytes()?,
        flags: value.field("Flags").uint()?,
        session: Some(session).filter(|session| !session.is_empty()),
        create_index: value.field("CreateIndex").uint()?,
        modify_index: value.field("ModifyIndex").uint()?,
        lock_index: value.field("LockIndex").uint()?,
    }))
}

fn tombstone(value: &Value) -> Option<(Vec<u8>, u64)> {
    Some((
        value.field("Key").bytes()?.to_vec(),
        value.field("ModifyIndex").uint()?,
    ))
}

fn session(value: &Value) -> Option<SessionRow> {
    let text = |field| Some(value.field(field).text()?.to_owned());
    let id = SessionId::parse(value.field("ID").text()?)?;
    let ttl = text("TTL")?;
    let ttl_ns = match ttl.as_str() {
        "" => 0,
        ttl => go::parse_duration(ttl).ok()?,
    };
    let behavior = match value.field("Behavior").text()? {
        "delete" => SessionBehavior::Delete,
        _ => SessionBehavior::Release,
    };
    let service_check = |check: &Value| {
        Some(SessionServiceCheck {
            id: check.field("ID").text()?.to_owned(),
            namespace: check.field("Namespace").text()?.to_owned(),
        })
    };
    let service_checks = match value.field("ServiceChecks") {
        Value::List(checks) => checks.iter().map(service_check).collect::<Option<_>>()?,
        _ => Vec::new(),
    };
    let (mut node_checks, mut checks) = (None, None);
    string_list(value.field("NodeChecks"), &mut node_checks)?;
    string_list(value.field("Checks"), &mut checks)?;
    Some(SessionRow {
        id: id.0.to_vec().into(),
        name: text("Name")?,
        node: text("Node")?,
        lock_delay_ns: value.field("LockDelay").int()?,
        behavior: behavior.into(),
        ttl,
        ttl_ms: u64::try_from(ttl_ns / 1_000_000).ok()?,
        node_checks,
        service_checks_legacy: None,
        service_checks,
        create_index: value.field("CreateIndex").uint()?,
        modify_index: value.field("ModifyIndex").uint()?,
        checks,
        ttl_exact: false,
    })
}

/// Nil is kept apart from the empty list; `None` for what is no list of texts.
fn string_list(value: &Value, into: &mut Option<StringList>) -> Option<()> {
    if !value.is_nil() {
        let items = strings(value)?;
        *into = Some(StringList { items });
    }
    Some(())
}

fn strings(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Nil => Some(Vec::new()),
        Value::List(items) => items.iter().map(|item| item.text().map(str::to_owned)).collect(),
        _ => None,
    }
}
