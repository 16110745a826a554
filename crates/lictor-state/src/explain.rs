//! What a write of keys did, or why it did not: for clients that ask for it.

use lictor_proto::v1;
use lictor_proto::{Command, ConsulIndex};

use crate::{KvRow, Outcome, State};

/// The outcome of a KV command with what a client may want to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// As in [`Outcome::Bool`].
    pub done: bool,
    /// ModifyIndex of the key as the command left it; of a delete the index at which it was done. Absent where
    /// nothing was done.
    pub modify_index: Option<ConsulIndex>,
    /// LockIndex of a key whose lock was taken: it grows whenever the lock passes on, and so fences off whoever held
    /// it before.
    pub lock_index: Option<u64>,
    /// Why nothing was done, where that is known.
    pub refused: Option<Refused>,
}

/// Why a KV command was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Another session holds the key.
    Held {
        /// As its client wrote it.
        session: String,
    },
    /// Nobody holds the key that was to be released.
    NotHeld,
    /// The lock-delay of the key runs.
    LockDelay {
        /// For how long it still does, in milliseconds.
        remaining_ms: u64,
    },
    /// The key has another ModifyIndex than the one that was named.
    Index {
        /// The one it has; 0 for a key that does not exist.
        modify_index: u64,
    },
    /// Others stand in line for the lock.
    Queued {
        /// How many.
        waiting: u64,
    },
}

impl Explained {
    /// A command that did nothing.
    pub fn refused(refused: Option<Refused>) -> Self {
        Self {
            done: false,
            modify_index: None,
            lock_index: None,
            refused,
        }
    }
}

impl State {
    /// Says more of the outcome that `command` has just had, as the last command that was applied; outcomes of other
    /// commands than those of keys stay as they are.
    #[must_use]
    pub fn explained(&self, command: &Command, outcome: Outcome) -> Outcome {
        let Outcome::Bool(done) = outcome else {
            return outcome;
        };
        let key = match command {
            Command::KvSet(set) | Command::KvSetTtl(v1::KvSetTtl { set: Some(set), .. }) => Some(&set.key),
            Command::KvLock(lock) => Some(&lock.key),
            Command::KvUnlock(unlock) => Some(&unlock.key),
            Command::KvDelete(_) | Command::KvDeleteTree(_) => None,
            _ => return outcome,
        };
        if !done {
            return Outcome::Explained(Explained::refused(self.why_refused(command)));
        }
        let row = key.and_then(|key| self.kv_get(key));
        let is_lock = matches!(command, Command::KvLock(_));
        Outcome::Explained(Explained {
            done,
            modify_index: Some(match row {
                Some(row) => ConsulIndex(row.modify_index()),
                None => self.visible(self.applied().0),
            }),
            lock_index: row.filter(|_| is_lock).map(KvRow::lock_index),
            refused: None,
        })
    }

    /// Why this state refuses a KV command.
    pub fn why_refused(&self, command: &Command) -> Option<Refused> {
        match command {
            Command::KvSet(v1::KvSet { key, .. })
            | Command::KvSetTtl(v1::KvSetTtl {
                set: Some(v1::KvSet { key, .. }),
                ..
            })
            | Command::KvDelete(v1::KvDelete { key, .. }) => {
                let modify_index = self.kv_get(key).map_or(0, KvRow::modify_index);
                Some(Refused::Index { modify_index })
            }
            Command::KvLock(lock) => {
                let delay = self.kv.lock_delays.get(&lock.key);
                match delay.filter(|delay| delay.row.set_index > lock.checked_at) {
                    Some(delay) => Some(Refused::LockDelay {
                        remaining_ms: delay.row.delay_ms,
                    }),
                    None => self.holder(&lock.key).or_else(|| self.line(&lock.key)),
                }
            }
            Command::KvUnlock(unlock) => Some(self.holder(&unlock.key).unwrap_or(Refused::NotHeld)),
            _ => None,
        }
    }

    fn line(&self, key: &[u8]) -> Option<Refused> {
        let waiting = self.lock_waits_of(key).count() as u64;
        (waiting > 0).then_some(Refused::Queued { waiting })
    }

    fn holder(&self, key: &[u8]) -> Option<Refused> {
        let session = self.kv_get(key)?.session()?.to_owned();
        Some(Refused::Held { session })
    }
}
