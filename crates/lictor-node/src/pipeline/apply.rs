//! The apply stage: turns committed entries into state, publishes it, and answers.
//!
//! Order within a batch: apply all; fold the effects into the timers, so that whoever asks for a lock next meets
//! the delays; publish the view; wake watchers; answer proposers; hand the rows to the checkpoint thread.
//! Owns the working copy of the state.

mod rebuild;

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_proto::{Command, LogIndex, RaftId, Term};
use lictor_raft::{Committed, LogPosition, Membership, ProposalId};
use lictor_state::{Dirty, Effects, Outcome, State};
use tokio::sync::oneshot;

use super::checkpoint::{CheckpointWork, Install, Installation, weight};
use super::stage::Worker;
use super::{Event, Shared, fatal};
use crate::cluster::Digests;
use crate::cluster::archives::{self, Fetched};
use crate::mailbox::Mailbox;
use crate::pending::{Answer, Telling};
use crate::restore::Digest;
use crate::{Roster, WriteSet};
use rebuild::Rebuild;

/// Entries that are applied before their results are published, so that one huge batch does not hold back the
/// first answers in it.
const PUBLISH_AFTER: usize = 512;

/// An old state that has so many rows more than the new one is freed elsewhere: after a recursive delete of a million
/// keys that takes longer than all else together, and everybody would wait for it.
const GARBAGE_ROWS: usize = 10_000;

/// What the apply stage is told.
#[derive(Debug)]
pub(crate) enum ApplyWork {
    /// Committed entries.
    Entries(Vec<Committed>),
    /// A committed change of the members: apply stops there and says so.
    ConfChange(Committed),
    /// The members after that change: apply goes on.
    Members {
        /// The entry at which apply has stopped.
        index: LogIndex,
        /// The members from there on.
        members: Membership,
    },
    /// A follower needs a view of the state.
    Pin {
        /// The follower.
        to: RaftId,
    },
    /// The whole state is another now.
    Install {
        /// What it is.
        state: Box<State>,
        /// The members as of it.
        roster: Box<Roster>,
        /// Where it stands.
        position: LogPosition,
    },
    /// The state is wrong: stop, and say at which entry.
    Hold(oneshot::Sender<LogIndex>),
    /// The state of another server, as of that entry or a later one.
    Rebuilt(Box<State>),
}

/// What a restore puts in the place of the state.
enum Replacement {
    /// The rows of its archive.
    Archive(Box<State>),
    /// The state of another server that has applied the restore, and maybe more, since the archive is nowhere.
    Ahead(Box<State>),
}

/// The apply stage.
#[derive(Debug)]
pub(crate) struct ApplyWorker {
    shared: Shared,
    checkpoint: Arc<Mailbox<CheckpointWork>>,
    state: State,
    /// The members as of the state.
    roster: Arc<Roster>,
    effects: Effects,
    answers: Vec<(ProposalId, LogIndex, Answer)>,
    /// When the batch began that is not published yet, and with which entry.
    began: Option<(Instant, LogIndex)>,
    /// The last entry that was taken off the queue; the state may be ahead of it while it is rebuilt.
    consumed: LogIndex,
    /// The last entry that raft was told of, or knows of by itself.
    reported: LogIndex,
    rebuild: Rebuild,
    /// The conf-change entry at which apply has stopped.
    stopped_at: Option<Committed>,
    /// The server stops at an entry that could not be applied: nothing behind it may be, the next start goes on here.
    gave_up: bool,
}

impl Worker<ApplyWork> for ApplyWorker {
    fn work(&mut self, items: &mut Vec<ApplyWork>) {
        self.work_through(items.drain(..));
    }
}

impl ApplyWorker {
    pub(crate) fn new(
        shared: Shared,
        checkpoint: Arc<Mailbox<CheckpointWork>>,
        state: State,
        roster: Arc<Roster>,
    ) -> Self {
        let (effects, answers) = (Effects::default(), Vec::new());
        let consumed = state.applied().0;
        Self {
            shared,
            checkpoint,
            state,
            roster,
            effects,
            answers,
            began: None,
            consumed,
            reported: consumed,
            rebuild: Rebuild::None,
            stopped_at: None,
            gave_up: false,
        }
    }

    fn work_through(&mut self, items: impl IntoIterator<Item = ApplyWork>) {
        let mut unpublished = 0;
        for item in items {
            if self.gave_up {
                continue;
            }
            let Some(item) = self.put_aside(item) else {
                continue;
            };
            match item {
                ApplyWork::Entries(entries) => {
                    for entry in entries {
                        self.apply(entry);
                        if self.gave_up {
                            break;
                        }
                        unpublished += 1;
                        if unpublished == PUBLISH_AFTER {
                            self.publish();
                            unpublished = 0;
                        }
                    }
                }
                ApplyWork::ConfChange(entry) => self.stop_at(entry),
                ApplyWork::Members { index, members } => self.go_on(index, members),
                ApplyWork::Pin { to } => self.pin(to),
                ApplyWork::Install {
                    state,
                    roster,
                    position,
                } => {
                    self.end_rebuild();
                    self.publish();
                    unpublished = 0;
                    self.roster = Arc::new(*roster);
                    // raft hears of it when the copy is durable.
                    (self.consumed, self.reported) = (position.index, position.index);
                    self.install(*state, Installation::Snapshot(position));
                    self.shared.progress.unbar();
                }
                ApplyWork::Hold(held) => {
                    self.hold(held);
                    unpublished = 0;
                }
                ApplyWork::Rebuilt(state) => self.take_rebuilt(*state),
            }
            self.finish_rebuild();
        }
        if unpublished > 0 {
            self.publish();
        }
    }

    fn apply(&mut self, committed: Committed) {
        let Committed {
            index,
            term,
            data,
            proposal,
        } = committed;
        if self.skips(index, proposal) {
            return;
        }
        self.finish_rebuild();
        self.begin(index, proposal.is_some());
        let telling = proposal.map_or(Telling::Whether, |id| self.shared.pending.telling(id));
        let outcome = self.outcome(index, term, data, telling);
        // In the place of an archive that is nowhere a state may have come that is ahead of the entry.
        if self.gave_up || self.skips(index, proposal) {
            return;
        }
        self.consumed = index;
        if let Some(id) = proposal {
            self.answers.push((id, index, Ok(outcome)));
        }
    }

    /// Takes note of when a batch begins, and of how long the first entry of one that was proposed here came for.
    fn begin(&mut self, index: LogIndex, is_own: bool) {
        if self.began.is_some() {
            return;
        }
        let (now, metrics) = (Instant::now(), &self.shared.metrics);
        self.began = Some((now, index));
        if is_own && let Some(passage) = metrics.passages.of(index.0, now) {
            metrics.commit.take(passage.since_taken);
        }
    }

    /// Takes note of a batch that was published.
    fn end(&mut self, applied: LogIndex) {
        let Some((from, first)) = self.began.take() else {
            return;
        };
        let (to, metrics) = (Instant::now(), &self.shared.metrics);
        let took = to - from;
        metrics.apply.take(took);
        metrics.passages.applied(first.0, applied.0, from, to);
        tracing::trace!(first = first.0, last = applied.0, ?took, "applied and published");
        metrics.slow.applied(took, to, first.0, applied.0);
    }

    fn outcome(&mut self, index: LogIndex, term: Term, data: Bytes, telling: Telling) -> Outcome {
        if data.is_empty() {
            self.state.apply_empty(index, term);
            return Outcome::Bool(true);
        }
        match Command::from_entry_bytes(data) {
            Ok(Some(Command::Restore(restore))) => self.restore(index, term, &restore.sha256),
            Ok(Some(Command::CompareStates(_))) => {
                self.state.apply_empty(index, term);
                if self.shared.has_others() {
                    Digests::take(&self.shared, self.state.clone());
                }
                Outcome::Bool(true)
            }
            Ok(Some(command)) => {
                self.shared.metrics.applied(&command);
                let outcome = self.state.apply(index, term, &command, &mut self.effects);
                match telling {
                    Telling::Whether => outcome,
                    Telling::Why => self.state.explained(&command, outcome),
                }
            }
            Ok(None) => {
                tracing::warn!(index = index.0, "skipped a log entry of a later release");
                self.state.apply_empty(index, term);
                Outcome::Bool(true)
            }
            Err(error) => fatal("a committed log entry cannot be applied", &error),
        }
    }

    fn publish(&mut self) {
        self.publish_with(None);
    }

    /// Publishes, with the encoded members if they changed.
    fn publish_with(&mut self, members: Option<Vec<u8>>) {
        let applied = self.state.applied();
        let shared = &self.shared;
        shared.metrics.took_effect(&self.effects.events);
        shared
            .timers
            .fold(&self.effects.events, self.state.visible(applied.0));
        shared.callers.note(&self.effects.events);
        self.effects.events.clear();
        let old = shared.view.swap(Arc::new(self.state.clone()));
        if old.kv_len() > self.state.kv_len() + GARBAGE_ROWS {
            self.checkpoint_takes(CheckpointWork::Drop(old), 1);
        }
        shared.progress.set_applied(applied.0);
        shared
            .progress
            .serve_from(applied.0, || shared.timers.lead(&self.state));
        self.end(applied.0);
        let shared = &self.shared;
        // Few are woken here, and have waited longer; many are left to the wake thread.
        shared.watches.wake(&self.effects.dirty);
        self.effects.dirty.clear();
        shared.pending.answer_all(self.answers.drain(..));
        if self.consumed > self.reported {
            self.reported = self.consumed;
            // Refused only while stopping.
            let _ = shared.raft.push(Event::Applied(self.consumed));
        }
        let writes = std::mem::take(&mut self.effects.writes);
        // While it is rebuilt the whole copy is about to be replaced.
        if writes.is_empty() && members.is_none() || matches!(self.rebuild, Rebuild::Skipping(_)) {
            return;
        }
        let weight = writes.iter().map(weight).sum();
        let set = WriteSet {
            meta: self.state.meta(),
            members,
            writes,
        };
        self.checkpoint_takes(CheckpointWork::Write(set), weight);
    }

    fn checkpoint_takes(&self, work: CheckpointWork, weight: usize) {
        if self.checkpoint.push_weighing(work, weight).is_err() {
            fatal(
                "the checkpoint thread ended before the apply thread",
                &"its mailbox is closed",
            );
        }
    }

    /// Puts a staged archive in the place of the state.
    fn restore(&mut self, index: LogIndex, term: Term, sha256: &[u8]) -> Outcome {
        // What was applied before is answered from the state that it was applied to.
        self.publish();
        let Ok(digest) = sha256.try_into() else {
            fatal("a restore names no archive", &index)
        };
        let archive = match self.archive(index, digest) {
            Some(Replacement::Archive(archive)) => *archive,
            Some(Replacement::Ahead(state)) => {
                self.go_ahead(*state);
                return Outcome::Bool(true);
            }
            None => {
                self.gave_up = true;
                return Outcome::Bool(false);
            }
        };
        let state = self.state.restored(archive, index, term);
        tracing::info!(index = index.0, keys = state.kv_len(), "restored an archive");
        self.install(state, Installation::Archive(Some(digest)));
        Outcome::Bool(true)
    }

    /// The rows of an archive. Waits until it is here, fetched by a task, or what takes its place; `None` if the server
    /// stops before.
    fn archive(&self, index: LogIndex, digest: Digest) -> Option<Replacement> {
        loop {
            let error = match self.shared.staging.take(&digest) {
                Ok(archive) => return Some(Replacement::Archive(Box::new(archive))),
                Err(error) => error,
            };
            let net = self.shared.net.get().filter(|_| self.shared.has_others());
            let Some(net) = net else {
                fatal("a restored archive is not on this server", &error)
            };
            tracing::warn!(
                index = index.0,
                archive = hex::encode(digest),
                %error,
                "a restored archive is not here, and is fetched from another server"
            );
            let (done, fetched) = mpsc::channel();
            let shared = Arc::clone(&self.shared);
            net.runtime.spawn(async move {
                if let Some(what) = archives::fetch(shared, digest, index).await {
                    // Whoever waited may have given up.
                    let _ = done.send(what);
                }
            });
            if let Fetched::State(state) = self.wait_for(&fetched)? {
                return Some(Replacement::Ahead(state));
            }
        }
    }

    /// Waits for what a task fetches; `None` if the server stops before.
    fn wait_for<T>(&self, fetched: &mpsc::Receiver<T>) -> Option<T> {
        const LOOK_EVERY: Duration = Duration::from_millis(50);
        loop {
            match fetched.recv_timeout(LOOK_EVERY) {
                Err(RecvTimeoutError::Timeout) if !self.shared.progress.is_stopping() => {}
                Ok(what) if !self.shared.progress.is_stopping() => return Some(what),
                // The runtime ends before the node only when the process ends.
                _ => return None,
            }
        }
    }

    /// Puts another state in the place of the whole state: an archive's, or what a leader sent. Every timer begins anew,
    /// every watcher wakes, and the durable copy is replaced.
    fn install(&mut self, state: State, from: Installation) {
        self.state = state;
        self.effects.clear();
        self.effects.dirty.push(Dirty::All);
        // Before the view is published, so that whoever asks for a lock next meets the delays.
        let progress = &self.shared.progress;
        progress.while_serving(|| self.shared.timers.lead(&self.state));
        let is_snapshot = matches!(from, Installation::Snapshot(_));
        let install = Install {
            state: self.state.clone(),
            members: is_snapshot.then(|| self.roster.encode()),
            from,
        };
        self.checkpoint_takes(CheckpointWork::Install(Box::new(install)), 1);
        if is_snapshot {
            self.shared.set_roster(Arc::clone(&self.roster));
        }
        self.publish();
    }

    fn stop_at(&mut self, entry: Committed) {
        self.publish();
        let index = entry.index;
        self.stopped_at = Some(entry);
        // Refused only while stopping.
        let _ = self.shared.raft.push(Event::AtConfChange(index));
    }

    fn go_on(&mut self, index: LogIndex, members: Membership) {
        let Some(entry) = self.stopped_at.take_if(|entry| entry.index == index) else {
            fatal(
                "members were changed at an entry that apply has not reached",
                &index,
            );
        };
        if !self.skips(entry.index, None) {
            self.finish_rebuild();
            self.state.apply_empty(entry.index, entry.term);
            self.consumed = entry.index;
        }
        let (roster, took) = self.roster.changed(members, entry.index, &entry.data);
        self.roster = Arc::new(roster);
        if let Some(id) = entry.proposal {
            self.answers.push((id, entry.index, Ok(Outcome::Bool(took))));
        }
        self.shared.set_roster(Arc::clone(&self.roster));
        self.publish_with(Some(self.roster.encode()));
    }

    /// Keeps the state as it is now for a follower.
    fn pin(&mut self, to: RaftId) {
        self.publish();
        let (index, term) = self.state.applied();
        let descriptor = self
            .shared
            .pinned
            .pin(to, self.state.clone(), self.roster.encode());
        // Refused only while stopping.
        let _ = self.shared.raft.push(Event::SnapshotReady {
            to,
            position: LogPosition { index, term },
            members: self.roster.members().clone(),
            descriptor,
        });
    }
}
