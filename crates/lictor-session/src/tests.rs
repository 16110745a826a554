use std::collections::BTreeMap;

use bytes::Bytes;
use lictor_proto::v1::{KvTtlRow, LockDelayRef, LockDelayRow};
use lictor_proto::{ConsulIndex, MonoTime, SessionId};
use proptest::prelude::*;

use crate::{Armed, Renewal, SessionManager, Ttl};

mod queues;

const BATCH: usize = 256;
const TTL: u64 = 10_000;

fn at(ms: u64) -> MonoTime {
    MonoTime(ms)
}

fn id(n: u8) -> SessionId {
    SessionId([n; 16])
}

fn leader() -> SessionManager {
    let mut manager = SessionManager::default();
    manager.become_leader(at(0), Armed::default());
    manager
}

/// Asks for what expired at each 100 ms of `from..=to`, as the caller's loop does, and answers when each
/// session was reported.
fn run(manager: &mut SessionManager, from: u64, to: u64) -> Vec<(SessionId, u64)> {
    let mut seen = Vec::new();
    for now in (from..=to).step_by(100) {
        for id in manager.expired(at(now), BATCH) {
            manager.session_gone(id);
            seen.push((id, now));
        }
    }
    seen
}

fn delay(key: &'static str, set_index: u64, delay_ms: u64) -> LockDelayRow {
    LockDelayRow {
        key: key.into(),
        set_index,
        delay_ms,
    }
}

fn over(key: &'static str, set_index: u64) -> LockDelayRef {
    LockDelayRef {
        key: key.into(),
        set_index,
    }
}

#[test]
fn what_sessions_and_lock_delays_still_last_is_told() {
    let mut manager = leader();
    let exact = Ttl {
        ms: TTL,
        is_exact: true,
    };
    manager.session_created(id(1), TTL, at(0));
    manager.session_created(id(2), exact, at(0));
    manager.session_created(id(3), 0, at(0));
    manager.lock_delay_set("k".into(), ConsulIndex(7), 5_000, at(0));

    let times = manager.times_left(at(1_000)).unwrap();
    assert_eq!(times.session_ms(id(1)), Some(2 * TTL - 1_000));
    assert_eq!(times.session_ms(id(2)), Some(TTL - 1_000));
    assert_eq!((times.session_ms(id(3)), times.session_ms(id(4))), (None, None));
    assert_eq!(
        (times.lock_delay_ms(b"k"), times.lock_delay_ms(b"l")),
        (Some(4_000), None)
    );

    manager.renew(id(1), at(9_000));
    assert_eq!(manager.expired(at(TTL), BATCH), [id(2)]);
    let times = manager.times_left(at(TTL)).unwrap();
    assert_eq!(times.session_ms(id(1)), Some(2 * TTL - 1_000));
    assert_eq!(times.session_ms(id(2)), Some(0), "its end is under way");
    assert_eq!(times.lock_delay_ms(b"k"), None, "it is over");
}

#[test]
fn who_does_not_lead_tells_no_times() {
    let mut manager = leader();
    manager.session_created(id(1), TTL, at(0));

    manager.step_down();

    assert!(manager.times_left(at(1)).is_none());
}

#[test]
fn a_session_without_ttl_never_expires() {
    let mut manager = leader();
    manager.session_created(id(1), 0, at(0));

    assert_eq!(manager.next_deadline(), None);
    assert_eq!(manager.renew(id(1), at(1)), Renewal::Untimed);
    assert_eq!(run(&mut manager, 0, 200_000), []);
}

#[test]
fn a_session_expires_two_ttls_after_its_last_renewal() {
    let mut manager = leader();
    manager.session_created(id(1), TTL, at(50));

    assert_eq!(run(&mut manager, 100, 15_000), []);
    assert_eq!(manager.renew(id(1), at(15_030)), Renewal::Renewed);
    assert_eq!(run(&mut manager, 15_100, 60_000), [(id(1), 35_100)]);
}

#[test]
fn an_ended_session_has_no_timer() {
    let mut manager = leader();
    manager.session_created(id(1), TTL, at(0));

    manager.session_gone(id(1));

    assert_eq!((manager.next_deadline(), manager.timed_sessions()), (None, 0));
    assert_eq!(manager.renew(id(1), at(1)), Renewal::Untimed);
}

#[test]
fn r16_a_new_leader_arms_sessions_with_one_ttl() {
    let mut manager = SessionManager::default();
    let sessions = vec![(id(1), TTL.into()), (id(2), TTL.into()), (id(3), 0.into())];

    manager.become_leader(
        at(500),
        Armed {
            sessions,
            ..Armed::default()
        },
    );
    assert_eq!(manager.renew(id(2), at(700)), Renewal::Renewed);

    assert_eq!(run(&mut manager, 600, 60_000), [(id(1), 10_500), (id(2), 20_700)]);
}

#[test]
fn r16_a_server_that_does_not_lead_renews_and_expires_nothing() {
    let mut manager = leader();
    manager.session_created(id(1), TTL, at(0));

    manager.step_down();
    manager.session_created(id(2), TTL, at(0));

    assert_eq!(manager.renew(id(1), at(1)), Renewal::NotLeading);
    assert_eq!((manager.next_deadline(), manager.timed_sessions()), (None, 0));
    assert_eq!(manager.expired(at(100_000), BATCH), []);
}

#[test]
fn r16_a_late_renewal_saves_a_session_whose_end_is_not_proposed_yet() {
    let mut manager = leader();
    manager.session_created(id(1), TTL, at(0));

    assert_eq!(manager.renew(id(1), at(20_050)), Renewal::Renewed);

    assert_eq!(manager.expired(at(20_050), BATCH), []);
}

#[test]
fn r16_a_session_cannot_be_renewed_while_its_end_is_proposed() {
    let mut manager = leader();
    manager.session_created(id(1), TTL, at(0));
    assert_eq!(manager.expired(at(20_000), BATCH), [id(1)]);

    assert_eq!(manager.renew(id(1), at(20_001)), Renewal::Ending);
    assert_eq!(manager.expired(at(20_100), BATCH), [], "it is in flight");
    assert_eq!(manager.expired(at(22_000), BATCH), [id(1)], "it got lost");
    manager.session_gone(id(1));
    assert_eq!(manager.next_deadline(), None);
}

#[test]
fn r16_after_a_stall_renewals_come_before_expiries() {
    let mut manager = leader();
    manager.session_created(id(1), TTL, at(0));
    manager.session_created(id(2), TTL, at(0));

    assert_eq!(
        manager.expired(at(45_000), BATCH),
        [],
        "the process stood still for 25 s"
    );
    assert_eq!(manager.next_deadline(), Some(at(45_500)));
    assert_eq!(manager.expired(at(45_400), BATCH), []);
    assert_eq!(manager.renew(id(1), at(45_410)), Renewal::Renewed);

    assert_eq!(manager.expired(at(45_500), BATCH), [id(2)]);
}

#[test]
fn a_quiet_time_is_no_stall() {
    let mut manager = leader();
    manager.session_created(id(1), 3_600_000, at(0));

    assert_eq!(manager.expired(at(7_200_000), BATCH), [id(1)]);
}

#[test]
fn a_mass_expiry_comes_in_batches_and_is_no_stall() {
    let mut manager = SessionManager::default();
    let sessions = (0..10_000_u128)
        .map(|n| (SessionId(n.to_be_bytes()), TTL.into()))
        .collect();
    manager.become_leader(
        at(0),
        Armed {
            sessions,
            ..Armed::default()
        },
    );

    // A turn takes 50 ms: all together lasts longer than what counts as a stall.
    let batches: Vec<_> = (0..40)
        .map(|turn| manager.expired(at(TTL + turn * 50), BATCH).len())
        .collect();

    assert_eq!(batches.iter().sum::<usize>(), 10_000);
    assert!(batches.iter().all(|batch| *batch <= BATCH));
}

#[test]
fn an_exact_session_expires_one_ttl_after_its_last_renewal() {
    let mut manager = leader();
    let ttl = Ttl {
        ms: 1_000,
        is_exact: true,
    };
    manager.session_created(id(1), ttl, at(0));

    assert_eq!(run(&mut manager, 100, 900), []);
    assert_eq!(manager.renew(id(1), at(930)), Renewal::Renewed);
    assert_eq!(run(&mut manager, 1_000, 9_000), [(id(1), 2_000)]);
}

fn ttls_over(manager: &mut SessionManager, now: u64) -> Vec<(Bytes, u64)> {
    let over = manager.kv_ttls_over(at(now), BATCH).into_iter();
    over.map(|ttl| (ttl.key, ttl.set_index)).collect()
}

#[test]
fn a_key_is_to_go_when_its_ttl_is_over_and_never_before() {
    let mut manager = leader();
    manager.kv_ttl_set("k".into(), ConsulIndex(7), 1_000, at(50));

    assert_eq!(manager.next_deadline(), Some(at(1_100)));
    assert_eq!(ttls_over(&mut manager, 1_000), []);
    let over = [("k".into(), 7)];
    assert_eq!(ttls_over(&mut manager, 1_100), over);
    assert_eq!(ttls_over(&mut manager, 2_000), [], "it was proposed");
    assert_eq!(ttls_over(&mut manager, 3_100), over, "and got lost");
    manager.kv_ttl_gone(&"k".into(), ConsulIndex(7));
    assert_eq!(manager.next_deadline(), None);
}

#[test]
fn a_later_ttl_of_a_key_counts_even_where_it_is_shorter() {
    let mut manager = leader();
    manager.kv_ttl_set("k".into(), ConsulIndex(7), 60_000, at(0));
    manager.kv_ttl_gone(&"k".into(), ConsulIndex(7));
    manager.kv_ttl_set("k".into(), ConsulIndex(8), 1_000, at(0));
    manager.kv_ttl_gone(&"k".into(), ConsulIndex(7));

    assert_eq!(ttls_over(&mut manager, 1_000), [("k".into(), 8)]);
}

#[test]
fn a_new_leader_gives_keys_their_whole_ttl() {
    let mut manager = SessionManager::default();
    let row = KvTtlRow {
        key: "k".into(),
        set_index: 7,
        ttl_ms: 1_000,
    };
    let found = Armed {
        ttls: vec![row],
        ..Armed::default()
    };
    manager.become_leader(at(5_000), found);

    assert_eq!(ttls_over(&mut manager, 5_900), []);
    assert_eq!(ttls_over(&mut manager, 6_000), [("k".into(), 7)]);
}

#[test]
fn a_turn_is_bounded_when_all_were_renewed() {
    let mut manager = SessionManager::default();
    let ids: Vec<_> = (0..10_000_u128).map(|n| SessionId(n.to_be_bytes())).collect();
    manager.become_leader(
        at(0),
        Armed {
            sessions: ids.iter().map(|id| (*id, TTL.into())).collect(),
            ..Armed::default()
        },
    );
    for id in &ids {
        manager.renew(*id, at(5_000));
    }

    assert_eq!(manager.expired(at(TTL), BATCH), []);
    assert_eq!(manager.next_deadline(), Some(at(TTL)), "there is more to look at");
    while manager.next_deadline() == Some(at(TTL)) {
        assert_eq!(manager.expired(at(TTL), BATCH), []);
    }
    assert_eq!(manager.next_deadline(), Some(at(25_000)));
}

#[test]
fn r15_a_lock_carries_the_index_up_to_which_delays_are_known() {
    let mut manager = SessionManager::default();
    assert_eq!(manager.check_lock(b"k", at(0)), None, "it does not lead");

    manager.become_leader(
        at(0),
        Armed {
            index: ConsulIndex(7),
            ..Armed::default()
        },
    );
    assert_eq!(manager.check_lock(b"k", at(0)), Some(ConsulIndex(7)));
    manager.folded(ConsulIndex(9));
    assert_eq!(manager.check_lock(b"k", at(0)), Some(ConsulIndex(9)));
}

#[test]
fn r15_a_lock_is_refused_until_its_delay_ends() {
    let mut manager = leader();
    manager.lock_delay_set("k".into(), ConsulIndex(5), 1_050, at(0));
    manager.folded(ConsulIndex(5));

    assert_eq!(manager.check_lock(b"k", at(1_049)), None);
    assert_eq!(manager.check_lock(b"other", at(0)), Some(ConsulIndex(5)));
    assert_eq!(manager.check_lock(b"k", at(1_050)), Some(ConsulIndex(5)));
}

#[test]
fn r15_a_new_leader_imposes_delays_in_full() {
    let mut manager = SessionManager::default();

    manager.become_leader(
        at(500),
        Armed {
            delays: vec![delay("k", 5, 1_000)],
            ..Armed::default()
        },
    );

    assert_eq!(manager.check_lock(b"k", at(1_499)), None);
    assert!(manager.check_lock(b"k", at(1_500)).is_some());
}

#[test]
fn r15_the_later_of_two_ends_is_kept() {
    for delays in [[(5, 60_000), (6, 1_000)], [(5, 1_000), (6, 60_000)]] {
        let mut manager = leader();
        for (set_index, delay_ms) in delays {
            manager.lock_delay_set("k".into(), ConsulIndex(set_index), delay_ms, at(0));
        }

        assert_eq!(manager.delays_over(at(59_900), BATCH), []);
        assert_eq!(manager.check_lock(b"k", at(59_999)), None);
        assert_eq!(manager.delays_over(at(60_000), BATCH), [over("k", 6)]);
    }
}

#[test]
fn r15_ended_delays_are_reported_until_their_rows_are_gone() {
    let mut manager = leader();
    manager.lock_delay_set("a".into(), ConsulIndex(5), 1_000, at(0));
    manager.lock_delay_set("b".into(), ConsulIndex(6), 1_000, at(0));
    assert_eq!(manager.next_deadline(), Some(at(1_000)));

    assert_eq!(manager.delays_over(at(1_000), 1), [over("a", 5)]);
    assert_eq!(manager.delays_over(at(1_000), 1), [over("b", 6)]);
    assert_eq!(manager.delays_over(at(1_100), BATCH), []);
    manager.lock_delay_gone(&Bytes::from("a"), ConsulIndex(5));
    assert_eq!(
        manager.delays_over(at(3_000), BATCH),
        [over("b", 6)],
        "its proposal got lost"
    );
    manager.lock_delay_gone(&Bytes::from("b"), ConsulIndex(6));
    assert_eq!(manager.next_deadline(), None);
}

/// What cannot be sent to followers would stop all that comes behind it.
#[test]
fn what_is_over_is_reported_in_commands_of_a_bounded_size() {
    const KEYS: u8 = 40;
    let key = |n: u8| Bytes::from(vec![n; 100_000]);
    let mut manager = leader();
    for n in 0..KEYS {
        manager.lock_delay_set(key(n), ConsulIndex(5), 1_000, at(0));
        manager.kv_ttl_set(key(n), ConsulIndex(5), 1_000, at(0));
    }

    let (mut delays, mut ttls) = (0, 0);
    while delays + ttls < 2 * usize::from(KEYS) {
        let over = manager.delays_over(at(1_000), BATCH);
        let gone = manager.kv_ttls_over(at(1_000), BATCH);
        assert!((1..=10).contains(&over.len()) && (1..=10).contains(&gone.len()));
        delays += over.len();
        ttls += gone.len();
    }
    assert_eq!((delays, ttls), (usize::from(KEYS), usize::from(KEYS)));
}

#[test]
fn r15_the_end_of_an_earlier_delay_leaves_a_later_one() {
    let mut manager = leader();
    manager.lock_delay_set("k".into(), ConsulIndex(5), 1_000, at(0));
    manager.lock_delay_set("k".into(), ConsulIndex(8), 1_000, at(900));

    manager.lock_delay_gone(&Bytes::from("k"), ConsulIndex(5));

    assert_eq!(manager.check_lock(b"k", at(1_899)), None);
}

#[test]
fn tombstones_are_reaped_in_bins_after_their_time() {
    let mut manager = leader();
    manager.tombstone(ConsulIndex(10), at(1));
    manager.tombstone(ConsulIndex(11), at(29_000));
    manager.tombstone(ConsulIndex(20), at(31_000));

    assert_eq!(manager.next_deadline(), Some(at(930_000)));
    assert_eq!(manager.reap_due(at(929_999)), None);
    assert_eq!(manager.reap_due(at(930_000)), Some(ConsulIndex(11)));
    assert_eq!(manager.reap_due(at(930_000)), None);
    assert_eq!(manager.reap_due(at(2_000_000)), Some(ConsulIndex(20)));
    assert_eq!(manager.next_deadline(), None);
}

#[test]
fn a_new_leader_reaps_the_tombstones_it_found() {
    let mut manager = SessionManager::default();

    manager.become_leader(
        at(0),
        Armed {
            tombstone: Some(ConsulIndex(9)),
            ..Armed::default()
        },
    );

    assert_eq!(manager.reap_due(at(900_000)), Some(ConsulIndex(9)));
}

#[derive(Debug, Clone)]
enum Step {
    Create(u8, Ttl),
    Renew(u8),
    Gone(u8),
    Elect,
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let step = prop_oneof![
        3 => (0..8_u8, 10_000..30_000_u64, any::<bool>())
            .prop_map(|(id, ms, is_exact)| Step::Create(id, Ttl { ms, is_exact })),
        8 => (0..8_u8).prop_map(Step::Renew),
        2 => (0..8_u8).prop_map(Step::Gone),
        1 => Just(Step::Elect),
    ];
    prop::collection::vec((0..12_000_u64, step), 1..60)
}

/// What is known about a session: its TTL and when it may and must end.
#[derive(Debug, Clone, Copy)]
struct Expected {
    ttl: Ttl,
    deadline: u64,
}

impl Expected {
    /// When a session ends that is known to live now.
    fn full(ttl: Ttl, now: u64) -> u64 {
        now + if ttl.is_exact { ttl.ms } else { 2 * ttl.ms }
    }
}

proptest! {
    #[test]
    fn sessions_expire_in_time_and_never_early(steps in steps()) {
        let mut manager = leader();
        let mut model = BTreeMap::<u8, Expected>::new();
        let (mut now, mut next_tick) = (0, 0);
        for (wait, step) in steps.into_iter().chain([(100_000, Step::Gone(99))]) {
            now += wait;
            while next_tick <= now {
                for expired in manager.expired(at(next_tick), BATCH) {
                    let expected = model.remove(&expired.0[0]);
                    let in_time = expected.is_some_and(|e| e.deadline <= next_tick);
                    prop_assert!(in_time, "early: {expired} {expected:?} at {next_tick}");
                    manager.session_gone(expired);
                }
                let late = model.iter().find(|(_, e)| e.deadline + 1_000 < next_tick);
                prop_assert!(late.is_none(), "late: {late:?} at {next_tick}");
                next_tick += 100;
            }
            match step {
                Step::Create(n, ttl) => {
                    manager.session_created(id(n), ttl, at(now));
                    let deadline = Expected::full(ttl, now);
                    model.entry(n).or_insert(Expected { ttl, deadline });
                }
                Step::Renew(n) => {
                    let known = model.get_mut(&n).map(|e| e.deadline = e.deadline.max(Expected::full(e.ttl, now)));
                    let answer = if known.is_some() { Renewal::Renewed } else { Renewal::Untimed };
                    prop_assert_eq!(manager.renew(id(n), at(now)), answer);
                }
                Step::Gone(n) => {
                    manager.session_gone(id(n));
                    model.remove(&n);
                }
                Step::Elect => {
                    let sessions = model.iter().map(|(n, e)| (id(*n), e.ttl)).collect();
                    manager.become_leader(at(now), Armed { sessions, ..Armed::default() });
                    for expected in model.values_mut() {
                        expected.deadline = now + expected.ttl.ms;
                    }
                }
            }
        }
        prop_assert!(model.is_empty());
        prop_assert_eq!(manager.timed_sessions(), 0);
        prop_assert_eq!(manager.next_deadline(), None);
    }
}
