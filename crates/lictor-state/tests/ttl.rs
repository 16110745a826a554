//! Keys with a TTL.

mod common;

use common::*;
use lictor_proto::Command;
use lictor_proto::v1::{self, SessionBehavior};
use lictor_state::Effect;

fn set_ttl(key: &str, value: &str, ttl_ms: u64) -> Command {
    let set = v1::KvSet {
        key: bytes(key),
        value: bytes(value),
        flags: 0,
        cas: None,
    };
    Command::KvSetTtl(v1::KvSetTtl {
        set: Some(set),
        ttl_ms,
    })
}

fn over(key: &str, set_index: u64) -> Command {
    let ttls = vec![v1::KvTtlRef {
        key: bytes(key),
        set_index,
    }];
    Command::KvTtlOver(v1::KvTtlOver { ttls })
}

fn exists(log: &Log, key: &str) -> bool {
    log.state.kv_get(key.as_bytes()).is_some()
}

#[test]
fn a_key_goes_when_its_ttl_is_over() {
    let mut log = Log::default();
    let set_index = log.done(&set_ttl("k", "v", 60_000));
    assert_eq!(
        log.out.events,
        [Effect::KvTtl {
            key: bytes("k"),
            set_index,
            ttl_ms: 60_000
        }]
    );

    let gone = log.done(&over("k", set_index));

    assert!(!exists(&log, "k"));
    assert_eq!(log.list_index("k"), gone, "as any delete");
    assert_eq!(log.state.kv_ttls().count(), 0);
}

#[test]
fn a_later_write_of_any_kind_wins() {
    let mut log = Log::default();
    let session = log.session(1, 0, SessionBehavior::Release);
    let writes = [
        set("k", "v"),
        set_ttl("k", "v", 60_000),
        lock("k", "v", &session, u64::MAX),
        unlock("k", "v", &session),
    ];

    for write in writes {
        let set_index = log.done(&set_ttl("k", "v", 1_000));
        log.done(&write);
        log.done(&over("k", set_index));
        assert!(exists(&log, "k"), "{write:?}");
    }
}

#[test]
fn who_writes_the_same_again_renews_the_ttl_and_wakes_nobody() {
    let mut log = Log::default();
    let first = log.done(&set_ttl("k", "v", 1_000));

    let again = log.done(&set_ttl("k", "v", 1_000));

    assert_eq!(log.modify_index("k"), first);
    assert!(log.out.dirty.is_empty());
    log.done(&over("k", first));
    assert!(exists(&log, "k"));
    log.done(&over("k", again));
    assert!(!exists(&log, "k"));
}

#[test]
fn the_end_of_its_holder_s_session_does_not_keep_a_key() {
    let mut log = Log::default();
    let session = log.session(1, 0, SessionBehavior::Release);
    assert!(log.acquire("k", &session));
    let set_index = log.done(&set_ttl("k", "v", 1_000));

    log.done(&destroy(&session));

    assert!(exists(&log, "k"));
    log.done(&over("k", set_index));
    assert!(!exists(&log, "k"));
}

#[test]
fn a_recursive_delete_takes_the_ttls_along() {
    let mut log = Log::default();
    let set_index = log.done(&set_ttl("p/k", "v", 1_000));
    log.done(&set_ttl("q", "v", 1_000));

    log.delete_tree("p/");

    let gone = Effect::KvTtlGone {
        key: bytes("p/k"),
        set_index,
    };
    assert!(log.out.events.contains(&gone), "{:?}", log.out.events);
    assert!(log.state.kv_ttls().map(|row| &row.key[..]).eq([b"q"]));
}
