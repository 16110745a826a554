use lictor_proto::{LogIndex, RaftId, Term};
use raft::eraftpb::{Message, MessageType};

use super::harness::{Cluster, config};
use crate::{Input, MemberChange, Proposal, ProposalId, ReadId, SimDisk, Why};

#[test]
fn a_sole_voter_leads_at_once_and_commits_what_its_own_disk_has() {
    let mut cluster = Cluster::of(1);
    assert!(cluster.node(1).core.status().is_leader, "before any tick");
    assert!(cluster.node(1).core.is_sole_voter());
    cluster.propose(1, 0..3);
    assert_eq!(
        cluster.node(1).core.status().commit,
        LogIndex(1),
        "nothing is durable yet"
    );

    cluster.settle();

    let node = cluster.node(1);
    let found: Vec<_> = node
        .applied
        .iter()
        .map(|entry| (entry.index.0, entry.proposal))
        .collect();
    let id = |id| Some(ProposalId(id));
    assert_eq!(found, [(2, None), (3, id(0)), (4, id(1)), (5, id(2))]);
    assert!(node.applied[0].data.is_empty(), "the no-op");
    assert_eq!(node.applied[3].data, "command 2");
    assert_eq!(node.roles.last().map(|role| role.no_op), Some(LogIndex(2)));
}

#[test]
fn a_batch_of_proposals_is_one_append_message_per_follower_and_one_task() {
    let mut cluster = Cluster::led(3);
    cluster.sent.clear();

    cluster.propose(1, 0..100);

    let appends = cluster.sent(MessageType::MsgAppend);
    assert_eq!(appends.len(), 2);
    assert!(appends.iter().all(|append| append.entries.len() == 100));
    assert_eq!(cluster.node(1).log_work.len(), 1);
    cluster.settle();
    let proposals = cluster
        .node(1)
        .applied
        .iter()
        .filter_map(|entry| entry.proposal)
        .count();
    assert_eq!(proposals, 100);
}

#[test]
fn a_leader_sends_before_its_own_sync_and_applies_only_after_it() {
    let mut cluster = Cluster::led(3);
    cluster.node(1).hold_disk = true;

    cluster.propose(1, 0..1);
    cluster.settle();

    let last = cluster.node(2).core.status().last;
    assert_eq!(
        cluster.node(1).core.status().commit,
        last,
        "the followers are a quorum"
    );
    assert!(
        cluster
            .node(1)
            .applied
            .iter()
            .all(|entry| entry.proposal.is_none())
    );
    cluster.node(1).hold_disk = false;
    cluster.settle();
    assert_eq!(
        cluster.node(1).applied.last().and_then(|entry| entry.proposal),
        Some(ProposalId(0))
    );
}

#[test]
fn a_follower_acknowledges_only_after_its_sync() {
    let mut cluster = Cluster::led(3);
    cluster.node(2).hold_disk = true;
    cluster.sent.clear();

    cluster.propose(1, 0..1);
    cluster.settle();

    let acks = |cluster: &Cluster| {
        cluster
            .sent(MessageType::MsgAppendResponse)
            .iter()
            .filter(|message| message.from == 2)
            .count()
    };
    assert_eq!(acks(&cluster), 0);
    cluster.node(2).hold_disk = false;
    cluster.settle();
    assert!(acks(&cluster) > 0);
}

#[test]
fn a_follower_with_a_stuck_disk_still_answers_heartbeats() {
    let mut cluster = Cluster::led(3);
    cluster.node(2).hold_disk = true;
    cluster.propose(1, 0..1);
    cluster.settle();
    cluster.sent.clear();

    cluster.ticks(3);

    let answers = cluster.sent(MessageType::MsgHeartbeatResponse);
    assert!(answers.iter().any(|message| message.from == 2));
}

#[test]
fn a_follower_rejects_proposals_and_names_the_leader() {
    let mut cluster = Cluster::led(3);
    cluster.sent.clear();

    cluster.propose(2, 7..9);

    let why = Why::NotLeader {
        leader: Some(RaftId(1)),
    };
    assert_eq!(
        cluster.node(2).rejected,
        [(ProposalId(7), why), (ProposalId(8), why)]
    );
    assert!(
        cluster.sent(MessageType::MsgPropose).is_empty(),
        "raft-rs would have forwarded it silently"
    );
}

#[test]
fn a_follower_gets_a_read_index_that_covers_what_was_committed_before() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 0..5);
    cluster.settle();
    let commit = cluster.node(1).core.status().commit;

    cluster.input(
        3,
        Input::ReadIndex {
            id: ReadId(1),
            leased: false,
        },
    );
    cluster.settle();

    assert_eq!(cluster.node(3).reads, [(ReadId(1), commit)]);
}

#[test]
fn a_read_before_the_first_commit_of_the_term_is_answered_after_it() {
    let mut cluster = Cluster::of(1);
    cluster.input(
        1,
        Input::ReadIndex {
            id: ReadId(1),
            leased: false,
        },
    );
    assert_eq!(cluster.node(1).reads, [], "raft-rs dropped it");

    cluster.settle();

    assert_eq!(cluster.node(1).reads, [(ReadId(1), LogIndex(2))]);
}

#[test]
fn a_read_without_a_leader_waits_for_one_and_then_is_answered() {
    let mut cluster = Cluster::of(3);
    cluster.input(
        2,
        Input::ReadIndex {
            id: ReadId(1),
            leased: false,
        },
    );

    cluster.tick_until(|cluster| !cluster.node(2).reads.is_empty());

    assert_eq!(cluster.node(2).reads.len(), 1);
}

#[test]
fn a_read_whose_message_was_lost_is_asked_again() {
    let mut cluster = Cluster::led(3);
    cluster.cut_off.insert(2);
    cluster.input(
        2,
        Input::ReadIndex {
            id: ReadId(1),
            leased: false,
        },
    );
    cluster.settle();
    cluster.cut_off.clear();

    let ticks = cluster.tick_until(|cluster| !cluster.node(2).reads.is_empty());

    assert!((9..=11).contains(&ticks), "200 ms are 10 ticks: {ticks}");
}

#[test]
fn a_read_without_a_quorum_fails_at_its_deadline() {
    let mut cluster = Cluster::led(3);
    cluster.cut_off.extend([2, 3]);
    cluster.input(
        1,
        Input::ReadIndex {
            id: ReadId(1),
            leased: false,
        },
    );

    cluster.ticks(249);
    assert_eq!(cluster.node(1).failed_reads, []);
    cluster.ticks(1);

    assert_eq!(cluster.node(1).failed_reads, [ReadId(1)]);
    assert_eq!(cluster.node(1).reads, []);
}

#[test]
fn r2_equal_read_ids_of_two_followers_and_two_lives_do_not_collide() {
    let mut cluster = Cluster::led(3);

    cluster.input(
        2,
        Input::ReadIndex {
            id: ReadId(1),
            leased: false,
        },
    );
    cluster.input(
        3,
        Input::ReadIndex {
            id: ReadId(1),
            leased: false,
        },
    );
    // A second life of member 2 asks under the same number while the first one's round is under way.
    let network = std::mem::take(&mut cluster.network);
    let disk = cluster.node(2).disk.clone();
    cluster.start(config(2, 2), disk);
    cluster.tick_until(|cluster| cluster.node(2).core.status().leader.is_some());
    cluster.input(
        2,
        Input::ReadIndex {
            id: ReadId(1),
            leased: false,
        },
    );
    cluster.network.extend(network);
    cluster.settle();

    assert_eq!(cluster.node(2).reads.len(), 1);
    assert_eq!(cluster.node(3).reads.len(), 1);
    let contexts: std::collections::BTreeSet<_> = cluster
        .sent(MessageType::MsgReadIndex)
        .iter()
        .map(|message| message.entries[0].data.clone())
        .collect();
    assert_eq!(contexts.len(), 3);
}

/// What a member applied, as text.
fn commands(cluster: &mut Cluster, id: u64) -> Vec<String> {
    let applied = cluster.node(id).applied.iter();
    applied
        .map(|entry| String::from_utf8_lossy(&entry.data).into_owned())
        .filter(|data| !data.is_empty())
        .collect()
}

#[test]
fn a_deposed_leader_tells_what_became_of_its_last_entries() {
    let mut cluster = Cluster::led(3);
    cluster.cut_off.insert(1);
    cluster.propose(1, 0..2);

    cluster.tick_until(|cluster| cluster.leader().is_some());
    let leader = cluster.leader().unwrap();
    cluster.propose(leader, 10..11);
    cluster.settle();
    assert_eq!(cluster.node(1).rejected, [], "it does not know yet");
    cluster.cut_off.clear();
    cluster.ticks(5);

    // The next leader's no-op and its command stand at their places.
    let lost = [0, 1].map(|id| (ProposalId(id), Why::Replaced));
    assert_eq!(cluster.node(1).rejected, lost);
    assert_eq!(cluster.node(1).core.pending(), 0);
    for id in 1..=3 {
        assert_eq!(commands(&mut cluster, id), ["command 10"]);
    }
}

#[test]
fn a_deposed_leader_answers_what_the_next_one_commits() {
    let mut cluster = Cluster::led(3);
    // The others have the entry, and nobody can tell the leader so.
    cluster.propose(1, 0..1);
    cluster.cut_links.extend([(2, 1), (3, 1)]);
    cluster.settle();

    let ticks = cluster.tick_until(|cluster| (2..=3).any(|id| cluster.node(id).core.status().is_leader));
    assert_eq!(cluster.node(1).core.pending(), 1, "after {ticks} ticks");
    cluster.cut_links.clear();
    cluster.ticks(5);

    assert_eq!(cluster.node(1).rejected, []);
    let found = cluster
        .node(1)
        .applied
        .iter()
        .find(|entry| entry.data == "command 0");
    assert_eq!(found.and_then(|entry| entry.proposal), Some(ProposalId(0)));
    assert_eq!(cluster.node(1).core.pending(), 0);
}

#[test]
fn a_deposed_leader_that_hears_of_no_commit_gives_up() {
    let mut cluster = Cluster::led(3);
    let term = cluster.node(1).core.status().term;
    cluster.cut_off.insert(1);
    cluster.propose(1, 0..1);

    let ticks = cluster.tick_until(|cluster| !cluster.node(1).rejected.is_empty());

    assert!(ticks >= 100, "two seconds after it stepped down: {ticks} ticks");
    let unknown = Why::OutcomeUnknown { term };
    assert_eq!(cluster.node(1).rejected, [(ProposalId(0), unknown)]);
    assert_eq!(cluster.node(1).core.pending(), 0);
}

#[test]
fn a_planned_transfer_answers_everything_that_was_proposed() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 0..20);
    cluster.input(1, Input::Transfer(RaftId(2)));
    assert!(cluster.node(1).core.is_handing_over());
    cluster.propose(1, 20..21);
    cluster.settle();

    assert_eq!(cluster.leader(), Some(2));
    assert_eq!(cluster.node(1).rejected, [(ProposalId(20), Why::Transferring)]);
    let answered: Vec<_> = cluster
        .node(1)
        .applied
        .iter()
        .filter_map(|entry| entry.proposal)
        .collect();
    assert_eq!(answered, (0..20).map(ProposalId).collect::<Vec<_>>());
}

#[test]
fn an_empty_proposal_is_refused_alone() {
    let mut cluster = Cluster::led(1);
    let proposal = |id, data: &[u8]| Proposal {
        id: ProposalId(id),
        data: data.to_vec(),
    };

    cluster.input(
        1,
        Input::Propose(vec![proposal(0, b"a"), proposal(1, b""), proposal(2, b"c")]),
    );
    cluster.settle();

    assert_eq!(cluster.node(1).rejected, [(ProposalId(1), Why::Invalid)]);
    let found: Vec<_> = cluster
        .node(1)
        .applied
        .iter()
        .filter_map(|entry| entry.proposal)
        .collect();
    assert_eq!(found, [ProposalId(0), ProposalId(2)]);
}

#[test]
fn proposals_are_rejected_while_apply_is_too_far_behind() {
    let mut cluster = Cluster::led(1);
    cluster.node(1).hold_apply = true;
    for batch in 0..6 {
        cluster.propose(1, batch * 1000..(batch + 1) * 1000);
        cluster.settle();
    }
    assert_eq!(cluster.node(1).rejected, []);

    cluster.propose(1, 6000..6001);

    assert_eq!(cluster.node(1).rejected, [(ProposalId(6000), Why::Overloaded)]);
    cluster.node(1).hold_apply = false;
    cluster.settle();
    cluster.propose(1, 6001..6002);
    cluster.settle();
    assert_eq!(
        cluster.node(1).applied.last().and_then(|entry| entry.proposal),
        Some(ProposalId(6001))
    );
}

#[test]
fn proposals_are_rejected_while_too_many_bytes_are_uncommitted() {
    let disk = SimDisk::default();
    let mut cluster = Cluster::of(1);
    cluster.start(
        crate::Config {
            max_uncommitted_bytes: 2 << 20,
            ..config(1, 1)
        },
        disk,
    );
    cluster.settle();
    cluster.node(1).hold_disk = true;
    let mut big = |id| {
        let data = vec![b'x'; 800 << 10];
        cluster.input(
            1,
            Input::Propose(vec![Proposal {
                id: ProposalId(id),
                data,
            }]),
        );
    };

    (0..3).for_each(&mut big);

    assert_eq!(cluster.node(1).rejected, [(ProposalId(2), Why::Overloaded)]);
}

#[test]
fn entries_wait_for_a_busy_apply_and_all_come_in_order() {
    let mut cluster = Cluster::led(1);
    let node = cluster.node(1);
    node.hold_apply = true;
    let before = node.applied.len();
    for batch in 0..12 {
        cluster.propose(1, batch * 500..(batch + 1) * 500);
        cluster.settle();
    }
    let given = cluster.node(1).applied.len() - before;
    assert!((5000..5600).contains(&given), "{given} given to a busy apply");

    cluster.node(1).hold_apply = false;
    cluster.settle();

    let found: Vec<u64> = cluster
        .node(1)
        .applied
        .iter()
        .filter_map(|entry| entry.proposal)
        .map(|id| id.0)
        .collect();
    let accepted = 6000 - cluster.node(1).rejected.len() as u64;
    assert_eq!(found, (0..accepted).collect::<Vec<_>>());
}

#[test]
fn a_conf_change_is_a_barrier_for_apply() {
    let mut cluster = Cluster::led(1);
    cluster.node(1).hold_apply = true;
    let change = vec![MemberChange::AddLearner(RaftId(9))];
    cluster.propose(1, 0..1);
    cluster.input(
        1,
        Input::ChangeMembers {
            id: ProposalId(1),
            changes: change,
            context: b"addr".to_vec(),
        },
    );
    cluster.propose(1, 2..3);
    cluster.settle();
    let applied = |cluster: &mut Cluster| -> Vec<_> {
        cluster
            .node(1)
            .applied
            .iter()
            .filter_map(|entry| entry.proposal)
            .map(|id| id.0)
            .collect()
    };
    assert_eq!(applied(&mut cluster), [0, 1], "what is behind the barrier waits");

    cluster.node(1).hold_apply = false;
    cluster.settle();

    assert_eq!(applied(&mut cluster), [0, 1, 2]);
    let node = cluster.node(1);
    let entry = node
        .applied
        .iter()
        .find(|entry| entry.proposal == Some(ProposalId(1)))
        .unwrap();
    assert_eq!(entry.data, "addr");
    let (index, members) = node.members.last().unwrap();
    assert_eq!(*index, entry.index);
    assert_eq!(members.learners().collect::<Vec<_>>(), [RaftId(9)]);
    assert!(node.core.is_sole_voter(), "a learner has no vote");
}

#[test]
fn a_second_conf_change_is_refused_while_one_is_pending() {
    let mut cluster = Cluster::led(1);
    let add = |id| vec![MemberChange::AddLearner(RaftId(id))];

    cluster.input(
        1,
        Input::ChangeMembers {
            id: ProposalId(0),
            changes: add(8),
            context: Vec::new(),
        },
    );
    cluster.input(
        1,
        Input::ChangeMembers {
            id: ProposalId(1),
            changes: add(9),
            context: Vec::new(),
        },
    );
    cluster.settle();

    assert_eq!(cluster.node(1).rejected, [(ProposalId(1), Why::ChangePending)]);
    assert_eq!(
        cluster.node(1).core.members().learners().collect::<Vec<_>>(),
        [RaftId(8)]
    );
}

#[test]
fn a_new_leader_leaves_a_joint_step_it_did_not_enter() {
    let mut cluster = Cluster::led(3);
    let changes = vec![
        MemberChange::AddLearner(RaftId(8)),
        MemberChange::AddLearner(RaftId(9)),
    ];
    cluster.node(1).hold_apply = true;
    cluster.input(
        1,
        Input::ChangeMembers {
            id: ProposalId(0),
            changes,
            context: Vec::new(),
        },
    );
    cluster.ticks(3);
    assert!(
        cluster.node(2).core.members().is_joint(),
        "applied on 2, not on the leader"
    );

    cluster.cut_off.insert(1);
    cluster.tick_until(|cluster| cluster.leader().is_some());
    cluster.tick_until(|cluster| !cluster.node(2).core.members().is_joint());

    assert_eq!(
        cluster.node(2).core.members().learners().collect::<Vec<_>>(),
        [RaftId(8), RaftId(9)]
    );
}

#[test]
fn a_member_that_restarted_gives_no_vote_for_one_election_timeout() {
    let mut cluster = Cluster::led(3);
    let disk = cluster.node(3).disk.clone();
    cluster.cut_off.insert(1);
    // Member 2 is about to campaign.
    cluster.ticks(12);
    cluster.start(config(3, 2), disk);

    let ticks = cluster.tick_until(|cluster| cluster.leader().is_some());

    assert!(
        ticks >= 15,
        "member 3 holds its vote for 15 ticks, elected after {ticks}"
    );
}

#[test]
fn a_vote_that_overtakes_the_report_of_the_disk_does_not_break_raft() {
    let mut cluster = Cluster::led(3);
    // Member 2 is left with entries on their way to its disk, and becomes a candidate.
    cluster.node(2).hold_disk = true;
    cluster.propose(1, 0..1);
    cluster.settle();
    cluster.cut_off.insert(1);
    cluster.ticks(20);
    let term = cluster.node(2).core.status().term;
    let mut vote = raft::eraftpb::Message {
        from: 3,
        to: 2,
        term: term.0,
        ..Default::default()
    };
    for kind in [
        MessageType::MsgRequestPreVoteResponse,
        MessageType::MsgRequestVoteResponse,
    ] {
        vote.set_msg_type(kind);
        vote.term =
            cluster.node(2).core.status().term.0 + u64::from(kind == MessageType::MsgRequestPreVoteResponse);
        cluster.input(2, Input::Peer(crate::PeerMessage::from_raft(&vote)));
    }
    assert!(!cluster.node(2).core.status().is_leader);

    cluster.node(2).hold_disk = false;
    cluster.tick_until(|cluster| cluster.leader().is_some());

    let leader = cluster.leader().unwrap();
    assert!(cluster.node(leader).core.status().last >= LogIndex(3));
}

#[test]
fn a_sole_voter_demoted_by_a_stranger_waits_for_its_disk_and_leads_again() {
    let mut cluster = Cluster::led(1);
    cluster.node(1).hold_disk = true;
    cluster.propose(1, 0..1);
    let mut stranger = raft::eraftpb::Message {
        from: 5,
        to: 1,
        term: 99,
        ..Default::default()
    };
    stranger.set_msg_type(MessageType::MsgHeartbeat);
    cluster.input(1, Input::Peer(crate::PeerMessage::from_raft(&stranger)));

    cluster.ticks(60);
    assert!(!cluster.node(1).core.status().is_leader);
    cluster.node(1).hold_disk = false;
    cluster.ticks(60);

    assert!(cluster.node(1).core.status().is_leader);
    assert_eq!(
        cluster
            .node(1)
            .applied
            .iter()
            .filter(|entry| entry.data == "command 0")
            .count(),
        1
    );
    // Its disk was stuck for too long to go on waiting.
    let term = Term(2);
    assert_eq!(
        cluster.node(1).rejected,
        [(ProposalId(0), Why::OutcomeUnknown { term })]
    );
}

#[test]
fn r8_a_leader_with_a_stuck_disk_hands_over() {
    let mut cluster = Cluster::led(3);
    cluster.node(1).hold_disk = true;
    cluster.propose(1, 0..1);
    cluster.settle();

    let ticks = cluster.tick_until(|cluster| cluster.leader().is_some_and(|leader| leader != 1));

    assert!((19..=25).contains(&ticks), "400 ms are 20 ticks: {ticks}");
    // Whoever proposed something there is not kept waiting for its disk.
    let term = Term(2);
    cluster.ticks(2);
    let unknown = Why::OutcomeUnknown { term };
    assert_eq!(cluster.node(1).rejected, [(ProposalId(0), unknown)]);
}

#[test]
fn a_transfer_moves_the_leadership_without_an_election_timeout() {
    let mut cluster = Cluster::led(3);

    cluster.input(1, Input::Transfer(RaftId(3)));
    cluster.settle();

    assert_eq!(cluster.leader(), Some(3));
    assert_eq!(
        cluster.node(1).roles.last().map(|role| role.leader),
        Some(Some(RaftId(3)))
    );
}

#[test]
fn flushed_entries_are_compacted_away_and_the_log_goes_on() {
    let mut cluster = Cluster::led(1);
    cluster.propose(1, 0..50);
    cluster.settle();

    cluster.input(1, Input::Flushed(LogIndex(40)));
    cluster.propose(1, 50..51);
    cluster.settle();

    assert_eq!(cluster.node(1).core.status().first, LogIndex(41));
    let (_, recovered) = cluster.crash(1, 1);
    assert_eq!(
        (recovered.truncated.index, recovered.last.index),
        (LogIndex(40), LogIndex(53))
    );
}

#[test]
fn a_compaction_never_passes_what_is_applied() {
    let mut cluster = Cluster::led(1);
    cluster.node(1).hold_apply = true;
    cluster.propose(1, 0..50);
    cluster.settle();

    cluster.input(1, Input::Flushed(LogIndex(40)));

    assert_eq!(cluster.node(1).core.status().first, LogIndex(3));
}

#[test]
fn acknowledged_entries_survive_the_crash_of_any_member() {
    for seed in 0..30 {
        let mut cluster = Cluster::led(3);
        cluster.propose(1, 0..20);
        cluster.settle();
        cluster.node(1).hold_disk = true;
        cluster.propose(1, 20..40);
        cluster.node(2).hold_disk = true;
        cluster.settle();
        let applied = cluster.node(3).applied.len();

        let disks: Vec<_> = [1, 2, 3]
            .map(|id| (id, cluster.crash(id, seed * 3 + id).0))
            .into();
        cluster.network.clear();
        for (id, disk) in disks {
            cluster.start(config(id, 2), disk);
        }
        cluster.tick_until(|cluster| cluster.leader().is_some());
        cluster.ticks(10);

        for id in 1..=3 {
            let data: Vec<_> = cluster
                .node(id)
                .applied
                .iter()
                .map(|entry| entry.data.clone())
                .collect();
            let commands: Vec<_> = data.iter().filter(|data| !data.is_empty()).collect();
            assert!(commands.len() >= 20 && applied >= 20, "seed {seed}");
            assert!(
                commands
                    .iter()
                    .enumerate()
                    .all(|(i, data)| **data == format!("command {i}")),
                "seed {seed}"
            );
        }
    }
}

#[test]
fn a_clock_that_goes_back_is_ignored() {
    let mut cluster = Cluster::led(1);
    cluster.node(1).clock = 0;

    cluster.input(
        1,
        Input::ReadIndex {
            id: ReadId(1),
            leased: false,
        },
    );
    cluster.tick();

    assert_eq!(cluster.node(1).reads.len(), 1);
}

#[test]
fn a_follower_that_lags_gets_many_messages_and_no_large_one() {
    const ENTRY_BYTES: usize = 500_000;
    let mut cluster = Cluster::led(3);
    cluster.cut_off.insert(3);
    for id in 0..40 {
        let data = vec![7; ENTRY_BYTES];
        let id = ProposalId(id);
        cluster.input(1, Input::Propose(vec![Proposal { id, data }]));
        cluster.settle();
    }
    let last = cluster.node(1).core.status().last;
    cluster.cut_off.clear();
    cluster.sent.clear();

    cluster.tick_until(|cluster| cluster.node(3).core.status().last == last);

    let bytes = |message: &Message| {
        message
            .entries
            .iter()
            .map(|entry| entry.data.len())
            .sum::<usize>()
    };
    let appends = cluster.sent(MessageType::MsgAppend);
    let largest = appends.iter().map(|append| bytes(append)).max();
    let most = usize::try_from(config(1, 1).max_append_bytes).unwrap();
    assert!(largest <= Some(most), "{largest:?} bytes in a message");
}

#[test]
fn a_sole_voter_with_a_learner_is_not_alone() {
    let mut cluster = Cluster::of(1);
    cluster.settle();
    assert!(cluster.node(1).core.is_alone());

    let changes = vec![MemberChange::AddLearner(RaftId(2))];
    let (id, context) = (ProposalId(0), Vec::new());
    cluster.input(1, Input::ChangeMembers { id, changes, context });
    cluster.settle();

    assert!(cluster.node(1).core.is_sole_voter());
    assert!(!cluster.node(1).core.is_alone());
}

/// It may have become a voter and been removed before it heard of either.
#[test]
fn a_learner_that_hears_of_no_leader_for_long_knows_none() {
    let mut cluster = Cluster::led(3);
    let changes = vec![MemberChange::AddLearner(RaftId(3))];
    let (id, context) = (ProposalId(0), Vec::new());
    cluster.input(1, Input::ChangeMembers { id, changes, context });
    cluster.ticks(10);
    assert_eq!(cluster.node(3).core.status().leader, Some(RaftId(1)));

    cluster.cut_off.insert(3);
    cluster.ticks(100);
    assert_eq!(cluster.node(3).core.status().leader, None);

    cluster.cut_off.clear();
    cluster.ticks(10);
    assert_eq!(cluster.node(3).core.status().leader, Some(RaftId(1)));
}

#[test]
fn a_follower_without_room_takes_no_entries_and_catches_up_once_there_is() {
    let mut cluster = Cluster::led(3);
    let before = cluster.node(3).core.status().last;
    cluster.node(3).core.set_no_room(true);
    for batch in 0..5 {
        cluster.propose(1, batch * 10..batch * 10 + 10);
        cluster.settle();
        cluster.ticks(10);
    }
    let commit = cluster.node(1).core.status().commit;
    assert!(commit.0 >= before.0 + 50, "the others go on");
    assert_eq!(cluster.node(3).core.status().last, before);
    assert_eq!(cluster.leader(), Some(1), "it hears the leader");

    cluster.node(3).core.set_no_room(false);
    cluster.tick_until(|cluster| cluster.node(3).core.status().commit >= commit);
}
