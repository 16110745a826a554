//! A server: the parts of Lictor that decide, with the threads around them played by events.
//!
//! ```text
//! requests ─> check_command ─> proposals ─Turn─> Core ─┬─ log queue ──LogDone──> MemWriter on a SimDisk
//! packets ─────────────────────────────────────────────┤
//!                                                      └─ apply queue ─ApplyDone─> State ─> SessionManager, answers,
//!                                                                                           watch registry
//! ```

mod apply;
mod places;
mod serve;
mod snapshot;
mod storage;
mod watch;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use lictor_proto::{LogIndex, MonoTime, RaftId, SessionId, Term};
use lictor_raft::{
    Committed, Config, Core, Input, LogPosition, MemLog, MemReader, MemWriter, Membership, Output, Proposal,
    ProposalId, ReadId, SimDisk, SplitMix, StateMark, Status, Why, open,
};
use lictor_session::SessionManager;
use lictor_state::{Dirty, Effect, Explained, State};
use lictor_watch::Registry;

use crate::check::{Breach, Checked, Locks, Queues, Raft};
use crate::request::{Body, Caller, Query, Reply};
pub(crate) use apply::digest_of;
use storage::LogWork;

/// Microseconds of true time.
pub(crate) type Micros = u64;

/// Length of a tick on a server's clock.
const TICK_MS: u64 = 20;
/// Blocking queries on one server. So few that whoever changes something wakes them itself: nothing is left to the
/// registry's own thread, which no seed reaches.
const SLEEPERS_MAX: usize = 16;
/// How often a leader looks at its timers.
const TIMERS_MS: u64 = 50;

/// What happens inside a server.
#[derive(Debug, Clone)]
pub(crate) enum Inner {
    Tick,
    Turn,
    /// Nothing came for a moment.
    Lull,
    LogDone,
    ApplyDone,
    Timers,
    Checkpoint,
    Pin(RaftId),
    PinExpires(u64),
    FetchFails(LogPosition),
    /// A blocking query reads.
    Look(u64),
    /// A blocking query has waited long enough.
    WaitEnds(u64),
    /// The leader is told who stands in line.
    Report,
    Packet {
        from: u64,
        body: Body,
    },
}

/// What a server makes happen outside.
#[derive(Debug)]
pub(crate) enum Act {
    Send { to: u64, body: Body },
    Later { after: Micros, inner: Inner },
    Answer { client: usize, call: u64, reply: Reply },
}

/// What is counted, to see that a run was worth it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Times somebody began to lead.
    pub reigns: u64,
    /// Snapshots installed.
    pub installed: u64,
    /// Reads served under a lease.
    pub lease_reads: u64,
    /// Reads served after a round.
    pub round_reads: u64,
    /// Sessions that ran out.
    pub expired: u64,
    /// Locks taken.
    pub locked: u64,
    /// Entries applied first.
    pub entries: u64,
    /// Requests answered.
    pub answered: u64,
    /// Processes that died.
    pub crashes: u64,
    /// Servers replaced.
    pub replaced: u64,
    /// Queries that a change ended.
    pub woken: u64,
    /// Fair locks granted to those who waited.
    pub fair: u64,
    /// Locks of keys granted to those who stood in line.
    pub in_line: u64,
    /// Keys that went because their TTL was over.
    pub ttls_over: u64,
}

impl Counts {
    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        self.reigns += other.reigns;
        self.installed += other.installed;
        self.lease_reads += other.lease_reads;
        self.round_reads += other.round_reads;
        self.expired += other.expired;
        self.locked += other.locked;
        self.entries += other.entries;
        self.answered += other.answered;
        self.crashes += other.crashes;
        self.replaced += other.replaced;
        self.woken += other.woken;
        self.fair += other.fair;
        self.in_line += other.in_line;
        self.ttls_over += other.ttls_over;
    }
}

/// What a server needs while it works.
pub(crate) struct Context<'a> {
    pub(crate) now: Micros,
    pub(crate) random: &'a mut SplitMix,
    pub(crate) raft: &'a mut Raft,
    pub(crate) locks: &'a mut Locks,
    pub(crate) queues: &'a mut Queues,
    pub(crate) counts: &'a mut Counts,
    pub(crate) acts: &'a mut Vec<Act>,
}

impl Context<'_> {
    fn now_ms(&self) -> u64 {
        self.now / 1000
    }

    fn later(&mut self, inner: Inner, after: Micros) {
        self.acts.push(Act::Later { after, inner });
    }
}

/// A machine: a disk, a clock, and a process while it runs.
pub(crate) struct Server {
    pub(crate) id: u64,
    /// Counts the starts of its process.
    pub(crate) life: u64,
    /// How fast its clock runs, in percent.
    rate: u64,
    disk: SimDisk,
    durable: Durable,
    pub(crate) process: Option<Process>,
    /// While set, events wait in `stash` (SIGSTOP).
    pub(crate) paused: bool,
    pub(crate) stash: Vec<Inner>,
    /// Until when its disk takes `slow_sync` for a sync.
    pub(crate) slow_until: Micros,
    pub(crate) slow_sync: Micros,
}

/// The state database: what survives.
struct Durable {
    state: State,
    mark: StateMark,
}

/// What is in memory.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says of a stage of its own whether it is busy"
)]
pub(crate) struct Process {
    core: Core<MemReader>,
    writer: MemWriter,
    state: State,
    members: Membership,
    manager: SessionManager,
    /// Effects that are not folded into the manager yet.
    effects: Vec<Effect>,
    watches: Registry,
    /// Changes that nobody was woken for yet.
    dirty: Vec<Dirty>,
    sleepers: BTreeMap<u64, watch::Sleeper>,
    /// Clients that are still there, and all that were, whose requests may have to wait in line.
    asked: BTreeMap<(usize, u64), places::Asked>,
    expected: BTreeMap<(usize, u64), places::Asked>,
    places: BTreeMap<u64, places::Place>,
    /// What requests in line were given.
    granted: BTreeMap<Bytes, Explained>,
    /// For a leader its no-op; it serves once that is applied.
    lead_from: Option<LogIndex>,
    serving: bool,
    /// As published for readers.
    commit: LogIndex,
    pub(crate) lease: Option<MonoTime>,
    log_queue: Vec<LogWork>,
    log_busy: Vec<LogWork>,
    /// The terms of entries given to the log, as far as they are known.
    terms: BTreeMap<LogIndex, Term>,
    apply_queue: VecDeque<ApplyWork>,
    apply_busy: bool,
    stopped_at: Option<Committed>,
    installing: Option<snapshot::Installing>,
    turn_due: bool,
    lull_due: bool,
    proposals: Vec<Proposal>,
    proposers: BTreeMap<ProposalId, Caller>,
    answers: Vec<(Caller, Reply)>,
    /// Those who wait for the next round that the others confirm and the next for which a lease will do, and for each
    /// that is out.
    next_round: [Vec<Then>; 2],
    rounds: BTreeMap<ReadId, Vec<Then>>,
    waiting: BTreeMap<LogIndex, Vec<Then>>,
    forwarded: BTreeMap<u64, Caller>,
    pins: BTreeMap<u64, snapshot::Pin>,
    /// The last number given to a proposal, round, call or pin.
    last_number: u64,
    /// Indexes that clients saw here.
    seen: [u64; 3],
}

/// What is to be done once an index is applied.
#[derive(Debug, Clone)]
enum Then {
    Read(Caller, Query),
    Renew(Caller, SessionId),
    Answer(Caller, Reply),
    Timers,
}

impl Then {
    fn caller(&self) -> Caller {
        match self {
            Self::Read(caller, _) | Self::Renew(caller, _) | Self::Answer(caller, _) => *caller,
            Self::Timers => Caller::Nobody,
        }
    }
}

/// What the apply thread is to do.
enum ApplyWork {
    Entries(Vec<Committed>),
    Conf(Committed),
    Members { index: LogIndex, members: Membership },
    Install(snapshot::Installing),
}

impl Server {
    /// A founding member.
    pub(crate) fn founder(id: u64, rate: u64, members: &Membership) -> Self {
        let mark = StateMark::fresh(members.clone());
        let mut state = State::default();
        state.apply_empty(mark.applied.index, mark.applied.term);
        Self::new(id, rate, Durable { state, mark })
    }

    /// One that knows nothing and waits to be added.
    pub(crate) fn empty(id: u64, rate: u64) -> Self {
        let mark = StateMark {
            applied: LogPosition::ZERO,
            installed: true,
            members: Membership::default(),
        };
        let state = State::default();
        Self::new(id, rate, Durable { state, mark })
    }

    fn new(id: u64, rate: u64, durable: Durable) -> Self {
        Self {
            id,
            life: 0,
            rate,
            disk: SimDisk::default(),
            durable,
            process: None,
            paused: false,
            stash: Vec::new(),
            slow_until: 0,
            slow_sync: 0,
        }
    }

    /// What its clock shows.
    pub(crate) fn clock(&self, now: Micros) -> MonoTime {
        MonoTime(1 + now * self.rate / 100_000)
    }

    /// True time that passes while its clock counts this.
    fn span(&self, ms: u64) -> Micros {
        ms * 100_000 / self.rate
    }

    pub(crate) fn start(&mut self, context: &mut Context<'_>) -> Checked {
        self.life += 1;
        let config = Config {
            election_ticks_fixed: Some(15 + usize::try_from(context.random.below(15)).unwrap_or(0)),
            trailing_entries: 20,
            keep_entries: 150,
            follower_silent_ms: 1500,
            snapshot_retry_ms: 500,
            read_timeout_ms: 2000,
            ..Config::new(RaftId(self.id), self.life)
        };
        let id = self.id;
        let log =
            MemLog::open(&self.disk).map_err(|error| Breach(format!("{id} cannot open its log: {error}")))?;
        let (core, writer) = open(log, config, &self.durable.mark)
            .map_err(|error| Breach(format!("{id} cannot start: {error}")))?;
        let Durable { state, mark } = &self.durable;
        self.process = Some(Process::new(core, writer, state.clone(), mark.members.clone()));
        context.later(Inner::Tick, self.span(TICK_MS));
        context.later(Inner::Timers, self.span(TIMERS_MS));
        context.later(Inner::Report, self.span(TIMERS_MS));
        let pause = 200_000 + context.random.below(1_500_000);
        context.later(Inner::Checkpoint, pause);
        self.input(Input::Start, context)
    }

    /// Something happens in here.
    pub(crate) fn handle(&mut self, inner: Inner, context: &mut Context<'_>) -> Checked {
        if self.process.is_none() {
            return Ok(());
        }
        match inner {
            Inner::Tick => {
                // Late now and then, never early; missed ones are not made up for.
                let late = if context.random.below(50) == 0 {
                    context.random.below(30_000)
                } else {
                    0
                };
                context.later(Inner::Tick, self.span(TICK_MS) + late);
                self.input(Input::Tick, context)
            }
            Inner::Turn => self.turn(context),
            Inner::Lull => {
                if let Some(process) = &mut self.process {
                    process.lull_due = false;
                }
                self.input(Input::Lull, context)
            }
            Inner::LogDone => self.log_done(context),
            Inner::ApplyDone => self.apply_done(context),
            Inner::Timers => {
                context.later(Inner::Timers, self.span(TIMERS_MS));
                self.look_at_timers(context);
                Ok(())
            }
            Inner::Checkpoint => {
                let pause = 200_000 + context.random.below(1_500_000);
                context.later(Inner::Checkpoint, pause);
                self.checkpoint(context)
            }
            Inner::Report => {
                self.report(context);
                Ok(())
            }
            Inner::Pin(to) => self.pin(to, context),
            Inner::PinExpires(pin) => self.unpin(pin, false, context),
            Inner::FetchFails(position) => self.fetch_failed(position, context),
            Inner::Look(number) => {
                self.look(number, context);
                Ok(())
            }
            Inner::WaitEnds(number) => {
                self.end_wait(number, context);
                Ok(())
            }
            Inner::Packet { from, body } => self.packet(from, body, context),
        }
    }

    fn packet(&mut self, from: u64, body: Body, context: &mut Context<'_>) -> Checked {
        match body {
            Body::Raft(message) => self.input(Input::Peer(message), context),
            Body::Call { life, call, request } => {
                let caller = Caller::Server {
                    server: from,
                    life,
                    call,
                };
                self.request(caller, request, context);
                Ok(())
            }
            Body::Answer {
                life,
                call,
                reply,
                applied,
            } => self.forwarded_answer(life, call, reply, applied, context),
            Body::Fetch { life, pin } => self.send_rows(from, life, pin, context),
            Body::Rows { life, pin, rows } => self.rows_came(from, life, pin, rows, context),
            Body::Fetched { pin } => self.unpin(pin, true, context),
            Body::Report { waiting, left } => {
                self.take_report(RaftId(from), waiting, left, context);
                Ok(())
            }
        }
    }

    /// Tells the core, publishes the commit index, then does what it wants (R1).
    pub(crate) fn input(&mut self, input: Input, context: &mut Context<'_>) -> Checked {
        let clock = self.clock(context.now);
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        let mut outputs = Vec::new();
        process.core.handle(input, clock, &mut outputs);
        process.commit = process.core.status().commit;
        if process.core.owes_commit() && !process.lull_due {
            process.lull_due = true;
            let after = context.random.below(3_000);
            context.later(Inner::Lull, after);
        }
        for output in outputs {
            self.carry_out(output, context)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, output: Output, context: &mut Context<'_>) -> Checked {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        match output {
            Output::Send(message) => context.acts.push(Act::Send {
                to: message.to.0,
                body: Body::Raft(message),
            }),
            Output::Append(task) => {
                let id = self.id;
                process.note_entries(id, &task, context)?;
                self.log(LogWork::Append(task), context);
            }
            Output::Compact(to) => self.log(LogWork::Compact(to), context),
            Output::ResetLog(to) => {
                process.terms.clear();
                self.log(LogWork::Reset(to), context);
            }
            Output::Apply(entries) => self.apply(ApplyWork::Entries(entries), context),
            Output::ApplyConf(entry) => self.apply(ApplyWork::Conf(entry), context),
            Output::Members { index, members } => self.apply(ApplyWork::Members { index, members }, context),
            Output::Install {
                from,
                position,
                members,
                descriptor,
            } => {
                let installing = snapshot::Installing::new(from.0, position, members, &descriptor)?;
                self.apply(ApplyWork::Install(installing), context);
            }
            Output::WantSnapshot { to } => {
                let after = 1_000 + context.random.below(20_000);
                context.later(Inner::Pin(to), after);
            }
            Output::ReadReady { id, index } => {
                let ready = process.rounds.remove(&id).unwrap_or_default();
                context.counts.round_reads += ready.len() as u64;
                for then in ready {
                    self.once_applied(index, then, context);
                }
            }
            Output::ReadFailed(id) => {
                for then in process.rounds.remove(&id).unwrap_or_default() {
                    self.answer(then.caller(), Reply::Refused, context);
                }
            }
            Output::Role(role) => {
                process.lead_from = role.is_leader.then_some(role.no_op);
                process.serving = false;
                process.manager.step_down();
                if role.is_leader {
                    context.counts.reigns += 1;
                    context.raft.leads(self.id, role.term)?;
                }
            }
            Output::Lease { until } => process.lease = until,
            Output::Rejected(id, why) => {
                let caller = process.proposers.remove(&id).unwrap_or(Caller::Nobody);
                let reply = match why {
                    Why::OutcomeUnknown { .. } => Reply::Unknown,
                    _ => Reply::Refused,
                };
                self.answer(caller, reply, context);
            }
            other => return Err(Breach(format!("an output that nobody carries out: {other:?}"))),
        }
        Ok(())
    }

    /// Where consensus stands here, while the process runs.
    pub(crate) fn status(&self) -> Option<Status> {
        self.process.as_ref().map(|process| process.core.status())
    }

    /// Whether a read would be served by the lease now.
    pub(crate) fn has_lease(&self, now: Micros) -> bool {
        let until = self.process.as_ref().and_then(|process| process.lease);
        until.is_some_and(|until| self.clock(now) < until)
    }
}

impl Process {
    #[expect(clippy::expect_used, reason = "a run cannot go on without")]
    fn new(core: Core<MemReader>, writer: MemWriter, state: State, members: Membership) -> Self {
        Self {
            core,
            writer,
            state,
            members,
            manager: SessionManager::default(),
            effects: Vec::new(),
            watches: Registry::new(SLEEPERS_MAX).expect("the system has threads"),
            dirty: Vec::new(),
            sleepers: BTreeMap::new(),
            asked: BTreeMap::new(),
            expected: BTreeMap::new(),
            places: BTreeMap::new(),
            granted: BTreeMap::new(),
            lead_from: None,
            serving: false,
            commit: LogIndex(0),
            lease: None,
            log_queue: Vec::new(),
            log_busy: Vec::new(),
            terms: BTreeMap::new(),
            apply_queue: VecDeque::new(),
            apply_busy: false,
            stopped_at: None,
            installing: None,
            turn_due: false,
            lull_due: false,
            proposals: Vec::new(),
            proposers: BTreeMap::new(),
            answers: Vec::new(),
            next_round: [Vec::new(), Vec::new()],
            rounds: BTreeMap::new(),
            waiting: BTreeMap::new(),
            forwarded: BTreeMap::new(),
            pins: BTreeMap::new(),
            last_number: 0,
            seen: [0; 3],
        }
    }

    /// The core, for whoever operates the cluster.
    pub(crate) fn core(&self) -> &Core<MemReader> {
        &self.core
    }

    /// The published state.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// The last entry in the state.
    fn position(&self) -> LogPosition {
        let (index, term) = self.state.applied();
        LogPosition { index, term }
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

/// Every request that a dying process leaves unanswered.
pub(crate) fn callers(process: &Process) -> Vec<Caller> {
    let thens = process
        .next_round
        .iter()
        .flatten()
        .chain(process.rounds.values().flatten());
    let thens = thens.chain(process.waiting.values().flatten());
    let mut callers: Vec<Caller> = thens.map(Then::caller).collect();
    callers.extend(process.proposers.values());
    callers.extend(process.forwarded.values());
    callers.extend(process.waiting_callers());
    callers.extend(process.standing_callers());
    callers
}
