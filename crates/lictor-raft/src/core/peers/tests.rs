use lictor_proto::{LogIndex, RaftId};
use raft::eraftpb::{Message, MessageType};

use crate::core::harness::{Cluster, View, config};
use crate::{
    Config, Input, LogPosition, MemberChange, Membership, MonoTime, PeerMessage, PeerStage, ProposalId,
    ReadId, SimDisk, StateMark, Why,
};

fn change(cluster: &mut Cluster, leader: u64, id: u64, changes: &[MemberChange]) {
    let input = Input::ChangeMembers {
        id: ProposalId(id),
        changes: changes.to_vec(),
        context: Vec::new(),
    };
    cluster.input(leader, input);
}

/// Starts a member that knows nothing.
fn start_empty(cluster: &mut Cluster, id: u64) {
    let mark = StateMark {
        applied: LogPosition::ZERO,
        installed: true,
        members: Membership::default(),
    };
    let applied = Vec::new();
    cluster.flushed.insert(id, View { mark, applied });
    cluster.start(config(id, 1), SimDisk::default());
}

#[test]
fn a_leader_sees_who_lags_and_who_is_silent() {
    let mut cluster = Cluster::led(3);
    cluster.ticks(5);
    cluster.cut_off.insert(3);
    let silent_since = cluster.now;
    cluster.ticks(10);
    cluster.propose(1, 0..7);
    cluster.ticks(5);

    let peers = cluster.node(1).core.peers();

    let ids: Vec<_> = peers.iter().map(|peer| (peer.id, peer.lag_entries)).collect();
    assert_eq!(ids, [(RaftId(2), 0), (RaftId(3), 7)]);
    assert!(peers[0].last_contact.unwrap() > MonoTime(silent_since.0 + 200));
    assert!(peers[1].last_contact.unwrap() <= silent_since);
    assert_eq!(peers[0].stage, PeerStage::Replicating);
    assert!(peers.iter().all(|peer| !peer.is_learner));
    assert!(cluster.node(2).core.peers().is_empty(), "only a leader knows");
}

#[test]
fn a_follower_knows_when_it_last_heard_from_the_leader() {
    let mut cluster = Cluster::led(3);
    cluster.ticks(10);
    let heard = cluster.node(2).core.status().last_contact.unwrap();
    assert!(cluster.now.0 - heard.0 <= 60);
    assert_eq!(cluster.node(1).core.status().last_contact, None);

    cluster.cut_off.insert(2);
    cluster.ticks(10);

    let later = cluster.node(2).core.status().last_contact.unwrap();
    assert!(cluster.now.0 - later.0 >= 200);
}

#[test]
fn the_best_successor_is_the_most_caught_up_voter_that_is_there() {
    let mut cluster = Cluster::led(3);
    cluster.node(2).hold_disk = true;
    cluster.propose(1, 0..5);
    cluster.ticks(5);

    assert_eq!(cluster.node(1).core.best_successor(), Some(RaftId(3)));
    assert_eq!(cluster.node(2).core.best_successor(), None, "it does not lead");
    cluster.cut_off.insert(3);
    // Two turns of raft-rs' activity check.
    cluster.ticks(40);
    assert_eq!(cluster.node(1).core.best_successor(), Some(RaftId(2)));
}

#[test]
fn a_transfer_that_does_not_finish_is_given_up_after_an_election_timeout() {
    let mut cluster = Cluster::led(3);
    cluster.cut_off.insert(2);
    cluster.propose(1, 0..1);
    cluster.settle();
    cluster.input(1, Input::Transfer(RaftId(2)));
    cluster.propose(1, 1..2);
    assert_eq!(cluster.node(1).rejected, [(ProposalId(1), Why::Transferring)]);

    cluster.ticks(17);

    cluster.propose(1, 2..3);
    cluster.settle();
    assert_eq!(cluster.node(1).rejected.len(), 1);
    assert_eq!(
        cluster.node(1).applied.last().and_then(|entry| entry.proposal),
        Some(ProposalId(2))
    );
}

#[test]
fn a_transfer_to_a_learner_or_a_stranger_does_nothing() {
    let mut cluster = Cluster::led(3);
    change(&mut cluster, 1, 0, &[MemberChange::AddLearner(RaftId(9))]);
    cluster.settle();

    cluster.input(1, Input::Transfer(RaftId(9)));
    cluster.input(1, Input::Transfer(RaftId(77)));
    cluster.input(1, Input::Transfer(RaftId(1)));
    cluster.propose(1, 1..2);
    cluster.settle();

    assert_eq!(cluster.node(1).rejected, []);
    assert_eq!(cluster.leader(), Some(1));
}

#[test]
fn a_wiped_member_is_replaced_in_one_joint_step_while_it_is_cut_off() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 0..20);
    cluster.ticks(5);
    cluster.cut_off.insert(3);
    cluster.ticks(5);
    let term = cluster.node(1).core.status().term;

    start_empty(&mut cluster, 4);
    let replace = [
        MemberChange::AddLearner(RaftId(4)),
        MemberChange::Remove(RaftId(3)),
    ];
    change(&mut cluster, 1, 100, &replace);
    cluster.tick_until(|cluster| cluster.node(4).installs == 1);
    cluster.ticks(10);
    change(&mut cluster, 1, 101, &[MemberChange::AddVoter(RaftId(4))]);
    cluster.ticks(10);

    let members = cluster.node(4).core.members();
    assert_eq!(
        members.voters().collect::<Vec<_>>(),
        [RaftId(1), RaftId(2), RaftId(4)]
    );
    assert!(!members.is_joint());
    // The old one comes back and cannot disturb.
    cluster.cut_off.clear();
    cluster.ticks(100);
    assert_eq!(cluster.leader(), Some(1));
    assert_eq!(cluster.node(1).core.status().term, term);
    // The new one counts: without member 2 it is the quorum.
    cluster.cut_off.extend([2, 3]);
    cluster.propose(1, 200..201);
    cluster.ticks(5);
    assert_eq!(
        cluster.node(4).applied.last().map(|entry| entry.data.clone()),
        Some("command 200".into())
    );
}

#[test]
fn a_leader_that_is_removed_resigns_and_the_others_go_on() {
    let mut cluster = Cluster::led(3);
    cluster.ticks(5);

    change(&mut cluster, 1, 0, &[MemberChange::Remove(RaftId(1))]);
    cluster.settle();

    assert!(!cluster.node(1).core.status().is_leader);
    assert!(!cluster.has_lease(1));
    let ticks = cluster.tick_until(|cluster| cluster.leader().is_some());
    assert!(ticks <= 20, "{ticks}");
    let leader = cluster.leader().unwrap();
    cluster.propose(leader, 1..2);
    cluster.ticks(5);
    assert_eq!(
        cluster
            .node(leader)
            .applied
            .last()
            .and_then(|entry| entry.proposal),
        Some(ProposalId(1))
    );
}

#[test]
fn a_leader_that_becomes_a_learner_resigns() {
    let mut cluster = Cluster::led(3);

    change(&mut cluster, 1, 0, &[MemberChange::AddLearner(RaftId(1))]);
    cluster.ticks(60);

    assert!(matches!(cluster.leader(), Some(2 | 3)));
    assert_eq!(
        cluster.node(1).core.members().learners().collect::<Vec<_>>(),
        [RaftId(1)]
    );
}

#[test]
fn a_followers_read_before_the_first_commit_of_a_new_leader_is_answered_after_it() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 0..5);
    cluster.ticks(5);
    let floor = cluster.node(1).core.status().commit;
    cluster.cut_off.insert(1);
    cluster.node(3).hold_disk = true;
    cluster.node(2).hold_disk = false;
    // Member 2 leads, but member 3 cannot store its no-op.
    cluster.ticks(16);
    cluster.node(3).hold_disk = false;
    cluster.tick_until(|cluster| cluster.node(2).core.status().is_leader);
    cluster.node(3).hold_disk = true;
    cluster.input(
        3,
        Input::ReadIndex {
            id: ReadId(1),
            leased: false,
        },
    );
    cluster.ticks(5);

    cluster.node(3).hold_disk = false;
    cluster.tick_until(|cluster| !cluster.node(3).reads.is_empty());

    assert!(cluster.node(3).reads[0].1 > floor, "it covers the no-op");
}

#[test]
fn a_stale_rejection_while_probing_does_not_stop_replication() {
    // raft-rs #555: next may fall below matched.
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 0..30);
    cluster.ticks(5);
    let term = cluster.node(1).core.status().term.0;
    let matched = cluster.node(1).core.peers()[0].matched;
    cluster.input(1, Input::Unreachable(RaftId(2)));
    assert_eq!(cluster.node(1).core.peers()[0].stage, PeerStage::Probing);
    let mut rejection = Message {
        from: 2,
        to: 1,
        term,
        index: matched.0,
        reject: true,
        reject_hint: 3,
        log_term: 2,
        ..Message::default()
    };
    rejection.set_msg_type(MessageType::MsgAppendResponse);

    cluster.input(1, Input::Peer(PeerMessage::from_raft(&rejection)));
    assert!(
        cluster.node(1).core.peers()[0].next <= matched,
        "the bug is still there"
    );
    cluster.propose(1, 30..31);
    cluster.ticks(10);

    assert_eq!(cluster.node(1).core.peers()[0].lag_entries, 0);
}

#[test]
fn a_follower_far_behind_in_applying_does_not_campaign_but_votes() {
    // raft-rs #530: a campaign loads all that is committed and not applied.
    let mut cluster = Cluster::of(3);
    let disk = cluster.node(2).disk.clone();
    let lagging = Config {
        max_unapplied_entries: 20,
        ..config(2, 1)
    };
    cluster.start(lagging, disk);
    cluster.tick_until(|cluster| cluster.node(1).core.status().is_leader);
    cluster.node(2).hold_apply = true;
    cluster.propose(1, 0..50);
    cluster.ticks(5);

    cluster.cut_off.insert(1);
    cluster.sent.clear();
    cluster.tick_until(|cluster| cluster.leader().is_some());

    assert_eq!(cluster.leader(), Some(3), "with the vote of member 2");
    let asked = cluster.sent(MessageType::MsgRequestPreVote);
    assert!(asked.iter().all(|message| message.from == 3));
}

#[test]
fn the_log_is_kept_for_a_live_follower_that_lags_up_to_a_bound() {
    let mut cluster = Cluster::led(3);
    cluster.node(3).hold_disk = true;
    cluster.propose(1, 0..30);
    cluster.ticks(5);
    cluster.flush(1);
    assert_eq!(
        cluster.node(1).core.status().first,
        LogIndex(3),
        "all it has not stored"
    );

    cluster.propose(1, 30..100);
    cluster.ticks(5);
    cluster.flush(1);
    let status = cluster.node(1).core.status();
    assert_eq!(status.first.0, status.applied.0 - 50 + 1, "`keep_entries`");
}

#[test]
fn r9_the_log_is_cut_at_a_restore_for_all_but_live_followers() {
    let mut cluster = Cluster::led(3);
    cluster.cut_off.insert(3);
    cluster.propose(1, 0..30);
    cluster.ticks(5);
    let restored = cluster.node(1).core.status().applied;

    // One that lags a little has its archive, or gets it.
    cluster.input(1, Input::Restored(restored));
    assert_eq!(cluster.node(1).core.status().first, LogIndex(3));
    cluster.input(2, Input::Restored(restored));
    assert_eq!(cluster.node(2).core.status().first.0, restored.0 + 1);

    cluster.ticks(60);
    cluster.propose(1, 30..32);
    cluster.ticks(5);
    cluster.input(1, Input::Flushed(LogIndex(restored.0 + 1)));
    assert_eq!(cluster.node(1).core.status().first.0, restored.0 + 1);

    // Too late for the log.
    cluster.cut_off.clear();
    cluster.tick_until(|cluster| cluster.node(3).installs == 1);
}

#[test]
fn the_log_is_not_kept_for_a_silent_follower() {
    let mut cluster = Cluster::led(3);
    cluster.cut_off.insert(3);
    cluster.propose(1, 0..30);
    cluster.ticks(5);
    cluster.flush(1);
    assert_eq!(cluster.node(1).core.status().first, LogIndex(3));

    cluster.ticks(60);
    cluster.flush(1);

    let status = cluster.node(1).core.status();
    assert_eq!(status.first.0, status.applied.0 - 10 + 1, "`trailing_entries`");
}
