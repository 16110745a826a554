//! What is known of the other members: who was heard of when, who lags, who could take over.

use std::collections::BTreeMap;

use lictor_proto::{LogIndex, RaftId};
use raft::ProgressState;

use super::Core;
use crate::{LogReader, MonoTime, PeerProgress, PeerStage};

/// When members were last heard of, in the current term and role.
#[derive(Default)]
pub(super) struct Contacts {
    last: BTreeMap<u64, MonoTime>,
}

impl Contacts {
    pub(super) fn forget(&mut self) {
        self.last.clear();
    }

    pub(super) fn last(&self, member: u64) -> Option<MonoTime> {
        self.last.get(&member).copied()
    }
}

impl<R: LogReader> Core<R> {
    /// The other members as the leader sees them; empty on others.
    pub fn peers(&self) -> Vec<PeerProgress> {
        if !self.is_leader() {
            return Vec::new();
        }
        let raft = &self.raw.raft;
        let last = raft.raft_log.last_index();
        let others = raft.prs().iter().filter(|&(&id, _)| id != self.config.id.0);
        let mut peers: Vec<_> = others
            .map(|(&id, progress)| PeerProgress {
                id: RaftId(id),
                is_learner: !raft.prs().conf().voters().contains(id),
                matched: LogIndex(progress.matched),
                next: LogIndex(progress.next_idx),
                stage: match progress.state {
                    ProgressState::Probe => PeerStage::Probing,
                    ProgressState::Replicate => PeerStage::Replicating,
                    ProgressState::Snapshot => PeerStage::Snapshotting,
                },
                recent_active: progress.recent_active,
                lag_entries: last.saturating_sub(progress.matched),
                last_contact: self.contacts.last(id),
            })
            .collect();
        peers.sort_unstable_by_key(|peer| peer.id);
        peers
    }

    /// The most caught-up other voter that was heard of lately: who a leader hands over to. `None` if there is
    /// none, or this member does not lead.
    pub fn best_successor(&self) -> Option<RaftId> {
        if !self.is_leader() {
            return None;
        }
        let members = self.members();
        let stays = |id: RaftId| members.voters().any(|voter| voter == id);
        let peers = self.peers().into_iter();
        let fit = peers.filter(|peer| peer.recent_active && stays(peer.id));
        fit.max_by_key(|peer| (peer.matched, peer.id)).map(|peer| peer.id)
    }

    /// A message of the current term came in.
    pub(super) fn note_contact(&mut self, from: u64) {
        let raft = &self.raw.raft;
        if raft.leader_id == from || raft.prs().get(from).is_some() {
            self.contacts.last.insert(from, self.now);
        }
    }

    /// raft-rs leaders apply only what they have persisted: behind a stuck disk writes would hang while
    /// heartbeats go on (R8).
    pub(super) fn leave_slow_disk(&mut self) {
        if !self.is_disk_stuck() || self.raw.raft.lead_transferee.is_some() {
            return;
        }
        if let Some(best) = self.best_successor() {
            tracing::warn!(to = %best, "the disk is stuck: handing over the leadership");
            self.raw.transfer_leader(best.0);
        }
    }

    /// Whether the oldest task on the log thread is there for too long.
    pub(super) fn is_disk_stuck(&self) -> bool {
        let oldest = self.writing.front();
        oldest.is_some_and(|task| self.now.0 - task.since.0 > self.config.max_sync_ms)
    }

    /// A leader that has just lost its vote must not lead on: raft-rs would panic at its next commit, since it
    /// looks for the leader among the members. Nobody can be told to take over, since nobody campaigns before it
    /// has applied the change: to save the others an election timeout, hand over before the change.
    pub(super) fn resign_without_vote(&mut self) {
        if self.is_leader() && !self.raw.raft.promotable() {
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, raft::INVALID_ID);
        }
    }
}

#[cfg(test)]
mod tests;
