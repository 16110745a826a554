//! Registers and counters: reads, writes, compare-and-sets and deletes of a few keys, all written down.

use std::collections::BTreeMap;

use bytes::Bytes;
use lictor_proto::Command;
use lictor_proto::v1::{KvDelete, KvSet};
use lictor_state::Outcome;

use super::Surroundings;
use crate::check::linear::{Action, Operation, Value};
use crate::check::{Breach, Checked};
use crate::request::{Mode, Query, Reply, Request, Row};

const REGISTERS: u64 = 5;
const COUNTERS: u64 = 2;

/// What a client knows of a key: the write it last read, its index, and a counter's number.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    value: Value,
    modify_index: u64,
    count: u64,
}

/// A client of registers and counters.
#[derive(Debug, Default)]
pub(crate) struct Registers {
    seen: BTreeMap<Bytes, Seen>,
    asked: Option<Asked>,
}

#[derive(Debug)]
struct Asked {
    key: Bytes,
    called: u64,
    action: Action,
    /// Whether a stale answer is allowed.
    stale: bool,
}

/// The number of the write that wrote a row, and a counter's number: `write:count`.
pub(crate) fn parse(row: &Row) -> Result<(u64, u64), Breach> {
    let text = std::str::from_utf8(&row.value).unwrap_or_default();
    let parts = text.split_once(':');
    let parts = parts.and_then(|(value, count)| Some((value.parse().ok()?, count.parse().ok()?)));
    parts.ok_or_else(|| Breach(format!("{:?} holds {text:?}, which nobody wrote", row.key)))
}

impl Registers {
    pub(super) fn ask(&mut self, around: &mut Surroundings<'_>) -> Request {
        let number = around.random.below(REGISTERS + COUNTERS);
        let is_counter = number >= REGISTERS;
        let key = if is_counter {
            Bytes::from(format!("count/{number}"))
        } else {
            Bytes::from(format!("reg/{number}"))
        };
        let seen = self.seen.get(&key).copied();
        let (mut action, mut request, mut stale) = (
            Action::Read(None),
            Request::Read(Query::Key(key.clone()), Mode::Default),
            false,
        );
        match (around.random.below(100), seen) {
            (40..85, Some(seen)) if is_counter => {
                let (new, expected) = (number_of(around), seen.value);
                let done = None;
                action = Action::Cas { expected, new, done };
                request = set(&key, new, seen.count + 1, Some(seen.modify_index));
            }
            (40..70, _) if !is_counter => {
                let new = number_of(around);
                action = Action::Write(new);
                request = set(&key, new, 0, None);
            }
            (70..85, Some(seen)) => {
                let (new, expected) = (number_of(around), seen.value);
                let done = None;
                action = Action::Cas { expected, new, done };
                request = set(&key, new, 0, Some(seen.modify_index));
            }
            (85..93, _) if !is_counter => {
                action = Action::Delete;
                let (key, cas) = (key.clone(), None);
                request = Request::Write(Box::new(Command::KvDelete(KvDelete { key, cas })));
            }
            (93..97, _) => {
                stale = true;
                request = Request::Read(Query::Key(key.clone()), Mode::Stale);
            }
            (0..15, _) => request = Request::Read(Query::Key(key.clone()), Mode::Consistent),
            _ => {}
        }
        self.asked = Some(Asked {
            key,
            called: around.moment,
            action,
            stale,
        });
        request
    }

    pub(super) fn hear(&mut self, reply: &Reply, around: &mut Surroundings<'_>) -> Checked {
        let Some(asked) = self.asked.take() else {
            return Ok(());
        };
        let mut operation = Operation {
            called: asked.called,
            answered: Some(around.moment),
            action: asked.action,
        };
        match reply {
            Reply::Rows(rows) => {
                let mut seen = Seen::default();
                if let Some(row) = rows.first() {
                    let (value, count) = parse(row)?;
                    seen = Seen {
                        value: Some(value),
                        modify_index: row.modify_index,
                        count,
                    };
                }
                operation.action = Action::Read(seen.value);
                if asked.stale {
                    // What it names was true once: a compare-and-set may still be tried with it.
                    self.seen.insert(asked.key, seen);
                    return Ok(());
                }
                self.seen.insert(asked.key.clone(), seen);
            }
            Reply::Done(outcome) => {
                let Outcome::Bool(answer) = **outcome else {
                    return Err(Breach(format!("{:?} was answered {outcome:?}", asked.action)));
                };
                if let Action::Cas { done, .. } = &mut operation.action {
                    *done = Some(answer);
                }
            }
            Reply::Unknown => operation.answered = None,
            Reply::Refused | Reply::Renewed(_) | Reply::Changed(..) => return Ok(()),
        }
        if asked.key.starts_with(b"count/")
            && let Action::Cas { done, .. } = operation.action
        {
            let count = around.histories.counters.entry(asked.key.clone()).or_default();
            count.0 += u64::from(done == Some(true));
            count.1 += u64::from(done != Some(false));
        }
        around
            .histories
            .keys
            .entry(asked.key)
            .or_default()
            .push(operation);
        Ok(())
    }
}

fn number_of(around: &mut Surroundings<'_>) -> u64 {
    around.histories.last_value += 1;
    around.histories.last_value
}

fn set(key: &Bytes, value: u64, count: u64, cas: Option<u64>) -> Request {
    let (key, value) = (key.clone(), Bytes::from(format!("{value}:{count}")));
    Request::Write(Box::new(Command::KvSet(KvSet {
        key,
        value,
        flags: 0,
        cas,
    })))
}
