//! The checkpoint thread: keeps the durable copy of the state behind the log, off the path of every answer.
//!
//! Nothing waits for it but the bound on its mailbox. What it flushed lets the log be cut.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_raft::LogPosition;
use lictor_state::{State, Write};

use super::{Event, Shared, fatal};
use crate::mailbox::{Drained, Mailbox};
use crate::restore::Digest;
use crate::{Checkpoint, CheckpointError, WriteSet};

/// A flush at the latest after this long, so that a quiet server's log does not stay long.
const FLUSH_AFTER: Duration = Duration::from_secs(30);
/// A flush after this many rows: they are what a restart has to apply again.
const FLUSH_ROWS: usize = 60_000;
/// A flush after this many bytes, so that the log stays short.
const FLUSH_BYTES: usize = 12 * 1024 * 1024;
/// Bytes that may wait for this thread; the apply thread stalls above it.
pub(crate) const BACKLOG_BYTES: usize = 64 * 1024 * 1024;
/// How long to wait for room on a full disk before the next attempt.
const FULL_RETRY: Duration = Duration::from_millis(500);
/// How long this thread lets work gather after it has done some.
const GATHER: Duration = Duration::from_millis(20);
/// Bytes of rows that go into the durable copy at once.
const GATHERED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How often the free space is looked at.
const SPACE_EVERY: Duration = Duration::from_millis(250);
/// Writes are refused below this much free space, or below an eighth of a small file system.
pub(crate) const SPACE_MIN_BYTES: u64 = 256 * 1024 * 1024;

/// What this thread is told.
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one")]
#[derive(Debug)]
pub(crate) enum CheckpointWork {
    /// Rows that changed.
    Write(WriteSet),
    /// All rows are others now.
    Install(Box<Install>),
    /// An old state with many rows that are no more: to free them takes a while.
    Drop(Arc<State>),
}

/// A state that takes the place of the whole copy.
#[derive(Debug)]
pub(crate) struct Install {
    pub(crate) state: State,
    /// The encoded members, if they came with it.
    pub(crate) members: Option<Vec<u8>>,
    /// Where it came from.
    pub(crate) from: Installation,
}

/// Where a whole state comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Installation {
    /// An archive, whose file is of no use once the copy is durable.
    Archive(Option<Digest>),
    /// Another server, since this one's was wrong.
    Copy,
    /// The leader, for this position; raft waits until the copy is durable.
    Snapshot(LogPosition),
}

pub(crate) struct CheckpointThread<C> {
    shared: Shared,
    inbox: Arc<Mailbox<CheckpointWork>>,
    checkpoint: C,
    unflushed: Unflushed,
    /// The disk is full and the server stops: the next start takes everything from the log.
    gave_up: bool,
}

/// What was taken in since the last flush, and when the first of it came.
#[derive(Debug, Default)]
struct Unflushed {
    rows: usize,
    bytes: usize,
    since: Option<Instant>,
}

/// The bytes that a row brings to the mailbox's bound.
pub(super) fn weight(write: &Write) -> usize {
    /// About what the fixed part of any row costs.
    const ROW: usize = 64;
    match write {
        Write::Kv(row) => ROW + row.key().len() + row.value().len(),
        Write::KvGone(key) | Write::KvTreeGone(key) => ROW + key.len(),
        _ => 2 * ROW,
    }
}

impl<C: Checkpoint> CheckpointThread<C> {
    pub(crate) fn new(shared: Shared, inbox: Arc<Mailbox<CheckpointWork>>, checkpoint: C) -> Self {
        Self {
            shared,
            inbox,
            checkpoint,
            unflushed: Unflushed::default(),
            gave_up: false,
        }
    }

    pub(crate) fn run(mut self) {
        let mut work = Vec::new();
        let mut look_at_space = Instant::now();
        let mut is_full = false;
        loop {
            // A server that has nothing to flush and room on its disk sleeps until the next write.
            let until = (is_full || self.unflushed.since.is_some()).then_some(look_at_space);
            let drained = self.inbox.drain(&mut work, until);
            self.take_in_all(&mut work);
            if drained == Drained::Closed {
                break;
            }
            if drained == Drained::Items {
                // Nobody waits for this thread, so it lets work gather: a switch to it for each write would cost
                // more than the work.
                std::thread::sleep(GATHER);
            }
            let now = Instant::now();
            if now >= look_at_space {
                is_full = self.look_at_space();
                look_at_space = now + SPACE_EVERY;
            }
            if self.unflushed.is_due(now) {
                self.flush();
            }
        }
        self.flush();
    }

    /// Makes few large batches of many small ones.
    fn take_in_all(&mut self, work: &mut Vec<CheckpointWork>) {
        let mut gathered: Option<WriteSet> = None;
        let mut bytes = 0;
        for work in work.drain(..) {
            let set = match work {
                CheckpointWork::Write(set) => set,
                CheckpointWork::Drop(old) => {
                    drop(old);
                    continue;
                }
                CheckpointWork::Install(install) => {
                    // The rows gathered before are replaced with all others; members among them are not.
                    if let Some(set) = gathered.take_if(|set| set.members.is_some()) {
                        self.take_in(&set);
                    }
                    gathered = None;
                    self.install(&install);
                    continue;
                }
            };
            bytes += set.writes.iter().map(weight).sum::<usize>();
            match &mut gathered {
                None => gathered = Some(set),
                Some(gathered) => {
                    gathered.writes.extend(set.writes);
                    gathered.meta = set.meta;
                    gathered.members = set.members.or(gathered.members.take());
                }
            }
            if bytes >= GATHERED_BYTES_MAX
                && let Some(full) = gathered.take()
            {
                self.take_in(&full);
                bytes = 0;
            }
        }
        if let Some(rest) = gathered {
            self.take_in(&rest);
        }
    }

    fn install(&mut self, install: &Install) {
        let members = install.members.as_deref();
        let from = Instant::now();
        let installed = self.until_there_is_room(|checkpoint| checkpoint.install(&install.state, members));
        let Some(applied) = installed else { return };
        self.shared.metrics.checkpoint_install.take(from.elapsed());
        self.unflushed = Unflushed::default();
        match install.from {
            // Other servers may have to fetch it from here.
            Installation::Archive(Some(digest)) if self.shared.has_others() => {
                tracing::debug!(archive = hex::encode(digest), "a restored archive is kept");
            }
            Installation::Archive(Some(digest)) => self.shared.staging.forget(&digest),
            Installation::Archive(None) | Installation::Copy => {}
            Installation::Snapshot(position) => {
                // Refused only while stopping.
                let _ = self.shared.raft.push(Event::Installed { position, ok: true });
            }
        }
        let durable = match install.from {
            Installation::Archive(_) => Event::Restored(applied),
            Installation::Copy | Installation::Snapshot(_) => Event::Flushed(applied),
        };
        // As in `flush`.
        let _ = self.shared.raft.push(durable);
    }

    /// Does work on the copy, again and again while the disk is full; `None` once that was given up.
    fn until_there_is_room<T>(
        &mut self,
        mut work: impl FnMut(&mut C) -> Result<T, CheckpointError>,
    ) -> Option<T> {
        while !self.gave_up {
            match work(&mut self.checkpoint) {
                Ok(done) => return Some(done),
                Err(CheckpointError::Full(error)) if self.shared.progress.is_stopping() => {
                    tracing::warn!(
                        "stopping without the last rows in the durable copy of the state: {error}"
                    );
                    self.gave_up = true;
                }
                Err(CheckpointError::Full(error)) => {
                    tracing::warn!("the durable copy of the state waits for room on the disk: {error}");
                    std::thread::sleep(FULL_RETRY);
                }
                Err(CheckpointError::Failed(error)) => fatal("the durable copy of the state failed", &error),
            }
        }
        None
    }

    fn take_in(&mut self, set: &WriteSet) {
        if self
            .until_there_is_room(|checkpoint| checkpoint.write(set))
            .is_none()
        {
            return;
        }
        self.shared.metrics.checkpoint_rows.add(set.writes.len() as u64);
        self.unflushed.rows += set.writes.len();
        self.unflushed.bytes += set.writes.iter().map(weight).sum::<usize>();
        self.unflushed.since.get_or_insert_with(Instant::now);
    }

    fn flush(&mut self) {
        if self.unflushed.since.is_none() || self.gave_up {
            return;
        }
        let from = Instant::now();
        match self.checkpoint.flush() {
            Ok(applied) => {
                self.shared.metrics.checkpoint_flush.take(from.elapsed());
                self.unflushed = Unflushed::default();
                // Refused only while stopping, when the next start cuts the log.
                let _ = self.shared.raft.push(Event::Flushed(applied));
            }
            Err(CheckpointError::Full(error)) => {
                tracing::warn!("the state is flushed later, when the disk has room: {error}");
                self.unflushed.since = Some(Instant::now());
                self.unflushed.rows = 0;
                self.unflushed.bytes = 0;
            }
            Err(CheckpointError::Failed(error)) => fatal("the durable copy of the state failed", &error),
        }
    }

    /// Returns whether the disk is nearly full.
    fn look_at_space(&self) -> bool {
        let (free, total) = match self.checkpoint.space() {
            Ok(space) => space,
            Err(error) => {
                tracing::warn!("cannot read the free space of the data directory: {error}");
                return false;
            }
        };
        let full = free < SPACE_MIN_BYTES.min(total / 8);
        if self.shared.progress.set_disk_full(full) {
            if full {
                tracing::error!(
                    free_bytes = free,
                    "the disk is nearly full: writes are refused until there is room"
                );
            } else {
                tracing::info!(free_bytes = free, "the disk has room again: writes are accepted");
            }
        }
        full
    }
}

impl Unflushed {
    fn is_due(&self, now: Instant) -> bool {
        let aged = self
            .since
            .is_some_and(|since| now.duration_since(since) >= FLUSH_AFTER);
        aged || self.rows >= FLUSH_ROWS || self.bytes >= FLUSH_BYTES
    }
}
