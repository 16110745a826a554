//! What the pipeline counts, and how it is shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lictor_peer::PeerTraffic;
use lictor_proto::{Command, RaftId};
use lictor_raft::RoleChange;
use lictor_state::Effect;
use lictor_telemetry::{Counter, Durations, Kind, Limiter, Page, Sizes};

use crate::cluster::INBOX_MAX;
use crate::mailbox::Mailbox;
use crate::node::Shared;
use crate::passage::{Passage, Passages};
use crate::pipeline::{BACKLOG_BYTES, CheckpointWork};
use crate::{Node, Roster};

/// Kinds of commands have tags below this.
const KINDS: usize = 128;
/// Lines on slow work of one sort in each [`LINES_PER`].
const LINES_MAX: u32 = 10;
const LINES_PER: Duration = Duration::from_secs(10);
/// How long whoever reads the metrics waits for the raft thread to tell of the followers.
const SURVEY_WAIT: Duration = Duration::from_millis(250);

/// Counted by the threads of the pipeline and by whoever asks something of them.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) proposals: Counter,
    pub(crate) proposal_batch: Sizes,
    pub(crate) leader_changes: Counter,
    pub(crate) elections: Counter,
    pub(crate) elections_won: Counter,
    pub(crate) messages_received: Counter,
    pub(crate) inbox_refused: Counter,
    pub(crate) read_rounds: Counter,
    pub(crate) reads_joined: Counter,
    pub(crate) log_batches: Counter,
    pub(crate) log_entries: Counter,
    pub(crate) log_bytes: Counter,
    pub(crate) log_sync: Durations,
    pub(crate) commit: Durations,
    pub(crate) apply: Durations,
    pub(crate) commands: [Counter; KINDS],
    pub(crate) sessions_created: Counter,
    pub(crate) sessions_ended: Counter,
    pub(crate) sessions_expired: Counter,
    pub(crate) sessions_renewed: Counter,
    pub(crate) checkpoint_flush: Durations,
    pub(crate) checkpoint_install: Durations,
    pub(crate) checkpoint_rows: Counter,
    pub(crate) snapshots_sent: Outcomes,
    pub(crate) snapshots_received: Outcomes,
    pub(crate) passages: Passages,
    pub(crate) slow: Slow,
    stands: AtomicBool,
    /// The last leader that was known; 0 before the first.
    led_by: AtomicU64,
    /// The last term in which this server led.
    led_in: AtomicU64,
}

/// What the stages of the pipeline have before them.
#[derive(Debug)]
pub(crate) struct Stages {
    pub(crate) log: Arc<AtomicUsize>,
    pub(crate) apply: Arc<AtomicUsize>,
    pub(crate) checkpoint: Arc<Mailbox<CheckpointWork>>,
}

/// How often something succeeded and failed.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    done: Counter,
    failed: Counter,
}

impl Outcomes {
    pub(crate) fn one(&self, ok: bool) {
        if ok { &self.done } else { &self.failed }.one();
    }

    fn add_to(&self, page: &mut Page, name: &'static str, help: &'static str) {
        let outcomes = [("ok", self.done.get()), ("failed", self.failed.get())];
        page.counters(name, help, "outcome", outcomes);
    }
}

/// What takes too long is counted, and told in the log.
#[derive(Debug)]
pub(crate) struct Slow {
    /// Nanoseconds; the largest number for never.
    after_ns: AtomicU64,
    syncs: Counter,
    applies: Counter,
    sync_lines: Limiter,
    apply_lines: Limiter,
}

impl Slow {
    fn is_slow(&self, took: Duration) -> bool {
        took.as_nanos() >= u128::from(self.after_ns.load(Ordering::Relaxed))
    }

    /// A batch of the log took so long.
    pub(crate) fn synced(&self, took: Duration, now: Instant, entries: u64, bytes: usize) {
        if !self.is_slow(took) {
            return;
        }
        self.syncs.one();
        if let Some(untold) = self.sync_lines.pass(now) {
            tracing::warn!(
                duration_ms = millis(took),
                entries,
                bytes,
                untold,
                "a slow sync of the raft log"
            );
        }
    }

    /// A batch of entries took so long to apply.
    pub(crate) fn applied(&self, took: Duration, now: Instant, first: u64, last: u64) {
        if !self.is_slow(took) {
            return;
        }
        self.applies.one();
        if let Some(untold) = self.apply_lines.pass(now) {
            tracing::warn!(
                duration_ms = millis(took),
                first,
                last,
                untold,
                "a slow apply of entries"
            );
        }
    }
}

/// Milliseconds with their fractions, as lines of the log show them.
fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}

impl Metrics {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            proposals: Counter::new(),
            proposal_batch: Sizes::default(),
            leader_changes: Counter::new(),
            elections: Counter::new(),
            elections_won: Counter::new(),
            messages_received: Counter::new(),
            inbox_refused: Counter::new(),
            read_rounds: Counter::new(),
            reads_joined: Counter::new(),
            log_batches: Counter::new(),
            log_entries: Counter::new(),
            log_bytes: Counter::new(),
            log_sync: Durations::default(),
            commit: Durations::default(),
            apply: Durations::default(),
            commands: [const { Counter::new() }; KINDS],
            sessions_created: Counter::new(),
            sessions_ended: Counter::new(),
            sessions_expired: Counter::new(),
            sessions_renewed: Counter::new(),
            checkpoint_flush: Durations::default(),
            checkpoint_install: Durations::default(),
            checkpoint_rows: Counter::new(),
            snapshots_sent: Outcomes::default(),
            snapshots_received: Outcomes::default(),
            passages: Passages::new(start),
            slow: Slow {
                after_ns: AtomicU64::new(u64::MAX),
                syncs: Counter::new(),
                applies: Counter::new(),
                sync_lines: Limiter::new(LINES_MAX, LINES_PER),
                apply_lines: Limiter::new(LINES_MAX, LINES_PER),
            },
            stands: AtomicBool::new(false),
            led_by: AtomicU64::new(0),
            led_in: AtomicU64::new(0),
        }
    }

    /// Told by the raft thread, at each turn, whether this server stands for election.
    pub(crate) fn stands_for_election(&self, stands: bool) {
        if self.stands.load(Ordering::Relaxed) != stands {
            self.stands.store(stands, Ordering::Relaxed);
            self.elections.add(stands.into());
        }
    }

    /// Told by the raft thread when leader, term or role changed.
    pub(crate) fn took_role(&self, role: &RoleChange) {
        let Some(leader) = role.leader else { return };
        if self.led_by.swap(leader.0, Ordering::Relaxed) != leader.0 {
            self.leader_changes.one();
        }
        if role.is_leader && self.led_in.swap(role.term.0, Ordering::Relaxed) != role.term.0 {
            self.elections_won.one();
        }
    }

    /// Counts a command that was applied.
    pub(crate) fn applied(&self, command: &Command) {
        if let Some(counter) = self.commands.get(command.kind() as usize) {
            counter.one();
        }
    }

    /// Counts what apply did to sessions.
    pub(crate) fn took_effect(&self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::SessionCreated { .. } => self.sessions_created.one(),
                Effect::SessionGone { .. } => self.sessions_ended.one(),
                _ => {}
            }
        }
    }

    fn add_consensus(&self, page: &mut Page) {
        page.counter(
            "consul.raft.apply",
            "Commands that this leader proposed.",
            self.proposals.get(),
        );
        page.sizes(
            "lictor.raft.proposal_batch_size",
            "Commands that became entries in one turn of the raft thread.",
            &self.proposal_batch,
        );
        page.counter(
            "consul.raft.state.candidate",
            "Times that this server stood for election.",
            self.elections.get(),
        );
        page.counter(
            "consul.raft.state.leader",
            "Times that this server became the leader.",
            self.elections_won.get(),
        );
        page.counter(
            "lictor.raft.leader_changes_total",
            "Changes of the leader that this server saw.",
            self.leader_changes.get(),
        );
        page.counter(
            "lictor.raft.messages_received_total",
            "Raft messages of other servers.",
            self.messages_received.get(),
        );
        page.counter(
            "consul.raft.verify_leader",
            "Rounds with the voters that prove reads to be fresh.",
            self.read_rounds.get(),
        );
        page.counter(
            "lictor.raft.reads_total",
            "Reads that waited for such a round.",
            self.reads_joined.get(),
        );
        page.milliseconds(
            "consul.raft.commitTime",
            "From the making of an entry to the begin of its apply, on the leader.",
            &self.commit,
        );
        page.durations(
            "lictor.raft.commit_duration_seconds",
            "From the making of an entry to the begin of its apply, on the leader: one value a batch.",
            &self.commit,
        );
    }

    fn add_log(&self, page: &mut Page) {
        page.counter(
            "consul.raft.wal.log_appends",
            "Batches that were appended to the Raft log.",
            self.log_batches.get(),
        );
        page.counter(
            "consul.raft.wal.log_entries_written",
            "Entries that were appended to the Raft log.",
            self.log_entries.get(),
        );
        page.counter(
            "consul.raft.wal.log_entry_bytes_written",
            "Bytes of these entries.",
            self.log_bytes.get(),
        );
        page.durations(
            "lictor.raft.log_sync_duration_seconds",
            "Time to write and sync a batch of the Raft log.",
            &self.log_sync,
        );
    }

    fn add_apply(&self, page: &mut Page) {
        page.durations(
            "lictor.apply.duration_seconds",
            "Time to apply and publish a batch of entries.",
            &self.apply,
        );
        let commands = Command::kinds().filter_map(|(tag, name)| {
            let counter = self.commands.get(tag as usize)?;
            Some((name, counter.get()))
        });
        page.counters(
            "lictor.apply.commands_total",
            "Commands that were applied here, by kind.",
            "kind",
            commands,
        );
        page.counter(
            "lictor.sessions.created_total",
            "Sessions that began, as applied here.",
            self.sessions_created.get(),
        );
        page.counter(
            "lictor.sessions.ended_total",
            "Sessions that ended for whatever reason, as applied here.",
            self.sessions_ended.get(),
        );
        page.counter(
            "lictor.sessions.expired_total",
            "Ends of sessions that this leader proposed since nobody had renewed them.",
            self.sessions_expired.get(),
        );
        page.counter(
            "lictor.sessions.renewed_total",
            "Renewals that this leader granted.",
            self.sessions_renewed.get(),
        );
    }

    fn add_copies(&self, page: &mut Page) {
        page.durations(
            "lictor.checkpoint.flush_duration_seconds",
            "Time to make the durable copy of the state durable up to an entry.",
            &self.checkpoint_flush,
        );
        page.durations(
            "lictor.checkpoint.install_duration_seconds",
            "Time to replace the durable copy by another state.",
            &self.checkpoint_install,
        );
        page.counter(
            "lictor.checkpoint.rows_total",
            "Rows that went into the durable copy.",
            self.checkpoint_rows.get(),
        );
        self.snapshots_sent.add_to(
            page,
            "lictor.snapshots.sent_total",
            "Snapshots that this leader sent to servers too far behind for the log.",
        );
        self.snapshots_received.add_to(
            page,
            "lictor.snapshots.received_total",
            "Snapshots that this server fetched from the leader.",
        );
    }
}

/// A queue, or anything else with room for so many.
#[derive(Debug, Clone, Copy)]
pub struct Queue {
    /// The value of the label `queue`.
    pub name: &'static str,
    /// How many are in it.
    pub depth: usize,
    /// How many there may be; `None` where the bound is that of another queue.
    pub limit: Option<usize>,
    /// How many were turned away since the start; `None` where whoever is too many waits.
    pub refused: Option<u64>,
}

impl Shared {
    fn queues(&self) -> [Queue; 7] {
        let watches = &self.watches;
        let (in_flight, in_flight_max) = self.pending.room();
        let stages = self.stages.get();
        let unbounded = |name, depth| Queue {
            name,
            depth,
            limit: None,
            refused: None,
        };
        [
            Queue {
                name: "proposals",
                depth: in_flight,
                limit: Some(in_flight_max),
                refused: Some(self.pending.refused()),
            },
            Queue {
                name: "raft",
                depth: self.raft.depth().0,
                limit: Some(INBOX_MAX),
                refused: Some(self.metrics.inbox_refused.get()),
            },
            unbounded(
                "log",
                stages.map_or(0, |stages| stages.log.load(Ordering::Relaxed)),
            ),
            unbounded(
                "apply",
                stages.map_or(0, |stages| stages.apply.load(Ordering::Relaxed)),
            ),
            unbounded("reads", self.gate.gathering()),
            Queue {
                name: "checkpoint_bytes",
                depth: stages.map_or(0, |stages| stages.checkpoint.depth().1),
                limit: Some(BACKLOG_BYTES),
                refused: None,
            },
            Queue {
                name: "watches",
                depth: watches.waiters(),
                limit: Some(watches.limit()),
                refused: Some(watches.refused_total()),
            },
        ]
    }

    fn add_peers(&self, page: &mut Page, roster: &Roster) {
        let traffic = self.net.get().map(|net| net.peers.traffic()).unwrap_or_default();
        let names: Vec<_> = traffic.iter().map(|(id, _)| name_of(roster, *id)).collect();
        let traffic: Vec<_> = names
            .iter()
            .zip(traffic.iter().map(|(_, traffic)| *traffic))
            .collect();
        let of = |value: fn(&PeerTraffic) -> u64| {
            let traffic = traffic.iter();
            traffic
                .map(move |(name, traffic)| (name.as_str(), value(traffic)))
                .collect::<Vec<_>>()
        };
        page.counters(
            "lictor.raft.messages_sent_total",
            "Raft messages that were queued for a server.",
            "peer",
            of(|traffic| traffic.sent),
        );
        let dropped = page.family(
            Kind::Counter,
            "lictor.raft.messages_dropped_total",
            "Raft messages to a server that were dropped: its queue was full, or there was no connection.",
        );
        for (peer, traffic) in &traffic {
            dropped.count(&[("peer", peer), ("reason", "full")], traffic.dropped_full);
            dropped.count(
                &[("peer", peer), ("reason", "unreachable")],
                traffic.dropped_unreachable,
            );
        }
        let queues = |traffic: &PeerTraffic| {
            [
                ("urgent", traffic.urgent),
                ("append", traffic.append),
                ("calls", traffic.calls),
            ]
        };
        let depth = page.family(
            Kind::Gauge,
            "lictor.peer.queue_depth",
            "What waits to be sent to a server.",
        );
        for (peer, traffic) in &traffic {
            for (queue, (len, _)) in queues(traffic) {
                depth.count(&[("peer", peer), ("queue", queue)], len as u64);
            }
        }
        let capacity = page.family(
            Kind::Gauge,
            "lictor.peer.queue_capacity",
            "How much may wait to be sent to a server.",
        );
        for (peer, traffic) in &traffic {
            for (queue, (_, limit)) in queues(traffic) {
                capacity.count(&[("peer", peer), ("queue", queue)], limit as u64);
            }
        }
    }
}

fn name_of(roster: &Roster, id: RaftId) -> String {
    match roster.get(id) {
        Some(server) => server.name.clone(),
        None => id.0.to_string(),
    }
}

impl Node {
    /// From which duration on work is told in the log as slow; zero means never.
    pub fn set_slow_after(&self, after: Duration) {
        let ns = match after {
            Duration::ZERO => u64::MAX,
            after => u64::try_from(after.as_nanos()).unwrap_or(u64::MAX),
        };
        self.shared().metrics.slow.after_ns.store(ns, Ordering::Relaxed);
    }

    /// Whether something that took so long is to be told in the log.
    pub fn is_slow(&self, took: Duration) -> bool {
        self.shared().metrics.slow.is_slow(took)
    }

    /// Where a write that was made here spent its time, if its answer came at `end` and it is remembered.
    pub fn passage(&self, index: u64, end: Instant) -> Option<Passage> {
        self.shared().metrics.passages.of(index, end)
    }

    /// All queues of the pipeline.
    pub fn queues(&self) -> impl IntoIterator<Item = Queue> {
        self.shared().queues()
    }

    /// Work that was slow since the start, by sort.
    pub fn slow_work(&self) -> [(&'static str, u64); 2] {
        let slow = &self.shared().metrics.slow;
        [("log_sync", slow.syncs.get()), ("apply", slow.applies.get())]
    }

    /// Adds all that the pipeline counts, its [`Self::queues`] and [`Self::slow_work`] excepted. Cancel safe.
    pub async fn add_metrics(&self, page: &mut Page) {
        let shared = self.shared();
        let (metrics, roster) = (&shared.metrics, self.roster());
        metrics.add_consensus(page);
        metrics.add_log(page);
        metrics.add_apply(page);
        metrics.add_copies(page);
        shared.add_peers(page, &roster);
        page.gauge(
            "consul.session_ttl.active",
            "Sessions with a TTL that this leader watches over.",
            shared.timers.timed_sessions() as u64,
        );
        page.counter(
            "lictor.watches.registered_total",
            "Blocking queries that began to wait.",
            shared.watches.registered_total(),
        );
        let contact = page.family(
            Kind::Gauge,
            "lictor.raft.last_contact_seconds",
            "Since when this server has not heard from a leader.",
        );
        let silence = Duration::from_millis(shared.progress.silence_ms(shared.clock.now()));
        contact.number(&[], silence.as_secs_f64());
        page.gauge(
            "consul.raft.peers",
            "Members with a vote.",
            roster.members().voters().count() as u64,
        );
        let survey = tokio::time::timeout(SURVEY_WAIT, self.survey()).await;
        let followers = survey
            .ok()
            .flatten()
            .map(|survey| survey.peers)
            .unwrap_or_default();
        let lags = followers
            .iter()
            .map(|peer| (name_of(&roster, peer.id), peer.lag_entries));
        let lags: Vec<_> = lags.collect();
        page.gauges(
            "lictor.raft.follower_lag_entries",
            "Entries that a follower is not known to have; told by the leader.",
            "peer",
            lags.iter().map(|(peer, lag)| (peer.as_str(), *lag)),
        );
    }
}
