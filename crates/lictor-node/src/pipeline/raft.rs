//! The raft thread: tells the core what happened and sees to what it wants done. Owns the core.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_proto::{Command, LogIndex, RaftId, Term};
use lictor_raft::{
    Committed, ConfEcho, Core, Input, LogPosition, LogReader, LogTask, LogWriter, Output, Proposal,
    ProposalId, ReadId, RoleChange, Why,
};
use tokio::sync::oneshot;

use super::convoy::{Ahead, Bound};
use super::{
    ApplyWork, ApplyWorker, CheckpointWork, Clock, Convoy, Event, LogWork, LogWorker, Shared, Stage, Survey,
    fatal,
};
use crate::cluster::{Proof, compare, snapshots};
use crate::mailbox::Mailbox;
use crate::{Linger, ProposeError, ReadError};

/// After a batch of at most this many events the thread polls for the next before it sleeps; after larger ones there
/// is enough to do.
const FEW_EVENTS: usize = 2;

/// A leader tells the others of a commit after this time. Above that in which a client that has its answer sends the next
/// write, which the word can go with.
const LULL: Duration = Duration::from_micros(500);
/// A follower writes to its log on the raft thread while that does not take longer than this: heartbeats, which come
/// every few ticks, then never wait.
const QUICK_SYNC: Duration = Duration::from_millis(5);
/// Else it leaves it to the log thread for so long.
const SLOW_DISK: Duration = Duration::from_secs(10);
/// How long a stop waits for what was proposed before.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// How long a leader that stops waits for another to take over.
const HAND_OVER_WAIT: Duration = Duration::from_secs(3);
/// How often pinned views are looked at that no follower came for.
const PINNED_EVERY: Duration = Duration::from_secs(1);

/// Entries that the raft thread of a lone server applies itself; more are left to the apply thread, beside which it
/// can see to the next ones.
const APPLY_HERE_MAX: usize = 16;
/// The same among others, where the next ones come with a message, and to apply a quick entry takes some microseconds:
/// that many keep nobody waiting.
const APPLY_HERE_QUICK_MAX: usize = 64;

pub(crate) struct RaftThread<R: LogReader, W: LogWriter> {
    pub(crate) shared: Shared,
    pub(crate) core: Core<R>,
    pub(crate) clock: Clock,
    pub(crate) tick: Duration,
    pub(crate) log: Arc<Stage<LogWork, LogWorker<W>>>,
    pub(crate) apply: Arc<Stage<ApplyWork, ApplyWorker>>,
    /// Where apply leaves the rows that changed; it waits while that is full.
    pub(crate) checkpoint: Arc<Mailbox<CheckpointWork>>,
    /// Proposals that are not made yet.
    pub(crate) convoy: Convoy,
    /// From when on a follower writes to its log on this thread.
    pub(crate) sync_here_from: Instant,
    /// Set once this thread is told to stop.
    pub(crate) stopping: Option<Stopping>,
    pub(crate) look_at_pinned: Instant,
}

/// The end of the thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopping {
    /// When it comes at the latest.
    by: Instant,
    /// Until when another member may take over the leadership.
    hand_over_by: Instant,
}

impl<R: LogReader, W: LogWriter> RaftThread<R, W> {
    pub(crate) fn run(mut self) {
        let mut events = Vec::new();
        let mut outputs = Vec::new();
        let mut next_tick = Instant::now() + self.tick;
        let mut linger = Linger::default();
        let mut had_few = false;
        let mut lull = None;
        let now = Instant::now();
        self.core.handle(Input::Start, self.clock.at(now), &mut outputs);
        self.publish(now);
        self.carry_out(&mut outputs, now);
        loop {
            // It has nobody to hear from: it need not tick, and an idle server sleeps.
            let alone = self.core.is_alone();
            let owed = self.core.owes_commit();
            lull = owed.then(|| lull.unwrap_or_else(|| Instant::now() + LULL));
            let tick = (!alone).then_some(next_tick);
            let leaves_at = self.convoy.leaves_at();
            let until = tick.into_iter().chain(lull).chain(leaves_at).min();
            if alone && had_few {
                self.poll(&mut linger);
            }
            let until = self.stopping.map_or(until, |stopping| {
                Some(until.unwrap_or(stopping.by).min(stopping.by))
            });
            self.shared.raft.drain(&mut events, until);
            had_few = (1..=FEW_EVENTS).contains(&events.len());
            let now = Instant::now();
            if now >= next_tick {
                self.core.handle(Input::Tick, self.clock.at(now), &mut outputs);
                // Missed ticks are not made up for (rule R3): a stalled leader must not count them as silence.
                next_tick = now + self.tick;
                self.expire_pinned(now);
                self.hand_over(now, &mut outputs);
            }
            self.core.set_no_room(self.shared.progress.is_disk_full());
            self.tell(&mut events, now, &mut outputs);
            self.propose(now, &mut outputs);
            // Unless it has gone with a proposal.
            if lull.is_some_and(|lull| now >= lull) && self.core.owes_commit() {
                self.core.handle(Input::Lull, self.clock.at(now), &mut outputs);
            }
            // Before a message can tell anybody else of a commit (rule R1).
            self.publish(now);
            self.carry_out(&mut outputs, now);
            if self.may_end(now) {
                break;
            }
        }
        self.shared.raft.close();
        self.refuse_rest(&mut events);
        self.log.close();
        self.apply.close();
        self.shared.gate.close();
    }

    fn publish(&self, now: Instant) {
        let now = self.clock.at(now);
        let status = self.core.status();
        self.shared.metrics.stands_for_election(status.is_candidate);
        self.shared.progress.set_raft(&status, now);
    }

    /// Whether everything is done that a stop waits for: another leads, and whoever proposed something here knows what
    /// became of it.
    fn may_end(&self, now: Instant) -> bool {
        let Some(stopping) = self.stopping else {
            return false;
        };
        let status = self.core.status();
        let hands_over = status.is_leader && !self.core.is_sole_voter() && now < stopping.hand_over_by;
        // What is not applied here is applied after the restart; only those who wait for an answer lose by it.
        let has_pending = self.core.pending() > 0 || self.convoy.leaves_at().is_some();
        let is_done = !has_pending && (status.applied >= status.last || !status.is_leader);
        now >= stopping.by || !hands_over && is_done
    }

    /// A leader that stops hands over; again, should it have come to nothing.
    fn hand_over(&mut self, now: Instant, outputs: &mut Vec<Output>) {
        if self.stopping.is_none_or(|stopping| now >= stopping.hand_over_by) || self.core.is_handing_over() {
            return;
        }
        if let Some(successor) = self.core.best_successor() {
            let now = self.clock.at(now);
            self.core.handle(Input::Transfer(successor), now, outputs);
        }
    }

    /// What came too late was not proposed, and may be elsewhere.
    fn refuse_rest(&mut self, events: &mut Vec<Event>) {
        self.shared.raft.drain(events, Some(Instant::now()));
        for event in events.drain(..) {
            let id = match event {
                Event::Propose(proposal) | Event::ProposeIn(_, proposal) => proposal.id,
                Event::ChangeMembers { id, .. } => id,
                _ => continue,
            };
            self.refuse(id, ProposeError::Stopping);
        }
        for (_, proposal) in self.convoy.disband() {
            self.refuse(proposal.id, ProposeError::Stopping);
        }
    }

    /// Lets go of views that no follower came for.
    fn expire_pinned(&mut self, now: Instant) {
        if now < self.look_at_pinned {
            return;
        }
        self.look_at_pinned = now + PINNED_EVERY;
        for to in self.shared.pinned.expire(now) {
            // Refused only while stopping.
            let _ = self.shared.raft.push(Event::SnapshotSent { to, ok: false });
        }
    }

    fn poll(&self, linger: &mut Linger) {
        let Some(until) = linger.until(Instant::now()) else {
            return;
        };
        if self.shared.raft.poll_until(until) {
            linger.paid();
        } else {
            linger.was_in_vain();
        }
    }

    fn tell(&mut self, events: &mut Vec<Event>, now: Instant, outputs: &mut Vec<Output>) {
        let at = self.clock.at(now);
        for event in events.drain(..) {
            match event {
                Event::Propose(proposal) | Event::ProposeIn(_, proposal) if self.stopping.is_some() => {
                    self.refuse(proposal.id, ProposeError::Stopping);
                }
                Event::Propose(proposal) => self.convoy.join((None, proposal), now),
                Event::ProposeIn(term, proposal) => self.convoy.join((Some(term), proposal), now),
                Event::Stop => {
                    let now = Instant::now();
                    self.stopping = Some(Stopping {
                        by: now + STOP_WAIT,
                        hand_over_by: now + HAND_OVER_WAIT,
                    });
                    self.hand_over(now, outputs);
                }
                Event::Survey(asked) => {
                    // Whoever asked may have gone.
                    let _ = asked.send(Survey {
                        status: self.core.status(),
                        now: at,
                        peers: self.core.peers(),
                    });
                }
                event => {
                    if let Some(input) = self.input(event) {
                        self.core.handle(input, at, outputs);
                    }
                }
            }
        }
    }

    /// Proposes what is to go now. All of it becomes one raft message.
    fn propose(&mut self, now: Instant, outputs: &mut Vec<Output>) {
        if self.convoy.leaves_at().is_none() {
            return;
        }
        let status = self.core.status();
        let ahead = Ahead {
            under_way: self.core.pending(),
            // A server alone waits for its own disk, whose syncs take in all that is there by themselves.
            is_committed: status.commit >= status.last || self.core.is_alone(),
        };
        let leaving = self.convoy.leave(ahead, now);
        let is_in_time = |(term, proposal): Bound| match term {
            Some(term) if !self.leads_in(term) => {
                self.refuse(proposal.id, ProposeError::NoLeader);
                None
            }
            _ => Some(proposal),
        };
        let proposals: Vec<Proposal> = leaving.into_iter().filter_map(is_in_time).collect();
        if !proposals.is_empty() {
            let metrics = &self.shared.metrics;
            metrics.proposals.add(proposals.len() as u64);
            metrics.proposal_batch.take(proposals.len());
            let now = self.clock.at(now);
            self.core.handle(Input::Propose(proposals), now, outputs);
        }
    }

    /// What an event is for the core.
    fn input(&self, event: Event) -> Option<Input> {
        Some(match event {
            Event::Rebuild => {
                self.rebuild();
                Input::Transfer(self.core.best_successor()?)
            }
            Event::Transfer(to) => Input::Transfer(to.or_else(|| self.core.best_successor())?),
            Event::Peer(message) => Input::Peer(message),
            Event::Unreachable(member) => Input::Unreachable(member),
            Event::Read => {
                let (id, proof) = self.shared.gate.begin()?;
                self.shared.metrics.read_rounds.one();
                let leased = proof == Proof::Lease;
                Input::ReadIndex { id, leased }
            }
            Event::Committed(entry) => Input::Committed(entry),
            Event::ChangeMembers { id, term, .. } if term.is_some_and(|term| !self.leads_in(term)) => {
                self.refuse(id, ProposeError::NoLeader);
                return None;
            }
            Event::ChangeMembers {
                id, changes, context, ..
            } => Input::ChangeMembers { id, changes, context },
            Event::SnapshotReady {
                to,
                position,
                members,
                descriptor,
            } => Input::SnapshotReady {
                to,
                position,
                members,
                descriptor,
            },
            Event::SnapshotSent { to, ok } => Input::SnapshotSent { to, ok },
            Event::Installed { position, ok } => Input::Installed { position, ok },
            Event::Persisted(ready) => Input::Persisted(ready),
            Event::Applied(index) => Input::Applied { index, conf: None },
            Event::AtConfChange(index) => Input::Applied {
                index,
                conf: Some(ConfEcho::Accept),
            },
            Event::Flushed(index) => Input::Flushed(index),
            Event::Restored(index) => Input::Restored(index),
            // Told without an input.
            Event::Propose(_) | Event::ProposeIn(..) | Event::Stop | Event::Survey(_) => return None,
        })
    }

    fn refuse(&self, id: ProposalId, why: ProposeError) {
        self.shared.pending.answer(id, Err(why));
    }

    fn leads_in(&self, term: Term) -> bool {
        let status = self.core.status();
        status.is_leader && status.term == term
    }

    fn carry_out(&mut self, outputs: &mut Vec<Output>, now: Instant) {
        // Nobody waits for a heartbeat, so it may block on its own disk.
        let alone = self.core.is_alone();
        let syncs_here = self.syncs_here();
        let mut held = Vec::new();
        for output in outputs.drain(..) {
            if let Output::Append(task) = &output {
                self.note_append(task, now);
            }
            // The threads behind end only after this one, so their mailboxes are open.
            let delivered = match output {
                Output::Append(task) if alone => self.log.do_here_or_send(LogWork::Append(task)).is_ok(),
                Output::Append(task) if syncs_here => {
                    held.push(LogWork::Append(task));
                    true
                }
                Output::Append(task) => self.log.send(LogWork::Append(task)).is_ok(),
                Output::Compact(to) => {
                    self.sync_here(&mut held) && self.log.send(LogWork::Compact(to)).is_ok()
                }
                Output::Apply(entries) if self.applies_here(&entries, alone) => {
                    self.apply.do_here_or_send(ApplyWork::Entries(entries)).is_ok()
                }
                Output::Apply(entries) => self.apply.send(ApplyWork::Entries(entries)).is_ok(),
                Output::ApplyConf(entry) => self.apply.send(ApplyWork::ConfChange(entry)).is_ok(),
                Output::Members { index, members } => {
                    self.apply.send(ApplyWork::Members { index, members }).is_ok()
                }
                Output::ResetLog(position) => {
                    self.sync_here(&mut held) && self.log.send(LogWork::Reset(position)).is_ok()
                }
                Output::WantSnapshot { to } => self.apply.send(ApplyWork::Pin { to }).is_ok(),
                other => {
                    self.see_to(other);
                    true
                }
            };
            if !delivered {
                ended_early();
            }
        }
        if !self.sync_here(&mut held) {
            ended_early();
        }
    }

    /// Carries out what is done at once.
    fn see_to(&mut self, output: Output) {
        match output {
            Output::Send(message) => self.shared.send(message),
            Output::Role(role) => self.take_role(role),
            Output::Lease { until } => self.shared.progress.set_lease(until),
            Output::ReadReady { id, index } => self.end_round(id, &Ok(index)),
            Output::ReadFailed(id) => self.end_round(id, &Err(ReadError::NoLeader)),
            Output::Install {
                from,
                position,
                descriptor,
                ..
            } => self.install(from, position, descriptor),
            Output::Rejected(id, why) => self.shared.pending.answer(id, Err(refusal(why))),
            other => fatal(
                "consensus asks for what this build does not do",
                &format_args!("{other:?}"),
            ),
        }
    }

    /// Whether this thread writes to the log itself: as a follower, whose leader waits for nothing else, on a disk that
    /// is quick. A leader has its own disk work beside the others', and must beat meanwhile.
    fn syncs_here(&self) -> bool {
        !self.core.status().is_leader && Instant::now() >= self.sync_here_from
    }

    /// Writes to the log, after all else that a turn asked for. Says whether the log thread is there.
    fn sync_here(&mut self, held: &mut Vec<LogWork>) -> bool {
        if held.is_empty() {
            return true;
        }
        let began = Instant::now();
        let delivered = self.log.do_all_here_or_send(held).is_ok();
        if began.elapsed() > QUICK_SYNC {
            self.sync_here_from = began + SLOW_DISK;
        }
        delivered
    }

    /// Whether this thread applies entries itself: nobody else waits for it, or it is so quick that they will not miss it.
    fn applies_here(&self, entries: &[Committed], alone: bool) -> bool {
        if alone {
            return entries.len() <= APPLY_HERE_MAX;
        }
        entries.len() <= APPLY_HERE_QUICK_MAX
            && entries.iter().all(|entry| Command::is_of_one_key(&entry.data))
            && self.checkpoint.has_room()
    }
}

fn ended_early() -> ! {
    fatal(
        "a pipeline thread ended before the raft thread",
        &"its mailbox is closed",
    );
}

impl<R: LogReader, W: LogWriter> RaftThread<R, W> {
    /// Takes note of entries that were made, in the turn that began at `now`.
    fn note_append(&self, task: &LogTask, now: Instant) {
        if let (Some(first), Some(last)) = (task.entries.first(), task.entries.last()) {
            let (first, last) = (first.index.0, last.index.0);
            tracing::trace!(first, last, "entries go to the log");
            self.shared.metrics.passages.taken(first, last, now);
        }
    }

    fn end_round(&self, id: ReadId, answer: &Result<LogIndex, ReadError>) {
        if self.shared.gate.end(id, answer) {
            // Refused only while stopping.
            let _ = self.shared.raft.push(Event::Read);
        }
    }

    fn take_role(&self, role: RoleChange) {
        let leader = role.leader.map(|leader| leader.0);
        tracing::info!(
            term = role.term.0,
            leads = role.is_leader,
            leader,
            "the raft role changed"
        );
        self.shared.metrics.took_role(&role);
        self.shared.progress.set_role(&role);
        if !role.is_leader {
            self.shared.timers.follow();
            self.shared.pinned.clear();
        }
    }

    /// Has apply stop, and fetches another state on the transport's runtime; apply gets it from there.
    fn rebuild(&self) {
        let Some(net) = self.shared.net.get() else { return };
        let (hold, held) = oneshot::channel();
        if self.apply.send(ApplyWork::Hold(hold)).is_ok() {
            let apply = Arc::clone(&self.apply);
            let deliver = move |work| apply.send(work).is_ok();
            net.runtime
                .spawn(compare::rebuild(Arc::clone(&self.shared), held, deliver));
        }
    }

    /// Fetches a snapshot on the transport's runtime; apply gets it from there.
    fn install(&self, from: RaftId, position: LogPosition, descriptor: Vec<u8>) {
        let fetched_by = self.shared.net.get().map(|net| net.runtime.clone());
        let Some(runtime) = fetched_by else {
            // Refused only while stopping.
            let _ = self.shared.raft.push(Event::Installed { position, ok: false });
            return;
        };
        let apply = Arc::clone(&self.apply);
        let deliver = move |work| apply.send(work).is_ok();
        runtime.spawn(snapshots::install(
            Arc::clone(&self.shared),
            from,
            position,
            descriptor,
            deliver,
        ));
    }
}

fn refusal(why: Why) -> ProposeError {
    match why {
        Why::Overloaded => ProposeError::Overloaded,
        Why::NotLeader { .. } | Why::Transferring | Why::Replaced => ProposeError::NoLeader,
        Why::ChangePending => ProposeError::ChangePending,
        _ => ProposeError::OutcomeUnknown,
    }
}
