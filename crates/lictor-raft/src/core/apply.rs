//! Committed entries on their way to the apply thread.
//!
//! A conf-change entry is a barrier: apply stops there, raft-rs takes the change in, apply stores the members
//! with the applied index and goes on. Until then nothing behind it is given out.

use std::collections::VecDeque;

use bytes::Bytes;
use lictor_proto::{LogIndex, Term};
use prost_011::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeV2, Entry, EntryType};
use raft_proto::ConfChangeI as _;

use super::Core;
use crate::{Committed, ConfEcho, Config, LogReader, Output};

/// How far apply is.
pub(super) struct Applying {
    /// The last entry given out.
    given: LogIndex,
    /// The last entry reported applied.
    applied: LogIndex,
    /// The conf-change entry apply stands at.
    barrier: Option<Barrier>,
    /// Committed entries behind the barrier. At most one `Ready`'s worth.
    behind: VecDeque<Entry>,
    /// What was given out and is not applied: the last index and the bytes of each batch.
    batches: VecDeque<(LogIndex, u64)>,
    bytes: u64,
}

struct Barrier {
    index: LogIndex,
    change: ConfChangeV2,
    /// Whether raft-rs has taken it in.
    done: bool,
}

impl Applying {
    pub(super) fn new(applied: LogIndex) -> Self {
        Self {
            given: applied,
            applied,
            barrier: None,
            behind: VecDeque::new(),
            batches: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Whether apply stands, or will stand, at a conf change.
    pub(super) fn is_at_barrier(&self) -> bool {
        self.barrier.is_some()
    }

    pub(super) fn is_held(&self, config: &Config) -> bool {
        self.barrier.is_some()
            || self.given.0 - self.applied.0 >= config.max_applying_entries
            || self.bytes >= config.max_applying_bytes
    }

    /// The state was replaced by one that ends here.
    pub(super) fn restart(&mut self, at: LogIndex) {
        *self = Self::new(at);
    }

    fn note_given(&mut self, batch: &[Committed]) {
        let bytes = batch.iter().map(|entry| entry.data.len() as u64).sum();
        self.batches.push_back((self.given, bytes));
        self.bytes += bytes;
    }

    fn note_applied(&mut self, index: LogIndex) {
        self.applied = index;
        while self.batches.front().is_some_and(|&(last, _)| last <= index) {
            self.bytes -= self.batches.pop_front().map_or(0, |(_, bytes)| bytes);
        }
    }
}

impl<R: LogReader> Core<R> {
    /// Gives committed entries to apply, up to a barrier.
    pub(super) fn give(&mut self, entries: Vec<Entry>, out: &mut Vec<Output>) {
        self.applying.behind.extend(entries);
        let mut batch = Vec::new();
        while self.applying.barrier.is_none() && !self.snapshots.is_installing() {
            let Some(entry) = self.applying.behind.pop_front() else {
                break;
            };
            let (index, term) = (LogIndex(entry.index), Term(entry.term));
            let proposal = self.pending.find(index, term, out);
            if entry.get_entry_type() == EntryType::EntryNormal {
                batch.push(Committed {
                    index,
                    term,
                    data: Bytes::from(entry.data),
                    proposal,
                });
                self.applying.given = index;
                continue;
            }
            self.hand_over(std::mem::take(&mut batch), out);
            self.applying.given = index;
            let change = conf_change(&entry);
            let data = Bytes::from(change.context.clone());
            self.applying.barrier = Some(Barrier {
                index,
                change,
                done: false,
            });
            out.push(Output::ApplyConf(Committed {
                index,
                term,
                data,
                proposal,
            }));
        }
        self.hand_over(batch, out);
    }

    fn hand_over(&mut self, batch: Vec<Committed>, out: &mut Vec<Output>) {
        if !batch.is_empty() {
            self.applying.note_given(&batch);
            out.push(Output::Apply(batch));
        }
    }

    /// Apply has done all up to `index`.
    pub(super) fn applied(&mut self, index: LogIndex, out: &mut Vec<Output>) {
        assert!(
            index <= self.applying.given,
            "applied {index} was never given to apply"
        );
        if self
            .applying
            .barrier
            .as_ref()
            .is_some_and(|barrier| barrier.index <= index)
        {
            assert!(
                self.applying.barrier.take().is_some_and(|barrier| barrier.done),
                "apply went past the conf change at {index} without its members"
            );
        }
        if index <= self.applying.applied {
            return;
        }
        self.applying.note_applied(index);
        self.raw.advance_apply_to(index.0);
        self.campaign_alone();
        self.leave_joint();
        self.give(Vec::new(), out);
    }

    /// Apply stands at the conf change and has decided about it.
    pub(super) fn conf_reached(&mut self, index: LogIndex, echo: &ConfEcho, out: &mut Vec<Output>) {
        let Some(barrier) = self
            .applying
            .barrier
            .as_mut()
            .filter(|barrier| barrier.index == index)
        else {
            return;
        };
        barrier.done = true;
        if *echo == ConfEcho::Accept {
            if let Err(error) = self.raw.apply_conf_change(&barrier.change) {
                // Every member refuses it alike.
                tracing::error!(%index, %error, "a change of members cannot be made");
            }
            self.lease.end();
            self.resign_without_vote();
            self.publish_lease(out);
            if self.is_leader() {
                // A new lease, and a first sign of life to new members.
                self.beat();
            }
        }
        out.push(Output::Members {
            index,
            members: self.members(),
        });
    }
}

fn conf_change(entry: &Entry) -> ConfChangeV2 {
    // Only this crate makes them, and raft-rs decoded them before it appended them.
    if entry.get_entry_type() == EntryType::EntryConfChange {
        ConfChange::decode(entry.data.as_slice()).map(ConfChange::into_v2)
    } else {
        ConfChangeV2::decode(entry.data.as_slice())
    }
    .unwrap_or_else(|error| panic!("conf change at {} does not decode: {error}", entry.index))
}
