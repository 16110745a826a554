//! Three members under random loss, reordering, duplication, slow disks, busy applies and power cuts. Whatever
//! happens, members agree on every applied entry and no acknowledged command is lost; and once the faults end
//! they make progress again.

use std::collections::{BTreeMap, BTreeSet};

use lictor_proto::{LogIndex, RaftId, Term};

use super::harness::{self, Cluster};
use crate::log::SplitMix;
use crate::{Config, Input, ProposalId, ReadId, Why};

const MEMBERS: u64 = 3;
const STEPS: u64 = 1000;

/// Next to nothing of the log is kept, so that snapshots are needed often.
fn config(id: u64, incarnation: u64) -> Config {
    Config {
        trailing_entries: 0,
        keep_entries: 3,
        follower_silent_ms: 60,
        ..harness::config(id, incarnation)
    }
}

#[derive(Default)]
struct History {
    /// What was applied at each index, by whoever was first.
    applied: BTreeMap<LogIndex, (Term, bytes::Bytes)>,
    leaders: BTreeMap<Term, u64>,
    acknowledged: BTreeSet<bytes::Bytes>,
    /// What its proposer was told would never be applied.
    replaced: BTreeSet<bytes::Bytes>,
    /// The highest index acknowledged when a read began.
    reads: BTreeMap<(u64, ReadId), LogIndex>,
}

impl History {
    fn check(&mut self, cluster: &mut Cluster) -> Result<(), String> {
        for (&id, node) in &cluster.nodes {
            let status = node.core.status();
            if status.is_leader && *self.leaders.entry(status.term).or_insert(id) != id {
                return Err(format!("two leaders in term {}", status.term));
            }
            let mut before = LogIndex(1);
            for entry in &node.applied {
                if entry.index.0 != before.0 + 1 {
                    return Err(format!("member {id} applied {} after {before}", entry.index));
                }
                before = entry.index;
                let now = (entry.term, entry.data.clone());
                let first = self.applied.entry(entry.index).or_insert_with(|| now.clone());
                if *first != now {
                    return Err(format!("member {id} applied another entry at {}", entry.index));
                }
                if entry.proposal.is_some() {
                    self.acknowledged.insert(entry.data.clone());
                }
            }
            for (ProposalId(id), why) in &node.rejected {
                if *why == Why::Replaced {
                    self.replaced.insert(format!("command {id}").into());
                }
            }
            for (read, index) in &node.reads {
                if self.reads.get(&(id, *read)).is_some_and(|floor| index < floor) {
                    return Err(format!(
                        "member {id} reads at {index}, before what was acknowledged"
                    ));
                }
            }
            if cluster.has_lease(id) && status.commit < self.last() {
                return Err(format!(
                    "member {id} would read at {} by its lease, before what was acknowledged",
                    status.commit
                ));
            }
        }
        cluster.check_leases()
    }

    fn last(&self) -> LogIndex {
        self.applied.keys().next_back().copied().unwrap_or_default()
    }
}

fn step(cluster: &mut Cluster, random: &mut SplitMix, history: &mut History, number: u64) {
    let id = 1 + random.below(MEMBERS);
    match random.below(100) {
        0..30 => cluster.tick(),
        30..50 => cluster.propose(id, number * 10..number * 10 + 1 + random.below(4)),
        50..58 => {
            let read = ReadId(number);
            history.reads.insert((id, read), history.last());
            let leased = random.below(2) == 0;
            cluster.input(id, Input::ReadIndex { id: read, leased });
        }
        58..70 => cluster.node(id).hold_disk = random.below(3) == 0,
        70..80 => cluster.node(id).hold_apply = random.below(3) == 0,
        80..82 => {
            cluster.cut_off.clear();
            if random.below(2) == 0 {
                cluster.cut_off.insert(id);
            }
        }
        82..84 => {
            cluster.cut_links.clear();
            if random.below(2) == 0 {
                cluster.cut_links.insert((id, 1 + random.below(MEMBERS)));
            }
        }
        84..86 => cluster.input(id, Input::Transfer(RaftId(1 + random.below(MEMBERS)))),
        86..88 => cluster.node(id).paused = random.below(3) == 0,
        88..90 => cluster.node(id).hold_install = random.below(2) == 0,
        90..93 => {
            let rate = cluster.node(id).rate;
            let (disk, _) = cluster.crash(id, random.draw());
            cluster.start(config(id, number), disk);
            cluster.node(id).rate = rate;
        }
        93 => {
            // Long enough for another to lead.
            let id = cluster.leader().unwrap_or(id);
            cluster.cut_off = BTreeSet::from([id]);
            cluster.propose(id, number * 10..number * 10 + 2);
            for _ in 0..20 {
                cluster.tick();
                while cluster.step() {}
            }
            cluster.cut_off.clear();
        }
        _ => cluster.flush(id),
    }
    // The network loses, doubles and reorders.
    for _ in 0..random.below(3) {
        let count = cluster.network.len() as u64;
        if count > 1 {
            let (one, two) = (random.below(count), random.below(count));
            let (one, two) = (usize::try_from(one).unwrap(), usize::try_from(two).unwrap());
            match random.below(8) {
                0 => drop(cluster.network.remove(one)),
                1 => cluster.network.push_back(cluster.network[one].clone()),
                _ => cluster.network.swap(one, two),
            }
        }
    }
    for _ in 0..random.below(12) {
        cluster.step();
    }
}

#[test]
fn members_agree_and_nothing_acknowledged_is_lost_under_any_fault() {
    let (mut acknowledged, mut replaced, mut reads, mut installs, mut leases) = (0, 0, 0, 0, 0);
    for seed in 0..40 {
        let mut random = SplitMix(seed);
        let mut history = History::default();
        let mut cluster = Cluster::with_settings(MEMBERS, config);
        for (id, rate) in [(1, 95), (2, 100), (3, 105)] {
            // Each is the slow one in some runs.
            cluster.node(1 + (id + seed) % MEMBERS).rate = rate;
        }
        for number in 1..STEPS {
            leases += cluster.nodes.keys().filter(|&&id| cluster.has_lease(id)).count();
            step(&mut cluster, &mut random, &mut history, number);
            history
                .check(&mut cluster)
                .unwrap_or_else(|error| panic!("seed {seed}, step {number}: {error}"));
        }

        cluster.cut_off.clear();
        cluster.cut_links.clear();
        for node in cluster.nodes.values_mut() {
            (node.hold_disk, node.hold_apply) = (false, false);
            (node.hold_install, node.paused) = (false, false);
        }
        cluster.settle();
        cluster.tick_until(|cluster| cluster.leader().is_some());
        cluster.ticks(80);
        let leader = cluster.leader().unwrap();
        cluster.propose(leader, 1_000_000..1_000_001);
        cluster.ticks(10);

        history
            .check(&mut cluster)
            .unwrap_or_else(|error| panic!("seed {seed}, healed: {error}"));
        for (&id, node) in &cluster.nodes {
            let data: BTreeSet<_> = node.applied.iter().map(|entry| entry.data.clone()).collect();
            assert!(
                data.contains("command 1000000".as_bytes()),
                "seed {seed}: member {id} hangs behind"
            );
            assert!(
                history.acknowledged.is_subset(&data),
                "seed {seed}: member {id} lost an acknowledged command"
            );
            assert!(
                history.replaced.is_disjoint(&data),
                "seed {seed}: member {id} applied a command that was said to be replaced"
            );
        }
        replaced += history.replaced.len();
        acknowledged += history.acknowledged.len();
        installs += cluster.installed;
        reads += cluster.nodes.values().map(|node| node.reads.len()).sum::<usize>();
    }
    assert!(
        acknowledged > 600 && replaced > 15 && reads > 150 && installs > 20 && leases > 500,
        "too little happened: {acknowledged} writes, {replaced} replaced, {reads} reads, {installs} snapshots, \
         {leases} leases"
    );
}

#[test]
fn the_checker_sees_members_that_disagree() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 0..2);
    cluster.settle();
    let mut history = History::default();
    assert_eq!(history.check(&mut cluster), Ok(()));

    cluster.node(2).applied[1].term = Term(77);

    assert!(
        history
            .check(&mut cluster)
            .unwrap_err()
            .starts_with("member 2 applied another entry")
    );
}

#[test]
fn the_checker_sees_a_stale_read() {
    let mut cluster = Cluster::led(3);
    let mut history = History::default();
    history.reads.insert((1, ReadId(1)), LogIndex(9));

    cluster.node(1).reads.push((ReadId(1), LogIndex(8)));

    assert!(history.check(&mut cluster).is_err());
}
