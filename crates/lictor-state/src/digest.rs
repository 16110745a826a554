//! One number for all that a state holds, by which servers see whether they hold the same.

use std::ops::ControlFlow;

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::State;

/// Rows between two calls of the caller's own.
const SLICE_ROWS: usize = 2048;

impl State {
    /// SHA-256 over all rows, table indexes and settings, in the order of [`State::dump`]. Equal states give equal digests,
    /// whatever way they came about: by applying, from a snapshot, or read from disk.
    ///
    /// Reads every row, which takes a while; `between` is called every few thousand rows, to let others work or to give
    /// up. `None` if it did.
    pub fn digest(&self, mut between: impl FnMut() -> ControlFlow<()>) -> Option<[u8; 32]> {
        let mut hash = Sha256::new();
        for (count, row) in (1usize..).zip(self.dump()) {
            hash.update(row.table().number().to_le_bytes());
            for part in [&row.key_bytes()[..], &row.value_bytes()[..]] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
            if count.is_multiple_of(SLICE_ROWS) && between().is_break() {
                return None;
            }
        }
        hash.update(self.index_offset.to_le_bytes());
        hash.update(self.indexes.encode_to_vec());
        if self.session_ttl_min_ms > 0 {
            hash.update(self.session_ttl_min_ms.to_le_bytes());
        }
        Some(hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use lictor_proto::v1::KvSet;
    use lictor_proto::{Command, LogIndex, Term};

    use super::*;
    use crate::{Effects, Loader};

    fn set(state: &mut State, index: u64, key: &str, value: &str) {
        let set = KvSet {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..KvSet::default()
        };
        state.apply(
            LogIndex(index),
            Term(1),
            &Command::KvSet(set),
            &mut Effects::default(),
        );
    }

    fn digest(state: &State) -> [u8; 32] {
        state
            .digest(|| ControlFlow::Continue(()))
            .expect("nobody gives up")
    }

    #[test]
    fn a_digest_is_of_what_a_state_holds_and_not_of_how_it_came_about() {
        let mut state = State::default();
        set(&mut state, 5, "a", "1");
        set(&mut state, 6, "b", "2");
        let mut loader = Loader::new(&state.meta());
        for row in state.dump() {
            loader.push(row).expect("a row of a state");
        }
        let mut later = state.clone();
        later.apply_empty(LogIndex(9), Term(3));

        assert_eq!(digest(&state), digest(&loader.finish()));
        assert_eq!(
            digest(&state),
            digest(&later),
            "an entry without a command changes nothing"
        );
    }

    #[test]
    fn one_byte_or_index_makes_another_digest() {
        let states = [
            ("a", "1", 5),
            ("a", "2", 5),
            ("b", "1", 5),
            ("a", "1", 6),
            ("a1", "", 5),
        ];
        let digests = states.map(|(key, value, index)| {
            let mut state = State::default();
            set(&mut state, index, key, value);
            digest(&state)
        });

        for (at, one) in digests.iter().enumerate() {
            assert!(!digests[..at].contains(one), "{:?}", states[at]);
        }
    }

    #[test]
    fn whoever_gives_up_gets_no_digest() {
        let mut state = State::default();
        for index in 0..=SLICE_ROWS as u64 {
            set(&mut state, index + 1, &index.to_string(), "v");
        }

        assert_eq!(state.digest(|| ControlFlow::Break(())), None);
    }
}
