//! The same with many rows: trees that are deep, removals that leave holes in them, sessions with hundreds of locks.

use lictor_proto::Command;
use lictor_proto::v1::{self, KvVerb};
use lictor_state::snapshot::{self, Receiver};
use lictor_state::{Loader, Outcome};
use proptest::prelude::*;

use super::commands::{registration, session};
use super::common::*;
use super::{Mirror, Model, same_rows};

/// The sessions that lock.
const SESSIONS: u8 = 2;

/// What the first locks need.
fn begin() -> Vec<Command> {
    let sessions = (0..SESSIONS).map(|number| create(session_row(number, "n0")));
    std::iter::once(register("n0", None, vec![]))
        .chain(sessions)
        .collect()
}

/// What is below one of a few prefixes, and how it is spelled.
fn group() -> impl Strategy<Value = String> {
    (0u8..6).prop_map(|group| format!("{}/", "gg/h".get(..usize::from(group)).unwrap_or("z")))
}

/// Commands over many rows: trees that are deep, and removals that leave holes in them.
fn bulk() -> impl Strategy<Value = Command> {
    let verb = prop_oneof![6 => Just(KvVerb::Set), 2 => Just(KvVerb::Lock), 1 => Just(KvVerb::Delete)];
    prop_oneof![
        12 => (verb, group(), 0u16..500, 1u16..300, 0..SESSIONS).prop_map(|(verb, group, from, count, session)| {
            let session = session_id(session).to_string();
            let op = |number| kv_op(verb, &format!("{group}{number:03}"), "v", 0, &session);
            Command::Txn(v1::Txn { ops: (from..from + count).map(op).collect(), checked_at: u64::MAX })
        }),
        2 => group().prop_map(|prefix| delete_tree(&prefix)),
        2 => (group(), 0u16..90).prop_map(|(group, number)| delete_tree(&format!("{group}{number:02}"))),
        1 => (group(), 0u16..9).prop_map(|(group, number)| delete_tree(&format!("{group}{number}"))),
        2 => session(),
        1 => (0..SESSIONS).prop_map(|number| destroy(&session_id(number).to_string())),
        1 => (0u64..60).prop_map(reap),
        1 => registration(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_the_naive_model_with_many_rows(commands in proptest::collection::vec(bulk(), 1..50)) {
        let mut commands = commands;
        commands.splice(..0, begin());
        let (mut log, mut model) = (Log::default(), Model::default());
        let mut copy = Mirror::default();
        for command in &commands {
            let answer = match log.apply(command) {
                Outcome::Bool(answer) => Some(answer),
                Outcome::Txn(outcome) => Some(outcome.errors.is_empty()),
                outcome => {
                    prop_assert!(matches!(outcome, Outcome::Failed(_)), "{:?}", outcome);
                    None
                }
            };
            prop_assert_eq!(answer, model.apply(command), "{:?}", command);
            same_rows(&log.state, &model)?;
            for prefix in ["", "g", "g/", "gg/", "gg//1", "z/", "z/42"] {
                prop_assert_eq!(log.list_index(prefix), model.list_index(prefix.as_bytes()), "{:?}", prefix);
            }
            copy.take(&log.out);
            prop_assert_eq!(log.state.verify(), Ok(()), "after {:?}", command);
        }
        prop_assert_eq!(copy.rows(), rows(&log.state), "the writes do not make the copy");

        // And from what is stored or sent comes the same state, on which the same can be done.
        let mut loader = Loader::new(&log.state.meta());
        for row in log.state.dump() {
            loader.push_bytes(row.table(), &row.key_bytes(), &row.value_bytes()).unwrap();
        }
        let mut stream = Vec::new();
        snapshot::write(&log.state, &log.state.meta(), &mut stream).unwrap();
        let mut receiver = Receiver::new(u64::MAX);
        receiver.push(&stream).unwrap();
        for state in [loader.finish(), receiver.finish().unwrap().state] {
            prop_assert_eq!(rows(&state), rows(&log.state));
            let (mut again, mut model) = (Log { state, at: log.at, ..Log::default() }, model.clone());
            for command in &commands {
                again.apply(command);
                model.apply(command);
                same_rows(&again.state, &model)?;
                prop_assert_eq!(again.state.verify(), Ok(()), "after {:?}", command);
            }
        }
    }
}
