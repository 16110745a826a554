use lictor_proto::{RaftId, ReadyNo, Term};

use super::*;
use crate::{EntryKind, HardState, Input, LogEntry, LogTask, LogWriter, MemLog, MonoTime, Output, SimDisk};

const ME: RaftId = RaftId(1);

fn entry(index: u64, term: u64) -> LogEntry {
    let data = bytes::Bytes::from(format!("entry {index}"));
    LogEntry {
        index: LogIndex(index),
        term: Term(term),
        kind: EntryKind::Normal,
        data,
    }
}

/// A disk whose log has entries 1 to `last` of term 1, and a commit index.
fn disk(last: u64, commit: u64) -> SimDisk {
    let disk = SimDisk::default();
    let (_, _, mut writer) = MemLog::open(&disk).unwrap().split();
    for index in 1..=last {
        let hard_state = HardState {
            term: Term(1),
            vote: ME,
            commit: LogIndex(commit.min(index)),
        };
        let (ready_no, messages) = (ReadyNo(index), Vec::new());
        let entries = vec![entry(index, 1)];
        let task = LogTask {
            ready_no,
            entries,
            hard_state: Some(hard_state),
            must_sync: true,
            messages,
        };
        writer.append(&[task]).unwrap();
    }
    disk
}

fn state(index: u64, term: u64, installed: bool) -> StateMark {
    StateMark {
        applied: LogPosition::new(index, term),
        installed,
        members: Membership::of_voters([ME, RaftId(2)]),
    }
}

fn opened(disk: &SimDisk, state: &StateMark) -> Result<Core<crate::MemReader>, OpenError> {
    open(MemLog::open(disk)?, Config::new(ME, 1), state).map(|(core, _)| core)
}

fn error(disk: &SimDisk, state: &StateMark) -> String {
    opened(disk, state).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn r5_the_commit_index_is_at_least_the_flushed_applied_index() {
    let core = opened(&disk(10, 3), &state(7, 1, false)).unwrap();

    assert_eq!(core.status().commit, LogIndex(7));
    assert_eq!(core.status().applied, LogIndex(7));
}

#[test]
fn r5_a_later_recorded_commit_index_stays() {
    let core = opened(&disk(10, 9), &state(7, 1, false)).unwrap();

    assert_eq!(
        (core.status().commit, core.status().applied),
        (LogIndex(9), LogIndex(7))
    );
}

#[test]
fn r6_an_installed_state_ahead_of_the_log_resets_the_log() {
    let disk = disk(10, 3);
    let state = state(25, 4, true);

    let core = opened(&disk, &state).unwrap();

    let status = core.status();
    assert_eq!(
        (status.first, status.last, status.commit),
        (LogIndex(26), LogIndex(25), LogIndex(25))
    );
    let (again, _, _) = MemLog::open(&disk).unwrap().split();
    assert_eq!(
        (again.truncated, again.last),
        (state.applied, state.applied),
        "it is durable"
    );
    assert_eq!(again.hard_state.vote, ME, "the vote is not forgotten");
    assert_eq!(again.hard_state.term, Term(1));
}

#[test]
fn r6_an_installed_state_replaces_a_log_of_another_history() {
    let core = opened(&disk(10, 3), &state(8, 4, true)).unwrap();

    assert_eq!(core.status().last, LogIndex(8));
}

#[test]
fn an_installed_state_that_the_log_knows_resets_nothing() {
    let core = opened(&disk(10, 3), &state(8, 1, true)).unwrap();

    assert_eq!(core.status().last, LogIndex(10));
}

#[test]
fn a_log_that_ends_before_the_applied_state_has_lost_entries() {
    let text = error(&disk(10, 3), &state(11, 1, false));

    assert_eq!(
        text,
        "the raft log ends at 10 but the applied state proves that it reached 11: it has lost acknowledged entries"
    );
}

#[test]
fn a_missing_log_beside_a_state_is_a_loss() {
    assert!(error(&SimDisk::default(), &state(2, 1, false)).contains("ends at 0"));
}

#[test]
fn a_log_of_another_history_than_the_state_is_refused() {
    assert!(error(&disk(10, 3), &state(8, 4, false)).starts_with("the state applied entry 8 of term 4"));
}

#[test]
fn a_log_that_begins_behind_the_state_is_refused() {
    let disk = disk(10, 10);
    let (_, _, mut writer) = MemLog::open(&disk).unwrap().split();
    writer.compact(LogPosition::new(6, 1)).unwrap();

    assert!(error(&disk, &state(4, 1, false)).starts_with("the raft log begins after 6"));
    assert!(opened(&disk, &state(6, 1, false)).is_ok());
}

#[test]
fn r7_a_torn_tail_is_cut() {
    for seed in 0..100 {
        let disk = disk(10, 3);
        let (_, _, mut writer) = MemLog::open(&disk).unwrap().split();
        let entries = (11..60).map(|index| entry(index, 1)).collect();
        let (ready_no, messages) = (ReadyNo(9), Vec::new());
        writer
            .append(&[LogTask {
                ready_no,
                entries,
                hard_state: None,
                must_sync: false,
                messages,
            }])
            .unwrap();
        disk.crash(seed);

        let core = opened(&disk, &state(7, 1, false)).unwrap();

        let last = core.status().last;
        assert!(
            last == LogIndex(10) || last == LogIndex(59),
            "a batch is whole or gone: {last}"
        );
    }
}

#[test]
fn r7_unsynced_batches_that_reached_the_disk_out_of_order_are_a_tear() {
    let mut later_survived = 0;
    for seed in 0..300 {
        let disk = disk(10, 3);
        let (_, _, mut writer) = MemLog::open(&disk).unwrap().split();
        for index in 11..40 {
            let (ready_no, messages) = (ReadyNo(index), Vec::new());
            let entries = vec![entry(index, 1)];
            writer
                .append(&[LogTask {
                    ready_no,
                    entries,
                    hard_state: None,
                    must_sync: false,
                    messages,
                }])
                .unwrap();
        }
        disk.crash(seed);
        let length = disk.len_bytes();

        let core = opened(&disk, &state(7, 1, false)).unwrap();

        assert!(core.status().last >= LogIndex(10), "seed {seed}");
        later_survived += usize::from(disk.len_bytes() < length && core.status().last < LogIndex(30));
    }
    assert!(later_survived > 10, "the crashes were too kind: {later_survived}");
}

#[test]
fn r7_damage_before_a_synced_mark_is_corruption() {
    let whole = disk(20, 3);
    let length = whole.len_bytes();
    let mut proven = 0;
    for at in 0..length {
        let damaged = disk(20, 3);
        damaged.damage(at);

        // The state flushed little, so only the log itself can tell.
        match opened(&damaged, &state(1, 1, true)) {
            // The newest mark proves the batch before its own; the last two may be taken for a tear.
            Ok(core) => assert!(
                core.status().last >= LogIndex(18),
                "byte {at}: {}",
                core.status().last
            ),
            Err(OpenError::LogLost { .. }) => proven += 1,
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    assert!(proven > length * 3 / 4, "{proven} of {length}");
}

#[test]
fn a_new_cluster_begins_at_its_founding_position() {
    let mut core = opened(
        &SimDisk::default(),
        &StateMark::fresh(Membership::of_voters([ME])),
    )
    .unwrap();
    let mut out = Vec::new();

    core.handle(Input::Start, MonoTime(0), &mut out);

    let Some(Output::Append(task)) = out.iter().find(|output| matches!(output, Output::Append(_))) else {
        panic!("no task in {out:?}");
    };
    assert_eq!(task.entries[0].index, LogIndex(2));
    assert_eq!(
        task.hard_state.map(|state| (state.term, state.vote)),
        Some((Term(2), ME))
    );
}

#[test]
fn a_restarted_sole_voter_applies_again_what_the_state_had_not_flushed() {
    let disk = disk(10, 3);
    let members = Membership::of_voters([ME]);
    let state = StateMark {
        applied: LogPosition::new(4, 1),
        installed: false,
        members,
    };
    let (mut core, mut writer) = open(MemLog::open(&disk).unwrap(), Config::new(ME, 2), &state).unwrap();
    let (mut out, mut applied) = (Vec::new(), Vec::new());
    core.handle(Input::Start, MonoTime(0), &mut out);

    while !out.is_empty() {
        for output in std::mem::take(&mut out) {
            match output {
                Output::Append(task) => {
                    writer.append(std::slice::from_ref(&task)).unwrap();
                    core.handle(Input::Persisted(task.ready_no), MonoTime(1), &mut out);
                }
                Output::Apply(batch) => applied.extend(batch.into_iter().map(|entry| entry.index.0)),
                _ => {}
            }
        }
    }

    assert_eq!(applied, (5..=11).collect::<Vec<_>>());
}
