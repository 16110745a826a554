//! What any crash must leave of a log: all that was synced, nothing that was never written.

use bytes::Bytes;
use lictor_proto::{LogIndex, RaftId, ReadyNo, Term};
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// Appends entries, the first of them this far back from the end.
    Append {
        count: u64,
        back: u64,
        sync: bool,
    },
    Compact {
        percent: u64,
    },
    Reset {
        ahead: u64,
    },
    Crash {
        seed: u64,
    },
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (1..6u64, 0..4u64, any::<bool>()).prop_map(|(count, back, sync)| Step::Append { count, back, sync }),
        2 => (0..=100u64).prop_map(|percent| Step::Compact { percent }),
        1 => (0..9u64).prop_map(|ahead| Step::Reset { ahead }),
        3 => any::<u64>().prop_map(|seed| Step::Crash { seed }),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

/// A log as plainly as it can be kept: the durable one, and every later version that a crash may leave.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    entries: Vec<LogEntry>,
    truncated: LogPosition,
    hard_state: HardState,
}

impl Model {
    fn last(&self) -> LogPosition {
        self.entries.last().map_or(self.truncated, |entry| LogPosition {
            index: entry.index,
            term: entry.term,
        })
    }

    fn of(recovered: &Recovered, reader: &MemReader) -> Self {
        let range = LogIndex(recovered.truncated.index.0 + 1)..LogIndex(recovered.last.index.0 + 1);
        let entries = reader.entries(range.start, range.end, u64::MAX).unwrap();
        Self {
            entries,
            truncated: recovered.truncated,
            hard_state: recovered.hard_state,
        }
    }

    fn append(&mut self, task: &LogTask) {
        self.entries.retain(|entry| entry.index < task.entries[0].index);
        self.entries.extend(task.entries.iter().cloned());
        self.hard_state = task.hard_state.unwrap_or(self.hard_state);
    }

    fn compact(&mut self, to: LogPosition) {
        self.entries.retain(|entry| entry.index > to.index);
        self.truncated = to;
    }
}

fn task(model: &Model, number: u64, count: u64, back: u64, must_sync: bool) -> LogTask {
    let last = model.last().index.0;
    let first = (last + 1 - back.min(model.entries.len() as u64)).max(model.hard_state.commit.0 + 1);
    let term = Term(number);
    let entry = |index| LogEntry {
        index: LogIndex(index),
        term,
        kind: EntryKind::Normal,
        data: Bytes::from(vec![
            number.to_le_bytes()[0];
            usize::try_from(index % 7).unwrap() * 90
        ]),
    };
    let entries: Vec<LogEntry> = (first..first + count).map(entry).collect();
    // Half of the tasks bring a hard state along.
    let hard_state = number.is_multiple_of(2).then_some(HardState {
        term,
        vote: RaftId(number),
        commit: model.hard_state.commit,
    });
    LogTask {
        ready_no: ReadyNo(number),
        entries,
        hard_state,
        must_sync,
        messages: Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_loses_nothing_that_was_synced_and_invents_nothing(steps in steps()) {
        let disk = SimDisk::default();
        let (_, mut reader, mut writer) = MemLog::open(&disk).unwrap().split();
        // Versions since the last sync, the durable one first, the newest last.
        let mut versions = vec![Model::default()];
        for (number, step) in (1..).zip(steps) {
            let mut next = versions.last().unwrap().clone();
            match step {
                Step::Append { count, back, sync } => {
                    let task = task(&next, number, count, back, sync);
                    writer.append(std::slice::from_ref(&task)).unwrap();
                    next.append(&task);
                    if sync {
                        versions.clear();
                    }
                    versions.push(next);
                }
                Step::Compact { percent } => {
                    let at = next.entries.len() as u64 * percent / 100;
                    let Some(entry) = at.checked_sub(1).and_then(|at| next.entries.get(usize::try_from(at).unwrap())) else { continue };
                    let to = LogPosition { index: entry.index, term: entry.term };
                    writer.compact(to).unwrap();
                    next.compact(to);
                    versions.push(next);
                }
                Step::Reset { ahead } => {
                    let to = LogPosition::new(next.last().index.0 + ahead, number);
                    writer.reset(to).unwrap();
                    versions = vec![Model { entries: Vec::new(), truncated: to, hard_state: next.hard_state }];
                }
                Step::Crash { seed } => {
                    disk.crash(seed);
                    let (recovered, new_reader, new_writer) = MemLog::open(&disk).unwrap().split();
                    let found = Model::of(&recovered, &new_reader);
                    prop_assert!(recovered.synced_through <= recovered.last.index, "a tear taken for a loss");
                    prop_assert!(versions.contains(&found), "{found:?} was never the log since {:?}", versions[0]);
                    (reader, writer) = (new_reader, new_writer);
                    versions = vec![found];
                }
                Step::Reopen => {
                    let (recovered, new_reader, new_writer) = MemLog::open(&disk).unwrap().split();
                    prop_assert_eq!(&Model::of(&recovered, &new_reader), versions.last().unwrap());
                    (reader, writer) = (new_reader, new_writer);
                }
            }
            let now = versions.last().unwrap();
            for entry in &now.entries {
                prop_assert_eq!(reader.term(entry.index).unwrap(), entry.term);
            }
        }
    }
}

#[test]
fn the_checker_sees_a_lost_entry() {
    let disk = SimDisk::default();
    let (_, _, mut writer) = MemLog::open(&disk).unwrap().split();
    let empty = Model::default();
    writer.append(&[task(&empty, 1, 3, 0, true)]).unwrap();
    writer
        .append(&[task(
            &Model {
                truncated: LogPosition::new(3, 1),
                ..empty
            },
            2,
            3,
            0,
            true,
        )])
        .unwrap();
    let length = disk.len_bytes();

    disk.damage(length - 1);

    let (recovered, _, _) = MemLog::open(&disk).unwrap().split();
    assert_eq!(recovered.last.index, LogIndex(3), "the damaged batch is gone");
    disk.damage(20);
    assert_eq!(MemLog::open(&disk).unwrap().split().0.last.index, LogIndex(0));
}

#[test]
fn a_batch_of_tasks_costs_one_sync_and_none_if_none_asks() {
    let disk = SimDisk::default();
    let (_, _, mut writer) = MemLog::open(&disk).unwrap().split();
    let mut model = Model::default();
    let mut tasks = Vec::new();
    for number in 1..=3 {
        tasks.push(task(&model, number, 2, 0, number == 2));
        model.append(&tasks[tasks.len() - 1]);
    }

    writer.append(&tasks).unwrap();
    assert_eq!(disk.syncs(), 1);
    let unsynced = task(&model, 4, 1, 0, false);
    writer.append(&[unsynced]).unwrap();

    assert_eq!(disk.syncs(), 1);
}

#[test]
fn a_failed_sync_is_an_error_and_its_batch_is_not_durable() {
    let disk = SimDisk::default();
    let (_, _, mut writer) = MemLog::open(&disk).unwrap().split();
    disk.on_sync(|| Err("no power".to_owned()));

    let error = writer
        .append(&[task(&Model::default(), 1, 3, 0, true)])
        .unwrap_err();

    assert_eq!(error.to_string(), "raft log: sync failed");
    assert_eq!(disk.durable_bytes(), 0);
}

#[test]
fn reading_stops_at_the_byte_limit_but_gives_one_entry_at_least() {
    let (_, reader, mut writer) = MemLog::default().split();
    writer.append(&[task(&Model::default(), 1, 6, 0, true)]).unwrap();
    let read = |max_bytes| reader.entries(LogIndex(1), LogIndex(7), max_bytes).unwrap().len();

    assert_eq!((read(0), read(90 + 180), read(u64::MAX)), (1, 2, 6));
    assert!(
        reader.entries(LogIndex(6), LogIndex(8), u64::MAX).is_err(),
        "a missing entry is an error"
    );
}

#[test]
fn compaction_keeps_the_file_small() {
    let disk = SimDisk::default();
    let (_, _, mut writer) = MemLog::open(&disk).unwrap().split();
    let mut model = Model::default();
    for number in 1..2000 {
        let task = task(&model, number, 5, 0, true);
        writer.append(std::slice::from_ref(&task)).unwrap();
        model.append(&task);
        let to = model.last();
        writer.compact(to).unwrap();
        model.compact(to);
    }

    assert!(disk.len_bytes() < 400 << 10, "{} bytes", disk.len_bytes());
}
