use std::fs;

use bytes::Bytes;
use lictor_proto::{RaftId, ReadyNo};
use lictor_raft::{Config, EntryKind, HardState, MemLog, Membership, OpenError, SimDisk, StateMark, open};
use proptest::prelude::*;

use super::*;

fn small() -> LogOptions {
    LogOptions {
        write_buffer_bytes: 64 << 10,
        block_cache_bytes: 64 << 10,
        written_ahead_bytes: 0,
    }
}

fn entry(index: u64, term: u64) -> LogEntry {
    let data = Bytes::from(vec![
        index.to_le_bytes()[0];
        usize::try_from(index % 5).unwrap() * 60
    ]);
    LogEntry {
        index: LogIndex(index),
        term: Term(term),
        kind: EntryKind::Normal,
        data,
    }
}

fn task(range: std::ops::Range<u64>, term: u64, must_sync: bool) -> LogTask {
    let hard_state = Some(HardState {
        term: Term(term),
        vote: RaftId(3),
        commit: LogIndex(0),
    });
    let entries = range.map(|index| entry(index, term)).collect();
    LogTask {
        ready_no: ReadyNo(1),
        entries,
        hard_state,
        must_sync,
        messages: Vec::new(),
    }
}

fn opened(path: &Path) -> (Recovered, RocksReader, RocksWriter) {
    RocksLog::open(path, small(), LogIndex(0)).unwrap().split()
}

/// The files as they are, as a power cut without losses leaves them.
fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        if file.file_name() == "LOCK" {
            continue;
        }
        match fs::copy(file.path(), to.path().join(file.file_name())) {
            // RocksDB removes files it does not need in its own time.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            copied => assert!(copied.is_ok(), "{copied:?}"),
        }
    }
    to
}

/// The WAL file that was written last.
fn wal_file(directory: &Path) -> std::path::PathBuf {
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|kind| kind == "log"))
        .max()
        .unwrap()
}

fn check(path: &Path) -> Result<(), OpenError> {
    let members = Membership::of_voters([RaftId(1)]);
    let state = StateMark {
        applied: LogPosition::ZERO,
        installed: true,
        members,
    };
    open(
        RocksLog::open(path, small(), LogIndex(0))?,
        Config::new(RaftId(1), 1),
        &state,
    )
    .map(|_| ())
}

#[test]
fn a_log_is_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let (empty, _, mut writer) = opened(directory.path());
    assert_eq!(empty, Recovered::default());
    writer
        .append(&[task(1..6, 2, true), task(6..9, 3, true)])
        .unwrap();
    writer.compact(LogPosition::new(4, 2)).unwrap();
    drop(writer);

    let (recovered, reader, _writer) = opened(directory.path());

    assert_eq!(
        (recovered.truncated, recovered.last),
        (LogPosition::new(4, 2), LogPosition::new(8, 3))
    );
    assert_eq!(
        recovered.hard_state,
        HardState {
            term: Term(3),
            vote: RaftId(3),
            commit: LogIndex(0)
        }
    );
    let entries = reader.entries(LogIndex(5), LogIndex(9), u64::MAX).unwrap();
    assert_eq!(entries, [entry(5, 2), entry(6, 3), entry(7, 3), entry(8, 3)]);
    assert!(reader.term(LogIndex(4)).is_err(), "it is cut off");
}

#[test]
fn a_batch_of_tasks_may_replace_its_own_entries() {
    let directory = tempfile::tempdir().unwrap();
    let (_, reader, mut writer) = opened(directory.path());
    writer.append(&[task(1..9, 1, true)]).unwrap();

    writer
        .append(&[task(4..8, 2, true), task(5..6, 3, true)])
        .unwrap();

    let terms: Vec<u64> = (1..6)
        .map(|index| reader.term(LogIndex(index)).unwrap().0)
        .collect();
    assert_eq!(terms, [1, 1, 1, 2, 3]);
    assert!(
        reader.term(LogIndex(6)).is_err(),
        "no entry outlives one before it"
    );
}

#[test]
fn a_log_that_was_reset_is_not_cut_below() {
    let directory = tempfile::tempdir().unwrap();
    let (_, _, mut writer) = opened(directory.path());
    writer.append(&[task(1..200, 1, true)]).unwrap();
    writer.reset(LogPosition::new(500, 1)).unwrap();

    writer.compact(LogPosition::new(100, 1)).unwrap();

    writer.append(&[task(501..510, 1, true)]).unwrap();
    drop(writer);
    let (recovered, ..) = opened(directory.path());
    assert_eq!(
        (recovered.truncated, recovered.last),
        (LogPosition::new(500, 1), LogPosition::new(509, 1))
    );
}

#[test]
fn a_torn_tail_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let (_, _, mut writer) = opened(directory.path());
    for first in (1..200).step_by(4) {
        writer.append(&[task(first..first + 4, 1, true)]).unwrap();
    }
    drop(writer);
    let crashed = copy(directory.path());
    let path = wal_file(crashed.path());
    let bytes = fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    fs::write(&path, &bytes[..end - 10]).unwrap();

    check(crashed.path()).unwrap();

    let (recovered, reader, _writer) = opened(crashed.path());
    assert_eq!(
        recovered.last.index,
        LogIndex(197 - 1),
        "the last batch of four is gone, whole"
    );
    assert_eq!(
        reader
            .entries(LogIndex(1), LogIndex(197), u64::MAX)
            .unwrap()
            .len(),
        196
    );
}

#[test]
fn r7_damage_before_a_synced_mark_is_corruption_and_behind_it_a_tear() {
    let directory = tempfile::tempdir().unwrap();
    let (_, _, mut writer) = opened(directory.path());
    for first in (1..200).step_by(4) {
        writer.append(&[task(first..first + 4, 1, true)]).unwrap();
    }
    drop(writer);
    let whole = fs::read(wal_file(directory.path())).unwrap();
    let end = whole.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    let (mut refused, mut cut) = (0, 0);
    for at in (0..end).step_by(end / 60) {
        let crashed = copy(directory.path());
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        fs::write(wal_file(crashed.path()), &bytes).unwrap();

        match check(crashed.path()) {
            Ok(()) => {
                let (recovered, ..) = opened(crashed.path());
                assert!(
                    recovered.last.index >= LogIndex(192),
                    "byte {at}: silently lost after {}",
                    recovered.last
                );
                cut += 1;
            }
            Err(OpenError::LogLost { .. } | OpenError::Log(LogError::Corrupt(_))) => refused += 1,
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    assert!(refused > 50 && cut < 8, "{refused} refused, {cut} cut");
}

#[test]
fn unsynced_batches_lost_in_any_order_are_a_tear() {
    let directory = tempfile::tempdir().unwrap();
    let (_, _, mut writer) = opened(directory.path());
    writer.append(&[task(1..50, 1, true)]).unwrap();
    let synced = fs::read(wal_file(directory.path())).unwrap();
    let from = synced.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    for first in (50..90).step_by(4) {
        writer.append(&[task(first..first + 4, 1, false)]).unwrap();
    }
    drop(writer);
    let whole = fs::read(wal_file(directory.path())).unwrap();
    let end = whole.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    for at in (from..end).step_by(97) {
        let crashed = copy(directory.path());
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        fs::write(wal_file(crashed.path()), &bytes).unwrap();

        check(crashed.path()).unwrap_or_else(|error| panic!("byte {at}: {error}"));

        assert!(opened(crashed.path()).0.last.index >= LogIndex(49), "byte {at}");
    }
}

#[test]
fn damage_is_found_behind_the_first_block_and_in_recycled_files() {
    let directory = tempfile::tempdir().unwrap();
    let options = LogOptions {
        written_ahead_bytes: 0,
        ..LogOptions::default()
    };
    let (_, reader, mut writer) = RocksLog::open(directory.path(), options, LogIndex(0))
        .unwrap()
        .split();
    let mut last = 0;
    let mut append = |batches: u64, writer: &mut RocksWriter| {
        for _ in 0..batches {
            writer.append(&[task(last + 1..last + 9, 1, true)]).unwrap();
            last += 8;
        }
        writer.compact(LogPosition::new(8, 1)).unwrap();
    };
    for _ in 0..8 {
        append(200, &mut writer);
        writer.db.flush().unwrap();
    }
    append(60, &mut writer);
    // Closing would cut the file to what is in use; a power cut does not.
    let crashed = copy(directory.path());
    drop((reader, writer));
    let path = wal_file(crashed.path());
    let mut bytes = fs::read(&path).unwrap();
    let written = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    assert!(
        written > 150_000,
        "the file is not a recycled one: {written} bytes"
    );
    let open_at = |path: &Path| {
        let members = Membership::of_voters([RaftId(1)]);
        let state = StateMark {
            applied: LogPosition::new(8, 1),
            installed: false,
            members,
        };
        open(
            RocksLog::open(path, small(), LogIndex(0))?,
            Config::new(RaftId(1), 1),
            &state,
        )
        .map(|(core, _)| core.status().last)
    };
    assert_eq!(open_at(copy(crashed.path()).path()).unwrap(), LogIndex(last));
    bytes[33_000] ^= 0x55;
    fs::write(&path, &bytes).unwrap();

    let error = open_at(crashed.path()).unwrap_err();

    assert!(matches!(error, OpenError::Log(LogError::Corrupt(_))), "{error}");
    assert_eq!(
        fs::read(&path).unwrap(),
        bytes,
        "what was refused is left as it was"
    );
}

#[test]
fn a_second_opener_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _held = opened(directory.path());

    assert!(matches!(
        RocksLog::open(directory.path(), small(), LogIndex(0)),
        Err(LogError::Io { .. })
    ));
}

#[test]
fn entries_are_written_to_files_that_do_not_grow() {
    let directory = tempfile::tempdir().unwrap();
    let options = LogOptions {
        write_buffer_bytes: 256 << 10,
        written_ahead_bytes: 320 << 10,
        ..LogOptions::default()
    };
    let (found, _, mut writer) = RocksLog::open(directory.path(), options, LogIndex(0))
        .unwrap()
        .split();
    assert_eq!(found, Recovered::default());
    let length = |path: &Path| fs::metadata(path).unwrap().len();
    let first = wal_file(directory.path());
    let ahead = length(&first);
    assert!(ahead >= 320 << 10, "{ahead} bytes");

    let mut last = 0;
    let mut append = || {
        writer.append(&[task(last + 1..last + 9, 1, true)]).unwrap();
        last += 8;
        wal_file(directory.path())
    };
    let second = loop {
        let path = append();
        if path != first {
            break path;
        }
        assert_eq!(length(&path), ahead);
    };
    for _ in 0..20 {
        assert_eq!(append(), second);
        assert!(length(&second) >= 320 << 10, "{} bytes", length(&second));
    }

    drop(writer);
    let (found, _, _) = RocksLog::open(directory.path(), options, LogIndex(0))
        .unwrap()
        .split();
    assert_eq!(found.last, LogPosition::new(last, 1));
}

#[test]
fn entries_that_are_compacted_in_time_never_reach_a_table_file() {
    let directory = tempfile::tempdir().unwrap();
    let (_, _, mut writer) = opened(directory.path());
    for first in (1..20_000).step_by(10) {
        writer.append(&[task(first..first + 10, 1, true)]).unwrap();
        writer.compact(LogPosition::new(first + 9, 1)).unwrap();
    }
    writer.db.flush().unwrap();

    let files = fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap());
    let tables = files.filter(|file| file.path().extension().is_some_and(|kind| kind == "sst"));
    let bytes: u64 = tables.map(|file| file.metadata().unwrap().len()).sum();
    assert!(
        bytes < 400 << 10,
        "{bytes} bytes of table files for 3 MB of entries"
    );
}

#[derive(Debug, Clone)]
enum Step {
    Append { count: u64, back: u64, sync: bool },
    Compact { percent: u64 },
    Reset { ahead: u64 },
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (1..40u64, 0..6u64, any::<bool>()).prop_map(|(count, back, sync)| Step::Append { count, back, sync }),
        2 => (0..=100u64).prop_map(|percent| Step::Compact { percent }),
        1 => (0..9u64).prop_map(|ahead| Step::Reset { ahead }),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

fn same(found: &Recovered, expected: &Recovered) -> bool {
    (found.hard_state, found.truncated, found.last)
        == (expected.hard_state, expected.truncated, expected.last)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn it_agrees_with_the_log_in_memory(steps in steps()) {
        let directory = tempfile::tempdir().unwrap();
        let disk = SimDisk::default();
        let mut rocks = opened(directory.path());
        let mut memory = MemLog::open(&disk).unwrap().split();
        let (mut truncated, mut last) = (LogPosition::ZERO, LogPosition::ZERO);
        for (number, step) in (1..).zip(steps) {
            match step {
                Step::Append { count, back, sync } => {
                    let first = (last.index.0 + 1).saturating_sub(back).max(truncated.index.0 + 1);
                    let tasks = [task(first..first + count, number, sync), task(first + count..first + count + 1, number, false)];
                    rocks.2.append(&tasks).unwrap();
                    memory.2.append(&tasks).unwrap();
                    last = LogPosition::new(first + count, number);
                }
                Step::Compact { percent } => {
                    let index = truncated.index.0 + (last.index.0 - truncated.index.0) * percent / 100;
                    if index > truncated.index.0 {
                        truncated = LogPosition { index: LogIndex(index), term: memory.1.term(LogIndex(index)).unwrap() };
                        rocks.2.compact(truncated).unwrap();
                        memory.2.compact(truncated).unwrap();
                    }
                }
                Step::Reset { ahead } => {
                    last = LogPosition::new(last.index.0 + ahead, number);
                    truncated = last;
                    rocks.2.reset(last).unwrap();
                    memory.2.reset(last).unwrap();
                }
                Step::Reopen => {
                    drop(rocks);
                    rocks = opened(directory.path());
                    memory = MemLog::open(&disk).unwrap().split();
                    prop_assert!(same(&rocks.0, &memory.0), "{:?} {:?}", rocks.0, memory.0);
                    prop_assert!(rocks.0.synced_through <= rocks.0.last.index);
                    prop_assert_eq!((rocks.0.truncated, rocks.0.last), (truncated, last));
                }
            }
            let read = |reader: &dyn Fn(LogIndex, LogIndex, u64) -> Vec<LogEntry>| {
                reader(LogIndex(truncated.index.0 + 1), LogIndex(last.index.0 + 1), 3000)
            };
            let found = read(&|low, high, max| rocks.1.entries(low, high, max).unwrap());
            let expected = read(&|low, high, max| memory.1.entries(low, high, max).unwrap());
            prop_assert_eq!(found, expected);
        }
    }
}
