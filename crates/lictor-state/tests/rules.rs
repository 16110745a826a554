//! One test a rule that is easy to get wrong.

mod common;

use common::*;
use lictor_proto::v1::SessionBehavior::{Delete, Release};
use lictor_proto::v1::{self, KvVerb, StringList};
use lictor_state::{Area, Dirty, Effect, Loader, TxnResult, Write};

// ---------------------------------------------------------------- list indexes

#[test]
fn r10_list_index_covers_folded_keys() {
    let mut log = Log::default();
    log.set("d/a/1", "");
    log.set("d/a/2", "");
    log.set("d/b", "");
    let folded = log.set("d/a/1", "changed");

    assert_eq!(log.keys("d/", "/"), ["d/a/", "d/b"]);
    assert_eq!(log.list_index("d/"), folded);
    assert_eq!(log.list_index("d/b"), 3);
}

#[test]
fn r10_keys_fold_after_the_first_separator_beyond_the_prefix() {
    let mut log = Log::default();
    for key in ["d", "d/", "d/1", "d/x/1", "d/x/2", "d0", "da/b/c", "e"] {
        log.set(key, "");
    }

    assert_eq!(log.keys("d", "/"), ["d", "d/", "d0", "da/"]);
    assert_eq!(log.keys("d/", "/"), ["d/", "d/1", "d/x/"]);
    assert_eq!(log.keys("", "/"), ["d", "d/", "d0", "da/", "e"]);
    assert_eq!(
        log.keys("d", ""),
        ["d", "d/", "d/1", "d/x/1", "d/x/2", "d0", "da/b/c"]
    );
    assert_eq!(log.keys("d", "/x"), ["d", "d/", "d/1", "d/x", "d0", "da/b/c"]);
    assert_eq!(log.keys("zz", "/"), [""; 0]);
}

#[test]
fn r11_a_recursive_delete_raises_the_index_of_longer_prefixes() {
    let mut log = Log::default();
    log.set("l/a", "");
    log.set("l/b/c", "");
    let older = log.delete("l/b/c");
    assert_eq!(log.list_index("l/b/"), older);

    let tree = log.delete_tree("l");

    for prefix in ["l", "l/", "l/a", "l/b/", "l/b/c/d", "l/never"] {
        assert_eq!(log.list_index(prefix), tree, "{prefix}");
    }
    log.set("m", "");
    assert_eq!(log.list_index("l/b/"), tree);
}

#[test]
fn r11_the_index_of_a_list_never_goes_back() {
    let mut log = Log::default();
    let prefixes = ["", "a", "a/", "a/b", "a/b/", "a/b/c", "b", "zz"];
    let mut last = [0; 8];
    let mut seen = |log: &Log| {
        for (prefix, last) in prefixes.iter().zip(&mut last) {
            let index = log.list_index(prefix);
            assert!(index >= *last, "{prefix}: {index} after {last}", last = *last);
            *last = index;
        }
    };
    for step in 0..3 {
        for key in ["a/b/c", "a/b/d", "b", "a/x"] {
            log.set(key, &step.to_string());
            seen(&log);
        }
        log.delete("a/b/d");
        seen(&log);
        log.delete_tree(["a/b", "a/b/", ""][step]);
        seen(&log);
        log.set("b", "again");
        seen(&log);
        log.done(&reap(log.at - 2));
        seen(&log);
        log.done(&reap(log.at));
        seen(&log);
    }
}

#[test]
fn r12_a_recursive_delete_is_one_range_for_rows_and_held_keys() {
    let mut log = Log::default();
    let session = log.session(1, 15_000, Release);
    for key in ["d/1", "d/2", "e"] {
        assert!(log.acquire(key, &session));
    }
    log.set("d/3", "");
    log.delete("d/3");
    log.set("d/x/y", "");
    log.delete_tree("d/x/");

    let index = log.delete_tree("d/");

    assert!(matches!(&log.out.dirty[..], [Dirty::Tree(prefix)] if prefix == "d/"));
    let tables: Vec<_> = log.out.writes.iter().map(|write| write.table().name()).collect();
    assert_eq!(tables, ["kv", "kv_tomb", "kv_tree", "kv_tree"]);
    assert!(matches!(log.out.writes[3], Write::TreeMark { index: marked, .. } if marked == index));
    assert_eq!(log.out.events, [Effect::Tombstone { index }]);
    let again = log.set("d/1", "by nobody");
    log.done(&destroy(&session));
    assert_eq!(
        log.delays(),
        [(&b"e"[..], 15_000)],
        "keys that were deleted are held by nobody"
    );
    assert_eq!(log.modify_index("d/1"), again);
}

#[test]
fn r12_deleting_a_tree_without_keys_changes_nothing() {
    let mut log = Log::default();
    log.set("a", "");
    let before = log.list_index("b/");

    log.delete_tree("b/");

    assert!(log.silent());
    assert_eq!(log.list_index("b/"), before);
}

#[test]
fn r13_a_session_is_kept_and_compared_as_it_was_written() {
    let mut log = Log::default();
    let lower = log.session(1, 0, Release);
    let upper = lower.to_uppercase();
    assert_ne!(lower, upper);

    assert!(log.acquire("k", &upper));

    assert_eq!(log.state.kv_get(b"k").unwrap().session(), Some(&*upper));
    assert!(!log.acquire("k", &lower));
    assert!(!log.ask(&unlock("k", "", &lower)));
    assert!(log.ask(&unlock("k", "", &upper)));
    assert!(log.acquire("k", &upper));
    let index = log.done(&destroy(&upper));
    let row = log.state.kv_get(b"k").unwrap();
    assert_eq!(
        (row.session(), row.modify_index()),
        (None, index),
        "its end finds keys held in capitals"
    );
}

#[test]
fn r14_the_index_of_a_missing_key_is_that_of_the_table_and_at_least_1() {
    let mut log = Log::default();
    assert_eq!(log.state.kv_table_index().0, 1);
    assert_eq!(log.list_index("x"), 1);

    log.set("a", "");
    log.set("b", "");
    let deleted = log.delete("a");

    assert_eq!(log.state.kv_table_index().0, deleted);
    assert_eq!(log.list_index("never"), deleted);
    assert_eq!(log.list_index(""), deleted);
    assert_eq!(log.state.tombstone_horizon().0, 0);
    log.done(&reap(deleted));
    assert_eq!(log.state.tombstone_horizon().0, deleted);
    assert_eq!(log.state.newest_tombstone(), None);
}

#[test]
fn r14_reaping_takes_what_is_due_and_nothing_else() {
    let mut log = Log::default();
    for key in ["a", "b/1", "c"] {
        log.set(key, "");
    }
    log.delete("a");
    let tree = log.delete_tree("b/");
    let last = log.delete("c");

    log.done(&reap(tree));

    let gone: Vec<_> = log
        .out
        .writes
        .iter()
        .map(|write| (write.table().name(), write.key_bytes()))
        .collect();
    assert_eq!(gone, [("kv_tomb", bytes("a")), ("kv_tree", bytes("b/"))]);
    assert!(log.out.dirty.is_empty());
    assert_eq!(log.state.newest_tombstone().unwrap().0, last);
    assert_eq!(log.list_index("c"), last);
    log.set("a", "");
    log.done(&reap(last));
    assert_eq!(log.state.tombstone_horizon().0, last);
}

// ---------------------------------------------------------------- writes

#[test]
fn writing_what_is_there_changes_nothing() {
    let mut log = Log::default();
    let session = log.session(1, 0, Release);
    let first = log.set("k", "v");
    assert!(log.acquire("l", &session));
    let held = log.at;

    for same in [
        set("k", "v"),
        cas("k", "v", first),
        lock("l", "locked", &session, 99),
    ] {
        log.done(&same);
        assert!(log.silent(), "{same:?}");
    }

    assert_eq!((log.modify_index("k"), log.modify_index("l")), (first, held));
    assert_eq!(log.state.kv_table_index().0, held);
}

#[test]
fn cas_compares_the_modify_index_and_0_creates_only() {
    let mut log = Log::default();

    assert!(!log.ask(&cas("k", "v", 5)));
    let created = log.done(&cas("k", "v", 0));
    assert!(!log.ask(&cas("k", "w", 0)) && log.silent());
    assert!(!log.ask(&cas("k", "w", created + 1)));
    let changed = log.done(&cas("k", "w", created));

    let row = log.state.kv_get(b"k").unwrap();
    assert_eq!(
        (row.create_index(), row.modify_index(), row.value()),
        (created, changed, &b"w"[..])
    );
}

#[test]
fn deletes_answer_true_unless_cas_finds_another_index() {
    let mut log = Log::default();
    let delete_cas = |key: &str, index| {
        lictor_proto::Command::KvDelete(v1::KvDelete {
            key: bytes(key),
            cas: Some(index),
        })
    };
    let index = log.set("k", "v");

    assert!(!log.ask(&delete_cas("k", index + 9)) && !log.ask(&delete_cas("k", 0)));
    assert!(log.ask(&delete_cas("none", 7)) && log.silent());
    assert!(log.ask(&delete_cas("k", index)));
    assert!(log.ask(&delete("k")) && log.silent());
    let again = log.set("k", "v");
    assert_eq!(log.state.kv_get(b"k").unwrap().create_index(), again);
    assert!(matches!(
        &log.out.writes[..],
        [Write::TombstoneGone(_), Write::Kv(_)]
    ));
}

#[test]
fn a_plain_write_over_a_held_key_keeps_the_holder_and_resets_the_count() {
    let mut log = Log::default();
    let session = log.session(1, 0, Release);
    let facts = |log: &Log| {
        let row = log.state.kv_get(b"k").unwrap();
        (row.session().is_some(), row.lock_index())
    };
    assert!(log.acquire("k", &session));
    assert_eq!(facts(&log), (true, 1));

    log.set("k", "plain");
    assert_eq!(facts(&log), (true, 0));
    assert!(log.acquire("k", &session));
    assert_eq!(facts(&log), (true, 0));
    log.done(&unlock("k", "", &session));
    assert_eq!(facts(&log), (false, 0));
    assert!(log.acquire("k", &session));
    assert_eq!(facts(&log), (true, 1));
    log.done(&unlock("k", "", &session));
    assert!(log.acquire("k", &session));
    assert_eq!(facts(&log), (true, 2));
}

#[test]
fn acquire_needs_a_session_that_exists() {
    let mut log = Log::default();
    let texts = [
        ("", "missing session"),
        ("junk", "invalid session \"junk\""),
        ("\0x", "invalid session \"\\x00x\""),
        (
            "11111111-2222-3333-4444-555555555555",
            "invalid session \"11111111-2222-3333-4444-555555555555\"",
        ),
    ];
    for (session, text) in texts {
        assert_eq!(log.fail(&lock("k", "", session, 0)), text);
        assert!(log.silent());
    }
    assert_eq!(log.fail(&unlock("k", "", "")), "missing session");
    assert!(!log.ask(&unlock("k", "", "junk")));
}

// ---------------------------------------------------------------- sessions and lock-delays

#[test]
fn all_keys_of_a_session_change_at_the_one_index_of_its_end() {
    let mut log = Log::default();
    let session = log.session(1, 0, Release);
    for key in ["a", "b", "c"] {
        assert!(log.acquire(key, &session));
    }
    log.done(&unlock("c", "", &session));
    let released = log.at;

    let end = log.done(&destroy(&session));

    assert_eq!(
        (
            log.modify_index("a"),
            log.modify_index("b"),
            log.modify_index("c")
        ),
        (end, end, released)
    );
    let row = log.state.kv_get(b"a").unwrap();
    assert_eq!(
        (row.session(), row.value(), row.lock_index()),
        (None, &b"locked"[..], 1)
    );
    assert_eq!(log.dirty_keys(), [b"a", b"b"]);
    assert!(
        log.out
            .dirty
            .contains(&Dirty::Row(Area::SessionsOfNode, bytes("n")))
    );
    assert!(log.out.dirty.contains(&Dirty::Row(Area::Sessions, bytes(""))));
    assert_eq!(log.out.events, [Effect::SessionGone { id: session_id(1) }]);
    log.done(&destroy(&session));
    assert!(log.silent());
}

#[test]
fn behavior_delete_removes_the_keys_and_delays_them_too() {
    let mut log = Log::default();
    let session = log.session(1, 3_000, Delete);
    assert!(log.acquire("a", &session));

    let end = log.done(&destroy(&session));

    assert!(log.state.kv_get(b"a").is_none());
    assert_eq!(log.list_index("a"), end);
    assert_eq!(log.delays(), [(&b"a"[..], 3_000)]);
    assert!(log.out.events.contains(&Effect::Tombstone { index: end }));
}

#[test]
fn r15_a_delay_set_after_the_proposer_looked_refuses_the_lock() {
    let mut log = Log::default();
    let (first, second) = (log.session(1, 5_000, Release), log.session(2, 0, Release));
    assert!(log.acquire("k", &first));
    let looked = log.at;
    let end = log.done(&destroy(&first));

    assert!(!log.ask(&lock("k", "", &second, looked)) && log.silent());
    let op = kv_op(KvVerb::Lock, "k", "", 0, &second);
    let txn = v1::Txn {
        ops: vec![op],
        checked_at: looked,
    };
    let lictor_state::Outcome::Txn(refused) = log.apply(&lictor_proto::Command::Txn(txn)) else {
        panic!()
    };
    assert_eq!(
        refused.errors[0].what,
        "failed to lock key \"k\" due to lock delay"
    );

    assert!(log.ask(&lock("k", "", &second, end)));
    assert!(log.out.events.contains(&Effect::LockDelayGone {
        key: bytes("k"),
        set_index: end
    }));
    assert_eq!(log.state.lock_delays().count(), 0);
}

#[test]
fn r15_only_the_delay_that_is_named_ends() {
    let mut log = Log::default();
    let mut ends = Vec::new();
    for number in [1, 2] {
        let session = log.session(number, 5_000, Release);
        assert!(log.ask(&lock("k", "", &session, u64::MAX)));
        ends.push(log.done(&destroy(&session)));
    }

    log.done(&delay_over("k", ends[0]));
    assert!(log.silent());
    assert_eq!(log.state.lock_delays().next().unwrap().set_index, ends[1]);
    log.done(&delay_over("k", ends[1]));
    assert_eq!(
        log.out.events,
        [Effect::LockDelayGone {
            key: bytes("k"),
            set_index: ends[1]
        }]
    );
    assert_eq!(log.state.lock_delays().count(), 0);
}

#[test]
fn r15_a_lock_delay_acts_for_60_s_at_most_and_not_at_all_if_not_positive() {
    for (asked_ms, acts_ms) in [
        (90_000, Some(60_000)),
        (1_500, Some(1_500)),
        (0, None),
        (-5, None),
    ] {
        let mut log = Log::default();
        let session = log.session(1, asked_ms, Release);
        assert!(log.acquire("k", &session));

        log.done(&destroy(&session));

        assert_eq!(log.delays().first().map(|delay| delay.1), acts_ms, "{asked_ms}");
    }
}

#[test]
fn r15_no_delay_after_a_release_or_a_delete_of_the_key() {
    let mut log = Log::default();
    let session = log.session(1, 5_000, Release);
    assert!(log.acquire("released", &session) && log.acquire("deleted", &session));
    log.done(&unlock("released", "", &session));
    log.delete("deleted");

    log.done(&destroy(&session));

    assert_eq!(log.delays(), []);
}

#[test]
fn a_session_needs_its_node_and_checks_that_are_not_critical() {
    let mut log = Log::default();
    let bound = |checks: &[&str]| {
        let items = checks.iter().map(|&check| check.to_owned()).collect();
        create(v1::SessionRow {
            node_checks: Some(StringList { items }),
            ..session_row(1, "N")
        })
    };

    assert_eq!(log.fail(&bound(&[])), "Missing node registration");
    log.done(&register("n", None, vec![check("n", "c", "", "critical")]));
    assert_eq!(
        log.fail(&bound(&["nope", "c"])),
        "Missing check 'nope' registration"
    );
    assert_eq!(log.fail(&bound(&["c"])), "Check 'c' is in critical state");
    let empty = "failed check lookup: index error: object is missing a value for this index";
    assert_eq!(log.fail(&bound(&[""])), empty);
    assert!(log.silent());
    log.done(&register("n", None, vec![check("n", "c", "", "warning")]));
    log.done(&bound(&["c"]));
    assert!(matches!(
        log.out.events[..],
        [Effect::SessionCreated { ttl_ms: 0, .. }]
    ));
    assert!(log.fail(&bound(&["c"])).contains("exists"));
    assert_eq!(log.state.sessions_of_node("n").count(), 1);
}

/// What ends a session that is bound to check `c` of service `s` on node `n`.
#[test]
fn a_session_ends_with_its_check_its_service_and_its_node() {
    let critical = register("n", None, vec![check("N", "c", "s", "critical")]);
    for (end, ends) in [
        (critical, true),
        (deregister("n", "", "c"), true),
        (deregister("n", "s", ""), true),
        (deregister("N", "", ""), true),
        (register("n", None, vec![check("n", "c", "s", "warning")]), false),
        (
            register("n", None, vec![check("n", "other", "", "critical")]),
            false,
        ),
        (deregister("n", "", "other"), false),
    ] {
        let mut log = Log::default();
        log.done(&register(
            "n",
            Some(service("n", "s", "web")),
            vec![check("n", "c", "s", "passing")],
        ));
        let checks = Some(StringList {
            items: vec!["c".to_owned()],
        });
        log.done(&create(v1::SessionRow {
            checks,
            ..session_row(1, "n")
        }));
        assert!(log.acquire("k", &session_id(1).to_string()));

        let index = log.done(&end);

        assert_eq!(log.state.session(session_id(1)).is_none(), ends, "{end:?}");
        let row = log.state.kv_get(b"k").unwrap();
        assert_eq!(
            (row.session().is_none(), row.modify_index() == index),
            (ends, ends),
            "{end:?}"
        );
        assert_eq!(log.state.sessions_index().0 == index, ends);
    }
}

// ---------------------------------------------------------------- transactions

#[test]
fn a_transaction_sees_its_own_writes_and_has_one_index() {
    let mut log = Log::default();

    let outcome = log.txn(vec![
        kv_op(KvVerb::Set, "a", "1", 0, ""),
        kv_op(KvVerb::Get, "a", "", 0, ""),
        kv_op(KvVerb::Delete, "a", "", 0, ""),
        kv_op(KvVerb::GetOrEmpty, "a", "", 0, ""),
        kv_op(KvVerb::Set, "a", "2", 0, ""),
        kv_op(KvVerb::GetTree, "", "", 0, ""),
        kv_op(KvVerb::CheckNotExists, "b", "", 0, ""),
        v1::TxnOp { op: None },
    ]);

    assert_eq!(outcome.errors, []);
    let shown: Vec<_> = outcome
        .results
        .iter()
        .map(|result| match result {
            TxnResult::Kv {
                row,
                with_value: true,
            } => String::from_utf8_lossy(row.value()).into_owned(),
            TxnResult::Kv {
                with_value: false, ..
            } => "-".to_owned(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(shown, ["-", "1", "-", "-", "2"]);
    assert_eq!(
        (
            log.modify_index("a"),
            log.state.kv_get(b"a").unwrap().create_index()
        ),
        (1, 1)
    );
}

/// As recorded: the fields of the operation come back as those of a row.
#[test]
fn get_or_empty_shows_the_operation_of_a_missing_key() {
    let mut log = Log::default();

    let outcome = log.txn(vec![kv_op(KvVerb::GetOrEmpty, "missing", "v", 9, "s")]);

    let [
        TxnResult::Kv {
            row,
            with_value: false,
        },
    ] = &outcome.results[..]
    else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        (row.key(), row.session(), row.create_index(), row.modify_index()),
        (&b"missing"[..], Some("s"), 0, 9)
    );
}

#[test]
fn a_transaction_tries_all_operations_and_undoes_all_after_a_failure() {
    let mut log = Log::default();
    log.set("a", "1");
    log.set("t/1", "");
    let before = rows(&log.state);
    let indexes = log.state.table_indexes();

    let outcome = log.txn(vec![
        kv_op(KvVerb::Set, "a", "2", 0, ""),
        kv_op(KvVerb::Get, "none", "", 0, ""),
        kv_op(KvVerb::Delete, "a", "", 0, ""),
        kv_op(KvVerb::DeleteTree, "t/", "", 0, ""),
        kv_op(KvVerb::CheckNotExists, "a", "", 0, ""),
        kv_op(KvVerb::CheckNotExists, "t/2", "", 0, ""),
        kv_op(KvVerb::Cas, "a", "3", 7, ""),
        kv_op(KvVerb::Get, "none2", "", 0, ""),
    ]);

    let errors: Vec<_> = outcome
        .errors
        .iter()
        .map(|error| (error.op_index, &*error.what))
        .collect();
    let stale = "failed to set key \"a\", index is stale";
    assert_eq!(
        errors,
        [
            (1, "key \"none\" doesn't exist"),
            (6, stale),
            (7, "key \"none2\" doesn't exist")
        ]
    );
    assert!(outcome.results.is_empty());
    assert!(log.silent());
    assert_eq!((rows(&log.state), log.state.table_indexes()), (before, indexes));
    assert_eq!(log.state.applied().0.0, 3);
}

#[test]
fn transaction_errors_have_their_texts() {
    let mut log = Log::default();
    let (a, b) = (log.session(1, 0, Release), log.session(2, 0, Release));
    let index = log.set("k", "v");
    assert!(log.acquire("l", &a));
    for (op, text) in [
        (
            kv_op(KvVerb::CheckIndex, "k", "", 1, ""),
            &*format!("failed index check for key \"k\", current modify index {index} != 1"),
        ),
        (
            kv_op(KvVerb::CheckIndex, "none", "", 0, ""),
            "failed to check index, key \"none\" doesn't exist",
        ),
        (
            kv_op(KvVerb::CheckSession, "k", "", 0, "x"),
            "failed session check for key \"k\", current session \"\" != \"x\"",
        ),
        (
            kv_op(KvVerb::CheckSession, "none", "", 0, "x"),
            "failed to check session, key \"none\" doesn't exist",
        ),
        (kv_op(KvVerb::CheckNotExists, "k", "", 0, ""), "key \"k\" exists"),
        (
            kv_op(KvVerb::DeleteCas, "k", "", 1, ""),
            "failed to delete key \"k\", index is stale",
        ),
        (
            kv_op(KvVerb::Lock, "l", "", 0, &b),
            "failed to lock key \"l\", lock is already held",
        ),
        (
            kv_op(KvVerb::Lock, "l", "", 0, "junk"),
            "invalid session \"junk\"",
        ),
        (kv_op(KvVerb::Lock, "l", "", 0, ""), "missing session"),
        (
            kv_op(KvVerb::Unlock, "l", "", 0, &b),
            "failed to unlock key \"l\", lock isn't held, or is held by another session",
        ),
        (kv_op(KvVerb::Unlock, "l", "", 0, ""), "missing session"),
    ] {
        assert_eq!(log.txn(vec![op]).errors[0].what, text);
    }
    for op in [
        kv_op(KvVerb::CheckIndex, "k", "", index, ""),
        kv_op(KvVerb::CheckSession, "k", "", 0, ""),
        kv_op(KvVerb::CheckSession, "l", "", 0, &a),
        kv_op(KvVerb::Lock, "l", "2", 0, &a),
        kv_op(KvVerb::Unlock, "l", "2", 0, &a),
        kv_op(KvVerb::DeleteCas, "none", "", 5, ""),
        kv_op(KvVerb::DeleteCas, "k", "", index, ""),
    ] {
        assert_eq!(log.txn(vec![op]).errors, []);
    }
}

#[test]
fn a_reading_transaction_reads_and_refuses_to_write() {
    let mut log = Log::default();
    log.set("k", "v");
    let ops = vec![
        kv_op(KvVerb::Get, "k", "", 0, ""),
        kv_op(KvVerb::Get, "none", "", 0, ""),
    ];
    let read = log.state.txn_read(&v1::Txn { ops, checked_at: 0 });
    assert_eq!(read.errors.len(), 1);
    assert_eq!(read.errors[0].op_index, 1);

    let ops = vec![kv_op(KvVerb::Set, "k", "w", 0, "")];
    assert_eq!(
        log.state.txn_read(&v1::Txn { ops, checked_at: 0 }).errors.len(),
        1
    );
    assert_eq!(log.state.kv_get(b"k").unwrap().value(), b"v");
}

#[test]
fn a_transaction_that_reads_too_many_rows_fails_as_a_whole() {
    use lictor_proto::limits::TXN_RESULT_ROWS_MAX;
    let mut log = Log::default();
    let keys = 2100;
    for at in 0..keys {
        log.set(&format!("t/{at}"), "v");
    }
    log.set("k", "v");
    let trees = TXN_RESULT_ROWS_MAX / keys;
    let ops = |trees: usize| {
        let mut ops = vec![
            kv_op(KvVerb::Get, "none", "", 0, ""),
            kv_op(KvVerb::Set, "k", "w", 0, ""),
        ];
        ops.resize(2 + trees, kv_op(KvVerb::GetTree, "t/", "", 0, ""));
        ops
    };

    let refused = log.txn(ops(trees + 1));
    let read = log.state.txn_read(&v1::Txn {
        ops: ops(trees + 1).split_off(2),
        checked_at: 0,
    });
    let done = log.txn(ops(trees).split_off(1));

    assert_eq!((refused.errors.len(), refused.errors[0].op_index), (1, 2 + trees));
    assert!(refused.errors[0].what.starts_with("transaction reads too much"));
    assert!(refused.results.is_empty());
    assert_eq!((read.errors.len(), read.errors[0].op_index), (1, trees));
    assert_eq!((done.errors.len(), done.results.len()), (0, 1 + trees * keys));
}

#[test]
fn a_transaction_with_a_tree_that_is_too_large_is_undone() {
    let mut log = Log::default();
    let value = "x".repeat(512 * 1024);
    for at in 0..9 {
        log.set(&format!("t/{at}"), &value);
    }
    let mut ops = vec![kv_op(KvVerb::Set, "k", "w", 0, "")];
    ops.resize(1 + 127, kv_op(KvVerb::GetTree, "t/", "", 0, ""));

    let refused = log.txn(ops.clone());

    // Nine values of 512 KiB are read 113 times at most.
    assert_eq!((refused.errors.len(), refused.errors[0].op_index), (1, 114));
    assert!(log.state.kv_get(b"k").is_none() && log.silent());
    ops.truncate(114);
    assert!(log.txn(ops).errors.is_empty());
}

// ---------------------------------------------------------------- the index offset, loading

#[test]
fn r09_visible_indexes_count_from_the_offset() {
    let meta = v1::MetaRow {
        applied_index: 10,
        applied_term: 2,
        index_offset: 1000,
        ..v1::MetaRow::default()
    };
    let mut log = Log {
        state: Loader::new(&meta).finish(),
        at: 10,
        ..Log::default()
    };
    assert_eq!(log.state.applied().0.0, 10);

    log.set("k", "v");

    assert_eq!(log.modify_index("k"), 1011);
    assert_eq!(log.state.meta().index_offset, 1000);
    assert_eq!(log.list_index("k"), 1011);
}

#[test]
fn a_loaded_state_equals_the_one_that_was_dumped() {
    let mut log = Log::default();
    let session = log.session(1, 5_000, Release);
    log.done(&register(
        "n",
        Some(service("n", "s", "web")),
        vec![check("n", "c", "s", "passing")],
    ));
    assert!(log.acquire("held", &session) && log.acquire("t/held", &session));
    let other = log.session(2, 5_000, Release);
    assert!(log.acquire("delayed", &other));
    log.done(&destroy(&other));
    log.set("gone", "");
    log.delete("gone");
    log.set("tree/1", "");
    log.delete_tree("tree/");

    let mut loader = Loader::new(&log.state.meta());
    for (table, key, value) in log
        .state
        .dump()
        .map(|row| (row.table(), row.key_bytes(), row.value_bytes()))
    {
        loader.push_bytes(table, &key, &value).unwrap();
    }
    let mut loaded = Log {
        state: loader.finish(),
        at: log.at,
        ..Log::default()
    };

    assert_eq!(rows(&loaded.state), rows(&log.state));
    assert_eq!(loaded.state.meta(), log.state.meta());
    for prefix in ["", "t", "tree/x", "gone", "held", "none"] {
        assert_eq!(loaded.list_index(prefix), log.list_index(prefix), "{prefix}");
    }
    for command in [deregister("n", "", ""), reap(log.at), set("tree/1", "")] {
        loaded.done(&command);
        log.done(&command);
        assert_eq!(rows(&loaded.state), rows(&log.state));
        assert_eq!(
            (&loaded.out.dirty, &loaded.out.events),
            (&log.out.dirty, &log.out.events)
        );
    }
}

#[test]
fn rows_that_come_twice_or_out_of_order_are_refused() {
    let mut log = Log::default();
    log.set("a", "");
    log.set("b", "");
    log.node("n");
    let dumped: Vec<_> = log.state.dump().collect();

    for row in [
        dumped[1].clone(),
        dumped[0].clone(),
        dumped[2].clone(),
        Write::KvGone(bytes("c")),
    ] {
        let mut loader = Loader::default();
        dumped.iter().cloned().for_each(|row| loader.push(row).unwrap());
        assert!(loader.push(row).is_err());
    }
}
