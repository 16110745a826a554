//! Sessions in line for the lock of a key: rules one by one. Random commands are in the model of all keys.

mod common;

use bytes::Bytes;
use common::*;
use lictor_proto::v1::{self, KvVerb, SessionBehavior};
use lictor_proto::{Command, LogIndex, Term};
use lictor_state::{Area, Dirty, Effect, Explained, Outcome, QueueAnswer, Refused};

/// Sessions 1 to `count`, the first of which holds `k` and the rest of which stand in line for it, in their order; their
/// requests have the numbers of the sessions.
fn line(count: u8, lock_delay_ms: i64) -> (Log, Vec<String>) {
    let mut log = Log::default();
    let sessions: Vec<_> = (1..=count)
        .map(|number| log.session(number, lock_delay_ms, SessionBehavior::Release))
        .collect();
    for (number, session) in (1..).zip(&sessions) {
        log.apply(&enter("k", &format!("of {number}"), session, u64::MAX, number));
    }
    (log, sessions)
}

fn holder(log: &Log) -> Option<String> {
    Some(log.state.kv_get(b"k")?.session()?.to_owned())
}

fn value(log: &Log) -> String {
    let row = log.state.kv_get(b"k");
    row.map_or_else(String::new, |row| {
        String::from_utf8_lossy(row.value()).into_owned()
    })
}

/// The requests that the last command gave the lock.
fn granted(log: &Log) -> Vec<(u8, Explained)> {
    let granted = log.out.events.iter().filter_map(|event| match event {
        Effect::LockGranted { request, granted, .. } => Some((request[0], granted.clone())),
        _ => None,
    });
    granted.collect()
}

fn woken(log: &Log) -> Vec<u64> {
    let woken = log.out.dirty.iter().filter_map(|dirty| match dirty {
        Dirty::Row(Area::Queue, index) => Some(u64::from_be_bytes(index[..].try_into().ok()?)),
        _ => None,
    });
    woken.collect()
}

fn places(log: &Log) -> Vec<(u64, u8)> {
    let rows = log.state.lock_waits_of(b"k");
    rows.map(|row| (row.index, row.request[0])).collect()
}

#[test]
fn a_free_lock_is_had_at_once_and_the_next_stand_in_the_order_of_the_log() {
    let (mut log, sessions) = line(3, 0);
    let (first, second) = (places(&log)[0].0, places(&log)[1].0);
    assert_eq!(holder(&log).as_deref(), Some(&sessions[0][..]));
    assert!(first < second);

    let index = log.done(&unlock("k", "released", &sessions[0]));

    assert_eq!(holder(&log).as_deref(), Some(&sessions[1][..]));
    assert_eq!((value(&log), log.modify_index("k")), ("of 2".to_owned(), index));
    assert_eq!(woken(&log), [first], "nobody else is woken");
    let [(2, told)] = &granted(&log)[..] else {
        panic!("{:?}", granted(&log));
    };
    assert_eq!(
        (told.modify_index.map(|index| index.0), told.lock_index),
        (Some(index), Some(2))
    );
    assert_eq!(places(&log), [(second, 3)]);
}

/// A lock that is free while somebody waits can only be in its delay, which this proposer believes to be over.
#[test]
fn nobody_gets_past_the_line() {
    let (mut log, sessions) = line(2, 15_000);
    let other = log.session(9, 0, SessionBehavior::Release);
    log.done(&destroy(&sessions[0]));
    assert_eq!(holder(&log), None);
    let command = lock("k", "mine", &other, u64::MAX);

    assert!(!log.ask(&command));

    assert!(log.silent());
    assert_eq!(
        log.state.why_refused(&command),
        Some(Refused::Queued { waiting: 1 })
    );
    let op = kv_op(KvVerb::Lock, "k", "mine", 0, &other);
    assert_eq!(log.txn(vec![op]).errors.len(), 1);
    assert_eq!(
        log.apply(&enter("k", "mine", &other, u64::MAX, 9)).queue(),
        Some(QueueAnswer::Waits { index: log.at })
    );
}

#[test]
fn whoever_has_the_lock_may_take_it_again_past_the_line() {
    let (mut log, sessions) = line(2, 0);

    log.done(&lock("k", "again", &sessions[0], u64::MAX));
    assert_eq!(value(&log), "again");
    let outcome = log.apply(&enter("k", "once more", &sessions[0], u64::MAX, 7));

    assert!(matches!(
        outcome,
        Outcome::Explained(Explained { done: true, .. })
    ));
    assert_eq!((value(&log), places(&log).len()), ("once more".to_owned(), 1));
}

#[test]
fn a_lock_delay_is_waited_for_and_its_end_gives_the_lock() {
    let (mut log, sessions) = line(3, 15_000);

    let set_index = log.done(&destroy(&sessions[0]));
    assert_eq!((holder(&log), granted(&log)), (None, vec![]));
    log.done(&delay_over("k", set_index - 1));
    assert_eq!(holder(&log), None, "that is another delay");
    log.done(&delay_over("k", set_index));

    assert_eq!(holder(&log).as_deref(), Some(&sessions[1][..]));
    assert_eq!(granted(&log)[0].0, 2);
}

#[test]
fn a_delay_that_the_proposer_knew_to_be_over_does_not_make_anybody_wait() {
    let mut log = Log::default();
    let sessions = [1, 2].map(|number| log.session(number, 15_000, SessionBehavior::Release));
    assert!(log.acquire("k", &sessions[0]));
    let set_index = log.done(&destroy(&sessions[0]));

    let early = log.apply(&enter("k", "v", &sessions[1], set_index - 1, 1));
    assert_eq!(early.queue(), Some(QueueAnswer::Waits { index: log.at }));
    log.apply(&leave("k", log.at));
    let late = log.apply(&enter("k", "v", &sessions[1], set_index, 2));

    assert!(matches!(late, Outcome::Explained(_)), "{late:?}");
    assert_eq!(log.state.lock_delays().count(), 0);
}

#[test]
fn all_that_ends_a_lock_gives_it_to_the_next_in_the_same_entry() {
    let ends: [fn(&str) -> Command; 5] = [
        |session| unlock("k", "u", session),
        |session| destroy(session),
        |_| delete("k"),
        |_| delete_tree(""),
        |_| deregister("n1", "", ""),
    ];
    for end in ends {
        let mut log = Log::default();
        log.node("n1");
        log.done(&create(session_row(1, "n1")));
        let first = session_id(1).to_string();
        let second = log.session(2, 0, SessionBehavior::Release);
        log.done(&lock("k", "v", &first, u64::MAX));
        log.apply(&enter("k", "of 2", &second, u64::MAX, 2));
        let command = end(&first);

        let index = log.done(&command);

        assert_eq!(holder(&log).as_deref(), Some(&second[..]), "{command:?}");
        assert_eq!(log.modify_index("k"), index, "{command:?}");
        assert_eq!(log.state.lock_waits().count(), 0, "{command:?}");
        assert!(log.dirty_keys().contains(&&b"k"[..]), "{command:?}");
    }
}

#[test]
fn a_session_that_ends_leaves_all_lines() {
    let (mut log, sessions) = line(4, 0);
    log.apply(&enter("other", "v", &sessions[3], u64::MAX, 1));
    log.apply(&enter("other", "v", &sessions[1], u64::MAX, 2));

    log.done(&destroy(&sessions[1]));
    assert_eq!(holder(&log).as_deref(), Some(&sessions[0][..]));
    assert_eq!(
        places(&log).iter().map(|place| place.1).collect::<Vec<_>>(),
        [3, 4]
    );
    assert_eq!(log.state.lock_waits().count(), 2);
    log.done(&destroy(&sessions[0]));

    assert_eq!(holder(&log).as_deref(), Some(&sessions[2][..]));
}

#[test]
fn whoever_leaves_from_the_middle_lets_nobody_in() {
    let (mut log, sessions) = line(4, 0);
    let [_, (middle, _), _] = places(&log)[..] else {
        panic!("three wait");
    };

    log.apply(&leave("k", middle));

    assert_eq!(holder(&log).as_deref(), Some(&sessions[0][..]));
    assert_eq!((granted(&log), woken(&log)), (vec![], vec![middle]));
    log.apply(&leave("k", middle));
    assert!(log.silent(), "it is gone already");
}

#[test]
fn a_request_that_is_applied_twice_has_one_place() {
    let (mut log, sessions) = line(2, 0);
    let index = places(&log)[0].0;

    let again = log.apply(&enter("k", "of 2", &sessions[1], u64::MAX, 2));

    assert_eq!(again.queue(), Some(QueueAnswer::Waits { index }));
    assert!(log.silent());
    log.done(&unlock("k", "u", &sessions[0]));
    let granted_at = log.at;
    let late = log.apply(&enter("k", "of 2", &sessions[1], u64::MAX, 2));
    assert!(matches!(late, Outcome::Explained(Explained { done: true, .. })));
    assert_eq!(log.modify_index("k"), granted_at, "nothing changed");
}

#[test]
fn all_requests_of_a_session_are_done_when_it_gets_the_lock() {
    let (mut log, sessions) = line(3, 0);
    log.apply(&enter("k", "last", &sessions[1], u64::MAX, 7));

    log.done(&unlock("k", "u", &sessions[0]));

    assert_eq!(holder(&log).as_deref(), Some(&sessions[1][..]));
    assert_eq!(
        granted(&log)
            .iter()
            .map(|(request, _)| *request)
            .collect::<Vec<_>>(),
        [2, 7]
    );
    assert_eq!(
        (
            value(&log),
            log.state.kv_get(b"k").map(lictor_state::KvRow::lock_index)
        ),
        ("last".to_owned(), Some(2))
    );
    assert_eq!(places(&log).iter().map(|place| place.1).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_transaction_ends_before_the_next_has_the_lock() {
    let (mut log, sessions) = line(2, 0);
    let unlock = kv_op(KvVerb::Unlock, "k", "u", 0, &sessions[0]);
    let fails = kv_op(KvVerb::CheckIndex, "none", "", 7, "");

    let failed = log.txn(vec![unlock.clone(), fails]);
    assert_eq!(failed.errors.len(), 1);
    assert_eq!(
        (holder(&log).as_deref(), granted(&log)),
        (Some(&sessions[0][..]), vec![])
    );
    let lock = kv_op(KvVerb::Lock, "k", "again", 0, &sessions[0]);
    let refused = log.txn(vec![unlock.clone(), lock]);
    assert_eq!(
        refused.errors.len(),
        1,
        "whoever gives it back stands behind the others"
    );
    let check = kv_op(KvVerb::CheckSession, "k", "", 0, "");
    let done = log.txn(vec![unlock, check]);

    assert!(done.errors.is_empty(), "{:?}", done.errors);
    assert_eq!(holder(&log).as_deref(), Some(&sessions[1][..]));
}

#[test]
fn an_unknown_session_has_no_place() {
    let (mut log, _) = line(2, 0);

    assert_eq!(log.fail(&enter("k", "v", "", u64::MAX, 5)), "missing session");
    let unknown = session_id(9).to_string();
    assert_eq!(
        log.fail(&enter("k", "v", &unknown, u64::MAX, 5)),
        format!("invalid session \"{unknown}\"")
    );
    assert_eq!(places(&log).len(), 1);
}

#[test]
fn a_restore_ends_all_lines() {
    let (log, _) = line(3, 0);
    let (archive, _) = line(4, 0);

    let restored = log.state.restored(archive.state, LogIndex(log.at + 1), Term(1));

    assert_eq!(restored.lock_waits().count(), 0);
    assert_eq!(restored.verify(), Ok(()));
}

#[test]
fn a_place_keeps_nothing_of_its_log_entry() {
    let (mut log, sessions) = line(1, 0);
    let entry = Bytes::from(vec![b'v'; 100]);
    let lock = v1::KvLock {
        key: entry.slice(..10),
        value: entry.slice(10..20),
        session: sessions[0].clone(),
        ..v1::KvLock::default()
    };
    let other = log.session(2, 0, SessionBehavior::Release);
    log.apply(&Command::KvLock(lock.clone()));

    log.apply(&Command::KvLockEnter(v1::KvLockEnter {
        lock: Some(v1::KvLock {
            session: other,
            ..lock
        }),
        request: entry.slice(20..36),
    }));

    let inside = entry.as_ptr_range();
    let row = log.state.lock_waits().next().expect("a place");
    for part in [&row.key, &row.value, &row.request] {
        assert!(!inside.contains(&part.as_ptr()));
    }
}
