//! The raft thread: tells the core what happened and sees to what it wants done. Owns the core.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lictor_raft::{ConfEcho, Core, Input, LogReader, LogWriter, Output, Why};

use super::{ApplyWork, ApplyWorker, Clock, Event, LogWork, LogWorker, Shared, Stage, fatal};
use crate::{Linger, ProposeError};

/// After a batch of at most this many events the thread polls for the next before it sleeps; after larger ones there
/// is enough to do.
const FEW_EVENTS: usize = 2;

/// How long a stop waits for what was proposed before.
const STOP_WAIT: Duration = Duration::from_secs(5);

/// Entries that the raft thread applies itself when it may; more are left to the apply thread, beside which it can
/// write the next ones to the log.
const APPLY_HERE_MAX: usize = 16;

pub(crate) struct RaftThread<R: LogReader, W: LogWriter> {
    pub(crate) shared: Shared,
    pub(crate) core: Core<R>,
    pub(crate) clock: Clock,
    pub(crate) tick: Duration,
    pub(crate) log: Arc<Stage<LogWork, LogWorker<W>>>,
    pub(crate) apply: Arc<Stage<ApplyWork, ApplyWorker>>,
    /// Set once this thread is told to stop: when it ends at the latest.
    pub(crate) stop_by: Option<Instant>,
}

impl<R: LogReader, W: LogWriter> RaftThread<R, W> {
    pub(crate) fn run(mut self) {
        let mut events = Vec::new();
        let mut outputs = Vec::new();
        let mut next_tick = Instant::now() + self.tick;
        let mut linger = Linger::default();
        let mut had_few = false;
        self.core.handle(Input::Start, self.clock.now(), &mut outputs);
        self.carry_out(&mut outputs);
        loop {
            // A sole voter that leads has nobody to hear from: it need not tick, and an idle server sleeps.
            let alone = self.core.is_sole_voter();
            let until = (!alone).then_some(next_tick);
            if alone && had_few {
                self.poll(&mut linger);
            }
            self.shared.raft.drain(&mut events, self.stop_by.or(until));
            had_few = (1..=FEW_EVENTS).contains(&events.len());
            let now = Instant::now();
            if now >= next_tick {
                self.core.handle(Input::Tick, self.clock.at(now), &mut outputs);
                // Missed ticks are not made up for (rule R3): a stalled leader must not count them as silence.
                next_tick = now + self.tick;
            }
            self.tell(&mut events, now, &mut outputs);
            self.carry_out(&mut outputs);
            let status = self.core.status();
            self.shared
                .progress
                .set_raft(status.term, status.commit, status.last);
            if self
                .stop_by
                .is_some_and(|by| status.applied >= status.last || now >= by)
            {
                break;
            }
        }
        self.shared.raft.close();
        self.log.close();
        self.apply.close();
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

    /// All proposals of a batch become one raft message.
    fn tell(&mut self, events: &mut Vec<Event>, now: Instant, outputs: &mut Vec<Output>) {
        let now = self.clock.at(now);
        let mut proposals = Vec::new();
        for event in events.drain(..) {
            let input = match event {
                Event::Propose(proposal) if self.stop_by.is_some() => {
                    self.shared
                        .pending
                        .answer(proposal.id, Err(ProposeError::Stopping));
                    continue;
                }
                Event::Propose(proposal) => {
                    proposals.push(proposal);
                    continue;
                }
                Event::Stop => {
                    self.stop_by = Some(Instant::now() + STOP_WAIT);
                    continue;
                }
                Event::Persisted(ready) => Input::Persisted(ready),
                Event::Applied(index) => Input::Applied { index, conf: None },
                Event::AtConfChange(index) => Input::Applied {
                    index,
                    conf: Some(ConfEcho::Accept),
                },
                Event::Flushed(index) => Input::Flushed(index),
            };
            self.core.handle(input, now, outputs);
        }
        if !proposals.is_empty() {
            self.core.handle(Input::Propose(proposals), now, outputs);
        }
    }

    fn carry_out(&mut self, outputs: &mut Vec<Output>) {
        // Nobody waits for a heartbeat of a sole voter, so it may block on its own disk.
        let alone = self.core.is_sole_voter();
        for output in outputs.drain(..) {
            // The threads behind end only after this one, so their mailboxes are open.
            let delivered = match output {
                Output::Append(task) if alone => self.log.do_here_or_send(LogWork::Append(task)).is_ok(),
                Output::Append(task) => self.log.send(LogWork::Append(task)).is_ok(),
                Output::Compact(to) => self.log.send(LogWork::Compact(to)).is_ok(),
                Output::Apply(entries) if alone && entries.len() <= APPLY_HERE_MAX => {
                    self.apply.do_here_or_send(ApplyWork::Entries(entries)).is_ok()
                }
                Output::Apply(entries) => self.apply.send(ApplyWork::Entries(entries)).is_ok(),
                Output::ApplyConf(entry) => self.apply.send(ApplyWork::ConfChange(entry)).is_ok(),
                Output::Members { index, members } => {
                    self.apply.send(ApplyWork::Members { index, members }).is_ok()
                }
                Output::Role(role) => {
                    tracing::info!(
                        term = role.term.0,
                        leads = role.is_leader,
                        "the raft role changed"
                    );
                    self.shared
                        .progress
                        .set_lead_from(role.is_leader.then_some(role.no_op));
                    if !role.is_leader {
                        self.shared.timers.follow();
                    }
                    true
                }
                Output::Rejected(id, why) => {
                    self.shared.pending.answer(id, Err(refusal(why)));
                    true
                }
                // A server alone has nobody to send to and asks for no read rounds.
                _ => true,
            };
            if !delivered {
                fatal(
                    "a pipeline thread ended before the raft thread",
                    &"its mailbox is closed",
                );
            }
        }
    }
}

fn refusal(why: Why) -> ProposeError {
    match why {
        Why::Overloaded => ProposeError::Overloaded,
        Why::NotLeader { .. } | Why::Transferring => ProposeError::NoLeader,
        _ => ProposeError::OutcomeUnknown,
    }
}
