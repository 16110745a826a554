//! Commands as they are drawn.

use bytes::Bytes;
use lictor_proto::Command;
use lictor_proto::v1::{self, KvVerb, SessionBehavior, StringList};
use proptest::prelude::*;

use super::common::*;

pub(crate) fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::collection::vec(prop_oneof![Just("a"), Just("b"), Just("/")], 0..4)
            .prop_map(|parts| parts.concat()),
        (0u8..40).prop_map(|number| format!("a/{number:02}")),
    ]
}

fn session_text() -> impl Strategy<Value = String> {
    (0u8..5, 0u8..8).prop_map(|(number, form)| match form {
        0 => session_id(number).to_string().to_uppercase(),
        1 if number == 0 => String::new(),
        1 => "junk".to_owned(),
        _ => session_id(number).to_string(),
    })
}

fn txn() -> impl Strategy<Value = Command> {
    let verb = prop_oneof![5 => 1i32..3, 2 => 3i32..5, 3 => 5i32..14];
    let index = prop_oneof![Just(0), 1u64..60];
    let op = (verb, key(), 0u8..3, index, session_text());
    proptest::collection::vec(op, 1..5).prop_map(|ops| {
        let op = |(verb, key, value, index, session): (i32, String, u8, u64, String)| {
            kv_op(
                KvVerb::try_from(verb).unwrap(),
                &key,
                &value.to_string(),
                index,
                &session,
            )
        };
        Command::Txn(v1::Txn {
            ops: ops.into_iter().map(op).collect(),
            checked_at: u64::MAX,
        })
    })
}

pub(crate) fn session() -> impl Strategy<Value = Command> {
    (0u8..5, 0u8..3, 0i64..3, any::<bool>(), 0u8..3).prop_map(|(number, node, delay, delete, checks)| {
        let behavior = if delete {
            SessionBehavior::Delete
        } else {
            SessionBehavior::Release
        };
        let items = ["c0", "c1"]
            .iter()
            .take(usize::from(checks))
            .map(|&check| check.to_owned())
            .collect();
        create(v1::SessionRow {
            lock_delay_ns: [0, 5_000_000_000, 90_000_000_000][usize::try_from(delay).unwrap()],
            behavior: behavior.into(),
            checks: Some(StringList { items }),
            ..session_row(number, ["n0", "n1", "N0"][usize::from(node)])
        })
    })
}

pub(crate) fn registration() -> impl Strategy<Value = Command> {
    (0u8..2, 0u8..3, 0u8..3, 0u8..4, 0u8..3).prop_map(|(node, with, check_at, of, status)| {
        let node = ["n0", "n1"][usize::from(node)];
        let row = (with == 0).then(|| service(node, "s0", "web"));
        let of = ["", "s0", "s0", "none"][usize::from(of)];
        let status = ["passing", "warning", "critical"][usize::from(status)];
        let checks = (check_at < 2).then(|| check(node, ["c0", "c1"][usize::from(check_at)], of, status));
        register(node, row, checks.into_iter().collect())
    })
}

/// Names of queries: those that begin with others, differ by case, or look like the id of one.
pub(crate) const QUERY_NAMES: [&str; 6] = ["", "q", "Q", "qa", "qab", "b0b0b0b0-b0b0-b0b0-b0b0-b0b0b0b0b0b0"];

fn prepared_query() -> impl Strategy<Value = Command> {
    let session = prop_oneof![Just(String::new()), session_text()];
    (0u8..4, 0..QUERY_NAMES.len(), session, any::<bool>(), 0u8..4).prop_map(
        |(number, name, session, is_template, kind)| {
            let id = Bytes::from(vec![0xb0 | number; 16]);
            if kind == 0 {
                return Command::PreparedQueryDelete(v1::PreparedQueryDelete { id });
            }
            let query = v1::PreparedQueryRow {
                id,
                name: QUERY_NAMES[name].to_owned(),
                session,
                is_template,
                ..v1::PreparedQueryRow::default()
            };
            Command::PreparedQuerySet(v1::PreparedQuerySet { query: Some(query) })
        },
    )
}

pub(crate) fn command() -> impl Strategy<Value = Command> {
    let cas_index = prop_oneof![Just(None), Just(Some(0)), (1u64..60).prop_map(Some)];
    prop_oneof![
        6 => (key(), 0u8..3, 0u64..2, cas_index.clone()).prop_map(|(key, value, flags, cas)| {
            Command::KvSet(v1::KvSet { key: bytes(&key), value: bytes(&value.to_string()), flags, cas })
        }),
        3 => (key(), 0u8..3, cas_index.clone(), 1u64..9).prop_map(|(key, value, cas, ttl_ms)| {
            let set = v1::KvSet { key: bytes(&key), value: bytes(&value.to_string()), flags: 0, cas };
            Command::KvSetTtl(v1::KvSetTtl { set: Some(set), ttl_ms })
        }),
        2 => (key(), 0u64..60).prop_map(|(key, set_index)| {
            let ttls = vec![v1::KvTtlRef { key: bytes(&key), set_index }];
            Command::KvTtlOver(v1::KvTtlOver { ttls })
        }),
        2 => (key(), cas_index).prop_map(|(key, cas)| Command::KvDelete(v1::KvDelete { key: bytes(&key), cas })),
        1 => key().prop_map(|prefix| delete_tree(&prefix)),
        6 => (key(), session_text(), prop_oneof![Just(u64::MAX), 0u64..60])
            .prop_map(|(key, session, checked_at)| lock(&key, "l", &session, checked_at)),
        6 => (key(), session_text(), prop_oneof![Just(u64::MAX), 0u64..60], 0u8..20)
            .prop_map(|(key, session, checked_at, request)| enter(&key, "q", &session, checked_at, request)),
        1 => (key(), 1u64..60).prop_map(|(key, index)| leave(&key, index)),
        2 => (key(), session_text()).prop_map(|(key, session)| unlock(&key, "u", &session)),
        4 => txn(),
        4 => session(),
        1 => (0u8..5).prop_map(|number| destroy(&session_id(number).to_string())),
        1 => (0u64..60).prop_map(reap),
        1 => (key(), 0u64..60).prop_map(|(key, set_index)| delay_over(&key, set_index)),
        1 => Just(Command::CompareStates(v1::CompareStates {})),
        1 => (1u64..9).prop_map(|ms| Command::SessionTtlMinSet(v1::SessionTtlMinSet { ms })),
        4 => registration(),
        3 => prepared_query(),
        1 => (0u8..2, 0u8..3).prop_map(|(node, what)| {
            let (service, check) = [("", ""), ("s0", ""), ("", "c0")][usize::from(what)];
            deregister(["n0", "N1"][usize::from(node)], service, check)
        }),
    ]
}
