//! Prints what the state machine costs at a million keys: `cargo bench -p lictor-state [-- KEYS]`.

#![expect(clippy::expect_used, reason = "the rows are its own")]
#![expect(clippy::print_stdout, reason = "a measurement prints")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::hint::black_box;
use std::ops::ControlFlow;

use bytes::Bytes;
use lictor_proto::v1::{KvDeleteTree, KvSet, KvTxnOp, KvVerb, Txn, TxnOp, txn_op};
use lictor_proto::{Command, LogIndex, Term};
use lictor_state::snapshot::{self, Receiver};
use lictor_state::{Effects, Loader, State};

const VALUE: [u8; 100] = [b'v'; 100];
const ROUNDS: u64 = 300_000;

fn main() {
    let keys = std::env::args()
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(1_000_000);
    println!("{keys} keys of 12 bytes, values of 100 bytes\n");
    let start_kib = resident_kib();

    let mut at = 0;
    let mut out = Effects::default();
    let mut state = State::default();
    time("set, nothing shared, keys in order", keys, || {
        for number in 0..keys {
            state.apply(next(&mut at), Term(1), &set(number), &mut out);
            out.clear();
        }
    });
    println!(
        "{:48} {:9} MiB",
        "resident after it",
        (resident_kib() - start_kib) / 1024
    );

    reads(&state, keys);
    writes(&mut state, keys, &mut at);
    restart(&state, keys);
    snapshots(&state, keys);
    lists(at);

    let mut shared = state.clone();
    let tree = Command::KvDeleteTree(KvDeleteTree { prefix: Bytes::new() });
    time("delete all, recursively, beside a snapshot", keys, || {
        shared.apply(next(&mut at), Term(1), &tree, &mut out);
    });
    drop(shared);
    time("drop the last owner", keys, || drop(state));
}

fn reads(state: &State, keys: u64) {
    time("get, random keys", ROUNDS, || {
        for round in 0..ROUNDS {
            black_box(
                state
                    .kv_get(&key(scatter(round, keys)))
                    .map(lictor_state::KvRow::modify_index),
            );
        }
    });
    time("list index of a prefix of 100 keys", ROUNDS, || {
        for round in 0..ROUNDS {
            black_box(state.kv_list_index(&key(scatter(round, keys))[..10]));
        }
    });
    time("iterate all", keys, || {
        black_box(state.kv_list(b"").map(|row| row.value().len()).sum::<usize>());
    });
    time("clone", ROUNDS, || {
        for _ in 0..ROUNDS {
            black_box(state.clone());
        }
    });
}

fn writes(state: &mut State, keys: u64, at: &mut u64) {
    let mut out = Effects::default();
    for batch in [1, 8, 64] {
        let mut published = state.clone();
        let name = format!("overwrite, random keys, a snapshot per {batch}");
        time(&name, ROUNDS, || {
            for round in 0..ROUNDS {
                state.apply(
                    next(at),
                    Term(1),
                    &set_flags(scatter(round, keys), batch),
                    &mut out,
                );
                if round % batch == 0 {
                    out.clear();
                    published = state.clone();
                }
            }
        });
        drop(published);
    }
    let mut published = state.clone();
    time("insert, random new keys, a snapshot per 1", ROUNDS, || {
        for round in 0..ROUNDS {
            let mut command = set(scatter(round, keys));
            if let Command::KvSet(set) = &mut command {
                set.key = [&set.key[..], b"+"].concat().into();
            }
            state.apply(next(at), Term(1), &command, &mut out);
            out.clear();
            published = state.clone();
        }
    });
    drop(published);
    let mut published = state.clone();
    time("transaction of 64 sets, per key", ROUNDS, || {
        for round in 0..ROUNDS / 64 {
            state.apply(
                next(at),
                Term(1),
                &txn((0..64).map(|n| scatter(round * 64 + n, keys))),
                &mut out,
            );
            out.clear();
            published = state.clone();
        }
    });
    drop(published);
}

fn restart(state: &State, keys: u64) {
    let rows: Vec<_> = state
        .dump()
        .map(|row| (row.table(), row.key_bytes(), row.value_bytes()))
        .collect();
    let meta = state.meta();
    time("load, per row", keys, || {
        let mut loader = Loader::new(&meta);
        for (table, key, value) in &rows {
            loader
                .push_bytes(*table, key, value)
                .expect("rows as they were dumped");
        }
        black_box(loader.finish());
    });
}

fn snapshots(state: &State, keys: u64) {
    let mut stream = Vec::new();
    time("write a snapshot, per row", keys, || {
        snapshot::write(state, &state.meta(), &mut stream).expect("memory takes everything");
    });
    time("read a snapshot, per row", keys, || {
        let received = Receiver::new(u64::MAX).read(&mut &stream[..]);
        black_box(received.expect("a snapshot as it was written"));
    });
    println!("{:48} {:9} MiB", "it has", stream.len() >> 20);
}

fn lists(mut at: u64) {
    let mut state = State::default();
    let mut out = Effects::default();
    for number in 0..100_000u64 {
        let key = format!("dir{:04}/{number:06}", number % 1000).into();
        let command = Command::KvSet(KvSet {
            key,
            value: Bytes::from_static(&VALUE),
            flags: 0,
            cas: None,
        });
        state.apply(next(&mut at), Term(1), &command, &mut out);
        out.clear();
    }
    time("keys&separator, 1,000 folders of 100, per list", 100, || {
        for _ in 0..100 {
            let mut names = 0;
            state.kv_keys(b"", b"/", b"", &mut |_| {
                names += 1;
                ControlFlow::Continue(())
            });
            assert_eq!(names, 1000);
        }
    });
}

fn key(number: u64) -> Vec<u8> {
    format!("key/{number:08}").into_bytes()
}

fn set(number: u64) -> Command {
    set_flags(number, 0)
}

fn set_flags(number: u64, flags: u64) -> Command {
    Command::KvSet(KvSet {
        key: key(number).into(),
        value: Bytes::from_static(&VALUE),
        flags,
        cas: None,
    })
}

fn txn(numbers: impl Iterator<Item = u64>) -> Command {
    let ops = numbers.map(|number| {
        let (verb, flags) = (KvVerb::Set.into(), 7);
        let op = KvTxnOp {
            verb,
            flags,
            key: key(number).into(),
            value: Bytes::from_static(&VALUE),
            ..KvTxnOp::default()
        };
        TxnOp {
            op: Some(txn_op::Op::Kv(op)),
        }
    });
    Command::Txn(Txn {
        ops: ops.collect(),
        checked_at: 0,
    })
}

/// A number below `keys`, all over the place.
fn scatter(round: u64, keys: u64) -> u64 {
    (round.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 17) % keys
}

fn next(at: &mut u64) -> LogIndex {
    *at += 1;
    LogIndex(*at)
}

fn time(what: &str, count: u64, work: impl FnOnce()) {
    let start = cpu_ns();
    work();
    let took = cpu_ns() - start;
    println!(
        "{what:48} {:9.0} ns  ({:.3} s in all)",
        took as f64 / count as f64,
        took as f64 / 1e9
    );
}

/// Time on the processor, so that other work on the machine does not count.
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse().ok())
        .unwrap_or(0)
}
