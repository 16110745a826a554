//! Settings of the core.

use std::ops::Range;

use lictor_proto::RaftId;

/// Settings; [`Config::new`] gives those Lictor runs with.
#[derive(Debug, Clone)]
pub struct Config {
    /// This member; not 0.
    pub id: RaftId,
    /// Differs at each start of the process, so that a read round of an earlier life is not mistaken for one
    /// of this.
    pub incarnation: u64,
    /// Length of a tick in milliseconds.
    pub tick_ms: u64,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// An election timeout is drawn from this range, in ticks.
    pub election_ticks: Range<usize>,
    /// Not drawn but this, if it is set; within the range. For simulations: raft-rs draws from the thread's
    /// generator, which no seed reaches.
    pub election_ticks_fixed: Option<usize>,
    /// Bytes of entries in one append message.
    pub max_append_bytes: u64,
    /// Append messages under way to one follower.
    pub max_inflight_messages: usize,
    /// Bytes of entries that are not committed yet; a proposal above is rejected.
    pub max_uncommitted_bytes: u64,
    /// Bytes of entries in one [`crate::Output::Apply`].
    pub max_apply_bytes: u64,
    /// Entries committed and not yet applied; a proposal above is rejected.
    pub max_unapplied_entries: u64,
    /// Entries given to apply and not reported applied; above, nothing more is given.
    pub max_applying_entries: u64,
    /// Bytes given to apply and not reported applied; above, nothing more is given.
    pub max_applying_bytes: u64,
    /// Proposals under way.
    pub max_pending_proposals: usize,
    /// A proposal whose leader is none any more, and that no word of a commit came for, is given up after this time.
    pub orphan_ms: u64,
    /// Read rounds under way.
    pub max_pending_reads: usize,
    /// A read round without an answer is asked for again after this time.
    pub read_retry_ms: u64,
    /// A read round without an answer fails after this time.
    pub read_timeout_ms: u64,
    /// Memory for persisted entries that followers may still want; a sole voter keeps none.
    pub cache_bytes: usize,
    /// A leader whose disk has not answered for this time hands over.
    pub max_sync_ms: u64,
    /// Entries kept below the flushed index in any case, for members that restart; a sole voter keeps none.
    pub trailing_entries: u64,
    /// Entries kept at most below the flushed index for a live follower that lags.
    pub keep_entries: u64,
    /// Bytes of entries kept at most, as far as they were counted since the start.
    pub keep_bytes: u64,
    /// A follower that was silent for this time is not kept for.
    pub follower_silent_ms: u64,
    /// The word that a snapshot is there is sent again after this time, until [`crate::Input::SnapshotSent`].
    pub snapshot_retry_ms: u64,
}

/// The shortest tick of any member of a cluster.
const TICK_MS: u64 = 20;

impl Config {
    /// Lictor's settings for member `id`. `incarnation` differs at each start.
    pub fn new(id: RaftId, incarnation: u64) -> Self {
        Self {
            id,
            incarnation,
            tick_ms: TICK_MS,
            heartbeat_ticks: 3,
            election_ticks: 15..30,
            election_ticks_fixed: None,
            max_append_bytes: 1 << 20,
            max_inflight_messages: 16,
            max_uncommitted_bytes: 64 << 20,
            max_apply_bytes: 8 << 20,
            max_unapplied_entries: 5000,
            max_applying_entries: 5000,
            max_applying_bytes: 16 << 20,
            max_pending_proposals: 16_384,
            orphan_ms: 2000,
            max_pending_reads: 1024,
            read_retry_ms: 200,
            read_timeout_ms: 5000,
            cache_bytes: 16 << 20,
            max_sync_ms: 400,
            trailing_entries: 100_000,
            keep_entries: 1_000_000,
            keep_bytes: 1 << 30,
            follower_silent_ms: 60_000,
            snapshot_retry_ms: 1000,
        }
    }

    /// With ticks that are longer by a factor, and beats that stay about as frequent as they can.
    #[must_use]
    pub fn stretched(self, factor: u32) -> Self {
        Self {
            tick_ms: self.tick_ms * u64::from(factor),
            heartbeat_ticks: (self.heartbeat_ticks / factor as usize).max(1),
            ..self
        }
    }

    /// How long a lease lasts, counted from when its round was sent: the shortest time for which a voter that
    /// answered it helps nobody else, less one tick (the voter's first tick may come at once; tikv #9728), less a
    /// tenth for clocks that do not run alike. Counted in the shortest ticks that any voter may have: whoever answers
    /// counts in its own.
    pub(crate) fn lease_ms(&self) -> u64 {
        let tick = self.tick_ms.min(TICK_MS);
        let timeout = self.election_ticks.start as u64 * tick;
        timeout.saturating_sub(tick).saturating_sub(timeout / 10)
    }

    /// For raft-rs.
    pub(crate) fn to_raft(&self, applied: u64) -> raft::Config {
        let range = &self.election_ticks;
        let fixed = self.election_ticks_fixed.map(|ticks| ticks..ticks + 1);
        let drawn = fixed.unwrap_or_else(|| range.clone());
        raft::Config {
            id: self.id.0,
            election_tick: range.start,
            // Explicit, since a lease is computed from it.
            min_election_tick: drawn.start,
            max_election_tick: drawn.end,
            // The core beats itself, with rounds that renew the lease; raft-rs insists on a beat of its own.
            heartbeat_tick: range.start.saturating_sub(1).max(1),
            applied,
            // The default, 0, means one entry a message.
            max_size_per_msg: self.max_append_bytes,
            max_inflight_msgs: self.max_inflight_messages,
            check_quorum: true,
            pre_vote: true,
            // LeaseBased answers stale reads after a partition.
            read_only_option: raft::ReadOnlyOption::Safe,
            // Followers are told of a commit with the next entries, or in the next lull: see `commits`.
            skip_bcast_commit: true,
            // Would merge all that is in flight to a follower that lags into one message, however large that is.
            batch_append: false,
            priority: 0,
            max_uncommitted_size: self.max_uncommitted_bytes,
            max_committed_size_per_ready: self.max_apply_bytes,
        }
    }
}
