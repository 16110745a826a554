//! What a client is told of a write beyond whether it was done.

mod common;

use common::*;
use lictor_proto::v1::SessionBehavior;
use lictor_proto::{Command, ConsulIndex, v1};
use lictor_state::{Explained, Outcome, Refused};

fn explained(log: &mut Log, command: &Command) -> Explained {
    let outcome = log.apply(command);
    match log.state.explained(command, outcome) {
        Outcome::Explained(explained) => explained,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_write_is_told_the_index_that_its_key_has_now() {
    let mut log = Log::default();

    let first = explained(&mut log, &set("k", "v"));
    let same = explained(&mut log, &set("k", "v"));
    let gone = explained(&mut log, &delete("k"));

    assert_eq!(first.modify_index, Some(ConsulIndex(1)));
    assert_eq!(same, first, "what is there already keeps its index");
    assert_eq!((gone.done, gone.modify_index), (true, Some(ConsulIndex(3))));
}

#[test]
fn the_fencing_token_grows_whenever_the_lock_passes_on() {
    let mut log = Log::default();
    let one = log.session(1, 0, SessionBehavior::Release);
    let other = log.session(2, 0, SessionBehavior::Release);

    let token = |log: &mut Log, session: &str| {
        let taken = explained(log, &lock("k", "v", session, u64::MAX));
        assert_eq!(
            taken.modify_index,
            Some(ConsulIndex(log.modify_index("k"))),
            "{taken:?}"
        );
        taken.lock_index
    };
    assert_eq!(token(&mut log, &one), Some(1));
    assert_eq!(token(&mut log, &one), Some(1), "who has it does not get it anew");
    let held = explained(&mut log, &lock("k", "v", &other, u64::MAX));
    assert_eq!(held.refused, Some(Refused::Held { session: one.clone() }));
    assert_eq!(
        (held.done, held.modify_index, held.lock_index),
        (false, None, None)
    );
    log.done(&unlock("k", "v", &one));
    assert_eq!(token(&mut log, &other), Some(2));
}

#[test]
fn refusals_say_why() {
    let mut log = Log::default();
    let one = log.session(1, 5_000, SessionBehavior::Release);
    let other = log.session(2, 0, SessionBehavior::Release);
    let made = log.set("k", "v");
    let why = |log: &mut Log, command: &Command| explained(log, command).refused;

    let index = |modify_index| Some(Refused::Index { modify_index });
    assert_eq!(why(&mut log, &cas("k", "w", 0)), index(made));
    assert_eq!(why(&mut log, &cas("absent", "w", 9)), index(0));
    let delete_cas = Command::KvDelete(v1::KvDelete {
        key: bytes("k"),
        cas: Some(1),
    });
    assert_eq!(why(&mut log, &delete_cas), index(made));
    assert_eq!(why(&mut log, &unlock("k", "v", &one)), Some(Refused::NotHeld));
    assert!(log.acquire("k", &one));
    let held = Some(Refused::Held { session: one.clone() });
    assert_eq!(why(&mut log, &unlock("k", "v", &other)), held);
    let looked_at = log.at;
    log.done(&destroy(&one));
    assert_eq!(
        why(&mut log, &lock("k", "v", &other, looked_at)),
        Some(Refused::LockDelay { remaining_ms: 5_000 })
    );
}

#[test]
fn errors_and_other_commands_stay_as_they_are() {
    let mut log = Log::default();
    let commands = [
        lock("k", "v", "11111111-2222-3333-4444-555555555555", u64::MAX),
        register("n", None, vec![]),
    ];
    for command in commands {
        let outcome = log.apply(&command);
        let explained = log.state.explained(&command, outcome.clone());
        assert_eq!(format!("{explained:?}"), format!("{outcome:?}"));
    }
}
