//! Clients, each with one request at a time: registers and counters, transfers in transactions, locks, fair locks, watches.

mod bank;
mod locks;
mod queues;
mod registers;
mod watchers;

use lictor_raft::SplitMix;

use crate::check::linear::Operation;
use crate::check::{Checked, Locks, Queues};
use crate::request::{Reply, Request};
use bytes::Bytes;
use std::collections::BTreeMap;

pub(crate) use bank::{Bank, check_total};
pub(crate) use registers::{Registers, parse};

/// What all clients write down.
#[derive(Debug, Default)]
pub(crate) struct Histories {
    /// By key.
    pub(crate) keys: BTreeMap<Bytes, Vec<Operation>>,
    /// Of each counter: increments that were acknowledged, and those that may have happened.
    pub(crate) counters: BTreeMap<Bytes, (u64, u64)>,
    /// Numbers given to writes.
    pub(crate) last_value: u64,
}

/// What a client may use.
pub(crate) struct Surroundings<'a> {
    /// Milliseconds of true time.
    pub(crate) now_ms: u64,
    /// Orders calls and answers.
    pub(crate) moment: u64,
    pub(crate) random: &'a mut SplitMix,
    pub(crate) histories: &'a mut Histories,
    pub(crate) locks: &'a mut Locks,
    pub(crate) queues: &'a mut Queues,
}

/// A client's mind.
pub(crate) enum Client {
    Registers(Registers),
    Bank(Bank),
    Locks(Box<locks::Locker>),
    Watcher(Box<watchers::Watcher>),
    Queues(Box<queues::Queuer>),
}

impl Client {
    /// The `number`th client of a run.
    pub(crate) fn new(number: usize) -> Self {
        match number % 6 {
            0 | 1 => Self::Registers(Registers::default()),
            2 => Self::Locks(Box::default()),
            3 => Self::Watcher(Box::default()),
            4 => Self::Queues(Box::default()),
            _ => Self::Bank(Bank::default()),
        }
    }

    /// What it asks for next.
    pub(crate) fn ask(&mut self, around: &mut Surroundings<'_>) -> Option<Request> {
        match self {
            Self::Registers(client) => Some(client.ask(around)),
            Self::Bank(client) => Some(client.ask(around)),
            Self::Locks(client) => client.ask(around),
            Self::Watcher(client) => Some(client.ask(around)),
            Self::Queues(client) => client.ask(around),
        }
    }

    /// What it makes of the answer.
    ///
    /// # Errors
    /// If the answer breaks a promise.
    pub(crate) fn hear(&mut self, reply: &Reply, around: &mut Surroundings<'_>) -> Checked {
        match self {
            Self::Registers(client) => client.hear(reply, around),
            Self::Bank(client) => client.hear(reply),
            Self::Locks(client) => client.hear(reply, around),
            Self::Watcher(client) => client.hear(reply),
            Self::Queues(client) => client.hear(reply, around),
        }
    }
}
