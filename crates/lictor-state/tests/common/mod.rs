//! A state with a log position, and short names for commands.
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::expect_used, reason = "tests may panic")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use lictor_proto::v1::{self, txn_op};
use lictor_proto::{Command, LogIndex, SessionId, Term};
use lictor_state::{Action, Dirty, Effect, Effects, Outcome, QueueAnswer, State, Table, TxnOutcome, Write};

/// A state that is fed one command after the other.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) state: State,
    pub(crate) at: u64,
    /// The effects of the last command.
    pub(crate) out: Effects,
}

impl Log {
    pub(crate) fn apply(&mut self, command: &Command) -> Outcome {
        self.at += 1;
        self.out.clear();
        self.state
            .apply(LogIndex(self.at), Term(1), command, &mut self.out)
    }

    /// Applies a command that answers true or false.
    pub(crate) fn ask(&mut self, command: &Command) -> bool {
        match self.apply(command) {
            Outcome::Bool(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    /// Applies a command that is done.
    pub(crate) fn done(&mut self, command: &Command) -> u64 {
        assert!(self.ask(command), "refused: {command:?}");
        self.at
    }

    /// Applies a command that fails; the text.
    pub(crate) fn fail(&mut self, command: &Command) -> String {
        match self.apply(command) {
            Outcome::Failed(error) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// Applies a command on a fair queue.
    pub(crate) fn queue(&mut self, command: &Command) -> QueueAnswer {
        match self.apply(command) {
            Outcome::Queue(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn txn(&mut self, ops: Vec<v1::TxnOp>) -> TxnOutcome {
        match self.apply(&Command::Txn(v1::Txn {
            ops,
            checked_at: u64::MAX,
        })) {
            Outcome::Txn(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn set(&mut self, key: &str, value: &str) -> u64 {
        self.done(&set(key, value))
    }

    pub(crate) fn delete(&mut self, key: &str) -> u64 {
        self.done(&delete(key))
    }

    pub(crate) fn delete_tree(&mut self, prefix: &str) -> u64 {
        self.done(&delete_tree(prefix))
    }

    pub(crate) fn acquire(&mut self, key: &str, session: &str) -> bool {
        let checked_at = self.at;
        self.ask(&lock(key, "locked", session, checked_at))
    }

    /// A registered node.
    pub(crate) fn node(&mut self, name: &str) {
        self.done(&register(name, None, vec![]));
    }

    /// A session on node `n`, which is registered with it; its text.
    pub(crate) fn session(
        &mut self,
        number: u8,
        lock_delay_ms: i64,
        behavior: v1::SessionBehavior,
    ) -> String {
        self.node("n");
        let row = v1::SessionRow {
            lock_delay_ns: lock_delay_ms * 1_000_000,
            behavior: behavior.into(),
            ..session_row(number, "n")
        };
        self.done(&Command::SessionCreate(v1::SessionCreate { session: Some(row) }));
        session_id(number).to_string()
    }

    pub(crate) fn list_index(&self, prefix: &str) -> u64 {
        self.state.kv_list_index(prefix.as_bytes()).0
    }

    pub(crate) fn modify_index(&self, key: &str) -> u64 {
        self.state.kv_get(key.as_bytes()).expect(key).modify_index()
    }

    pub(crate) fn keys(&self, prefix: &str, separator: &str) -> Vec<String> {
        let mut names = Vec::new();
        let (prefix, separator) = (prefix.as_bytes(), separator.as_bytes());
        // Stops after every second name, and goes on from there.
        let mut next = Some(prefix.to_vec());
        while let Some(from) = next {
            next = self.state.kv_keys(prefix, separator, &from, &mut |name| {
                names.push(String::from_utf8_lossy(name).into_owned());
                if names.len() % 2 == 0 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
        }
        names
    }

    /// Whether the last command left no trace.
    pub(crate) fn silent(&self) -> bool {
        self.out.events.is_empty() && self.out.dirty.is_empty() && self.out.writes.is_empty()
    }

    pub(crate) fn dirty_keys(&self) -> Vec<&[u8]> {
        let keys = self.out.dirty.iter().filter_map(|dirty| match dirty {
            Dirty::Key(key) => Some(&key[..]),
            _ => None,
        });
        keys.collect()
    }

    /// The lock-delays that the last command set: key and milliseconds.
    pub(crate) fn delays(&self) -> Vec<(&[u8], u64)> {
        let delays = self.out.events.iter().filter_map(|effect| match effect {
            Effect::LockDelay { key, delay_ms, .. } => Some((&key[..], *delay_ms)),
            _ => None,
        });
        delays.collect()
    }
}

pub(crate) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) fn set(key: &str, value: &str) -> Command {
    Command::KvSet(v1::KvSet {
        key: bytes(key),
        value: bytes(value),
        flags: 0,
        cas: None,
    })
}

pub(crate) fn cas(key: &str, value: &str, index: u64) -> Command {
    Command::KvSet(v1::KvSet {
        key: bytes(key),
        value: bytes(value),
        flags: 0,
        cas: Some(index),
    })
}

pub(crate) fn delete(key: &str) -> Command {
    Command::KvDelete(v1::KvDelete {
        key: bytes(key),
        cas: None,
    })
}

pub(crate) fn delete_tree(prefix: &str) -> Command {
    Command::KvDeleteTree(v1::KvDeleteTree {
        prefix: bytes(prefix),
    })
}

pub(crate) fn lock(key: &str, value: &str, session: &str, checked_at: u64) -> Command {
    let (key, value, session) = (bytes(key), bytes(value), session.to_owned());
    Command::KvLock(v1::KvLock {
        key,
        value,
        flags: 0,
        session,
        checked_at,
    })
}

/// The same, standing in line for it.
pub(crate) fn enter(key: &str, value: &str, session: &str, checked_at: u64, request: u8) -> Command {
    let (key, value, session) = (bytes(key), bytes(value), session.to_owned());
    Command::KvLockEnter(v1::KvLockEnter {
        lock: Some(v1::KvLock {
            key,
            value,
            flags: 0,
            session,
            checked_at,
        }),
        request: Bytes::copy_from_slice(&[request]),
    })
}

/// A client has left its place in a line.
pub(crate) fn leave(key: &str, index: u64) -> Command {
    let gone = v1::QueueDropRef {
        name: bytes(key),
        index,
        lease: None,
        callers: Some(1),
    };
    Command::QueueDrop(v1::QueueDrop { entries: vec![gone] })
}

pub(crate) fn unlock(key: &str, value: &str, session: &str) -> Command {
    let (key, value, session) = (bytes(key), bytes(value), session.to_owned());
    Command::KvUnlock(v1::KvUnlock {
        key,
        value,
        flags: 0,
        session,
    })
}

pub(crate) fn reap(index: u64) -> Command {
    Command::ReapTombstones(v1::ReapTombstones { index })
}

pub(crate) fn delay_over(key: &str, set_index: u64) -> Command {
    Command::LockDelayOver(v1::LockDelayOver {
        delays: vec![v1::LockDelayRef {
            key: bytes(key),
            set_index,
        }],
    })
}

pub(crate) fn session_id(number: u8) -> SessionId {
    // Letters, so that capitals make a difference.
    SessionId([0xa0 | number; 16])
}

pub(crate) fn session_row(number: u8, node: &str) -> v1::SessionRow {
    let id = Bytes::copy_from_slice(&session_id(number).0);
    v1::SessionRow {
        id,
        node: node.to_owned(),
        ..v1::SessionRow::default()
    }
}

pub(crate) fn create(row: v1::SessionRow) -> Command {
    Command::SessionCreate(v1::SessionCreate { session: Some(row) })
}

pub(crate) fn destroy(session: &str) -> Command {
    let id = SessionId::parse(session).expect("a session id");
    Command::SessionDestroy(v1::SessionDestroy {
        id: Bytes::copy_from_slice(&id.0),
    })
}

pub(crate) fn register(node: &str, service: Option<v1::ServiceRow>, checks: Vec<v1::CheckRow>) -> Command {
    let address = "192.0.2.1".to_owned();
    let node = v1::NodeRow {
        node: node.to_owned(),
        address,
        ..v1::NodeRow::default()
    };
    Command::Register(v1::Register {
        node: Some(node),
        service,
        checks,
        skip_node_update: false,
    })
}

pub(crate) fn deregister(node: &str, service: &str, check: &str) -> Command {
    let (node, service_id, check_id) = (node.to_owned(), service.to_owned(), check.to_owned());
    Command::Deregister(v1::Deregister {
        node,
        service_id,
        check_id,
    })
}

pub(crate) fn service(node: &str, id: &str, name: &str) -> v1::ServiceRow {
    let (node, id, service) = (node.to_owned(), id.to_owned(), name.to_owned());
    v1::ServiceRow {
        node,
        id,
        service,
        ..v1::ServiceRow::default()
    }
}

pub(crate) fn check(node: &str, id: &str, service_id: &str, status: &str) -> v1::CheckRow {
    let (node, check_id, status) = (node.to_owned(), id.to_owned(), status.to_owned());
    v1::CheckRow {
        node,
        check_id,
        service_id: service_id.to_owned(),
        status,
        ..v1::CheckRow::default()
    }
}

pub(crate) fn kv_op(verb: v1::KvVerb, key: &str, value: &str, index: u64, session: &str) -> v1::TxnOp {
    let (key, value, session) = (bytes(key), bytes(value), session.to_owned());
    let op = v1::KvTxnOp {
        verb: verb.into(),
        key,
        value,
        flags: 0,
        index,
        session,
    };
    v1::TxnOp {
        op: Some(txn_op::Op::Kv(op)),
    }
}

/// What an outcome says of a queue.
pub(crate) trait OfQueue {
    fn queue(&self) -> Option<QueueAnswer>;
}

impl OfQueue for Outcome {
    fn queue(&self) -> Option<QueueAnswer> {
        match self {
            Outcome::Queue(answer) => Some(*answer),
            _ => None,
        }
    }
}

/// All rows of a state as bytes.
pub(crate) fn rows(state: &State) -> Vec<(&'static str, Bytes, Vec<u8>)> {
    state
        .dump()
        .map(|row: Write| (row.table().name(), row.key_bytes(), row.value_bytes()))
        .collect()
}

/// The durable copy: what the writes of all commands add up to.
#[derive(Default)]
pub(crate) struct Mirror(BTreeMap<(Table, Bytes), Vec<u8>>);

impl Mirror {
    pub(crate) fn take(&mut self, out: &Effects) {
        for write in &out.writes {
            let (table, key) = (write.table(), write.key_bytes());
            match write.action() {
                Action::Put => {
                    self.0.insert((table, key), write.value_bytes());
                }
                Action::Delete => {
                    assert!(
                        self.0.remove(&(table, key)).is_some(),
                        "removes what is not there: {write:?}"
                    );
                }
                Action::DeletePrefix => self
                    .0
                    .retain(|(of, found), _| *of != table || !found.starts_with(&key)),
            }
        }
    }

    pub(crate) fn rows(&self) -> Vec<(&'static str, Bytes, Vec<u8>)> {
        self.0
            .iter()
            .map(|((table, key), value)| (table.name(), key.clone(), value.clone()))
            .collect()
    }
}
