//! How followers learn what is committed.
//!
//! A leader that told them at once would send each of them a message more for every batch of entries, and get an answer
//! to it. Clients that wait for a commit send the next write when they have their answer, and the word goes with that:
//! so it is sent by itself only when nothing comes for a moment ([`Input::Lull`](crate::Input::Lull)).
//!
//! A follower that cannot wait so long hears of a commit in another way: with the answer to a read round, or from the
//! leader that answers a write which went through it ([`Input::Committed`](crate::Input::Committed)).
//!
//! # Why it is correct
//! Whoever says that an entry is committed names its index and term. There is one entry of that index and term, and what
//! is before it is the same in all logs that hold it. So a follower whose log holds it may count it and all before as
//! committed, whatever term it is in, and whoever said it.
//! `word_of_a_commit_counts_only_where_the_log_holds_that_entry`

use std::collections::BTreeMap;

use lictor_proto::LogIndex;

use super::Core;
use crate::{LogPosition, LogReader};

/// Word of commits, out and in.
#[derive(Default)]
pub(super) struct Commits {
    /// What this leader has told each member.
    told: BTreeMap<u64, LogIndex>,
    /// An entry that is committed and was not in this member's log when it heard so.
    heard: Option<LogPosition>,
}

impl Commits {
    pub(super) fn note_told(&mut self, to: u64, commit: LogIndex) {
        let told = self.told.entry(to).or_default();
        *told = commit.max(*told);
    }

    /// A reign has begun or is over.
    pub(super) fn forget_told(&mut self) {
        self.told.clear();
    }
}

impl<R: LogReader> Core<R> {
    /// Whether this member leads and another has not been told of all that is committed.
    pub fn owes_commit(&self) -> bool {
        self.is_leader() && self.untold().next().is_some()
    }

    /// Those that have not been told.
    fn untold(&self) -> impl Iterator<Item = u64> {
        let raft = &self.raw.raft;
        let commit = LogIndex(raft.raft_log.committed);
        let others = raft.prs().iter().map(|(id, _)| *id).filter(|id| *id != raft.id);
        others.filter(move |id| self.commits.told.get(id).is_none_or(|told| *told < commit))
    }

    /// Nothing came that the word could go with.
    pub(super) fn tell_commit(&mut self) {
        if !self.is_leader() {
            return;
        }
        let commit = LogIndex(self.raw.raft.raft_log.committed);
        for id in self.untold().collect::<Vec<_>>() {
            self.raw.raft.send_append(id);
            // Nothing is sent to a member that is not known to have the entries: the next heartbeat tells it.
            self.commits.note_told(id, commit);
        }
    }

    pub(super) fn hear_of_commit(&mut self, entry: LogPosition) {
        let is_news = self.commits.heard.is_none_or(|heard| heard.index < entry.index);
        if is_news && !self.is_leader() {
            self.commits.heard = Some(entry);
            self.use_heard_commit();
        }
    }

    /// Takes in what was heard, once the log holds it.
    pub(super) fn use_heard_commit(&mut self) {
        let Some(heard) = self.commits.heard else {
            return;
        };
        let log = &mut self.raw.raft.raft_log;
        // A founding entry is in no log.
        let known = heard.index.0 <= log.committed || heard.term.0 == 0;
        if known || log.maybe_commit(heard.index.0, heard.term.0) {
            self.commits.heard = None;
        }
    }
}

#[cfg(test)]
mod tests;
