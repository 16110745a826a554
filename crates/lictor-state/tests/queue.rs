//! Fair queues: rules one by one, and random commands against a naive model of lists.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use common::*;
use lictor_proto::{Command, v1};
use lictor_state::snapshot::{self, Receiver};
use lictor_state::{Area, Dirty, Effect, Loader, QueueAnswer, State};
use proptest::prelude::*;

// ---------------------------------------------------------------- short names

fn enter(name: &str, value: Option<&str>, request: u16, at_once: bool) -> Command {
    Command::QueueEnter(v1::QueueEnter {
        name: bytes(name),
        value: value.map(bytes),
        ttl_ms: 60_000,
        request: Bytes::copy_from_slice(&request.to_be_bytes()),
        at_once,
    })
}

fn renew(name: &str, index: Option<u64>, value: Option<&str>) -> Command {
    Command::QueueRenew(v1::QueueRenew {
        name: bytes(name),
        index,
        value: value.map(bytes),
        ttl_ms: 5_000,
    })
}

fn release(name: &str, index: Option<u64>, value: Option<&str>) -> Command {
    Command::QueueRelease(v1::QueueRelease {
        name: bytes(name),
        index,
        value: value.map(bytes),
    })
}

fn lapsed(state: &State, name: &str, index: u64) -> v1::QueueDropRef {
    let lease = state.queue_entry(name.as_bytes(), index).map(|row| row.lease);
    v1::QueueDropRef {
        name: bytes(name),
        index,
        lease: Some(lease.unwrap_or_default()),
        callers: None,
    }
}

fn drop_all(entries: Vec<v1::QueueDropRef>) -> Command {
    Command::QueueDrop(v1::QueueDrop { entries })
}

fn holder(log: &Log, name: &str) -> Option<u64> {
    log.state.queue_holder(name.as_bytes()).map(|row| row.index)
}

/// The entries that the last command granted or took out.
fn woken(log: &Log) -> Vec<u64> {
    let woken = log.out.dirty.iter().filter_map(|dirty| match dirty {
        Dirty::Row(Area::Queue, index) => Some(u64::from_be_bytes(index[..].try_into().ok()?)),
        _ => None,
    });
    woken.collect()
}

/// A queue whose first `count` requests, numbered from 0, have come; the indexes are 1 and up.
fn line(name: &str, count: u16) -> Log {
    let mut log = Log::default();
    for request in 0..count {
        log.queue(&enter(name, None, request, false));
    }
    log
}

// ---------------------------------------------------------------- rules

#[test]
fn the_first_holds_the_lock_and_the_rest_stand_in_the_order_of_the_log() {
    let mut log = Log::default();
    log.set("k", "v");

    assert_eq!(
        log.queue(&enter("n", None, 1, false)),
        QueueAnswer::Granted { index: 2 }
    );
    assert_eq!(
        log.queue(&enter("n", None, 2, false)),
        QueueAnswer::Waits { index: 3 }
    );
    assert_eq!(
        log.queue(&enter("n", None, 3, false)),
        QueueAnswer::Waits { index: 4 }
    );
    for next in [3, 4] {
        let held = holder(&log, "n");
        assert_eq!(log.queue(&release("n", held, None)), QueueAnswer::Done);
        assert_eq!(holder(&log, "n"), Some(next));
    }
}

#[test]
fn a_release_wakes_the_next_and_nobody_else() {
    let mut log = line("n", 5);

    log.queue(&release("n", Some(1), None));

    assert_eq!(woken(&log), [1, 2]);
}

/// The original let waiters in when anything happened before them.
#[test]
fn nobody_but_the_next_is_let_in() {
    let mut log = line("n", 4);

    for command in [renew("n", Some(1), None), release("n", Some(2), None)] {
        assert_eq!(log.queue(&command), QueueAnswer::Done);
        assert_eq!(holder(&log, "n"), Some(1));
        let waits = |index| {
            log.state
                .queue_entry(b"n", index)
                .is_none_or(|row| row.granted_index == 0)
        };
        assert!([2, 3, 4].into_iter().all(waits), "{command:?}");
        assert!(!woken(&log).contains(&3), "{command:?}");
    }
}

#[test]
fn a_value_finds_its_entry_and_renews_it_only_while_it_holds() {
    let mut log = Log::default();
    log.queue(&enter("n", Some("a"), 1, false));
    log.queue(&enter("n", Some("b"), 2, false));

    assert_eq!(
        log.queue(&enter("n", Some("a"), 3, false)),
        QueueAnswer::Held { index: 1 }
    );
    assert_eq!(log.state.queue_entry(b"n", 1).map(|row| row.lease), Some(2));
    assert_eq!(
        log.queue(&enter("n", Some("b"), 4, false)),
        QueueAnswer::Waits { index: 2 }
    );
    assert_eq!(log.state.queue_entry(b"n", 2).map(|row| row.callers), Some(2));
    assert_eq!(log.queue(&enter("n", Some("b"), 5, true)), QueueAnswer::Busy);
    assert_eq!(log.state.queue_entry(b"n", 2).map(|row| row.callers), Some(2));
}

/// The original took the text it shows for an entry without a value for a value.
#[test]
fn a_dash_is_a_value_like_any_other() {
    let mut log = Log::default();
    log.queue(&enter("n", None, 1, false));

    assert_eq!(
        log.queue(&enter("n", Some("-"), 2, false)),
        QueueAnswer::Waits { index: 2 }
    );
    assert_eq!(log.queue(&release("n", None, Some("-"))), QueueAnswer::Done);
    assert_eq!(holder(&log, "n"), Some(1));
}

#[test]
fn locks_whose_names_begin_alike_are_apart() {
    let mut log = Log::default();
    for (request, name) in (1..).zip(["a", "a/b", "a\0", "A", ""]) {
        let index = u64::from(request);
        assert_eq!(
            log.queue(&enter(name, None, request, true)),
            QueueAnswer::Granted { index }
        );
        assert_eq!(holder(&log, name), Some(index));
    }
}

#[test]
fn whoever_asks_for_now_or_never_leaves_no_trace() {
    let mut log = line("n", 1);

    assert_eq!(log.queue(&enter("n", None, 9, true)), QueueAnswer::Busy);

    assert!(log.silent());
}

#[test]
fn a_request_that_is_applied_twice_has_one_place() {
    let mut log = line("n", 2);

    assert_eq!(
        log.queue(&enter("n", None, 1, false)),
        QueueAnswer::Waits { index: 2 }
    );
    assert_eq!(
        log.queue(&enter("n", None, 0, true)),
        QueueAnswer::Granted { index: 1 }
    );
    log.queue(&release("n", Some(1), None));

    assert_eq!(
        log.queue(&enter("n", None, 1, false)),
        QueueAnswer::Granted { index: 2 }
    );
    assert_eq!(log.state.queue_entries().count(), 1);
}

#[test]
fn a_request_that_comes_to_an_entry_twice_counts_once() {
    let mut log = line("n", 1);
    log.queue(&enter("n", Some("a"), 1, false));
    let callers = |log: &Log| log.state.queue_entry(b"n", 2).map(|row| row.callers);

    for _ in 0..2 {
        assert_eq!(
            log.queue(&enter("n", Some("a"), 7, false)),
            QueueAnswer::Waits { index: 2 }
        );
        assert_eq!(callers(&log), Some(2));
    }
    log.queue(&enter("n", Some("a"), 8, false));
    assert_eq!(callers(&log), Some(3));
}

#[test]
fn a_renewal_that_came_first_outlives_the_lapse_of_the_lease_before() {
    let mut log = line("n", 2);
    let late = lapsed(&log.state, "n", 1);

    log.queue(&renew("n", Some(1), None));
    log.queue(&drop_all(vec![late]));
    assert_eq!(holder(&log, "n"), Some(1));

    log.queue(&drop_all(vec![lapsed(&log.state, "n", 1)]));
    assert_eq!(holder(&log, "n"), Some(2));
}

#[test]
fn an_entry_that_somebody_else_came_to_is_not_taken_out_for_want_of_callers() {
    let mut log = line("n", 1);
    log.queue(&enter("n", Some("a"), 1, false));
    let left = |callers| v1::QueueDropRef {
        name: bytes("n"),
        index: 2,
        lease: None,
        callers: Some(callers),
    };

    log.queue(&enter("n", Some("a"), 2, false));
    log.queue(&drop_all(vec![left(1)]));
    assert!(log.state.queue_entry(b"n", 2).is_some());

    log.queue(&drop_all(vec![left(2)]));
    assert!(log.state.queue_entry(b"n", 2).is_none());
}

/// Its first client is gone, but somebody else was told that he has the lock.
#[test]
fn a_lock_that_was_renewed_is_not_taken_out_for_want_of_callers() {
    for renewal in [enter("n", Some("a"), 2, false), renew("n", Some(1), None)] {
        let mut log = Log::default();
        log.queue(&enter("n", Some("a"), 1, false));
        let left = v1::QueueDropRef {
            name: bytes("n"),
            index: 1,
            lease: None,
            callers: Some(1),
        };

        log.queue(&renewal);
        log.queue(&drop_all(vec![left]));

        assert_eq!(holder(&log, "n"), Some(1), "{renewal:?}");
    }
}

#[test]
fn what_lapses_together_is_granted_to_none_of_it() {
    let mut log = line("n", 5);
    let gone = [1, 2, 4].map(|index| lapsed(&log.state, "n", index));

    log.queue(&drop_all(gone.to_vec()));

    assert_eq!(holder(&log, "n"), Some(3));
    let granted = log.out.events.iter().filter_map(|event| match event {
        Effect::QueueLease(lease) if lease.holds => Some(lease.index),
        _ => None,
    });
    assert!(granted.eq([3]));
}

#[test]
fn an_entry_that_was_not_found_is_told_from_a_name_that_was_never_used() {
    let mut log = line("n", 1);
    log.queue(&release("n", Some(1), None));

    for (name, answer) in [("n", QueueAnswer::NoEntry), ("m", QueueAnswer::NoName)] {
        for by in [(Some(1), None), (None, Some("v")), (Some(1), Some("v"))] {
            assert_eq!(log.queue(&renew(name, by.0, by.1)), answer);
            assert_eq!(log.queue(&release(name, by.0, by.1)), answer);
            assert!(log.silent());
        }
    }
    assert_eq!(log.state.newest_free_queue().map(|index| index.0), Some(2));
}

#[test]
fn a_name_is_forgotten_once_it_was_free_for_long_and_not_while_it_is_used() {
    let mut log = line("n", 1);
    log.queue(&release("n", Some(1), None));
    log.queue(&enter("m", None, 1, false));

    let forget = |index| Command::QueueForget(v1::QueueForget { index });
    log.queue(&forget(1));
    assert!(log.state.is_queue_known(b"n"));
    log.queue(&forget(100));

    assert!(!log.state.is_queue_known(b"n") && log.state.is_queue_known(b"m"));
}

#[test]
fn a_value_can_be_changed_but_not_into_another_entrys() {
    let mut log = Log::default();
    log.queue(&enter("n", Some("a"), 1, false));
    log.queue(&enter("n", Some("b"), 2, false));

    assert_eq!(
        log.queue(&renew("n", Some(1), Some("b"))),
        QueueAnswer::ValueTaken
    );
    assert!(log.silent());
    assert_eq!(log.queue(&renew("n", Some(1), Some("c"))), QueueAnswer::Done);

    assert_eq!(log.queue(&release("n", None, Some("a"))), QueueAnswer::NoEntry);
    assert_eq!(log.queue(&release("n", None, Some("c"))), QueueAnswer::Done);
    assert_eq!(holder(&log, "n"), Some(2));
}

#[test]
fn locks_do_not_show_among_the_keys() {
    let log = line("n", 3);

    assert_eq!(log.state.kv_len(), 0);
    assert_eq!(log.state.kv_table_index().0, 1);
    assert_eq!(log.state.queues_index().0, 3);
}

// ---------------------------------------------------------------- the model

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    index: u64,
    value: Option<String>,
    request: u16,
    /// The last that came to it.
    joined: Vec<u16>,
    lease: u64,
    callers: u64,
    holds: bool,
}

/// A list for each name; no index but the position.
#[derive(Debug, Default)]
struct Model {
    at: u64,
    queues: BTreeMap<String, Vec<Entry>>,
    free: BTreeMap<String, u64>,
    /// Whoever ever held a lock, in the order in which they did.
    granted: BTreeMap<String, Vec<u64>>,
}

#[derive(Debug, Clone)]
enum Ask {
    Enter(String, Option<String>, u16, bool),
    Renew(String, Option<usize>, Option<String>),
    Release(String, Option<usize>, Option<String>),
    /// Positions, and whether by what is true now or by what was.
    Drop(String, Vec<usize>, bool),
    Forget(u64),
}

impl Model {
    fn command(&self, ask: &Ask) -> Command {
        let index = |name: &String, at: &Option<usize>| {
            at.map(|at| {
                self.queues
                    .get(name)
                    .and_then(|queue| queue.get(at))
                    .map_or(9_999, |entry| entry.index)
            })
        };
        match ask {
            Ask::Enter(name, value, request, at_once) => enter(name, value.as_deref(), *request, *at_once),
            Ask::Renew(name, at, value) => renew(name, index(name, at), value.as_deref()),
            Ask::Release(name, at, value) => release(name, index(name, at), value.as_deref()),
            Ask::Drop(name, positions, is_current) => {
                let queue = self.queues.get(name).cloned().unwrap_or_default();
                let entries = positions.iter().filter_map(|at| {
                    let entry = queue.get(*at)?;
                    let by_lease = at % 2 == 0;
                    let number = if by_lease { entry.lease } else { entry.callers };
                    let number = if *is_current { number } else { number - 1 };
                    Some(v1::QueueDropRef {
                        name: bytes(name),
                        index: entry.index,
                        lease: by_lease.then_some(number),
                        callers: (!by_lease).then_some(number),
                    })
                });
                drop_all(entries.collect())
            }
            Ask::Forget(index) => Command::QueueForget(v1::QueueForget { index: *index }),
        }
    }

    fn apply(&mut self, command: &Command) -> QueueAnswer {
        self.at += 1;
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        match command {
            Command::QueueEnter(enter) => {
                let request = u16::from_be_bytes([enter.request[0], enter.request[1]]);
                self.enter(
                    &text(&enter.name),
                    enter.value.as_ref().map(text),
                    request,
                    enter.at_once,
                )
            }
            Command::QueueRenew(renew) => {
                let (name, value) = (text(&renew.name), renew.value.as_ref().map(text));
                let Some(at) = self.find(&name, renew.index, value.as_deref()) else {
                    return self.missing(&name);
                };
                let queue = self.queues.entry(name).or_default();
                if let Some(value) = value {
                    if queue
                        .iter()
                        .enumerate()
                        .any(|(other, entry)| other != at && entry.value.as_ref() == Some(&value))
                    {
                        return QueueAnswer::ValueTaken;
                    }
                    queue[at].value = Some(value);
                }
                queue[at].lease += 1;
                queue[at].callers += u64::from(queue[at].holds);
                QueueAnswer::Done
            }
            Command::QueueRelease(release) => {
                let (name, value) = (text(&release.name), release.value.as_ref().map(text));
                let Some(at) = self.find(&name, release.index, value.as_deref()) else {
                    return self.missing(&name);
                };
                self.queues.entry(name.clone()).or_default().remove(at);
                self.grant(&name);
                QueueAnswer::Done
            }
            Command::QueueDrop(drop) => {
                let mut names = BTreeSet::new();
                for gone in &drop.entries {
                    let name = text(&gone.name);
                    let queue = self.queues.entry(name.clone()).or_default();
                    let before = queue.len();
                    queue.retain(|entry| {
                        entry.index != gone.index
                            || gone.lease.is_some_and(|lease| lease != entry.lease)
                            || gone.callers.is_some_and(|callers| callers != entry.callers)
                    });
                    if queue.len() < before {
                        names.insert(name);
                    }
                }
                for name in names {
                    self.grant(&name);
                }
                QueueAnswer::Done
            }
            Command::QueueForget(forget) => {
                self.free.retain(|_, since| *since > forget.index);
                QueueAnswer::Done
            }
            other => panic!("not a command of queues: {other:?}"),
        }
    }

    fn enter(&mut self, name: &str, value: Option<String>, request: u16, at_once: bool) -> QueueAnswer {
        let index = self.at;
        let queue = self.queues.entry(name.to_owned()).or_default();
        if let Some(mine) = queue.iter().find(|entry| entry.request == request) {
            return if mine.holds {
                QueueAnswer::Granted { index: mine.index }
            } else {
                QueueAnswer::Waits { index: mine.index }
            };
        }
        let same = |entry: &&mut Entry| value.is_some() && entry.value == value;
        if let Some(same) = queue.iter_mut().find(same) {
            let index = same.index;
            if same.holds {
                same.lease += 1;
                same.callers += 1;
                return QueueAnswer::Held { index };
            }
            if at_once {
                return QueueAnswer::Busy;
            }
            // As many as are remembered.
            if !same.joined.contains(&request) {
                same.joined.push(request);
                same.joined.reverse();
                same.joined.truncate(8);
                same.joined.reverse();
                same.callers += 1;
            }
            return QueueAnswer::Waits { index };
        }
        if at_once && !queue.is_empty() {
            return QueueAnswer::Busy;
        }
        let holds = queue.is_empty();
        queue.push(Entry {
            index,
            value,
            request,
            joined: Vec::new(),
            lease: 1,
            callers: 1,
            holds,
        });
        if holds {
            self.free.remove(name);
            self.granted.entry(name.to_owned()).or_default().push(index);
            QueueAnswer::Granted { index }
        } else {
            QueueAnswer::Waits { index }
        }
    }

    fn find(&self, name: &str, index: Option<u64>, value: Option<&str>) -> Option<usize> {
        self.queues.get(name)?.iter().position(|entry| match index {
            Some(index) => entry.index == index,
            None => value.is_some() && entry.value.as_deref() == value,
        })
    }

    fn missing(&self, name: &str) -> QueueAnswer {
        let is_used = self.queues.get(name).is_some_and(|queue| !queue.is_empty());
        if is_used || self.free.contains_key(name) {
            QueueAnswer::NoEntry
        } else {
            QueueAnswer::NoName
        }
    }

    fn grant(&mut self, name: &str) {
        match self.queues.get_mut(name).and_then(|queue| queue.first_mut()) {
            None => {
                self.free.insert(name.to_owned(), self.at);
            }
            Some(first) if first.holds => {}
            Some(first) => {
                first.holds = true;
                first.lease += 1;
                self.granted.entry(name.to_owned()).or_default().push(first.index);
            }
        }
    }
}

fn ask() -> impl Strategy<Value = Ask> {
    let name = || prop_oneof![Just("n".to_owned()), Just("n/m".to_owned())];
    let value = || prop_oneof![Just(None), (0u8..4).prop_map(|number| Some(format!("v{number}")))];
    let at = || prop_oneof![Just(None), (0usize..6).prop_map(Some)];
    prop_oneof![
        8 => (name(), value(), 0u16..40, proptest::bool::weighted(0.2))
            .prop_map(|(name, value, request, at_once)| Ask::Enter(name, value, request, at_once)),
        2 => (name(), at(), value()).prop_map(|(name, at, value)| Ask::Renew(name, at, value)),
        4 => (name(), at(), value()).prop_map(|(name, at, value)| Ask::Release(name, at, value)),
        2 => (name(), proptest::collection::vec(0usize..6, 0..4), any::<bool>())
            .prop_map(|(name, positions, is_current)| Ask::Drop(name, positions, is_current)),
        1 => (0u64..80).prop_map(Ask::Forget),
    ]
}

fn same_queues(state: &State, model: &Model) -> Result<(), TestCaseError> {
    let mut found: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for row in state.queue_entries() {
        let name = String::from_utf8_lossy(&row.name).into_owned();
        found.entry(name).or_default().push(Entry {
            index: row.index,
            value: row
                .value
                .as_ref()
                .map(|value| String::from_utf8_lossy(value).into_owned()),
            request: u16::from_be_bytes([row.request[0], row.request[1]]),
            joined: row
                .joined
                .iter()
                .map(|request| u16::from_be_bytes([request[0], request[1]]))
                .collect(),
            lease: row.lease,
            callers: row.callers,
            holds: row.granted_index > 0,
        });
    }
    let queues = model.queues.iter().filter(|(_, queue)| !queue.is_empty());
    let expected: BTreeMap<_, _> = queues
        .map(|(name, queue)| (name.clone(), queue.clone()))
        .collect();
    prop_assert_eq!(&found, &expected);
    for queue in found.values() {
        prop_assert!(queue[0].holds && queue[1..].iter().all(|entry| !entry.holds));
    }
    for name in ["n", "n/m"] {
        let is_known = found.contains_key(name) || model.free.contains_key(name);
        prop_assert_eq!(state.is_queue_known(name.as_bytes()), is_known);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_lists(asks in proptest::collection::vec(ask(), 1..120)) {
        let (mut log, mut model) = (Log::default(), Model::default());
        let mut copy = Mirror::default();
        for ask in &asks {
            let before: BTreeMap<u64, bool> =
                model.queues.values().flatten().map(|entry| (entry.index, entry.holds)).collect();
            let command = model.command(ask);
            prop_assert_eq!(log.queue(&command), model.apply(&command), "{:?}", command);
            same_queues(&log.state, &model)?;
            copy.take(&log.out);
            prop_assert_eq!(copy.rows(), rows(&log.state), "the writes do not make the copy");
            prop_assert_eq!(log.state.verify(), Ok(()), "after {:?}", command);
            // Exactly those are woken who were granted the lock, while they waited or at once, or taken out.
            let after: BTreeMap<u64, bool> =
                model.queues.values().flatten().map(|entry| (entry.index, entry.holds)).collect();
            let changed: Vec<u64> = before
                .iter()
                .filter(|(index, held)| after.get(index) != Some(held))
                .map(|(index, _)| *index)
                .chain(after.iter().filter(|(index, held)| **held && !before.contains_key(index)).map(|(index, _)| *index))
                .collect();
            prop_assert_eq!(woken(&log), changed);
        }
        for granted in model.granted.values() {
            prop_assert!(granted.is_sorted(), "not in the order of arrival: {:?}", granted);
        }
    }

    #[test]
    fn queues_survive_a_load_and_a_stream(asks in proptest::collection::vec(ask(), 1..120)) {
        let (mut log, mut model) = (Log::default(), Model::default());
        for ask in &asks {
            let command = model.command(ask);
            model.apply(&command);
            log.queue(&command);
        }
        let mut loader = Loader::new(&log.state.meta());
        for row in log.state.dump() {
            let (table, key, value) = (row.table(), row.key_bytes(), row.value_bytes());
            prop_assert!(loader.push_bytes(table, &key, &value).is_ok());
        }
        let loaded = loader.finish();
        let mut stream = Vec::new();
        prop_assert!(snapshot::write(&log.state, &log.state.meta(), &mut stream).is_ok());
        let received = Receiver::new(u64::MAX).read(&mut &stream[..]);
        let received = received.map_err(|error| TestCaseError::fail(error.to_string()))?;

        for state in [&loaded, &received.state] {
            prop_assert_eq!(rows(state), rows(&log.state));
            prop_assert_eq!(state.verify(), Ok(()));
            prop_assert_eq!(state.meta(), log.state.meta());
            same_queues(state, &model)?;
        }
    }
}
