//! A few cores, their logs and a network, all driven by hand: nothing happens unless a test says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use lictor_proto::{LogIndex, RaftId};
use prost_011::Message as _;
use raft::eraftpb::{Message, MessageType};

use super::Core;
use crate::{
    Committed, ConfEcho, Config, Input, LogStore as _, LogTask, LogWriter as _, MemLog, MemReader, MemWriter,
    Membership, MonoTime, Output, PeerMessage, Proposal, ProposalId, ReadId, Recovered, RoleChange, SimDisk,
    StateMark, Why, open,
};

pub(super) struct Node {
    pub(super) core: Core<MemReader>,
    writer: MemWriter,
    pub(super) disk: SimDisk,
    /// While set, tasks queue up instead of being written.
    pub(super) hold_disk: bool,
    pub(super) tasks: Vec<LogTask>,
    /// While set, apply does not answer.
    pub(super) hold_apply: bool,
    to_apply: VecDeque<(LogIndex, bool)>,
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
    pub(super) now: MonoTime,
    /// All that was sent since it was last cleared.
    pub(super) sent: Vec<Message>,
    state: StateMark,
}

/// Member `id` always waits `15 + id` ticks for a leader, so the lowest one is elected.
pub(super) fn config(id: u64, incarnation: u64) -> Config {
    let timeout = 15 + usize::try_from(id).unwrap();
    Config {
        election_ticks: timeout..timeout + 1,
        ..Config::new(RaftId(id), incarnation)
    }
}

impl Cluster {
    /// Started members 1 to `count`.
    pub(super) fn of(count: u64) -> Self {
        let state = StateMark::fresh(Membership::of_voters((1..=count).map(RaftId)));
        let (nodes, network, cut_off) = (BTreeMap::new(), VecDeque::new(), BTreeSet::new());
        let mut cluster = Self {
            nodes,
            network,
            cut_off,
            now: MonoTime(0),
            sent: Vec::new(),
            state,
        };
        for id in 1..=count {
            cluster.start(config(id, 1), SimDisk::default());
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

    /// Starts a member over what its disk holds, with a state as of the founding.
    pub(super) fn start(&mut self, config: Config, disk: SimDisk) {
        let id = config.id.0;
        let log = MemLog::open(&disk).unwrap();
        let (core, writer) = open(log, config, &self.state).unwrap();
        let node = Node {
            core,
            writer,
            disk,
            hold_disk: false,
            tasks: Vec::new(),
            hold_apply: false,
            to_apply: VecDeque::new(),
            applied: Vec::new(),
            applied_to: self.state.applied.index,
            rejected: Vec::new(),
            reads: Vec::new(),
            failed_reads: Vec::new(),
            roles: Vec::new(),
            members: Vec::new(),
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
        let now = self.now;
        self.node(id).core.handle(input, now, &mut out);
        for output in out {
            self.execute(id, output);
        }
    }

    fn execute(&mut self, id: u64, output: Output) {
        let node = self.nodes.get_mut(&id).unwrap();
        match output {
            Output::Send(message) => self.send(message),
            Output::Append(task) => node.tasks.push(task),
            Output::Compact(to) => node.writer.compact(to).unwrap(),
            Output::Apply(entries) => {
                node.to_apply.push_back((entries.last().unwrap().index, false));
                node.applied.extend(entries);
            }
            Output::ApplyConf(entry) => {
                node.to_apply.push_back((entry.index, true));
                node.applied.push(entry);
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
        if let Some(message) = self.network.pop_front() {
            let (from, to) = (message.from.0, message.to.0);
            if !self.cut_off.contains(&from) && !self.cut_off.contains(&to) && self.nodes.contains_key(&to) {
                self.input(to, Input::Peer(message));
            }
            return true;
        }
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        ids.into_iter().any(|id| self.write(id) || self.apply(id))
    }

    fn write(&mut self, id: u64) -> bool {
        let node = self.node(id);
        if node.hold_disk || node.tasks.is_empty() {
            return false;
        }
        let tasks = std::mem::take(&mut node.tasks);
        node.writer.append(&tasks).unwrap();
        self.input(id, Input::Persisted(tasks.last().unwrap().ready_no));
        for message in tasks.into_iter().flat_map(|task| task.messages) {
            self.send(message);
        }
        true
    }

    fn apply(&mut self, id: u64) -> bool {
        let node = self.node(id);
        if node.hold_apply {
            return false;
        }
        let Some((index, conf)) = node.to_apply.pop_front() else {
            return false;
        };
        node.applied_to = index;
        if conf {
            self.input(
                id,
                Input::Applied {
                    index,
                    conf: Some(ConfEcho::Accept),
                },
            );
            assert_eq!(self.node(id).members.last().map(|&(at, _)| at), Some(index));
        }
        self.input(id, Input::Applied { index, conf: None });
        true
    }

    /// One tick everywhere, 20 ms later, without letting anything else happen.
    pub(super) fn tick(&mut self) {
        self.now.0 += 20;
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        for id in ids {
            self.input(id, Input::Tick);
        }
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
        let unsynced: Vec<LogTask> = node
            .tasks
            .drain(..)
            .map(|task| LogTask {
                must_sync: false,
                ..task
            })
            .collect();
        node.writer.append(&unsynced).unwrap();
        node.disk.crash(seed);
        let (recovered, _, _) = MemLog::open(&node.disk).unwrap().split();
        (node.disk, recovered)
    }
}
