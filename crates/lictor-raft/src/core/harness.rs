//! A few cores, their logs and a network, all driven by hand: nothing happens unless a test says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use lictor_proto::{LogIndex, RaftId};
use prost_011::Message as _;
use raft::eraftpb::{Message, MessageType};

use super::Core;
use crate::{
    Committed, ConfEcho, Config, Input, LogPosition, LogStore as _, LogTask, LogWriter as _, MemLog,
    MemReader, MemWriter, Membership, MonoTime, Output, PeerMessage, Proposal, ProposalId, ReadId, Recovered,
    RoleChange, SimDisk, StateMark, Why, open,
};

/// A tick, in hundredths of a millisecond.
const TICK: u64 = 2000;

/// A member's state as of some entry: all that was applied, and the members.
#[derive(Clone)]
pub(super) struct View {
    pub(super) mark: StateMark,
    pub(super) applied: Vec<Committed>,
}

/// What the log thread is to do.
pub(super) enum LogWork {
    Append(LogTask),
    Compact(LogPosition),
    Reset(LogPosition),
}

/// What the apply thread is to do.
pub(super) enum Work {
    Entries(LogIndex),
    Conf(LogIndex),
    Install {
        from: RaftId,
        position: LogPosition,
        descriptor: Vec<u8>,
    },
}

#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fault that a test switches on"
)]
pub(super) struct Node {
    pub(super) core: Core<MemReader>,
    writer: MemWriter,
    pub(super) disk: SimDisk,
    /// While set, tasks queue up instead of being written.
    pub(super) hold_disk: bool,
    pub(super) log_work: Vec<LogWork>,
    /// While set, apply does not answer.
    pub(super) hold_apply: bool,
    /// While set, an installation does not begin.
    pub(super) hold_install: bool,
    pub(super) to_apply: VecDeque<Work>,
    /// Its clock, in hundredths of a millisecond, and the next tick on it.
    pub(super) clock: u64,
    next_tick: u64,
    /// How fast it runs, in percent.
    pub(super) rate: u64,
    /// While set, it does nothing, but its clock goes on (SIGSTOP).
    pub(super) paused: bool,
    pub(super) lease: Option<MonoTime>,
    /// For whom it was asked to pin a view, and does not by itself.
    pub(super) wanted: Vec<RaftId>,
    pub(super) hold_pins: bool,
    pub(super) installs: usize,
    pub(super) compacted: Vec<LogPosition>,
    pub(super) applied: Vec<Committed>,
    pub(super) applied_to: LogIndex,
    pub(super) rejected: Vec<(ProposalId, Why)>,
    pub(super) reads: Vec<(ReadId, LogIndex)>,
    pub(super) failed_reads: Vec<ReadId>,
    pub(super) roles: Vec<RoleChange>,
    pub(super) members: Vec<(LogIndex, Membership)>,
}

pub(super) struct Cluster {
    pub(super) nodes: BTreeMap<u64, Node>,
    pub(super) network: VecDeque<PeerMessage>,
    pub(super) cut_off: BTreeSet<u64>,
    /// From whom to whom nothing gets through.
    pub(super) cut_links: BTreeSet<(u64, u64)>,
    pub(super) now: MonoTime,
    /// What is durable of each member's state; the founding if nothing was flushed.
    pub(super) flushed: BTreeMap<u64, View>,
    /// Views that were pinned for snapshots; a descriptor is an index into it.
    pub(super) views: Vec<View>,
    /// Installations that succeeded.
    pub(super) installed: usize,
    /// All that was sent since it was last cleared.
    pub(super) sent: Vec<Message>,
    state: StateMark,
}

/// Member `id` always waits `15 + id` ticks for a leader, so the lowest one is elected. Little of the log is kept.
pub(super) fn config(id: u64, incarnation: u64) -> Config {
    let timeout = 15 + usize::try_from(id).unwrap();
    Config {
        election_ticks_fixed: Some(timeout),
        trailing_entries: 10,
        keep_entries: 50,
        follower_silent_ms: 1000,
        ..Config::new(RaftId(id), incarnation)
    }
}

impl Cluster {
    /// Started members 1 to `count`.
    pub(super) fn of(count: u64) -> Self {
        Self::with_settings(count, config)
    }

    pub(super) fn with_settings(count: u64, settings: fn(u64, u64) -> Config) -> Self {
        let state = StateMark::fresh(Membership::of_voters((1..=count).map(RaftId)));
        let (nodes, network, cut_off) = (BTreeMap::new(), VecDeque::new(), BTreeSet::new());
        let mut cluster = Self {
            nodes,
            network,
            cut_off,
            cut_links: BTreeSet::new(),
            now: MonoTime(0),
            flushed: BTreeMap::new(),
            views: Vec::new(),
            installed: 0,
            sent: Vec::new(),
            state,
        };
        for id in 1..=count {
            cluster.start(settings(id, 1), SimDisk::default());
        }
        cluster
    }

    /// A cluster that has elected member 1.
    pub(super) fn led(count: u64) -> Self {
        let mut cluster = Self::of(count);
        cluster.tick_until(|cluster| cluster.node(1).core.status().is_leader);
        cluster.settle();
        cluster
    }

    /// Starts a member over what its disk holds, with the state that it flushed last.
    pub(super) fn start(&mut self, config: Config, disk: SimDisk) {
        let id = config.id.0;
        let log = MemLog::open(&disk).unwrap();
        let founding = View {
            mark: self.state.clone(),
            applied: Vec::new(),
        };
        let view = self.flushed.get(&id).unwrap_or(&founding).clone();
        let (core, writer) = open(log, config, &view.mark).unwrap();
        let node = Node {
            core,
            writer,
            disk,
            hold_disk: false,
            log_work: Vec::new(),
            hold_apply: false,
            hold_install: false,
            to_apply: VecDeque::new(),
            clock: self.now.0 * 100,
            next_tick: self.now.0 * 100 + TICK,
            rate: 100,
            paused: false,
            lease: None,
            wanted: Vec::new(),
            hold_pins: false,
            installs: 0,
            compacted: Vec::new(),
            applied: view.applied,
            applied_to: view.mark.applied.index,
            rejected: Vec::new(),
            reads: Vec::new(),
            failed_reads: Vec::new(),
            roles: Vec::new(),
            members: vec![(view.mark.applied.index, view.mark.members)],
        };
        self.nodes.insert(id, node);
        self.input(id, Input::Start);
    }

    pub(super) fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    /// What a member does with an input, before anything else happens.
    pub(super) fn input(&mut self, id: u64, input: Input) {
        let mut out = Vec::new();
        let node = self.node(id);
        let now = MonoTime(node.clock / 100);
        node.core.handle(input, now, &mut out);
        for output in out {
            self.execute(id, output);
        }
    }

    fn execute(&mut self, id: u64, output: Output) {
        let node = self.nodes.get_mut(&id).unwrap();
        match output {
            Output::Send(message) => self.send(message),
            Output::Append(task) => node.log_work.push(LogWork::Append(task)),
            Output::Compact(to) => {
                node.compacted.push(to);
                node.log_work.push(LogWork::Compact(to));
            }
            Output::ResetLog(to) => node.log_work.push(LogWork::Reset(to)),
            Output::Apply(entries) => {
                node.to_apply
                    .push_back(Work::Entries(entries.last().unwrap().index));
                node.applied.extend(entries);
            }
            Output::ApplyConf(entry) => {
                node.to_apply.push_back(Work::Conf(entry.index));
                node.applied.push(entry);
            }
            Output::Lease { until } => node.lease = until,
            Output::WantSnapshot { to } => {
                node.wanted.push(to);
                if !node.hold_pins {
                    self.pin(id);
                }
            }
            Output::Install {
                from,
                position,
                descriptor,
                ..
            } => {
                node.installs += 1;
                node.to_apply.push_back(Work::Install {
                    from,
                    position,
                    descriptor,
                });
            }
            Output::Members { index, members } => node.members.push((index, members)),
            Output::ReadReady { id, index } => node.reads.push((id, index)),
            Output::ReadFailed(id) => node.failed_reads.push(id),
            Output::Role(change) => node.roles.push(change),
            Output::Rejected(id, why) => node.rejected.push((id, why)),
        }
    }

    fn send(&mut self, message: PeerMessage) {
        self.sent.push(Message::decode(message.bytes.as_slice()).unwrap());
        self.network.push_back(message);
    }

    /// Lets disks, network and apply work until nothing moves. Answers the number of steps.
    pub(super) fn settle(&mut self) -> usize {
        for steps in 0..100_000 {
            if !self.step() {
                return steps;
            }
        }
        panic!("the cluster never comes to rest");
    }

    /// Lets one thing happen; answers whether anything could.
    pub(super) fn step(&mut self) -> bool {
        for at in 0..self.network.len() {
            let (from, to) = (self.network[at].from.0, self.network[at].to.0);
            if self.nodes.get(&to).is_some_and(|node| node.paused) {
                // It waits in the socket.
                continue;
            }
            let Some(message) = self.network.remove(at) else {
                break;
            };
            if self.reaches(from, to) {
                self.input(to, Input::Peer(message));
            }
            return true;
        }
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        ids.iter()
            .any(|id| !self.node(*id).paused && (self.write(*id) || self.apply(*id)))
            || ids.iter().any(|id| !self.node(*id).paused && self.lull(*id))
    }

    /// Nothing else is to be done: the moment to tell of commits.
    fn lull(&mut self, id: u64) -> bool {
        let owes = self.node(id).core.owes_commit();
        if owes {
            self.input(id, Input::Lull);
        }
        owes
    }

    /// Whether a message would arrive.
    pub(super) fn reaches(&self, from: u64, to: u64) -> bool {
        let cut = |id| self.cut_off.contains(&id);
        !cut(from) && !cut(to) && !self.cut_links.contains(&(from, to)) && self.nodes.contains_key(&to)
    }

    fn write(&mut self, id: u64) -> bool {
        let node = self.node(id);
        if node.hold_disk || node.log_work.is_empty() {
            return false;
        }
        let work = std::mem::take(&mut node.log_work);
        let mut tasks = Vec::new();
        node.carry_out(work, &mut tasks);
        if let Some(last) = tasks.last() {
            self.input(id, Input::Persisted(last.ready_no));
        }
        for message in tasks.into_iter().flat_map(|task| task.messages) {
            self.send(message);
        }
        true
    }

    fn apply(&mut self, id: u64) -> bool {
        let node = self.node(id);
        let installs = matches!(node.to_apply.front(), Some(Work::Install { .. }));
        if node.hold_apply || (node.hold_install && installs) {
            return false;
        }
        let index = match node.to_apply.pop_front() {
            None => return false,
            Some(Work::Entries(index)) => index,
            Some(Work::Conf(index)) => {
                node.applied_to = index;
                let conf = Some(ConfEcho::Accept);
                self.input(id, Input::Applied { index, conf });
                assert_eq!(self.node(id).members.last().map(|&(at, _)| at), Some(index));
                index
            }
            Some(Work::Install {
                from,
                position,
                descriptor,
            }) => {
                self.install(id, from.0, position, &descriptor);
                return true;
            }
        };
        self.node(id).applied_to = index;
        self.input(id, Input::Applied { index, conf: None });
        true
    }

    /// What a member's state is now.
    pub(super) fn view(&mut self, id: u64) -> View {
        let node = self.node(id);
        let index = node.applied_to;
        let applied: Vec<_> = node
            .applied
            .iter()
            .filter(|entry| entry.index <= index)
            .cloned()
            .collect();
        let term = applied.last().map_or(lictor_proto::Term(1), |entry| entry.term);
        let members = node.members.last().unwrap().1.clone();
        let applied_at = LogPosition { index, term };
        View {
            mark: StateMark {
                applied: applied_at,
                installed: false,
                members,
            },
            applied,
        }
    }

    /// A member's state becomes durable as it is.
    pub(super) fn flush(&mut self, id: u64) {
        let view = self.view(id);
        let index = view.mark.applied.index;
        self.flushed.insert(id, view);
        self.input(id, Input::Flushed(index));
    }

    /// A member answers what it was asked for first.
    pub(super) fn pin(&mut self, id: u64) {
        let to = self.node(id).wanted.remove(0);
        let view = self.view(id);
        let input = Input::SnapshotReady {
            to,
            position: view.mark.applied,
            members: view.mark.members.clone(),
            descriptor: self.views.len().to_be_bytes().to_vec(),
        };
        self.views.push(view);
        self.input(id, input);
    }

    fn install(&mut self, id: u64, from: u64, position: LogPosition, descriptor: &[u8]) {
        let ok = self.reaches(id, from) && self.reaches(from, id);
        if ok {
            let view = usize::from_be_bytes(descriptor.try_into().unwrap());
            let mut view = self.views[view].clone();
            assert_eq!(view.mark.applied, position);
            view.mark.installed = true;
            let node = self.node(id);
            (node.applied, node.applied_to) = (view.applied.clone(), position.index);
            node.members.push((position.index, view.mark.members.clone()));
            self.flushed.insert(id, view);
        }
        self.installed += usize::from(ok);
        self.input(id, Input::Installed { position, ok });
        if self.nodes.contains_key(&from) {
            self.input(from, Input::SnapshotSent { to: RaftId(id), ok });
        }
    }

    /// One tick everywhere, 20 ms later, without letting anything else happen.
    pub(super) fn tick(&mut self) {
        self.advance(20);
    }

    /// Lets time go by; who has a tick due gets one.
    pub(super) fn advance(&mut self, ms: u64) {
        self.now.0 += ms;
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            let node = self.node(id);
            node.clock += ms * node.rate;
            if node.clock >= node.next_tick && !node.paused {
                // Missed ones are not made up for.
                node.next_tick = node.clock + TICK;
                self.input(id, Input::Tick);
            }
        }
    }

    /// Whether a member would serve a read by its lease.
    pub(super) fn has_lease(&self, id: u64) -> bool {
        let node = &self.nodes[&id];
        node.lease.is_some_and(|until| MonoTime(node.clock / 100) < until)
    }

    /// Nobody leads in a later term than one who has a lease.
    pub(super) fn check_leases(&self) -> Result<(), String> {
        for &id in self.nodes.keys().filter(|&&id| self.has_lease(id)) {
            let term = self.nodes[&id].core.status().term;
            let mut others = self.nodes.iter().filter(|&(&other, _)| other != id);
            let rival = others.find(|(_, node)| {
                let status = node.core.status();
                status.is_leader && status.term > term
            });
            if let Some((rival, _)) = rival {
                return Err(format!(
                    "{id} has a lease in term {term} although {rival} leads later"
                ));
            }
        }
        Ok(())
    }

    pub(super) fn ticks(&mut self, count: usize) {
        for _ in 0..count {
            self.tick();
            self.settle();
        }
    }

    /// Answers the number of ticks it took.
    pub(super) fn tick_until(&mut self, mut done: impl FnMut(&mut Self) -> bool) -> usize {
        for ticks in 0..500 {
            if done(self) {
                return ticks;
            }
            self.tick();
            self.settle();
        }
        panic!("it never came about");
    }

    pub(super) fn propose(&mut self, id: u64, proposals: std::ops::Range<u64>) {
        let proposal = |id: u64| Proposal {
            id: ProposalId(id),
            data: format!("command {id}").into_bytes(),
        };
        self.input(id, Input::Propose(proposals.map(proposal).collect()));
    }

    pub(super) fn leader(&self) -> Option<u64> {
        let live = self.nodes.iter().filter(|(id, _)| !self.cut_off.contains(id));
        live.filter(|(_, node)| node.core.status().is_leader)
            .map(|(&id, _)| id)
            .next()
    }

    pub(super) fn sent(&self, kind: MessageType) -> Vec<&Message> {
        self.sent
            .iter()
            .filter(|message| message.get_msg_type() == kind)
            .collect()
    }

    /// The power of a member is cut; what it had not synced suffers. Answers what its log then holds.
    pub(super) fn crash(&mut self, id: u64, seed: u64) -> (SimDisk, Recovered) {
        let mut node = self.nodes.remove(&id).unwrap();
        // Written but not synced: the tasks that waited for the disk.
        let mut unsynced = std::mem::take(&mut node.log_work);
        for work in &mut unsynced {
            if let LogWork::Append(task) = work {
                task.must_sync = false;
            }
        }
        // A reset syncs by itself: the power fails before it.
        let before_reset = |work: &LogWork| !matches!(work, LogWork::Reset(_));
        let lost = unsynced.iter().position(|work| !before_reset(work));
        unsynced.truncate(lost.unwrap_or(unsynced.len()));
        node.carry_out(unsynced, &mut Vec::new());
        node.disk.crash(seed);
        let (recovered, _, _) = MemLog::open(&node.disk).unwrap().split();
        (node.disk, recovered)
    }
}

impl Node {
    /// As the log thread does it: what is queued is one batch, except for what must stay in order.
    fn carry_out(&mut self, work: Vec<LogWork>, done: &mut Vec<LogTask>) {
        let mut batch = Vec::new();
        for work in work {
            match work {
                LogWork::Append(task) => batch.push(task),
                LogWork::Compact(to) => {
                    self.writer.append(&batch).unwrap();
                    done.append(&mut batch);
                    self.writer.compact(to).unwrap();
                }
                LogWork::Reset(to) => {
                    self.writer.append(&batch).unwrap();
                    done.append(&mut batch);
                    self.writer.reset(to).unwrap();
                }
            }
        }
        self.writer.append(&batch).unwrap();
        done.append(&mut batch);
    }
}
