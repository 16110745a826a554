//! Proposals: into the log in one message, and found again by (term, index).

use std::collections::{BTreeMap, VecDeque};

use lictor_proto::{LogIndex, Term};
use prost_011::Message as _;
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

use super::Core;
use crate::{LogReader, MemberChange, MonoTime, Output, Proposal, ProposalId, Why, member};

/// Proposals whose entries are in some log and not known to be committed, by index.
///
/// A leader that is deposed does not know what becomes of its last entries: the next leader may have them and commit
/// them, or replace them. Both show when *some* entry is committed at their index: the same one, which is then applied
/// here as if nothing had happened, or one of another term, and then theirs can never be committed. An entry that has
/// only been replaced in this member's own log says nothing: others may still commit it.
/// `a_deposed_leader_tells_what_became_of_its_last_entries`
#[derive(Default)]
pub(super) struct Pending {
    /// Those of the reign that lasts, in the order of the log.
    waiting: VecDeque<(LogIndex, ProposalId)>,
    term: Term,
    /// Those of reigns that are over.
    orphans: BTreeMap<(LogIndex, Term), Orphan>,
}

struct Orphan {
    id: ProposalId,
    since: MonoTime,
}

impl Pending {
    fn add(&mut self, index: LogIndex, term: Term, id: ProposalId) {
        debug_assert!(self.waiting.is_empty() || self.term == term);
        self.term = term;
        self.waiting.push_back((index, id));
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.orphans.len()
    }

    /// Whose entry this is, the next that is committed. Others of the same index have lost.
    pub(super) fn find(&mut self, index: LogIndex, term: Term, out: &mut Vec<Output>) -> Option<ProposalId> {
        let mut found = None;
        while let Some(&(waiting, id)) = self.waiting.front()
            && waiting <= index
        {
            self.waiting.pop_front();
            if (waiting, self.term) == (index, term) {
                found = Some(id);
            } else {
                out.push(Output::Rejected(id, Why::Replaced));
            }
        }
        while let Some(first) = self.orphans.first_entry()
            && first.key().0 <= index
        {
            let (key, orphan) = first.remove_entry();
            if key == (index, term) {
                found = Some(orphan.id);
            } else {
                out.push(Output::Rejected(orphan.id, Why::Replaced));
            }
        }
        found
    }

    /// The leadership they were proposed under is over.
    pub(super) fn orphan(&mut self, now: MonoTime) {
        let term = self.term;
        let orphans = self.waiting.drain(..);
        self.orphans
            .extend(orphans.map(|(index, id)| ((index, term), Orphan { id, since: now })));
    }

    /// Gives up those that nothing was heard of for too long.
    pub(super) fn give_up(&mut self, before: MonoTime, out: &mut Vec<Output>) {
        self.orphans.retain(|&(_, term), orphan| {
            let stays = orphan.since >= before;
            if !stays {
                out.push(Output::Rejected(orphan.id, Why::OutcomeUnknown { term }));
            }
            stays
        });
    }

    /// The state became one that ends at this entry: what was committed on the way is not told.
    pub(super) fn skip(&mut self, upto: LogIndex, out: &mut Vec<Output>) {
        while let Some(first) = self.orphans.first_entry()
            && first.key().0 <= upto
        {
            let ((_, term), orphan) = first.remove_entry();
            out.push(Output::Rejected(orphan.id, Why::OutcomeUnknown { term }));
        }
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
            || self.pending.len() + count > self.config.max_pending_proposals
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Its own log does not hold the entries any more, but another may still commit them.
    #[test]
    fn entries_that_were_replaced_only_here_are_not_given_up() {
        let mut pending = Pending::default();
        let mut out = Vec::new();
        pending.add(LogIndex(5), Term(2), ProposalId(1));
        pending.add(LogIndex(6), Term(2), ProposalId(2));
        pending.orphan(MonoTime(0));
        // It leads again, over a shorter log.
        pending.add(LogIndex(5), Term(4), ProposalId(3));
        pending.add(LogIndex(6), Term(4), ProposalId(4));
        pending.orphan(MonoTime(9));

        assert_eq!(pending.find(LogIndex(5), Term(2), &mut out), Some(ProposalId(1)));
        assert_eq!(pending.find(LogIndex(6), Term(5), &mut out), None);

        let replaced = |output: &Output| match output {
            Output::Rejected(ProposalId(id), Why::Replaced) => *id,
            other => panic!("{other:?}"),
        };
        assert_eq!(out.iter().map(replaced).collect::<Vec<_>>(), [3, 2, 4]);
        assert_eq!(pending.len(), 0);
    }
}
