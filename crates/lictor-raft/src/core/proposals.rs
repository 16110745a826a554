//! Proposals: into the log in one message, and found again by (term, index).

use std::collections::VecDeque;

use lictor_proto::{LogIndex, Term};
use prost_011::Message as _;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

use super::Core;
use crate::{LogReader, MemberChange, Output, Proposal, ProposalId, Why, member};

/// Proposals of the current term that are not committed yet, by index.
#[derive(Default)]
pub(super) struct Pending {
    waiting: VecDeque<(LogIndex, ProposalId)>,
    term: Term,
}

impl Pending {
    fn add(&mut self, index: LogIndex, term: Term, id: ProposalId) {
        debug_assert!(self.waiting.is_empty() || self.term == term);
        self.term = term;
        self.waiting.push_back((index, id));
    }

    /// Whose entry this is. Those before it that were not found can only have been replaced.
    pub(super) fn find(&mut self, index: LogIndex, term: Term, out: &mut Vec<Output>) -> Option<ProposalId> {
        while let Some(&(waiting, id)) = self.waiting.front() {
            if waiting > index {
                return None;
            }
            self.waiting.pop_front();
            if waiting == index && self.term == term {
                return Some(id);
            }
            out.push(Output::Rejected(id, Why::OutcomeUnknown { term: self.term }));
        }
        None
    }

    /// The leadership they were proposed under is over.
    pub(super) fn lose(&mut self, term: Term, out: &mut Vec<Output>) {
        let lost = self.waiting.drain(..);
        out.extend(lost.map(|(_, id)| Output::Rejected(id, Why::OutcomeUnknown { term })));
    }
}

impl<R: LogReader> Core<R> {
    pub(super) fn propose(&mut self, batch: Vec<Proposal>, out: &mut Vec<Output>) {
        if let Some(why) = self.refusal(batch.len()) {
            out.extend(
                batch
                    .into_iter()
                    .map(|proposal| Output::Rejected(proposal.id, why)),
            );
            return;
        }
        let mut ids = Vec::with_capacity(batch.len());
        let mut entries = Vec::with_capacity(batch.len());
        for Proposal { id, data } in batch {
            if data.is_empty() {
                out.push(Output::Rejected(id, Why::Invalid));
                continue;
            }
            ids.push(id);
            entries.push(Entry {
                data,
                ..Entry::default()
            });
        }
        self.append(&ids, entries, out);
    }

    pub(super) fn change_members(
        &mut self,
        id: ProposalId,
        changes: &[MemberChange],
        context: Vec<u8>,
        out: &mut Vec<Output>,
    ) {
        let joint = !self
            .raw
            .raft
            .prs()
            .conf()
            .to_conf_state()
            .voters_outgoing
            .is_empty();
        let why = if changes.is_empty() {
            Some(Why::Invalid)
        } else if let Some(why) = self.refusal(1) {
            Some(why)
        } else {
            // raft-rs would append an empty entry instead, and not say so.
            (joint || self.raw.raft.has_pending_conf()).then_some(Why::ChangePending)
        };
        if let Some(why) = why {
            out.push(Output::Rejected(id, why));
            return;
        }
        let data = member::to_conf_change(changes, context).encode_to_vec();
        self.append(&[id], vec![conf_entry(data)], out);
    }

    /// A leader elected in the middle of a joint step must leave it itself: raft-rs does so only on the leader
    /// that entered it.
    pub(super) fn leave_joint(&mut self) {
        let conf = self.raw.raft.prs().conf().to_conf_state();
        let joint = !conf.voters_outgoing.is_empty();
        let raft = &self.raw.raft;
        let applied = LogIndex(raft.raft_log.applied) >= self.role.no_op;
        if joint && self.is_leader() && applied && !raft.has_pending_conf() && raft.lead_transferee.is_none()
        {
            self.append(&[], vec![conf_entry(Vec::new())], &mut Vec::new());
        }
    }

    fn refusal(&self, count: usize) -> Option<Why> {
        let raft = &self.raw.raft;
        let unapplied = raft.raft_log.committed - raft.raft_log.applied;
        if !self.is_leader() {
            // raft-rs would forward it, answer Ok, and nobody would ever learn its outcome.
            Some(Why::NotLeader {
                leader: self.leader(),
            })
        } else if raft.lead_transferee.is_some() {
            Some(Why::Transferring)
        } else if unapplied > self.config.max_unapplied_entries
            || self.pending.waiting.len() + count > self.config.max_pending_proposals
        {
            Some(Why::Overloaded)
        } else {
            None
        }
    }

    /// One message, whatever the number of entries: one append message for each follower.
    fn append(&mut self, ids: &[ProposalId], entries: Vec<Entry>, out: &mut Vec<Output>) {
        if entries.is_empty() {
            return;
        }
        let before = self.raw.raft.raft_log.last_index();
        let mut message = Message {
            from: self.config.id.0,
            entries,
            ..Message::default()
        };
        message.set_msg_type(MessageType::MsgPropose);
        if let Err(error) = self.raw.step(message) {
            tracing::debug!(%error, count = ids.len(), "raft refused proposals");
            // A leader refuses for one reason only that was not checked: too many bytes are uncommitted.
            out.extend(ids.iter().map(|&id| Output::Rejected(id, Why::Overloaded)));
            return;
        }
        let term = Term(self.raw.raft.term);
        for (index, &id) in (before + 1..).zip(ids) {
            self.pending.add(LogIndex(index), term, id);
        }
    }
}

fn conf_entry(data: Vec<u8>) -> Entry {
    let mut entry = Entry {
        data,
        ..Entry::default()
    };
    entry.set_entry_type(EntryType::EntryConfChangeV2);
    entry
}
