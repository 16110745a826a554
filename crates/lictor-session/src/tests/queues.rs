//! Leases in fair queues.

use lictor_proto::v1::QueueDropRef;
use lictor_proto::{MonoTime, RaftId};
use lictor_state::QueueLease;

use super::{BATCH, at, leader};
use crate::{Armed, SessionManager};

const ME: RaftId = RaftId(1);
const OTHER: RaftId = RaftId(2);

fn lease(index: u64, ttl_ms: u64, holds: bool) -> QueueLease {
    QueueLease {
        name: "lock".into(),
        index,
        lease: 1,
        callers: 1,
        ttl_ms,
        holds,
    }
}

/// The same, granted or renewed once more.
fn again(lease: &QueueLease) -> QueueLease {
    QueueLease {
        lease: lease.lease + 1,
        holds: true,
        ..lease.clone()
    }
}

fn dropped(manager: &mut SessionManager, now: u64) -> Vec<QueueDropRef> {
    manager.queues_expired(at(now), BATCH, |_| false)
}

/// Asks at each 100 ms, as the caller's loop does, and answers what lapsed and when.
fn run(manager: &mut SessionManager, from: u64, to: u64) -> Vec<(u64, u64)> {
    let mut seen = Vec::new();
    for now in (from..=to).step_by(100) {
        for gone in dropped(manager, now) {
            manager.queue_gone(gone.index);
            seen.push((gone.index, now));
        }
    }
    seen
}

#[test]
fn a_lock_lapses_its_ttl_after_the_grant_or_renewal_and_never_before() {
    let mut manager = leader();
    let granted = lease(7, 2_000, true);
    manager.queue_lease(&granted, at(150));

    assert_eq!(run(&mut manager, 200, 2_000), []);
    manager.queue_lease(&again(&granted), at(2_010));

    assert_eq!(run(&mut manager, 2_100, 9_000), [(7, 4_100)]);
    assert_eq!(manager.next_deadline(), None);
}

#[test]
fn a_ttl_of_zero_lapses_only_while_it_waits() {
    let mut manager = leader();
    manager.queue_lease(&lease(1, 0, true), at(0));
    manager.queue_lease(&lease(2, 0, false), at(0));

    assert_eq!(run(&mut manager, 0, 120_000), [(2, 60_000)]);
    assert_eq!(manager.next_deadline(), None);
}

#[test]
fn an_entry_waits_for_longer_than_its_ttl_while_somebody_says_so() {
    let mut manager = leader();
    manager.queue_lease(&lease(1, 1_000, false), at(0));
    manager.queue_lease(&lease(2, 1_000, false), at(0));
    for now in (0..5_000).step_by(300) {
        manager.queue_waited_for([1], at(now));
        let gone = manager.queues_expired(at(now), BATCH, |index| index == 2);
        assert_eq!(gone, []);
    }

    // Server 2 fell silent at 4,800 ms; here a client waits on.
    for now in (5_000..5_800).step_by(100) {
        assert_eq!(manager.queues_expired(at(now), BATCH, |index| index == 2), []);
    }
    let gone = manager.queues_expired(at(5_800), BATCH, |index| index == 2);

    assert!(gone.iter().map(|gone| gone.index).eq([1]));
}

#[test]
fn the_ttl_runs_from_the_grant_in_full() {
    let mut manager = leader();
    let waiting = lease(1, 3_000, false);
    manager.queue_lease(&waiting, at(0));

    manager.queue_lease(&again(&waiting), at(2_900));

    assert_eq!(run(&mut manager, 2_900, 9_000), [(1, 5_900)]);
}

#[test]
fn whoever_waits_no_more_keeps_nobody_alive_that_holds() {
    let mut manager = leader();
    manager.queue_lease(&lease(1, 1_000, true), at(0));

    manager.queue_waited_for([1], at(900));

    assert_eq!(run(&mut manager, 900, 3_000), [(1, 1_000)]);
}

/// As one more comes to it.
fn joined(lease: &QueueLease, callers: u64) -> QueueLease {
    QueueLease {
        callers,
        ..lease.clone()
    }
}

#[test]
fn an_entry_goes_when_all_who_came_are_known_to_have_left() {
    let waiting = lease(1, 60_000, false);
    let mut manager = leader();
    manager.queue_lease(&waiting, at(0));
    manager.queue_lease(&joined(&waiting, 3), at(10));

    assert_eq!(manager.queue_left(ME, 1, 1, at(20)), Some(false), "others came");
    assert_eq!(dropped(&mut manager, 20), []);
    assert_eq!(manager.queue_left(OTHER, 1, 2, at(31)), Some(true));
    assert_eq!(manager.next_deadline(), Some(at(31)));

    let gone = dropped(&mut manager, 31);
    assert_eq!((gone[0].lease, gone[0].callers), (None, Some(3)));
}

/// The command of the second is applied; its server has not heard of it yet when the first leaves.
#[test]
fn one_who_is_on_the_way_keeps_the_entry() {
    let waiting = lease(1, 60_000, false);
    let mut manager = leader();
    manager.queue_lease(&waiting, at(0));
    manager.queue_lease(&joined(&waiting, 2), at(10));

    assert_eq!(manager.queue_left(ME, 1, 1, at(11)), Some(false));
    assert_eq!(run(&mut manager, 12, 50_000), []);
    assert_eq!(
        manager.queue_left(ME, 1, 2, at(50_000)),
        Some(true),
        "both are gone"
    );
}

#[test]
fn an_old_report_says_nothing_of_those_who_came_since() {
    let waiting = lease(1, 60_000, false);
    let mut manager = leader();
    manager.queue_lease(&waiting, at(0));
    manager.queue_left(OTHER, 1, 1, at(5));
    manager.queue_lease(&joined(&waiting, 2), at(10));

    assert_eq!(manager.queue_left(OTHER, 1, 1, at(11)), Some(false));
    assert_eq!(dropped(&mut manager, 11), []);
    assert_eq!(manager.queue_left(OTHER, 1, 2, at(12)), Some(true));
    assert_eq!(manager.queue_left(OTHER, 1, 1, at(13)), Some(true), "late");
}

#[test]
fn one_that_is_granted_while_it_is_left_goes_all_the_same() {
    let mut manager = leader();
    let waiting = lease(1, 60_000, false);
    manager.queue_lease(&waiting, at(0));
    manager.queue_left(ME, 1, 1, at(10));

    manager.queue_lease(&again(&waiting), at(11));

    assert_eq!(dropped(&mut manager, 12).len(), 1);
}

#[test]
fn somebody_who_comes_meanwhile_keeps_it() {
    let mut manager = leader();
    let waiting = lease(1, 60_000, false);
    manager.queue_lease(&waiting, at(0));
    manager.queue_left(ME, 1, 1, at(10));

    manager.queue_lease(&joined(&waiting, 2), at(11));

    assert_eq!(run(&mut manager, 12, 50_000), []);
}

/// Its client vanished between the grant and the answer; a lock without a TTL would be held for ever.
#[test]
fn a_new_leader_ends_a_lock_that_nobody_was_told_of() {
    let held = |index, callers| joined(&lease(index, 0, true), callers);
    let mut manager = SessionManager::default();
    manager.become_leader(
        at(0),
        Armed {
            queues: vec![held(1, 1), held(2, 2), lease(3, 60_000, false)],
            ..Armed::default()
        },
    );

    assert_eq!(manager.queue_left(ME, 1, 1, at(100)), Some(true));
    assert_eq!(
        manager.queue_left(ME, 2, 1, at(100)),
        Some(false),
        "another may have been told that it has the lock"
    );
    assert_eq!(manager.queue_left(ME, 3, 1, at(100)), Some(true));

    let gone = run(&mut manager, 100, 50_000);
    assert_eq!(gone, [(1, 100), (3, 100)]);
    assert_eq!(manager.queue_left(OTHER, 2, 1, at(60_000)), Some(true));
    assert_eq!(run(&mut manager, 60_000, 60_100), [(2, 60_000)]);
}

#[test]
fn a_new_leader_begins_every_lease_anew() {
    let mut manager = SessionManager::default();
    let found = Armed {
        queues: vec![lease(1, 2_000, true)],
        ..Armed::default()
    };
    manager.become_leader(at(5_000), found);

    assert_eq!(run(&mut manager, 5_000, 20_000), [(1, 7_000)]);
}

#[test]
fn after_a_stall_servers_are_heard_before_their_waits_end() {
    let mut manager = leader();
    manager.queue_lease(&lease(1, 1_000, false), at(0));

    assert_eq!(
        dropped(&mut manager, 30_000),
        [],
        "the process stood still for 29 s"
    );
    manager.queue_waited_for([1], at(30_100));

    assert_eq!(dropped(&mut manager, 30_500), []);
}

#[test]
fn what_got_lost_on_its_way_is_reported_again() {
    let mut manager = leader();
    manager.queue_lease(&lease(1, 1_000, true), at(0));

    assert_eq!(dropped(&mut manager, 1_000).len(), 1);
    assert_eq!(dropped(&mut manager, 1_100), []);
    assert_eq!(dropped(&mut manager, 3_000).len(), 1);
}

#[test]
fn a_name_that_is_free_is_forgotten_after_a_day() {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let mut manager = leader();

    manager.queue_free(lictor_proto::ConsulIndex(7), at(1));

    let due = manager.next_deadline().unwrap_or_default();
    assert!(due >= MonoTime(DAY_MS) && due <= MonoTime(DAY_MS * 2));
    assert_eq!(manager.free_queues_due(at(DAY_MS)), None);
    assert_eq!(manager.free_queues_due(due), Some(lictor_proto::ConsulIndex(7)));
}

#[test]
fn what_a_lease_still_lasts_is_told_of_whoever_holds() {
    let mut manager = leader();
    let granted = lease(1, 5_000, true);
    manager.queue_lease(&granted, at(100));
    manager.queue_lease(&lease(2, 5_000, false), at(100));
    manager.queue_lease(&lease(3, 0, true), at(100));
    let left_ms =
        |manager: &SessionManager, index, now| manager.times_left(at(now)).unwrap().fair_lock_ms(index);

    assert_eq!(left_ms(&manager, 1, 600), Some(4_500));
    assert_eq!(left_ms(&manager, 2, 600), None, "waits");
    assert_eq!(left_ms(&manager, 3, 600), None, "has no end");
    assert_eq!(left_ms(&manager, 4, 600), None, "is not there");
    manager.queue_lease(&again(&granted), at(2_000));
    assert_eq!(left_ms(&manager, 1, 2_000), Some(5_000));
    assert_eq!(left_ms(&manager, 1, 9_000), Some(0), "its end is due");
}
