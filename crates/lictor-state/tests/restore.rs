//! What a restore makes of a state (rule R9).

mod common;

use std::time::Duration;

use common::*;
use lictor_proto::v1::{self, SessionBehavior};
use lictor_proto::{Command, LogIndex, Term};
use lictor_state::{ARCHIVE_INDEX_MAX, State};

/// Restores `archive` as the log's next entry.
fn restore(log: &mut Log, archive: &Log) {
    log.at += 1;
    log.state = log
        .state
        .restored(archive.state.clone(), LogIndex(log.at), Term(2));
}

/// A log with `count` writes of one key.
fn writes(count: u64) -> Log {
    let mut log = Log::default();
    for number in 0..count {
        log.set("k", &number.to_string());
    }
    log
}

/// A setting of the cluster's is neither brought by an archive nor lost with the rows.
#[test]
fn the_shortest_ttl_of_sessions_outlives_a_restore() {
    let set = |ms| Command::SessionTtlMinSet(v1::SessionTtlMinSet { ms });
    let (mut log, mut archive) = (Log::default(), Log::default());
    log.done(&set(1_000));
    archive.done(&set(2_000));

    let restored = log.state.restored(archive.state, LogIndex(log.at + 1), Term(1));

    assert_eq!(restored.session_ttl_min(), Duration::from_secs(1));
    assert_eq!(State::default().session_ttl_min(), Duration::from_secs(10));
}

#[test]
fn rows_and_table_indexes_are_the_archives() {
    let mut log = writes(50);
    let mut archive = writes(3);
    archive.delete("k");
    archive.set("a/b", "1");

    restore(&mut log, &archive);

    assert_eq!(rows(&log.state), rows(&archive.state));
    assert_eq!(log.state.table_indexes(), archive.state.table_indexes());
    assert_eq!(log.list_index("a"), 5);
    assert_eq!(log.state.applied(), (LogIndex(51), Term(2)));
    assert_eq!(log.state.verify(), Ok(()));
}

#[test]
fn indexes_go_on_above_an_archive_from_behind_the_log() {
    let mut log = writes(50);

    restore(&mut log, &writes(3));
    log.set("k", "new");

    assert_eq!(log.modify_index("k"), 52);
}

#[test]
fn indexes_go_on_above_an_archive_from_ahead_of_the_log() {
    let mut log = writes(3);

    restore(&mut log, &writes(50));
    log.set("k", "new");

    assert_eq!(log.modify_index("k"), 51);
}

#[test]
fn the_offset_never_shrinks() {
    let mut log = writes(3);
    restore(&mut log, &writes(50));
    log.set("k", "new");

    restore(&mut log, &writes(2));
    log.set("k", "newer");

    assert_eq!(log.modify_index("k"), 53);
}

#[test]
fn a_lock_that_was_allowed_before_the_restore_meets_its_delays() {
    let mut archive = Log::default();
    let session = archive.session(1, 15_000, SessionBehavior::Release);
    assert!(archive.acquire("k", &session));
    archive.done(&destroy(&session));
    assert_eq!(archive.delays(), [(&b"k"[..], 15_000)]);
    let other = archive.session(2, 0, SessionBehavior::Release);
    let mut log = writes(50);
    let checked_at = log.state.visible(LogIndex(log.at)).0;

    restore(&mut log, &archive);

    assert!(!log.ask(&lock("k", "", &other, checked_at)));
    let checked_at = log.state.visible(LogIndex(log.at)).0;
    assert!(log.ask(&lock("k", "", &other, checked_at)));
}

#[test]
fn a_restore_is_told_from_what_was_there_before() {
    let mut log = writes(4);
    assert_eq!(log.state.replaced_at(), LogIndex(0));

    restore(&mut log, &writes(4));
    log.set("k", "more");

    assert_eq!(log.state.replaced_at(), LogIndex(5));
}

#[test]
fn indexes_and_ttls_out_of_range_are_refused() {
    assert_eq!(writes(4).state.check_archive(), Ok(()));

    let mut far = Log {
        at: ARCHIVE_INDEX_MAX,
        ..Log::default()
    };
    far.set("k", "");
    assert!(far.state.check_archive().is_err());

    let mut long = Log::default();
    long.node("n");
    let mut row = session_row(1, "n");
    row.ttl_ms = u64::MAX;
    long.done(&create(row));
    assert!(long.state.check_archive().is_err());
}
