use lictor_proto::{LogIndex, RaftId};
use raft::eraftpb::{Message, MessageType};

use crate::core::harness::{Cluster, config};
use crate::log::SplitMix;
use crate::{Config, Input, MemberChange, MonoTime, Output, PeerMessage, ProposalId, ReadId};

/// 15 ticks of 20 ms, less one, less a tenth.
const LEASE_MS: u64 = 300 - 20 - 30;

#[test]
fn the_lease_is_an_election_timeout_less_a_tick_less_a_tenth() {
    assert_eq!(Config::new(RaftId(1), 1).lease_ms(), LEASE_MS);
}

/// Voters that count in shorter ticks than the leader help another one sooner.
#[test]
fn longer_ticks_make_no_longer_lease_and_leave_time_to_renew_it() {
    for factor in [1, 2, 5, 10] {
        let config = Config::new(RaftId(1), 1).stretched(factor);

        assert_eq!(config.lease_ms(), LEASE_MS, "{factor}");
        let beat = config.heartbeat_ticks as u64 * config.tick_ms;
        assert!(beat < LEASE_MS, "{factor}: a beat every {beat} ms");
    }
}

#[test]
fn a_lease_counts_from_when_its_round_was_sent_and_is_renewed() {
    let mut cluster = Cluster::led(3);
    cluster.tick_until(|cluster| cluster.has_lease(1));
    let first = cluster.node(1).lease.unwrap();

    // Answers take 40 ms from here on.
    for _ in 0..20 {
        cluster.tick();
        cluster.tick();
        cluster.settle();
    }

    let until = cluster.node(1).lease.unwrap();
    assert!(until > first);
    // Heartbeats go out every 60 ms and are answered 20 or 40 ms later.
    let left = until.0 - cluster.now.0;
    assert!(
        (LEASE_MS - 100..=LEASE_MS).contains(&left),
        "{left} ms left of {LEASE_MS}"
    );
}

#[test]
fn a_lease_costs_no_message_beside_the_heartbeats() {
    let mut cluster = Cluster::led(3);
    cluster.ticks(9);
    cluster.sent.clear();

    cluster.ticks(12);

    // 4 beats to 2 members, and one that raft-rs sends by itself.
    let beats = cluster.sent(MessageType::MsgHeartbeat).len();
    assert!((8..=10).contains(&beats), "{beats} heartbeats");
}

#[test]
fn a_sole_voter_has_an_unbounded_lease_once_its_no_op_is_applied() {
    let mut cluster = Cluster::of(1);
    cluster.node(1).hold_apply = true;
    cluster.settle();
    assert_eq!(cluster.node(1).lease, None);

    cluster.node(1).hold_apply = false;
    cluster.settle();

    assert_eq!(cluster.node(1).lease, Some(MonoTime(u64::MAX)));
}

#[test]
fn a_lease_runs_out_without_a_quorum() {
    let mut cluster = Cluster::led(3);
    cluster.ticks(5);
    assert!(cluster.has_lease(1));

    cluster.cut_off.extend([2, 3]);
    cluster.ticks(14);

    assert!(cluster.node(1).core.status().is_leader, "it does not know yet");
    assert!(!cluster.has_lease(1));
}

#[test]
fn an_answer_on_a_one_way_link_never_renews_a_lease() {
    let mut cluster = Cluster::led(3);
    cluster.ticks(5);
    // Nobody hears member 1, but it hears all.
    cluster.cut_links.extend([(1, 2), (1, 3)]);

    for _ in 0..60 {
        cluster.ticks(1);
        cluster.check_leases().unwrap();
    }

    assert_eq!(cluster.node(1).lease, None);
    assert!(cluster.has_lease(2), "the others go on");
}

#[test]
fn a_restarted_voter_cannot_break_a_lease() {
    for delay in 0..40 {
        let mut cluster = Cluster::led(3);
        // Member 2 wants to lead, but member 3 hears from the leader and refuses.
        cluster.cut_links.extend([(1, 2), (2, 1)]);
        cluster.ticks(20 + delay);
        assert!(cluster.has_lease(1));

        let disk = cluster.node(3).disk.clone();
        cluster.start(config(3, 2), disk);
        cluster.cut_links.extend([(1, 3), (3, 1)]);

        for _ in 0..60 {
            cluster.ticks(1);
            cluster
                .check_leases()
                .unwrap_or_else(|error| panic!("delay {delay}: {error}"));
        }
        assert_eq!(cluster.node(1).lease, None);
        let next = [2, 3].map(|id| cluster.node(id).core.status().is_leader);
        assert!(next.contains(&true), "delay {delay}: the others go on");
    }
}

#[test]
fn a_voter_that_was_just_installed_holds_its_vote_too_after_a_restart() {
    let mut cluster = Cluster::led(3);
    // As after a snapshot: the log is empty and begins at the state, which was installed whole. No vote was
    // ever given.
    cluster.cut_off.insert(3);
    cluster.ticks(60);
    cluster.propose(1, 0..100);
    cluster.settle();
    cluster.flush(1);
    cluster.cut_off.clear();
    cluster.tick_until(|cluster| cluster.node(3).installs == 1);
    cluster.ticks(5);

    let (disk, recovered) = cluster.crash(3, 1);
    assert_eq!(recovered.truncated, recovered.last);
    cluster.start(config(3, 2), disk);

    assert!(cluster.node(3).core.holds_votes());
}

#[test]
fn a_late_refusal_of_a_higher_term_frees_no_voter() {
    for kind in [
        MessageType::MsgRequestPreVoteResponse,
        MessageType::MsgRequestVoteResponse,
        MessageType::MsgAppendResponse,
        MessageType::MsgHeartbeatResponse,
    ] {
        let mut cluster = Cluster::led(3);
        cluster.ticks(5);
        assert!(cluster.has_lease(1));
        let last = cluster.node(2).core.status().last;
        let term = cluster.node(2).core.status().term.0;
        let from_third = |kind| {
            let mut message = Message {
                from: 3,
                to: 2,
                term: term + 1,
                log_term: term,
                index: last.0,
                reject: true,
                ..Message::default()
            };
            message.set_msg_type(kind);
            Input::Peer(PeerMessage::from_raft(&message))
        };

        cluster.sent.clear();
        cluster.input(2, from_third(kind));
        cluster.input(2, from_third(MessageType::MsgRequestVote));
        cluster.settle();

        let votes = cluster.sent(MessageType::MsgRequestVoteResponse);
        assert!(votes.is_empty(), "{kind:?}: {votes:?}");
        // What the lease rests on: once it is over, the same vote is given.
        cluster.cut_off.insert(1);
        cluster.ticks(14);
        cluster.input(2, from_third(MessageType::MsgRequestVote));
        cluster.settle();
        let votes = cluster.sent(MessageType::MsgRequestVoteResponse);
        assert!(
            votes.iter().any(|vote| vote.from == 2 && !vote.reject),
            "{kind:?}"
        );
    }
}

#[test]
fn a_lease_ends_before_timeout_now_is_sent() {
    let mut cluster = Cluster::led(3);
    // The log of member 2 is behind: raft-rs sends MsgTimeoutNow only on its append response.
    cluster.node(2).hold_disk = true;
    cluster.propose(1, 0..1);
    cluster.ticks(5);
    cluster.input(1, Input::Transfer(RaftId(2)));
    cluster.ticks(2);
    assert!(cluster.has_lease(1), "nothing has gone out yet");

    cluster.node(2).hold_disk = false;
    let mut outputs = Vec::new();
    while outputs.is_empty() {
        assert!(cluster.step());
        while let Some(at) = cluster.network.iter().position(|message| message.to == RaftId(1)) {
            let message = cluster.network.remove(at).unwrap();
            let now = cluster.now;
            cluster
                .node(1)
                .core
                .handle(Input::Peer(message), now, &mut outputs);
        }
        if !outputs
            .iter()
            .any(|output| matches!(output, Output::Lease { until: None }))
        {
            outputs.clear();
        }
    }

    let at = |found: &dyn Fn(&Output) -> bool| outputs.iter().position(found).unwrap();
    let ended = at(&|output| matches!(output, Output::Lease { until: None }));
    let sent =
        at(&|output| matches!(output, Output::Send(message) if message.to == RaftId(2) && message.urgent));
    assert!(ended < sent);
}

#[test]
fn after_timeout_now_there_is_no_lease_for_the_rest_of_the_term_but_reads_go_on() {
    let mut cluster = Cluster::led(3);
    cluster.ticks(5);
    cluster.cut_links.insert((1, 2));
    cluster.input(1, Input::Transfer(RaftId(2)));
    cluster.settle();
    cluster.cut_links.clear();

    for _ in 0..60 {
        cluster.ticks(1);
        assert!(!cluster.has_lease(1));
    }

    assert!(
        cluster.node(1).core.status().is_leader,
        "the transfer came to nothing"
    );
    cluster.input(
        1,
        Input::ReadIndex {
            id: ReadId(7),
            leased: false,
        },
    );
    cluster.settle();
    assert_eq!(cluster.node(1).reads.len(), 1);
}

#[test]
fn a_late_timeout_now_meets_no_lease() {
    for ticks in 0..40 {
        let mut cluster = Cluster::led(3);
        cluster.ticks(5);
        cluster.input(1, Input::Transfer(RaftId(2)));
        // It is on its way for a while; the leader gives the transfer up meanwhile, and does not hear of the
        // election that follows.
        cluster.cut_links.insert((2, 1));
        let held = std::mem::take(&mut cluster.network);
        cluster.ticks(ticks);
        cluster.network.extend(held);

        for _ in 0..20 {
            while cluster.step() {
                cluster
                    .check_leases()
                    .unwrap_or_else(|error| panic!("after {ticks}: {error}"));
            }
            cluster.tick();
        }
    }
}

#[test]
fn a_lease_ends_at_each_applied_conf_change() {
    let mut cluster = Cluster::led(3);
    cluster.ticks(5);
    cluster.node(1).hold_apply = true;
    let changes = vec![MemberChange::AddLearner(RaftId(9))];
    let id = ProposalId(0);
    let context = Vec::new();
    cluster.input(1, Input::ChangeMembers { id, changes, context });
    cluster.ticks(1);
    assert!(cluster.has_lease(1));
    // A round that was sent before.
    cluster.ticks(3);
    let held = std::mem::take(&mut cluster.network);

    cluster.node(1).hold_apply = false;
    while cluster.node(1).lease.is_some() {
        assert!(cluster.step(), "the lease did not end");
    }

    cluster.network.extend(held);
    cluster.ticks(4);
    assert!(cluster.has_lease(1), "it begins anew");
}

#[test]
fn a_new_leader_has_no_lease_before_its_no_op_is_applied() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 0..5);
    cluster.settle();
    cluster.node(2).hold_apply = true;
    cluster.cut_off.insert(1);
    cluster.tick_until(|cluster| cluster.leader() == Some(2));
    cluster.ticks(10);
    let status = cluster.node(2).core.status();
    assert!(status.commit >= cluster.node(2).roles.last().unwrap().no_op);
    assert!(!cluster.has_lease(2));

    cluster.node(2).hold_apply = false;
    cluster.settle();

    assert!(cluster.has_lease(2));
}

#[test]
fn a_paused_leader_wakes_up_without_a_lease() {
    let mut cluster = Cluster::led(3);
    cluster.ticks(5);
    assert!(cluster.has_lease(1));

    cluster.node(1).paused = true;
    let ticks = cluster.tick_until(|cluster| cluster.node(2).core.status().is_leader);
    assert!(ticks < 40);
    cluster.propose(2, 0..1);
    cluster.ticks(3);

    // Before it has done anything.
    assert!(cluster.node(1).core.status().is_leader);
    assert!(!cluster.has_lease(1));
    cluster.node(1).paused = false;
    cluster.ticks(5);
    assert_eq!(cluster.node(1).lease, None);
    assert_eq!(cluster.node(1).core.status().leader, Some(RaftId(2)));
}

/// Random partitions under clocks of these speeds; answers the first broken lease.
fn drift(rates: [u64; 3], seed: u64) -> Result<usize, String> {
    let mut random = SplitMix(seed);
    let mut cluster = Cluster::led(3);
    for (id, rate) in (1..).zip(rates) {
        cluster.node(id).rate = rate;
    }
    let mut elections = 0;
    let mut leader = cluster.leader();
    for _ in 0..4000 {
        cluster.advance(1 + random.below(4));
        if random.below(200) == 0 {
            cluster.cut_links.clear();
            for _ in 0..random.below(6) {
                cluster
                    .cut_links
                    .insert((1 + random.below(3), 1 + random.below(3)));
            }
        }
        cluster.settle();
        cluster.check_leases()?;
        elections += usize::from(cluster.leader() != leader);
        leader = cluster.leader();
    }
    Ok(elections)
}

#[test]
fn drifting_clocks_within_bounds_never_break_a_lease() {
    let mut elections = 0;
    for seed in 0..6 {
        for rates in [[95, 105, 105], [100, 110, 110], [105, 95, 100]] {
            elections += drift(rates, seed).unwrap_or_else(|error| panic!("seed {seed}, {rates:?}: {error}"));
        }
    }
    assert!(elections > 20, "{elections} elections");
}

#[test]
fn the_checker_sees_a_lease_broken_by_clocks_out_of_bounds() {
    let broken = (0..10).filter(|&seed| drift([50, 200, 200], seed).is_err());

    assert!(broken.count() > 0);
}

#[test]
fn r1_a_commit_is_known_to_the_core_when_the_first_message_that_carries_it_is_given_out() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 0..1);
    let mut carried = LogIndex(0);

    for _ in 0..50 {
        let before = cluster.sent.len();
        if !cluster.step() {
            break;
        }
        let commit = cluster.node(1).core.status().commit;
        let sent = cluster.sent[before..].iter().filter(|message| message.from == 1);
        carried = sent
            .map(|message| LogIndex(message.commit))
            .max()
            .unwrap_or(carried);
        assert!(carried <= commit);
    }

    assert_eq!(carried, cluster.node(1).core.status().commit);
}
