//! Random commands against a naive model: maps of whole rows, full scans, no derived tables.

#![expect(clippy::unnecessary_wraps, reason = "one signature for all commands")]
#![expect(clippy::unwrap_used, reason = "tests may panic")]

mod commands;
#[path = "../common/mod.rs"]
mod common;
mod line;
mod many;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use commands::{QUERY_NAMES, command, key};
use common::*;
use lictor_proto::v1::{self, KvVerb, SessionBehavior};
use lictor_proto::{Command, ConsulIndex, SessionId};
use lictor_state::snapshot::{self, Receiver};
use lictor_state::{Area, Change, Dirty, Loader, Outcome, QueueAnswer, Span, State};
use proptest::prelude::*;

// ---------------------------------------------------------------- the model

#[derive(Debug, Clone, PartialEq, Default)]
struct Row {
    value: Vec<u8>,
    flags: u64,
    lock_index: u64,
    session: String,
    create: u64,
    modify: u64,
}

#[derive(Debug, Clone, Default)]
struct Model {
    index: u64,
    kv: BTreeMap<Vec<u8>, Row>,
    tombstones: BTreeMap<Vec<u8>, u64>,
    tree_marks: BTreeMap<Vec<u8>, u64>,
    sessions: BTreeMap<[u8; 16], v1::SessionRow>,
    /// Key -> set index, milliseconds.
    delays: BTreeMap<Vec<u8>, (u64, u64)>,
    /// The same of keys with a TTL.
    ttls: BTreeMap<Vec<u8>, (u64, u64)>,
    nodes: BTreeSet<String>,
    services: BTreeMap<(String, String), String>,
    /// (node, check) -> (service id, status).
    checks: BTreeMap<(String, String), (String, String)>,
    queries: BTreeMap<Vec<u8>, v1::PreparedQueryRow>,
    /// Key -> who waits for its lock, in order.
    lines: BTreeMap<Vec<u8>, Vec<v1::LockWaitRow>>,
    table: u64,
    horizon: u64,
    session_ttl_min_ms: u64,
}

/// `Some(answer)`, or `None` for a failure.
type Answer = Option<bool>;

impl Model {
    fn put(&mut self, key: &[u8], new: Row) {
        if let Some(old) = self.kv.get(key) {
            let same = Row {
                create: old.create,
                modify: old.modify,
                ..new.clone()
            };
            if same == *old {
                return;
            }
        }
        let create = self.kv.get(key).map_or(self.index, |old| old.create);
        self.kv.insert(
            key.to_vec(),
            Row {
                create,
                modify: self.index,
                ..new
            },
        );
        self.tombstones.remove(key);
        self.table = self.index;
    }

    fn set(&mut self, set: &v1::KvSet) -> Answer {
        let old = self.kv.get(&set.key[..]).cloned().unwrap_or_default();
        if set.cas.is_some_and(|cas| cas != old.modify) {
            return Some(false);
        }
        let (value, flags) = (set.value.to_vec(), set.flags);
        self.ttls.remove(&set.key[..]);
        self.put(
            &set.key,
            Row {
                value,
                flags,
                lock_index: 0,
                session: old.session,
                create: 0,
                modify: 0,
            },
        );
        Some(true)
    }

    fn delete(&mut self, key: &[u8], cas: Option<u64>) -> Answer {
        let Some(row) = self.kv.get(key) else {
            return Some(true);
        };
        if cas.is_some_and(|cas| cas != row.modify) {
            return Some(false);
        }
        self.kv.remove(key);
        self.ttls.remove(key);
        self.tombstones.insert(key.to_vec(), self.index);
        self.table = self.index;
        Some(true)
    }

    fn delete_tree(&mut self, prefix: &[u8]) -> Answer {
        let count = self.kv.len();
        self.kv.retain(|key, _| !key.starts_with(prefix));
        self.ttls.retain(|key, _| !key.starts_with(prefix));
        if self.kv.len() < count {
            self.tombstones.retain(|key, _| !key.starts_with(prefix));
            self.tree_marks.retain(|key, _| !key.starts_with(prefix));
            if prefix.is_empty() {
                self.horizon = self.index;
            } else {
                self.tree_marks.insert(prefix.to_vec(), self.index);
            }
            self.table = self.index;
        }
        Some(true)
    }

    fn lock(&mut self, lock: &v1::KvLock) -> Answer {
        if self
            .delays
            .get(&lock.key[..])
            .is_some_and(|delay| delay.0 > lock.checked_at)
        {
            return Some(false);
        }
        self.sessions.get(&SessionId::parse(&lock.session)?.0)?;
        let old = self.kv.get(&lock.key[..]).cloned().unwrap_or_default();
        if !old.session.is_empty() && old.session != lock.session {
            return Some(false);
        }
        if old.session.is_empty() && self.lines.contains_key(&lock.key[..]) {
            return Some(false);
        }
        self.take(lock);
        Some(true)
    }

    fn take(&mut self, lock: &v1::KvLock) {
        let old = self.kv.get(&lock.key[..]).cloned().unwrap_or_default();
        self.delays.remove(&lock.key[..]);
        self.ttls.remove(&lock.key[..]);
        let lock_index = old.lock_index + u64::from(old.session.is_empty());
        let (value, flags, session) = (lock.value.to_vec(), lock.flags, lock.session.clone());
        self.put(
            &lock.key,
            Row {
                value,
                flags,
                lock_index,
                session,
                create: 0,
                modify: 0,
            },
        );
    }

    fn unlock(&mut self, unlock: &v1::KvUnlock) -> Answer {
        if unlock.session.is_empty() {
            return None;
        }
        let Some(old) = self
            .kv
            .get(&unlock.key[..])
            .filter(|row| row.session == unlock.session)
            .cloned()
        else {
            return Some(false);
        };
        let (value, flags) = (unlock.value.to_vec(), unlock.flags);
        self.ttls.remove(&unlock.key[..]);
        self.put(
            &unlock.key,
            Row {
                value,
                flags,
                session: String::new(),
                ..old
            },
        );
        Some(true)
    }

    fn create(&mut self, row: &v1::SessionRow) -> Answer {
        let id: [u8; 16] = row.id[..].try_into().ok()?;
        let fit = |check: &String| {
            self.checks
                .get(&(row.node.to_lowercase(), check.clone()))
                .is_some_and(|check| check.1 != "critical")
        };
        let checks = row.checks.iter().flat_map(|list| &list.items).all(fit);
        if self.sessions.contains_key(&id) || !self.nodes.contains(&row.node.to_lowercase()) || !checks {
            return None;
        }
        self.sessions.insert(id, row.clone());
        Some(true)
    }

    fn end(&mut self, ends: impl Fn(&[u8; 16], &v1::SessionRow) -> bool) {
        let ended: Vec<_> = self
            .sessions
            .iter()
            .filter(|(id, row)| ends(id, row))
            .map(|(id, _)| *id)
            .collect();
        for id in ended {
            let session = self.sessions.remove(&id).unwrap();
            self.leave(|wait| SessionId::parse(&wait.session) == Some(SessionId(id)));
            self.queries
                .retain(|_, query| SessionId::parse(&query.session) != Some(SessionId(id)));
            let held = |row: &Row| SessionId::parse(&row.session) == Some(SessionId(id));
            let keys: Vec<_> = self
                .kv
                .iter()
                .filter(|(_, row)| held(row))
                .map(|(key, _)| key.clone())
                .collect();
            for key in keys {
                let delay_ms = u64::try_from(session.lock_delay_ns / 1_000_000)
                    .unwrap_or(0)
                    .min(60_000);
                if delay_ms > 0 {
                    self.delays.insert(key.clone(), (self.index, delay_ms));
                }
                if session.behavior() == SessionBehavior::Delete {
                    self.delete(&key, None);
                } else {
                    let row = Row {
                        session: String::new(),
                        ..self.kv[&key].clone()
                    };
                    self.put(&key, row);
                }
            }
        }
    }

    fn end_of_check(&mut self, node: &str, check: &str) {
        self.end(|_, row| {
            row.node.to_lowercase() == node
                && row
                    .checks
                    .iter()
                    .flat_map(|list| &list.items)
                    .any(|bound| bound == check)
        });
    }

    fn register(&mut self, register: &v1::Register) -> Answer {
        let node = register.node.as_ref()?.node.to_lowercase();
        for check in &register.checks {
            let here = register
                .service
                .as_ref()
                .is_some_and(|service| service.id == check.service_id);
            let known = self
                .services
                .contains_key(&(node.clone(), check.service_id.clone()));
            if !check.service_id.is_empty() && !here && !known {
                return None;
            }
        }
        self.nodes.insert(node.clone());
        if let Some(service) = &register.service {
            self.services
                .insert((node.clone(), service.id.clone()), service.service.clone());
        }
        for check in &register.checks {
            let row = (check.service_id.clone(), check.status.clone());
            self.checks.insert((node.clone(), check.check_id.clone()), row);
            if check.status == "critical" {
                self.end_of_check(&node, &check.check_id);
            }
        }
        Some(true)
    }

    fn deregister(&mut self, gone: &v1::Deregister) -> Answer {
        let node = gone.node.to_lowercase();
        let whole = gone.check_id.is_empty() && gone.service_id.is_empty();
        let service = if gone.check_id.is_empty() {
            gone.service_id.clone()
        } else {
            String::new()
        };
        let removed: Vec<_> = self
            .checks
            .iter()
            .filter(|((on, id), (of, _))| {
                *on == node && (whole || *id == gone.check_id || (!service.is_empty() && *of == service))
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in removed {
            self.checks.remove(&key);
            self.end_of_check(&key.0, &key.1);
        }
        self.services
            .retain(|(on, id), _| *on != node || !(whole || *id == service));
        if whole {
            self.nodes.remove(&node);
            self.end(|_, row| row.node.to_lowercase() == node);
        }
        Some(true)
    }

    fn query(&mut self, query: &v1::PreparedQueryRow) -> Answer {
        let name = |row: &v1::PreparedQueryRow| {
            (row.is_template || !row.name.is_empty()).then(|| row.name.to_lowercase())
        };
        let is_taken = self
            .queries
            .values()
            .any(|other| other.id != query.id && name(other).is_some() && name(other) == name(query));
        let as_id = SessionId::parse(&query.name);
        let is_id = as_id.is_some_and(|id| self.queries.contains_key(&id.0[..]));
        let session = SessionId::parse(&query.session);
        let lives = session.is_some_and(|id| self.sessions.contains_key(&id.0));
        if is_taken || is_id || (!query.session.is_empty() && !lives) {
            return None;
        }
        let id = query.id.to_vec();
        let old = self.queries.get(&id);
        let row = v1::PreparedQueryRow {
            create_index: old.map_or(self.index, |old| old.create_index),
            modify_index: self.index,
            ..query.clone()
        };
        self.queries.insert(id, row);
        Some(true)
    }

    /// The query of this name, else the template with the longest name that it begins with.
    fn query_for(&self, name: &str) -> Option<&v1::PreparedQueryRow> {
        let name = name.to_lowercase();
        let folded = |row: &v1::PreparedQueryRow| row.name.to_lowercase();
        let named = self
            .queries
            .values()
            .find(|row| !name.is_empty() && folded(row) == name);
        named.or_else(|| {
            self.queries
                .values()
                .filter(|row| row.is_template && name.starts_with(&folded(row)))
                .max_by_key(|row| row.name.len())
        })
    }

    fn reap(&mut self, up_to: u64) -> Answer {
        for marks in [&mut self.tombstones, &mut self.tree_marks] {
            marks.retain(|_, index| {
                if *index <= up_to {
                    self.horizon = self.horizon.max(*index);
                }
                *index > up_to
            });
        }
        Some(true)
    }

    fn txn(&mut self, txn: &v1::Txn) -> Answer {
        let before = self.clone();
        let mut good = true;
        for op in &txn.ops {
            let Some(v1::txn_op::Op::Kv(op)) = &op.op else {
                continue;
            };
            let (key, value, flags, session) =
                (op.key.clone(), op.value.clone(), op.flags, op.session.clone());
            let row = self.kv.get(&key[..]);
            good &= match op.verb() {
                KvVerb::Set => self.set(&v1::KvSet {
                    key,
                    value,
                    flags,
                    cas: None,
                }),
                KvVerb::Cas => self.set(&v1::KvSet {
                    key,
                    value,
                    flags,
                    cas: Some(op.index),
                }),
                KvVerb::Lock => self.lock(&v1::KvLock {
                    key,
                    value,
                    flags,
                    session,
                    checked_at: txn.checked_at,
                }),
                KvVerb::Unlock => self.unlock(&v1::KvUnlock {
                    key,
                    value,
                    flags,
                    session,
                }),
                KvVerb::Delete => self.delete(&key, None),
                KvVerb::DeleteCas => self.delete(&key, Some(op.index)),
                KvVerb::DeleteTree => self.delete_tree(&key),
                KvVerb::Get => Some(row.is_some()),
                KvVerb::CheckIndex => Some(row.is_some_and(|row| row.modify == op.index)),
                KvVerb::CheckSession => Some(row.is_some_and(|row| row.session == session)),
                KvVerb::CheckNotExists => Some(row.is_none()),
                _ => Some(true),
            }
            .unwrap_or(false);
        }
        if !good {
            *self = before;
        }
        Some(good)
    }

    fn apply(&mut self, command: &Command) -> Answer {
        self.index += 1;
        let answer = self.carry_out(command);
        self.grant();
        answer
    }

    fn carry_out(&mut self, command: &Command) -> Answer {
        match command {
            Command::KvSet(set) => self.set(set),
            Command::KvDelete(delete) => self.delete(&delete.key, delete.cas),
            Command::KvDeleteTree(delete) => self.delete_tree(&delete.prefix),
            Command::KvLock(lock) => self.lock(lock),
            Command::KvUnlock(unlock) => self.unlock(unlock),
            Command::Txn(txn) => self.txn(txn),
            Command::SessionCreate(create) => self.create(create.session.as_ref()?),
            Command::SessionDestroy(destroy) => {
                self.end(|id, _| id[..] == destroy.id[..]);
                Some(true)
            }
            Command::ReapTombstones(reap) => self.reap(reap.index),
            Command::LockDelayOver(over) => {
                for ended in &over.delays {
                    self.delays
                        .retain(|key, delay| key[..] != ended.key[..] || delay.0 != ended.set_index);
                }
                Some(true)
            }
            Command::Register(register) => self.register(register),
            Command::Deregister(gone) => self.deregister(gone),
            Command::KvSetTtl(with) => {
                let set = with.set.as_ref()?;
                let done = self.set(set);
                if done == Some(true) {
                    self.ttls.insert(set.key.to_vec(), (self.index, with.ttl_ms));
                }
                done
            }
            Command::KvTtlOver(over) => {
                for ended in &over.ttls {
                    let ttl = self.ttls.get(&ended.key[..]);
                    if ttl.is_some_and(|ttl| ttl.0 == ended.set_index) {
                        self.delete(&ended.key, None);
                    }
                }
                Some(true)
            }
            Command::SessionTtlMinSet(set) => {
                self.session_ttl_min_ms = set.ms;
                Some(true)
            }
            Command::CompareStates(_) => Some(true),
            Command::PreparedQuerySet(set) => self.query(set.query.as_ref()?),
            Command::PreparedQueryDelete(gone) => {
                self.queries.remove(&gone.id[..]);
                Some(true)
            }
            Command::KvLockEnter(enter) => self.enter(enter),
            Command::QueueDrop(drop) => {
                for gone in &drop.entries {
                    self.leave(|wait| wait.key == gone.name && wait.index == gone.index);
                }
                Some(true)
            }
            // Not generated: the archive is not part of the command, and fair queues have a model of their own.
            Command::Restore(_)
            | Command::QueueEnter(_)
            | Command::QueueRenew(_)
            | Command::QueueRelease(_)
            | Command::QueueForget(_) => None,
        }
    }

    fn list_index(&self, prefix: &[u8]) -> u64 {
        let below = |key: &[u8]| key.starts_with(prefix);
        let rows = self
            .kv
            .iter()
            .filter(|(key, _)| below(key))
            .map(|(_, row)| row.modify);
        let tombstones = self
            .tombstones
            .iter()
            .filter(|(key, _)| below(key))
            .map(|(_, index)| *index);
        let marks = self
            .tree_marks
            .iter()
            .filter(|(key, _)| below(key) || prefix.starts_with(key));
        let found = rows.chain(tombstones).chain(marks.map(|(_, index)| *index)).max();
        match found.filter(|_| !prefix.is_empty()) {
            None => self.table.max(1),
            Some(found) => found.max(self.horizon),
        }
    }
}

// ---------------------------------------------------------------- comparison

fn same_queries(state: &State, model: &Model) -> Result<(), TestCaseError> {
    let queries: Vec<_> = state.prepared_queries().map(|row| (**row).clone()).collect();
    prop_assert!(queries.iter().eq(model.queries.values()));
    for name in QUERY_NAMES.into_iter().chain(["qaX", "qabc", "zz"]) {
        prop_assert_eq!(
            state.prepared_query_for(name).map(|row| &**row),
            model.query_for(name)
        );
    }
    Ok(())
}

fn same_rows(state: &State, model: &Model) -> Result<(), TestCaseError> {
    let rows: BTreeMap<_, _> = state
        .kv_list(b"")
        .map(|row| {
            let (value, session) = (row.value().to_vec(), row.session().unwrap_or_default().to_owned());
            let (create, modify) = (row.create_index(), row.modify_index());
            let (flags, lock_index) = (row.flags(), row.lock_index());
            (
                row.key().to_vec(),
                Row {
                    value,
                    flags,
                    lock_index,
                    session,
                    create,
                    modify,
                },
            )
        })
        .collect();
    prop_assert_eq!(&rows, &model.kv);
    let sessions: Vec<_> = state.sessions().map(|row| row.id.to_vec()).collect();
    prop_assert!(
        sessions
            .iter()
            .map(Vec::as_slice)
            .eq(model.sessions.keys().map(|id| &id[..]))
    );
    for node in ["n0", "n1"] {
        let of_node = model
            .sessions
            .values()
            .filter(|row| row.node.to_lowercase() == node)
            .count();
        prop_assert_eq!(state.sessions_of_node(node).count(), of_node);
    }
    let delays: BTreeMap<_, _> = state
        .lock_delays()
        .map(|delay| (delay.key.to_vec(), (delay.set_index, delay.delay_ms)))
        .collect();
    prop_assert_eq!(&delays, &model.delays);
    same_queries(state, model)?;
    let ttls: BTreeMap<_, _> = state
        .kv_ttls()
        .map(|row| (row.key.to_vec(), (row.set_index, row.ttl_ms)))
        .collect();
    prop_assert_eq!(&ttls, &model.ttls);
    let waits = state.lock_waits().map(|row| &**row);
    prop_assert!(waits.eq(model.lines.values().flatten()));
    prop_assert_eq!(state.meta().session_ttl_min_ms, model.session_ttl_min_ms);
    let services: Vec<_> = state
        .services()
        .map(|row| (row.node.to_lowercase(), row.id.clone()))
        .collect();
    prop_assert!(services.iter().eq(model.services.keys()));
    prop_assert_eq!(state.services_named("web").count(), model.services.len());
    let checks: BTreeMap<_, _> = state
        .checks()
        .map(|row| {
            let key = (row.node.to_lowercase(), row.check_id.clone());
            (key, (row.service_id.clone(), row.status.clone()))
        })
        .collect();
    prop_assert_eq!(&checks, &model.checks);
    let marks = model.tombstones.values().chain(model.tree_marks.values());
    prop_assert_eq!(
        state.newest_tombstone().map(|index| index.0),
        marks.max().copied()
    );
    Ok(())
}

type Rows = Vec<(&'static str, Bytes, Vec<u8>)>;

/// The keys of a table that differ between two states.
fn changed(table: &str, before: &Rows, after: &Rows) -> BTreeSet<Bytes> {
    let of = |rows: &Rows| {
        rows.iter()
            .filter(|row| row.0 == table)
            .cloned()
            .collect::<BTreeSet<_>>()
    };
    of(before)
        .symmetric_difference(&of(after))
        .map(|row| row.1.clone())
        .collect()
}

/// Whatever changed is reported; and, but for transactions, nothing else.
fn dirty_is_exact(command: &Command, before: &Rows, log: &Log) -> Result<(), TestCaseError> {
    let after = rows(&log.state);
    let keys = changed("kv", before, &after);
    let covered = |key: &Bytes| {
        log.out.dirty.iter().any(|dirty| match dirty {
            Dirty::Key(changed) => changed == key,
            Dirty::Tree(prefix) => key.starts_with(prefix),
            _ => false,
        })
    };
    prop_assert!(
        keys.iter().all(covered),
        "{:?} misses some of {:?}",
        log.out.dirty,
        keys
    );
    if !matches!(command, Command::Txn(_)) {
        prop_assert!(log.dirty_keys().iter().all(|key| keys.contains(*key)));
    }
    let rows_of = |wanted| {
        let key = |dirty: &Dirty| match dirty {
            Dirty::Row(area, key) if *area == wanted => Some(key.clone()),
            _ => None,
        };
        log.out.dirty.iter().filter_map(key).collect::<BTreeSet<_>>()
    };
    let waits = changed("lock_wait", before, &after);
    let delays = changed("lock_delay", before, &after);
    prop_assert_eq!(
        rows_of(Area::LockWaits).is_empty(),
        waits.is_empty() && delays.is_empty()
    );
    let sessions = changed("session", before, &after);
    prop_assert_eq!(rows_of(Area::Sessions).is_empty(), sessions.is_empty());
    prop_assert_eq!(rows_of(Area::SessionsOfNode).is_empty(), sessions.is_empty());
    prop_assert_eq!(rows_of(Area::Session), sessions);
    prop_assert_eq!(
        rows_of(Area::Nodes).is_empty(),
        changed("node", before, &after).is_empty()
    );
    prop_assert_eq!(
        rows_of(Area::Services).is_empty(),
        changed("service", before, &after).is_empty()
    );
    prop_assert_eq!(
        rows_of(Area::Checks).is_empty(),
        changed("check", before, &after).is_empty()
    );
    Ok(())
}

/// The keys below a prefix with their ModifyIndex.
fn indexes(state: &State, prefix: &str) -> BTreeMap<Vec<u8>, u64> {
    let rows = state.kv_list(prefix.as_bytes());
    rows.map(|row| (row.key().to_vec(), row.modify_index())).collect()
}

fn replayed(mut keys: BTreeMap<Vec<u8>, u64>, changes: &[Change]) -> BTreeMap<Vec<u8>, u64> {
    for change in changes {
        match change {
            Change::Written(row) => {
                keys.insert(row.key().to_vec(), row.modify_index());
            }
            Change::Deleted { key, .. } => {
                keys.remove(&key[..]);
            }
            Change::TreeDeleted { prefix, .. } => keys.retain(|key, _| !key.starts_with(prefix)),
        }
    }
    keys
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_the_naive_model(
        commands in proptest::collection::vec(command(), 1..120),
        prefixes in proptest::collection::vec(key(), 6),
    ) {
        let (mut log, mut model) = (Log::default(), Model::default());
        let mut copy = Mirror::default();
        let mut seen = BTreeMap::new();
        for command in &commands {
            let before = rows(&log.state);
            let answer = match log.apply(command) {
                Outcome::Bool(answer) => Some(answer),
                Outcome::Txn(outcome) => Some(outcome.errors.is_empty()),
                Outcome::Queue(QueueAnswer::Waits { .. } | QueueAnswer::Done) => Some(true),
                Outcome::Failed(_) | Outcome::Queue(_) => None,
                Outcome::Explained(explained) => {
                    prop_assert!(matches!(command, Command::KvLockEnter(_)), "nobody asked");
                    Some(explained.done)
                }
            };
            prop_assert_eq!(answer, model.apply(command), "{:?}", command);
            same_rows(&log.state, &model)?;
            for prefix in &prefixes {
                let index = log.list_index(prefix);
                prop_assert_eq!(index, model.list_index(prefix.as_bytes()), "{:?} after {:?}", prefix, command);
                let last = seen.insert(prefix, index).unwrap_or(0);
                prop_assert!(index >= last, "{:?} went back from {} to {} by {:?}", prefix, last, index, command);
            }
            copy.take(&log.out);
            prop_assert_eq!(copy.rows(), rows(&log.state), "the writes do not make the copy");
            if answer != Some(true) {
                prop_assert!(log.silent());
            }
            prop_assert_eq!(log.state.verify(), Ok(()), "after {:?}", command);
            dirty_is_exact(command, &before, &log)?;
        }
    }

    #[test]
    fn one_log_gives_one_state_and_a_load_gives_it_again(
        commands in proptest::collection::vec(command(), 1..120),
        cut in 0usize..120,
    ) {
        let (mut one, mut other) = (Log::default(), Log::default());
        for (at, command) in commands.iter().enumerate() {
            one.apply(command);
            // The other one is taken down and loaded again midway, and shared all the time.
            let shared = other.state.clone();
            other.apply(command);
            drop(shared);
            if at == cut {
                let mut loader = Loader::new(&other.state.meta());
                for row in other.state.dump() {
                    loader.push_bytes(row.table(), &row.key_bytes(), &row.value_bytes()).unwrap();
                }
                other.state = loader.finish();
            }
            prop_assert_eq!(&one.out.dirty, &other.out.dirty);
            prop_assert_eq!(&one.out.events, &other.out.events);
        }
        prop_assert_eq!(rows(&one.state), rows(&other.state));
        prop_assert_eq!(one.state.meta(), other.state.meta());
    }

    #[test]
    fn a_snapshot_stream_gives_the_state_again(
        commands in proptest::collection::vec(command(), 1..100),
        piece_bytes in 1usize..400,
    ) {
        let mut log = Log::default();
        for command in &commands {
            log.apply(command);
        }
        let meta = v1::MetaRow { cluster_id: bytes("c"), ..log.state.meta() };
        let mut stream = Vec::new();
        let written = snapshot::write(&log.state, &meta, &mut stream).unwrap();

        let mut receiver = Receiver::new(u64::MAX);
        for piece in stream.chunks(piece_bytes) {
            receiver.push(piece).unwrap();
        }
        let received = receiver.finish().unwrap();

        prop_assert_eq!(rows(&received.state), rows(&log.state));
        prop_assert_eq!(received.state.meta(), log.state.meta());
        prop_assert_eq!(received.state.verify(), Ok(()));
        prop_assert_eq!((received.meta, received.summary), (meta, written));
    }

    #[test]
    fn changes_lead_from_any_index_to_now(
        commands in proptest::collection::vec(command(), 1..120),
        cut in 0usize..120,
        prefix in key(),
    ) {
        let mut log = Log::default();
        let (first, rest) = commands.split_at(cut.min(commands.len()));
        for command in first {
            log.apply(command);
        }
        let (then, since) = (indexes(&log.state, &prefix), ConsulIndex(log.at));
        for command in rest {
            log.apply(command);
        }
        let now = indexes(&log.state, &prefix);
        let keys = then.keys().chain(now.keys()).map(|key| Span::Key(key));
        let spans: Vec<_> = keys.collect::<BTreeSet<_>>().into_iter().collect();

        for spans in [&[Span::Prefix(prefix.as_bytes())][..], &spans] {
            let changed = spans.iter().any(|span| log.state.kv_changed(*span) > since);
            match log.state.kv_changes(spans, since) {
                None => prop_assert!(since.0 == 0 || log.state.tombstone_horizon() > since),
                Some(changes) => {
                    prop_assert!(changed || changes.is_empty(), "nobody would wake for {:?}", changes);
                    prop_assert_eq!(replayed(then.clone(), &changes), now.clone(), "{:?}", changes);
                }
            }
        }
    }

    #[test]
    fn a_snapshot_stays_as_it_was(commands in proptest::collection::vec(command(), 2..100)) {
        let mut log = Log::default();
        let (first, rest) = commands.split_at(commands.len() / 2);
        for command in first {
            log.apply(command);
        }
        let (snapshot, then) = (log.state.clone(), rows(&log.state));
        for command in rest {
            log.apply(command);
        }
        prop_assert_eq!(rows(&snapshot), then);
    }

    #[test]
    fn folding_keys_equals_folding_all_of_them(
        keys in proptest::collection::btree_set(key(), 0..60),
        prefix in key(),
        separator in prop_oneof![Just(""), Just("/"), Just("a"), Just("/a"), Just("zz")],
    ) {
        let mut log = Log::default();
        for key in &keys {
            log.set(key, "v");
        }
        let mut expected: Vec<String> = Vec::new();
        for key in keys.iter().filter(|key| key.starts_with(&prefix)) {
            let at = key[prefix.len()..].find(separator).filter(|_| !separator.is_empty());
            let name = at.map_or(&key[..], |at| &key[..prefix.len() + at + separator.len()]);
            if expected.last().is_none_or(|last| last != name) {
                expected.push(name.to_owned());
            }
        }
        prop_assert_eq!(log.keys(&prefix, separator), expected);
    }
}
