use bytes::Bytes;
use lictor_node::{Checkpoint, WriteSet};
use lictor_proto::v1::{KvDelete, KvDeleteTree, KvSet, NodeRow, Register, SessionCreate, SessionRow};
use lictor_proto::{Command, LogIndex, Term};
use lictor_state::{Effects, State, Write};
use proptest::prelude::*;

use super::*;

/// Applies commands to a state and hands each batch to a store, as the apply and checkpoint threads do.
struct Pair {
    state: State,
    store: StateStore,
}

impl Pair {
    fn open(path: &Path) -> Self {
        let (store, opened) = StateStore::open(path).unwrap();
        Self {
            state: opened.state,
            store,
        }
    }

    fn apply(&mut self, command: &Command) {
        let mut effects = Effects::default();
        let next = LogIndex(self.state.applied().0.0 + 1);
        self.state.apply(next, Term(1), command, &mut effects);
        let set = WriteSet {
            meta: self.state.meta(),
            members: None,
            writes: effects.writes,
        };
        self.store.write(&set).unwrap();
    }
}

fn set(key: &str, value: &str) -> Command {
    Command::KvSet(KvSet {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        flags: 1,
        cas: None,
    })
}

fn register(node: &str) -> Command {
    let node = NodeRow {
        node: node.to_owned(),
        address: "127.0.0.1".to_owned(),
        ..NodeRow::default()
    };
    Command::Register(Register {
        node: Some(node),
        ..Register::default()
    })
}

fn session(node: &str, id: u8) -> Command {
    let row = SessionRow {
        id: vec![id; 16].into(),
        node: node.to_owned(),
        ..SessionRow::default()
    };
    Command::SessionCreate(SessionCreate { session: Some(row) })
}

fn rows(state: &State) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
    let bytes = |write: Write| (write.table(), write.key_bytes().to_vec(), write.value_bytes());
    state.dump().map(bytes).collect()
}

fn assert_same(a: &State, b: &State) {
    assert_eq!(rows(a), rows(b));
    assert_eq!(a.meta(), b.meta());
}

#[test]
fn what_was_flushed_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::open(dir.path());
    for command in [set("a", "1"), set("b/c", "2"), register("n"), session("n", 1)] {
        pair.apply(&command);
    }

    assert_eq!(pair.store.flush().unwrap(), LogIndex(4));
    drop(pair.store);

    let (_, opened) = StateStore::open(dir.path()).unwrap();
    assert_same(&opened.state, &pair.state);
    assert_eq!(opened.members, None);
}

#[test]
fn a_crash_leaves_the_state_of_one_applied_index() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::open(dir.path());
    pair.apply(&set("a", "1"));
    pair.apply(&register("n"));
    pair.store.flush().unwrap();
    let flushed = pair.state.clone();
    pair.apply(&set("a", "2"));
    pair.apply(&session("n", 1));

    // A copy of the files is what a crash leaves: memtables are not in it.
    let crashed = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), crashed.path().join(entry.file_name())).unwrap();
    }

    let (_, opened) = StateStore::open(crashed.path()).unwrap();
    assert_same(&opened.state, &flushed);
}

#[test]
fn the_founding_members_are_durable_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::open(dir.path());
    pair.store.found(&pair.state, b"members".to_vec()).unwrap();
    pair.apply(&set("a", "1"));
    pair.store.flush().unwrap();
    drop(pair.store);

    let (_, opened) = StateStore::open(dir.path()).unwrap();

    assert_eq!(opened.members.as_deref(), Some(&b"members"[..]));
}

#[test]
fn r12_a_recursive_delete_is_a_range_on_disk_even_without_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::open(dir.path());
    let key = |key: &'static [u8]| {
        Command::KvSet(KvSet {
            key: key.into(),
            value: "v".into(),
            flags: 0,
            cas: None,
        })
    };
    for command in [
        key(b"\xff\xff"),
        key(b"\xff\xff1"),
        key(b"\xfe"),
        set("p/a", "1"),
        set("p/b", "1"),
        set("q", "1"),
    ] {
        pair.apply(&command);
    }
    pair.store.flush().unwrap();

    for prefix in [&b"\xff\xff"[..], b"p/"] {
        pair.apply(&Command::KvDeleteTree(KvDeleteTree {
            prefix: Bytes::from_static(prefix),
        }));
    }
    pair.store.flush().unwrap();
    drop(pair.store);

    let (_, opened) = StateStore::open(dir.path()).unwrap();
    assert_same(&opened.state, &pair.state);
    assert_eq!(opened.state.kv_len(), 2);
}

#[test]
fn a_copy_that_lost_its_current_file_is_damaged_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::open(dir.path());
    pair.apply(&set("a", "1"));
    pair.store.flush().unwrap();
    drop(pair.store);
    std::fs::remove_file(dir.path().join("CURRENT")).unwrap();

    let refused = StateStore::open(dir.path()).err().unwrap();

    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
    assert!(!dir.path().join("CURRENT").exists());
}

#[test]
fn flipped_bits_are_found_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::open(dir.path());
    for key in 0..100 {
        pair.apply(&set(&format!("k{key}"), &"v".repeat(100)));
    }
    pair.store.flush().unwrap();
    drop(pair.store);
    let is_sst = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "sst");
    let size = |path: &PathBuf| std::fs::metadata(path).unwrap().len();
    let files = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let largest = files.filter(is_sst).max_by_key(size).unwrap();
    let mut bytes = std::fs::read(&largest).unwrap();
    bytes[100] ^= 0x55;
    std::fs::write(&largest, bytes).unwrap();

    let refused = StateStore::open(dir.path()).err().unwrap();

    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
}

fn command() -> impl Strategy<Value = Command> {
    let key = || proptest::sample::select(vec!["a", "a/", "a/b", "a/c/d", "b", "\u{10ffff}", "n"]);
    prop_oneof![
        4 => (key(), ".{0,8}").prop_map(|(key, value)| set(key, &value)),
        2 => key().prop_map(|key| Command::KvDelete(KvDelete { key: key.into(), cas: None })),
        1 => key().prop_map(|key| Command::KvDeleteTree(KvDeleteTree { prefix: key.into() })),
        1 => key().prop_map(register),
        1 => (key(), 0..4u8).prop_map(|(node, id)| session(node, id)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_copy_equals_the_state_in_memory_byte_for_byte(
        commands in proptest::collection::vec((command(), any::<bool>()), 1..60)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut pair = Pair::open(dir.path());
        for (command, flush) in commands {
            pair.apply(&command);
            if flush {
                pair.store.flush().unwrap();
            }
        }
        pair.store.flush().unwrap();
        drop(pair.store);

        let (_, opened) = StateStore::open(dir.path()).unwrap();

        assert_same(&opened.state, &pair.state);
    }
}
