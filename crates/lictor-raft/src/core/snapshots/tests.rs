use lictor_proto::{LogIndex, RaftId};
use raft::eraftpb::MessageType;

use crate::core::harness::{Cluster, Work, config};
use crate::{Input, LogPosition, PeerStage};

/// Member 3 was away while the others wrote 100 entries and cut them from their logs.
fn behind() -> Cluster {
    let mut cluster = Cluster::led(3);
    cluster.cut_off.insert(3);
    // Silent long enough not to be kept for.
    cluster.ticks(60);
    cluster.propose(1, 0..100);
    cluster.ticks(5);
    cluster.flush(1);
    cluster.flush(2);
    cluster.settle();
    let (first, last) = (
        cluster.node(1).core.status().first,
        cluster.node(3).core.status().last,
    );
    assert!(first > last, "the log is cut past the follower");
    cluster
}

fn same_state(cluster: &mut Cluster, one: u64, two: u64) -> bool {
    let contents = |cluster: &mut Cluster, id| -> Vec<_> {
        let applied = &cluster.node(id).applied;
        applied
            .iter()
            .map(|entry| (entry.index, entry.term, entry.data.clone()))
            .collect()
    };
    contents(cluster, one) == contents(cluster, two)
        && cluster.nodes[&one].applied_to == cluster.nodes[&two].applied_to
}

#[test]
fn a_follower_behind_the_compaction_gets_a_snapshot_and_then_the_log() {
    let mut cluster = behind();

    cluster.cut_off.clear();
    cluster.ticks(10);
    cluster.propose(1, 100..110);
    cluster.ticks(5);

    assert_eq!(cluster.node(3).installs, 1);
    assert!(same_state(&mut cluster, 1, 3));
    assert!(
        cluster.node(3).core.status().first > LogIndex(90),
        "its log begins behind"
    );
    let peer = cluster.node(1).core.peers().pop().unwrap();
    assert_eq!((peer.id, peer.stage), (RaftId(3), PeerStage::Replicating));
}

#[test]
fn a_snapshot_is_asked_for_once_until_it_is_answered() {
    let mut cluster = behind();
    cluster.node(1).hold_pins = true;

    cluster.cut_off.clear();
    cluster.ticks(30);
    assert_eq!(cluster.node(1).wanted, [RaftId(3)]);

    let (to, ok) = (RaftId(3), false);
    cluster.node(1).wanted.clear();
    cluster.input(1, Input::SnapshotSent { to, ok });
    cluster.ticks(10);
    assert_eq!(
        cluster.node(1).wanted,
        [RaftId(3)],
        "it could not be pinned: asked again"
    );
    cluster.pin(1);
    cluster.ticks(10);
    assert!(same_state(&mut cluster, 1, 3));
}

#[test]
fn a_view_older_than_the_log_is_not_sent() {
    let mut cluster = behind();
    cluster.node(1).hold_pins = true;
    cluster.cut_off.clear();
    cluster.ticks(5);
    let members = cluster.node(1).core.members();
    let position = LogPosition::new(20, 2);
    let (to, descriptor) = (RaftId(3), Vec::new());

    cluster.input(
        1,
        Input::SnapshotReady {
            to,
            position,
            members,
            descriptor,
        },
    );
    cluster.ticks(5);

    assert!(cluster.sent(MessageType::MsgSnapshot).is_empty());
    assert_eq!(
        cluster.node(1).wanted,
        [RaftId(3), RaftId(3)],
        "another is asked for"
    );
}

#[test]
fn nothing_is_applied_or_appended_while_a_snapshot_is_installed() {
    let mut cluster = behind();
    cluster.node(3).hold_install = true;
    cluster.cut_off.clear();
    cluster.tick_until(|cluster| cluster.node(3).installs == 1);
    let before = cluster.node(3).core.status();

    cluster.propose(1, 100..150);
    cluster.ticks(100);

    let after = cluster.node(3).core.status();
    assert_eq!((after.last, after.commit), (before.last, before.commit));
    assert_eq!(cluster.node(3).to_apply.len(), 1);
    assert_eq!(
        cluster.node(3).installs,
        1,
        "it is told again and again, and begins once"
    );
    assert_eq!(
        after.leader,
        Some(RaftId(1)),
        "heartbeats are heard all the while"
    );
    cluster.node(3).hold_install = false;
    cluster.ticks(10);
    assert!(same_state(&mut cluster, 1, 3));
}

#[test]
fn word_of_a_snapshot_that_is_lost_is_sent_again() {
    let mut cluster = behind();
    cluster.cut_off.clear();
    while cluster.sent(MessageType::MsgSnapshot).is_empty() {
        if !cluster.step() {
            cluster.tick();
        }
    }
    let lost = cluster.network.pop_back().unwrap();
    assert_eq!(lost.to, RaftId(3));

    let ticks = cluster.tick_until(|cluster| cluster.node(3).installs == 1);

    assert!(ticks <= 51, "1000 ms are 50 ticks: {ticks}");
    cluster.ticks(10);
    assert!(same_state(&mut cluster, 1, 3));
}

#[test]
fn an_installation_that_fails_half_way_leaves_the_old_state_and_is_tried_again() {
    let mut cluster = behind();
    cluster.node(3).hold_install = true;
    cluster.cut_off.clear();
    cluster.tick_until(|cluster| cluster.node(3).installs == 1);
    let before = cluster.node(3).core.status().last;

    // The rows cannot be fetched to the end.
    cluster.cut_links.insert((1, 3));
    cluster.node(3).hold_install = false;
    cluster.settle();
    assert_eq!(cluster.node(3).core.status().last, before);
    assert!(cluster.node(3).applied_to <= before);

    cluster.cut_links.clear();
    cluster.ticks(60);
    assert_eq!(cluster.node(3).installs, 2);
    assert!(same_state(&mut cluster, 1, 3));
}

#[test]
fn a_snapshot_is_installed_although_the_leader_changed_meanwhile() {
    let mut cluster = behind();
    cluster.node(3).hold_install = true;
    cluster.cut_off.clear();
    cluster.tick_until(|cluster| cluster.node(3).installs == 1);
    let term = cluster.node(1).core.status().term;

    cluster.input(1, Input::Transfer(RaftId(2)));
    cluster.ticks(10);
    assert!(cluster.node(3).core.status().term > term);
    cluster.propose(2, 200..210);
    cluster.node(3).hold_install = false;
    cluster.ticks(20);

    assert_eq!(cluster.node(3).installs, 1);
    assert!(same_state(&mut cluster, 2, 3));
}

#[test]
fn a_candidate_takes_the_snapshot_its_state_already_is() {
    let mut cluster = behind();
    cluster.node(3).hold_install = true;
    cluster.cut_off.clear();
    cluster.tick_until(|cluster| cluster.node(3).installs == 1);
    // It hears nobody and campaigns, in vain: its log is too short.
    cluster.cut_links.extend([(1, 3), (2, 3)]);
    cluster.ticks(40);
    assert_eq!(cluster.node(3).core.status().leader, None);

    cluster.cut_links.clear();
    cluster.node(3).hold_install = false;
    cluster.settle();
    cluster.ticks(20);

    assert!(same_state(&mut cluster, 1, 3));
}

#[test]
fn r6_a_crash_between_the_installed_state_and_the_log_is_mended_at_the_start() {
    let mut cluster = behind();
    cluster.node(3).hold_disk = true;
    cluster.cut_off.clear();
    // The state is replaced, the log is not reset yet.
    cluster.tick_until(|cluster| cluster.flushed.contains_key(&3));
    cluster.ticks(3);
    let installed = cluster.flushed[&3].mark.applied;

    let (disk, recovered) = cluster.crash(3, 1);
    assert!(recovered.last.index < installed.index);
    cluster.start(config(3, 2), disk);

    assert_eq!(cluster.node(3).core.status().last, installed.index);
    cluster.ticks(20);
    assert!(same_state(&mut cluster, 1, 3));
}

#[test]
fn a_member_whose_disk_hangs_in_the_reset_neither_campaigns_nor_breaks() {
    let mut cluster = behind();
    cluster.node(3).hold_disk = true;
    cluster.cut_off.clear();
    cluster.tick_until(|cluster| cluster.flushed.contains_key(&3));

    cluster.cut_off.insert(1);
    cluster.sent.clear();
    cluster.ticks(60);
    let asked = cluster.sent(MessageType::MsgRequestPreVote);
    assert!(asked.iter().all(|message| message.from != 3));
    cluster.node(3).hold_disk = false;
    cluster.tick_until(|cluster| cluster.leader() == Some(2));
    cluster.ticks(10);

    assert!(same_state(&mut cluster, 2, 3), "its vote elected member 2");
}

#[test]
fn the_log_is_kept_for_a_snapshot_under_way() {
    let mut cluster = behind();
    cluster.node(3).hold_install = true;
    cluster.cut_off.clear();
    cluster.tick_until(|cluster| cluster.node(3).installs == 1);
    let Some(Work::Install { position, .. }) = cluster.node(3).to_apply.front() else {
        panic!("no installation");
    };
    let position = *position;

    cluster.propose(1, 100..130);
    cluster.ticks(2);
    cluster.flush(1);
    assert!(cluster.node(1).core.status().first.0 <= position.index.0 + 1);
    cluster.node(3).hold_install = false;
    cluster.ticks(10);

    assert_eq!(cluster.node(3).installs, 1, "no second one was needed");
    assert!(same_state(&mut cluster, 1, 3));
}

#[test]
fn a_snapshot_that_comes_twice_is_installed_once() {
    let mut cluster = behind();
    cluster.cut_off.clear();
    cluster.tick_until(|cluster| cluster.node(3).installs == 1);
    let late = cluster.sent(MessageType::MsgSnapshot)[0].clone();
    cluster.ticks(10);

    cluster.input(3, Input::Peer(crate::PeerMessage::from_raft(&late)));
    cluster.ticks(5);

    assert_eq!(cluster.node(3).installs, 1);
    assert!(same_state(&mut cluster, 1, 3));
}
