//! Linearizability of one key.
//!
//! The search of Wing and Gong (1993) with the memory of Lowe (2017): operations are put in an order one by one, each
//! only while no other had returned before it was called; a set of operations in a state that was reached before is not
//! tried again. Keys are independent of each other, so a history is checked key by key (Herlihy and Wing's locality).
//!
//! Values are unique: what a read or a compare-and-set names, one write wrote.

use std::collections::BTreeSet;

/// What a key holds: the number of the write that wrote it.
pub type Value = Option<u64>;

/// What a client did, and what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Found this.
    Read(Value),
    /// Wrote this; if it was not told so, perhaps.
    Write(u64),
    /// Removed the key; if it was not told so, perhaps.
    Delete,
    /// Wrote `new` if the key held `expected`. `done` is the answer, `None` without one.
    Cas {
        /// What the key had to hold.
        expected: Value,
        /// What it was to hold then.
        new: u64,
        /// Whether it did.
        done: Option<bool>,
    },
}

/// An action with the times at which it was called and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// When it was called.
    pub called: u64,
    /// When it was answered; `None` if it never was, so that it may take effect at any later time, or never.
    pub answered: Option<u64>,
    /// What was done.
    pub action: Action,
}

/// What the checker found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none.
    Violation,
    /// Too many orders to try.
    Undecided,
}

/// States visited before the search gives up.
const MAX_STATES: usize = 200_000;

/// Whether an order of these operations on a key that held `initial` explains all answers.
pub fn check(operations: &[Operation], initial: Value) -> Verdict {
    let mut sorted: Vec<Operation> = operations.to_vec();
    // Reads that were not answered say nothing.
    sorted.retain(|operation| operation.answered.is_some() || !matches!(operation.action, Action::Read(_)));
    sorted.sort_by_key(|operation| operation.called);
    let mut seen: BTreeSet<(Vec<u64>, Value)> = BTreeSet::new();
    let mut stack = vec![(vec![0u64; sorted.len().div_ceil(64)], initial)];
    while let Some((mut done, value)) = stack.pop() {
        take_what_changes_nothing(&sorted, &mut done, value);
        if is_complete(&sorted, &done) {
            return Verdict::Linearizable;
        }
        if !seen.insert((done.clone(), value)) {
            continue;
        }
        if seen.len() > MAX_STATES {
            return Verdict::Undecided;
        }
        let mut next: Vec<_> = possible(&sorted, &done).collect();
        // Those that were answered first are tried first: they are on the top of the stack.
        next.sort_by_key(|&at| std::cmp::Reverse(sorted[at].answered.unwrap_or(u64::MAX)));
        for at in next {
            if let Some(after) = outcome(sorted[at].action, value) {
                let mut done = done.clone();
                done[at / 64] |= 1 << (at % 64);
                stack.push((done, after));
            }
        }
    }
    Verdict::Violation
}

fn is_done(done: &[u64], at: usize) -> bool {
    done[at / 64] & (1 << (at % 64)) != 0
}

fn is_complete(operations: &[Operation], done: &[u64]) -> bool {
    let mut all = operations.iter().enumerate();
    all.all(|(at, operation)| operation.answered.is_none() || is_done(done, at))
}

/// The operations that may come next: called before any other that is left was answered.
fn possible<'a>(operations: &'a [Operation], done: &'a [u64]) -> impl Iterator<Item = usize> + 'a {
    let left = move |at: &usize| !is_done(done, *at);
    let first_answer = (0..operations.len())
        .filter(left)
        .filter_map(|at| operations[at].answered)
        .min()
        .unwrap_or(u64::MAX);
    (0..operations.len())
        .take_while(move |&at| operations[at].called <= first_answer)
        .filter(left)
}

/// What may come next and leaves the key as it is may as well come now: it hinders nothing that comes later.
fn take_what_changes_nothing(operations: &[Operation], done: &mut [u64], value: Value) {
    loop {
        let idle = possible(operations, done).find(|&at| {
            let changes_nothing = match operations[at].action {
                Action::Read(found) => found == value,
                Action::Cas {
                    expected,
                    done: Some(false),
                    ..
                } => expected != value,
                _ => false,
            };
            changes_nothing && operations[at].answered.is_some()
        });
        let Some(at) = idle else { return };
        done[at / 64] |= 1 << (at % 64);
    }
}

/// What the key holds after an action, if its answer is possible.
fn outcome(action: Action, value: Value) -> Option<Value> {
    match action {
        Action::Read(found) => (found == value).then_some(value),
        Action::Write(new) => Some(Some(new)),
        Action::Delete => Some(None),
        Action::Cas { expected, new, done } => match (expected == value, done) {
            (true, Some(true) | None) => Some(Some(new)),
            (false, Some(false) | None) => Some(value),
            (true, Some(false)) | (false, Some(true)) => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(called: u64, answered: u64, action: Action) -> Operation {
        Operation {
            called,
            answered: Some(answered),
            action,
        }
    }

    fn lost(called: u64, action: Action) -> Operation {
        Operation {
            called,
            answered: None,
            action,
        }
    }

    #[test]
    fn operations_at_the_same_time_may_take_effect_in_any_order() {
        let history = [
            at(0, 10, Action::Write(1)),
            at(0, 10, Action::Write(2)),
            at(11, 12, Action::Read(Some(1))),
            at(5, 6, Action::Read(Some(2))),
        ];

        assert_eq!(check(&history, None), Verdict::Linearizable);
    }

    #[test]
    fn a_stale_read_is_a_violation() {
        let history = [
            at(0, 1, Action::Write(1)),
            at(2, 3, Action::Write(2)),
            at(4, 5, Action::Read(Some(1))),
        ];

        assert_eq!(check(&history, None), Verdict::Violation);
    }

    #[test]
    fn a_value_that_comes_back_is_a_violation() {
        let history = [
            at(0, 10, Action::Write(1)),
            at(0, 10, Action::Write(2)),
            at(11, 12, Action::Read(Some(1))),
            at(13, 14, Action::Read(Some(2))),
        ];

        assert_eq!(check(&history, None), Verdict::Violation);
    }

    #[test]
    fn an_acknowledged_write_that_is_gone_is_a_violation() {
        let history = [at(0, 1, Action::Write(1)), at(2, 3, Action::Read(None))];

        assert_eq!(check(&history, None), Verdict::Violation);
    }

    #[test]
    fn a_write_without_an_answer_may_take_effect_late_or_never() {
        let write = lost(0, Action::Write(1));
        let late = [
            write,
            at(5, 6, Action::Read(None)),
            at(7, 8, Action::Read(Some(1))),
        ];
        let never = [write, at(5, 6, Action::Read(None)), at(7, 8, Action::Read(None))];
        let both = [
            write,
            at(5, 6, Action::Read(Some(1))),
            at(7, 8, Action::Read(None)),
        ];

        assert_eq!(check(&late, None), Verdict::Linearizable);
        assert_eq!(check(&never, None), Verdict::Linearizable);
        assert_eq!(check(&both, None), Verdict::Violation);
    }

    #[test]
    fn two_compare_and_sets_on_one_version_do_not_both_win() {
        let cas = |called, new, done| {
            let expected = Some(1);
            let done = Some(done);
            at(called, called + 10, Action::Cas { expected, new, done })
        };

        let both = [cas(0, 2, true), cas(0, 3, true)];
        let one = [cas(0, 2, true), cas(0, 3, false)];
        let none = [cas(0, 2, false), cas(0, 3, false)];
        assert_eq!(check(&both, Some(1)), Verdict::Violation);
        assert_eq!(check(&one, Some(1)), Verdict::Linearizable);
        assert_eq!(check(&none, Some(1)), Verdict::Violation);
    }

    #[test]
    fn a_delete_takes_the_value_away() {
        let history = [
            at(0, 1, Action::Write(1)),
            at(2, 9, Action::Delete),
            at(3, 4, Action::Read(Some(1))),
            at(5, 6, Action::Read(None)),
            at(7, 8, Action::Read(Some(1))),
        ];

        assert_eq!(check(&history[..4], None), Verdict::Linearizable);
        assert_eq!(check(&history, None), Verdict::Violation);
    }

    #[test]
    fn a_long_history_is_decided() {
        let mut history = Vec::new();
        for number in 0..400 {
            let begin = number * 10;
            history.push(at(begin, begin + 15, Action::Write(number)));
            history.push(at(begin + 16, begin + 17, Action::Read(Some(number))));
        }
        assert_ne!(check(&history, None), Verdict::Undecided);
        history[401].action = Action::Read(Some(7));

        assert_eq!(check(&history, None), Verdict::Violation);
    }
}
