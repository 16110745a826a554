//! A state that takes the place of another: a restored archive, or what a leader sent (rule R9).

use std::sync::Arc;
use std::time::Duration;

use lictor_proto::limits::{KV_TTL_MAX, LOCK_DELAY_MAX, SESSION_TTL_MAX};
use lictor_proto::{LogIndex, Term};

use crate::State;
use crate::line::LineTables;
use crate::row::Entry;
use crate::tree::{Row, Tree};

/// The greatest index that an archive may bring, far from where indexes would run out.
pub const ARCHIVE_INDEX_MAX: u64 = 1 << 60;

impl State {
    /// What the entry at `at` makes of this state by restoring `archive`.
    ///
    /// Rows and table indexes are the archive's, so that clients see the indexes of then. Indexes that are given out from
    /// now on are above all that were seen before, here or in the archive: the offset grows by as much as the archive is
    /// ahead of the log, once, and never shrinks. Lock-delays begin anew at this entry, so that a lock that was allowed
    /// before it knew of them is refused.
    ///
    /// `archive` must be one that [`Self::check_archive`] finds nothing wrong with.
    #[must_use]
    pub fn restored(&self, archive: Self, at: LogIndex, term: Term) -> Self {
        let ahead = archive.newest_index().saturating_sub(at.0);
        let mut state = archive.installed(at);
        state.applied = (at, term);
        state.index_offset = self.index_offset.max(ahead);
        let set_index = state.visible(at).0;
        state.restored_at = set_index;
        // A setting of this cluster's, and not of the keys.
        state.session_ttl_min_ms = self.session_ttl_min_ms;
        let mut delays = Tree::default();
        for delay in state.kv.lock_delays.iter() {
            let mut row = (*delay.row).clone();
            row.set_index = set_index;
            row.delay_ms = row.delay_ms.min(whole_ms(LOCK_DELAY_MAX));
            delays.insert(Entry::new(delay.key(), Arc::new(row)));
        }
        state.kv.lock_delays = delays;
        // Whoever stood in line then is gone, and those of now came for the keys of before.
        state.kv.lines = LineTables::default();
        state
    }

    /// This state as one that was put in the place of another at the entry `at`: [`Self::replaced_at`] says so.
    #[must_use]
    pub fn installed(mut self, at: LogIndex) -> Self {
        self.replaced_at = at;
        self
    }

    /// The entry at which the whole state was replaced by another, by a restore or by what a leader sent; 0 if that did
    /// not happen since the start. A query that waits must answer when it changes: indexes may have gone back.
    pub fn replaced_at(&self) -> LogIndex {
        self.replaced_at
    }

    /// The greatest index of anything in the state.
    pub fn newest_index(&self) -> u64 {
        let all = &self.indexes;
        let tables = [
            all.kv,
            all.tombstones,
            all.tombstone_horizon,
            all.sessions,
            all.nodes,
            all.services,
            all.checks,
            all.prepared_queries,
            all.queues,
            all.lock_waits,
        ];
        let rows = [
            self.kv.rows.max_in(b""),
            self.kv.tombstones.max_in(b""),
            self.kv.tree_marks.max_in(b""),
        ];
        let applied = self.applied.0.0.saturating_add(self.index_offset);
        tables.into_iter().chain(rows).fold(applied, u64::max)
    }

    /// Whether a state that came from outside may be restored.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_archive(&self) -> Result<(), &'static str> {
        if self.newest_index() > ARCHIVE_INDEX_MAX {
            return Err("an index out of range");
        }
        let ttl_max_ms = whole_ms(SESSION_TTL_MAX);
        let kv_ttl_max_ms = whole_ms(KV_TTL_MAX);
        if self.kv_ttls().any(|row| row.ttl_ms > kv_ttl_max_ms) {
            return Err("a key's TTL out of range");
        }
        if self.sessions().any(|session| session.ttl_ms > ttl_max_ms) {
            return Err("a session's TTL out of range");
        }
        Ok(())
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
