use std::collections::BTreeSet;
use std::process::Command as Process;
use std::time::{Duration, Instant};

use lictor_node::{Checkpoint, WriteSet};
use lictor_proto::v1::{
    KvDelete, KvDeleteTree, KvSet, NodeRow, QueueEnter, QueueRelease, Register, SessionCreate, SessionRow,
};
use lictor_proto::{Command, LogIndex, Term};
use lictor_state::{Effects, State, Write};
use proptest::prelude::*;
use rocksdb::LiveFile;

use super::*;

/// Applies commands to a state and hands each batch to a store, as the apply and checkpoint threads do.
struct Pair {
    state: State,
    store: StateStore,
}

impl Pair {
    fn open(path: &Path) -> Self {
        Self::open_with(path, open::MEMTABLES_BYTES)
    }

    fn open_with(path: &Path, memtables_bytes: usize) -> Self {
        let (store, opened) = StateStore::open_with(path, memtables_bytes).unwrap();
        Self {
            state: opened.state,
            store,
        }
    }

    fn apply(&mut self, command: &Command) {
        self.apply_batch(std::slice::from_ref(command));
    }

    fn apply_batch(&mut self, commands: &[Command]) {
        let set = self.apply_in_memory(commands);
        self.store.write(&set).unwrap();
    }

    fn apply_in_memory(&mut self, commands: &[Command]) -> WriteSet {
        let mut effects = Effects::default();
        for command in commands {
            let next = LogIndex(self.state.applied().0.0 + 1);
            self.state.apply(next, Term(1), command, &mut effects);
        }
        WriteSet {
            meta: self.state.meta(),
            members: None,
            writes: effects.writes,
        }
    }

    /// What a crash at this moment leaves on the disk: the files, without the memtables.
    fn crash(&self, dir: &Path) -> tempfile::TempDir {
        let crashed = tempfile::tempdir().unwrap();
        self.store.db.disable_file_deletions().unwrap();
        let files = || {
            let entries = std::fs::read_dir(dir).unwrap();
            entries.map(|entry| entry.unwrap().file_name())
        };
        let names_others = |name: &std::ffi::OsString| {
            let name = name.to_string_lossy();
            name == "CURRENT" || name.starts_with("MANIFEST")
        };
        // First what names other files, and only then a look at what there is: all that is named is there.
        let first: Vec<_> = files().filter(names_others).collect();
        let rest = files().filter(|name| !names_others(name));
        for name in first.into_iter().chain(rest) {
            match std::fs::copy(dir.join(&name), crashed.path().join(&name)) {
                // One that was already on its way out: if it is missed, opening the copy shows it.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
        self.store.db.enable_file_deletions().unwrap();
        crashed
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

fn enter(queue: u64, request: u64) -> Command {
    Command::QueueEnter(QueueEnter {
        name: format!("queue/{queue}").into(),
        value: request
            .is_multiple_of(2)
            .then(|| format!("value {request}").into()),
        ttl_ms: 60_000,
        request: request.to_be_bytes().to_vec().into(),
        ..QueueEnter::default()
    })
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
fn a_crash_leaves_what_was_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::open(dir.path());
    pair.apply(&set("a", "1"));
    pair.apply(&register("n"));
    pair.store.flush().unwrap();
    let flushed = pair.state.clone();
    pair.apply(&set("a", "2"));
    pair.apply(&session("n", 1));

    let crashed = pair.crash(dir.path());

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

#[test]
fn a_crash_leaves_the_state_of_one_applied_index() {
    const MEMTABLES_BYTES: usize = 256 << 10;
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::open_with(dir.path(), MEMTABLES_BYTES);
    let mut states = vec![pair.state.clone()];
    let mut found = BTreeSet::new();

    // RocksDB flushes by itself here, whenever it sees fit, and is caught at it.
    for round in 0..12_u8 {
        pair.apply(&register(&format!("n{round}")));
        states.push(pair.state.clone());
        for number in 0..200 {
            pair.apply_batch(&[
                set(
                    &format!("k{number}"),
                    &incompressible(2_000, u64::from(round) << 32 | number),
                ),
                session(&format!("n{round}"), round),
            ]);
            let applied = usize::try_from(pair.state.applied().0.0).unwrap();
            states.resize_with(applied, State::default);
            states.push(pair.state.clone());
        }
        let crashed = pair.crash(dir.path());
        let (_, opened) = StateStore::open(crashed.path()).unwrap();
        let applied = usize::try_from(opened.state.applied().0.0).unwrap();
        assert_same(&opened.state, &states[applied]);
        found.insert(applied);
    }

    assert!(found.len() > 3, "it flushed nothing by itself: {found:?}");
}

#[test]
fn r12_a_recursive_delete_removes_what_its_own_batch_put() {
    for prefix in ["", "\u{10ffff}"] {
        let dir = tempfile::tempdir().unwrap();
        let mut pair = Pair::open(dir.path());
        pair.apply(&set("a", "1"));

        let tree = Command::KvDeleteTree(KvDeleteTree {
            prefix: prefix.into(),
        });
        pair.apply_batch(&[set("\u{10ffff}b", "2"), set("b", "3"), tree, set("c", "4")]);
        pair.store.flush().unwrap();
        drop(pair.store);

        let (_, opened) = StateStore::open(dir.path()).unwrap();
        assert_same(&opened.state, &pair.state);
    }
}

#[test]
fn rows_without_an_applied_index_are_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::open(dir.path());
    pair.apply(&set("a", "1"));
    pair.store
        .db
        .delete_cf(&pair.store.column(Table::Meta).unwrap(), b"")
        .unwrap();
    drop(pair.store);

    let refused = StateStore::open(dir.path()).err().unwrap();

    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
}

#[test]
fn a_copy_in_another_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::open(dir.path());
    let meta = MetaRow {
        format: 99,
        ..MetaRow::default()
    };
    let column = pair.store.column(Table::Meta).unwrap();
    pair.store.db.put_cf(&column, b"", meta.encode_to_vec()).unwrap();
    drop(column);
    drop(pair.store);

    let refused = StateStore::open(dir.path()).err().unwrap();

    assert!(matches!(refused, StoreError::OtherVersion { .. }), "{refused}");
}

#[test]
fn a_creation_that_was_cut_short_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("IDENTITY"), "x").unwrap();
    std::fs::write(dir.path().join("MANIFEST-000001"), "").unwrap();

    let mut pair = Pair::open(dir.path());
    pair.apply(&set("a", "1"));

    assert_eq!(pair.store.flush().unwrap(), LogIndex(1));
    assert!(
        !dir.path().join("MANIFEST-000001").exists(),
        "a whole copy never stands on the first manifest"
    );
}

#[test]
fn compaction_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for restart in 0..2 {
        let mut pair = Pair::open(dir.path());
        pair.store.found(&pair.state, b"members".to_vec()).unwrap();
        for number in 0..3 {
            pair.apply(&set("k", &format!("{restart} {number}")));
            pair.store.flush().unwrap();
        }
    }
    let pair = Pair::open(dir.path());

    let deadline = Instant::now() + Duration::from_secs(60);
    let flushed_files = || {
        let files = pair.store.db.live_files().unwrap();
        let is_flushed = |file: &&LiveFile| file.column_family_name == "kv" && file.level == 0;
        files.iter().filter(is_flushed).count()
    };
    while flushed_files() > 3 {
        assert!(Instant::now() < deadline, "{} files", flushed_files());
        std::thread::yield_now();
    }
}

#[test]
fn rows_in_many_files_are_all_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::open(dir.path());
    // Two files that overlap, so that they are merged and not just moved.
    for first in 0..2 {
        for number in (first..3_000).step_by(2) {
            pair.apply(&set(&format!("k{number:05}"), &incompressible(20_000, number)));
        }
        pair.store.flush().unwrap();
    }
    let column = pair.store.column(Table::Kv).unwrap();
    pair.store
        .db
        .compact_range_cf(&column, None::<&[u8]>, None::<&[u8]>);
    drop(column);
    let files = pair.store.db.live_files().unwrap();
    assert!(
        files
            .iter()
            .filter(|file| file.column_family_name == "kv")
            .count()
            > 2
    );
    drop(pair.store);

    let (_, opened) = StateStore::open(dir.path()).unwrap();

    assert_same(&opened.state, &pair.state);
}

/// On a file system of 24 MB of its own, in a mount namespace of its own, in a process of its own.
#[test]
fn a_full_disk_is_told_apart_and_the_same_calls_succeed_when_there_is_room() {
    const TEST: &str =
        "state::tests::a_full_disk_is_told_apart_and_the_same_calls_succeed_when_there_is_room";
    const INSIDE: &str = "LICTOR_TEST_FULL_DISK";
    if let Some(disk) = std::env::var_os(INSIDE) {
        return fill_and_recover(Path::new(&disk));
    }
    let disk = tempfile::tempdir().unwrap();
    let namespace = || {
        let mut command = Process::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-ec"]);
        command
    };
    let mount = format!("mount -t tmpfs -o size=24m tmpfs {}", disk.path().display());
    if !namespace()
        .arg(&mount)
        .status()
        .is_ok_and(|status| status.success())
    {
        eprintln!("skipped: this machine lets nobody mount a small file system");
        return;
    }

    let script = format!("{mount}; exec \"$0\" --exact {TEST} --nocapture");
    let outcome = namespace()
        .arg(script)
        .arg(std::env::current_exe().unwrap())
        .env(INSIDE, disk.path())
        .output();

    let outcome = outcome.unwrap();
    assert!(
        outcome.status.success(),
        "{}",
        String::from_utf8_lossy(&outcome.stderr)
    );
}

fn fill_and_recover(disk: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let retry = |what: &mut dyn FnMut() -> Result<(), CheckpointError>| loop {
        match what() {
            Ok(()) => return,
            Err(CheckpointError::Full(_)) if Instant::now() < deadline => std::thread::yield_now(),
            Err(error) => panic!("{error:?}"),
        }
    };
    let ballast = disk.join("ballast");
    std::fs::write(&ballast, vec![0; 14 << 20]).unwrap();
    let mut pair = Pair::open_with(&disk.join("state"), 1 << 20);

    let mut number = 0;
    let refused = loop {
        number += 1;
        let set = pair.apply_in_memory(&[set(&format!("k{number}"), &incompressible(20_000, number))]);
        if let Err(error) = pair.store.write(&set).and_then(|()| pair.store.flush().map(drop)) {
            break (set, error);
        }
        assert!(number < 2_000, "the disk does not fill");
    };
    let (set, error) = refused;
    assert!(matches!(error, CheckpointError::Full(_)), "{error:?}");
    assert!(matches!(pair.store.flush(), Err(CheckpointError::Full(_))));

    std::fs::remove_file(&ballast).unwrap();
    retry(&mut || pair.store.write(&set));
    retry(&mut || pair.store.flush().map(drop));
    drop(pair.store);
    let (_, opened) = StateStore::open(&disk.join("state")).unwrap();
    assert_same(&opened.state, &pair.state);
}

fn incompressible(bytes: usize, seed: u64) -> String {
    let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        char::from(random.to_le_bytes()[0] & 0x7f)
    };
    (0..bytes).map(|_| next()).collect()
}

fn command() -> impl Strategy<Value = Command> {
    let key = || proptest::sample::select(vec!["", "a", "a/", "a/b", "a/c/d", "b", "\u{10ffff}", "n"]);
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
        batches in proptest::collection::vec((proptest::collection::vec(command(), 1..5), any::<bool>()), 1..30)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut pair = Pair::open(dir.path());
        for (commands, flush) in batches {
            pair.apply_batch(&commands);
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

/// The folder that a data directory is, with the copy's name in it.
fn first(root: &tempfile::TempDir) -> PathBuf {
    root.path().join("state")
}

/// Another state than any that `pair` had, at a later index.
fn other_state() -> State {
    let mut state = State::default();
    let mut out = Effects::default();
    for (at, key) in [(40, "new/a"), (41, "new/b")] {
        state.apply(LogIndex(at), Term(3), &set(key, "other"), &mut out);
    }
    state.apply(LogIndex(42), Term(3), &register("other"), &mut out);
    state
}

fn keys(state: &State) -> Vec<String> {
    let key = |row: &lictor_state::KvRow| String::from_utf8_lossy(row.key()).into_owned();
    state.kv_list(b"").map(key).collect()
}

#[test]
fn an_installed_state_takes_the_place_of_the_whole_copy() {
    let root = tempfile::tempdir().unwrap();
    let mut pair = Pair::open(&first(&root));
    pair.store
        .found(&pair.state.clone(), b"members".to_vec())
        .unwrap();
    pair.apply_batch(&[set("old", "1"), register("old")]);
    pair.store.flush().unwrap();

    for round in 0..3 {
        assert_eq!(
            pair.store.install(&other_state(), None).unwrap(),
            LogIndex(42),
            "{round}"
        );
    }
    pair.state = other_state();
    pair.apply(&set("later", "1"));
    pair.store.flush().unwrap();
    drop(pair);

    let (_, opened) = StateStore::open(&first(&root)).unwrap();
    assert_eq!(keys(&opened.state), ["later", "new/a", "new/b"]);
    assert_eq!(opened.state.nodes().count(), 1);
    assert_eq!(opened.state.applied(), (LogIndex(43), Term(1)));
    assert_eq!(opened.members.as_deref(), Some(&b"members"[..]));
    assert!(!opened.is_installed);
    let folders = std::fs::read_dir(root.path()).unwrap().count();
    assert_eq!(folders, 2, "the copy and the file that names it");
}

#[test]
fn an_installed_state_brings_its_members_and_says_that_it_was_installed() {
    let root = tempfile::tempdir().unwrap();
    let mut pair = Pair::open(&first(&root));
    pair.apply(&set("old", "1"));

    pair.store.install(&other_state(), Some(b"others")).unwrap();
    drop(pair);

    let (_, opened) = StateStore::open(&first(&root)).unwrap();
    assert_eq!(opened.members.as_deref(), Some(&b"others"[..]));
    assert!(opened.is_installed);
}

#[test]
fn a_crash_during_an_installation_leaves_the_old_state_or_the_new() {
    let root = tempfile::tempdir().unwrap();
    let first = first(&root);
    let mut pair = Pair::open(&first);
    pair.apply(&set("old", "1"));
    pair.store.flush().unwrap();

    // Before the new copy is whole, and after, but before it is in force.
    std::fs::create_dir(root.path().join("state-1")).unwrap();
    std::fs::write(root.path().join("state-1/000001.sst"), "half").unwrap();
    drop(pair);
    let pair = Pair::open(&first);
    assert_eq!(keys(&pair.state), ["old"]);
    drop(pair.store.make(&other_state(), None).unwrap());
    drop(pair);
    let mut pair = Pair::open(&first);
    assert_eq!(keys(&pair.state), ["old"]);
    assert!(!root.path().join("state-1").exists());

    // In force, with the old copy still there.
    let copy = pair.store.make(&other_state(), None).unwrap();
    place::switch(&first, &copy.path).unwrap();
    drop(copy);
    drop(pair);
    pair = Pair::open(&first);
    assert_eq!(keys(&pair.state), ["new/a", "new/b"]);
    assert!(!first.exists());
}

#[test]
fn a_name_that_leads_nowhere_is_damage() {
    let root = tempfile::tempdir().unwrap();
    let first = first(&root);
    drop(Pair::open(&first));

    for name in ["state-9", "elsewhere", "state-x", ""] {
        std::fs::write(root.path().join("state.at"), name).unwrap();
        let refused = StateStore::open(&first).map(drop);
        assert!(
            matches!(refused, Err(StoreError::Damaged { .. })),
            "{name}: {refused:?}"
        );
        assert!(first.exists());
    }
}

#[test]
fn ten_thousand_places_in_line_survive_a_restart_and_an_installed_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::open(dir.path());
    let commands: Vec<_> = (0..10_000).map(|at| enter(at % 7, at)).collect();
    for batch in commands.chunks(512) {
        pair.apply_batch(batch);
    }
    let release = |index| {
        Command::QueueRelease(QueueRelease {
            name: "queue/0".into(),
            index: Some(index),
            value: None,
        })
    };
    pair.apply_batch(&[release(1), release(15), enter(9, 10_001)]);
    pair.store.flush().unwrap();
    let expected = rows(&pair.state);
    let holders = |state: &State| -> Vec<u64> {
        let granted = state.queue_entries().filter(|entry| entry.granted_index > 0);
        granted.map(|entry| entry.index).collect()
    };
    assert_eq!(holders(&pair.state), [8, 2, 3, 4, 5, 6, 7, 10_003]);

    let state = pair.state.clone();
    drop(pair);
    let reopened = Pair::open(dir.path());
    assert_eq!(rows(&reopened.state), expected);
    assert_eq!(holders(&reopened.state), holders(&state));
    assert_eq!(reopened.state.verify(), Ok(()));
    drop(reopened);

    let other = tempfile::tempdir().unwrap();
    let mut pair = Pair::open(other.path());
    pair.apply_batch(&[set("k", "v"), enter(1, 1)]);
    pair.store.install(&state, None).unwrap();
    drop(pair);
    assert_eq!(rows(&Pair::open(other.path()).state), expected);
}
