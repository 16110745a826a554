//! Restores through the whole pipeline (rule R9).

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use lictor_node::{
    Begin, Checkpoint, CheckpointError, Consistency, Identity, MemCheckpoint, Node, Options, RestoreError,
    Topic, Upload, WriteSet,
};
use lictor_proto::v1::{KvLock, KvSet, NodeRow, Register, SessionCreate, SessionDestroy, SessionRow};
use lictor_proto::{Command, LogIndex, RaftId, SessionId};
use lictor_raft::{Config, MemLog, SimDisk};
use lictor_state::{Outcome, State};

const SESSION: &str = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";

fn start(folder: &Path, disk: &SimDisk, checkpoint: impl Checkpoint) -> Node {
    let me = RaftId(1);
    let options = Options {
        identity: Identity {
            node: "n".to_owned(),
            node_id: "11111111-2222-3333-4444-555555555555".to_owned(),
            datacenter: "dc1".to_owned(),
            address: "127.0.0.1".to_owned(),
            server_port: 8300,
            http_address: String::new(),
        },
        raft_id: me,
        limit_watches: 100,
        staging: folder.to_owned(),
    };
    let begin = Begin::founding(Config::new(me, 1), [options.identity.server(me)]);
    let node = Node::new(options).unwrap();
    node.begin(begin, MemLog::open(disk).unwrap(), checkpoint)
        .unwrap();
    node
}

fn node(folder: &Path) -> Node {
    start(folder, &SimDisk::default(), MemCheckpoint::default())
}

async fn set(node: &Node, key: &str, value: &str) -> u64 {
    let set = KvSet {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        flags: 0,
        cas: None,
    };
    node.propose(Command::KvSet(set)).await.unwrap();
    node.view().kv_get(key.as_bytes()).unwrap().modify_index()
}

fn value(node: &Node, key: &str) -> Option<String> {
    let view = node.view();
    let row = view.kv_get(key.as_bytes())?;
    Some(String::from_utf8_lossy(row.value()).into_owned())
}

async fn archive(node: &Node) -> Vec<u8> {
    let mut archive = Vec::new();
    node.save().await.unwrap().send(&mut archive).unwrap();
    archive
}

fn upload(node: &Node, archive: &[u8]) -> Upload {
    let mut upload = node.upload().unwrap();
    archive.chunks(100).for_each(|piece| upload.write(piece).unwrap());
    upload
}

async fn restore(node: &Node, archive: &[u8]) -> Result<(), RestoreError> {
    node.restore(upload(node, archive)).await
}

async fn stop(node: Node) {
    tokio::task::spawn_blocking(move || node.stop()).await.unwrap();
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_brings_the_rows_of_then_back_and_indexes_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(folder.path());
    let then = set(&node, "k", "then").await;
    let archive = archive(&node).await;
    set(&node, "k", "now").await;
    let now = set(&node, "other", "now").await;

    restore(&node, &archive).await.unwrap();

    assert_eq!(
        (value(&node, "k").as_deref(), value(&node, "other")),
        (Some("then"), None)
    );
    assert_eq!(node.view().kv_get(b"k").unwrap().modify_index(), then);
    assert_eq!(node.view().kv_table_index().0, then);
    assert!(set(&node, "k", "later").await > now);
    stop(node).await;
    assert_eq!(files(folder.path()), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_watcher_wakes() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(folder.path());
    set(&node, "k", "1").await;
    let archive = archive(&node).await;
    let topics = [Topic::Key(b"elsewhere"), Topic::Prefix(b"no/such/")];
    let mut waiters = topics.map(|topic| node.watches().register(&[topic]).unwrap());
    let before = node.view().replaced_at();

    restore(&node, &archive).await.unwrap();

    for waiter in &mut waiters {
        tokio::time::timeout(Duration::from_secs(30), waiter.changed())
            .await
            .expect("a watcher of what the restore did not touch wakes too");
    }
    assert!(node.view().replaced_at() > before);
    stop(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_archive_changes_nothing_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(folder.path());
    set(&node, "k", "1").await;
    let mut archive = archive(&node).await;
    let middle = archive.len() / 2;
    archive[middle] ^= 1;

    for bad in [&b""[..], b"junk", &archive, &archive[..middle]] {
        let refused = restore(&node, bad).await;
        assert!(matches!(refused, Err(RestoreError::Refused(_))), "{refused:?}");
    }
    drop(upload(&node, b"never finished"));

    assert_eq!(value(&node, "k").as_deref(), Some("1"));
    assert_eq!(node.view().replaced_at(), LogIndex(0));
    assert_eq!(files(folder.path()), 0);
    stop(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restored_sessions_can_be_renewed_and_restored_lock_delays_hold() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(folder.path());
    node.propose(Command::Register(Register {
        node: Some(NodeRow {
            node: "n".to_owned(),
            ..NodeRow::default()
        }),
        ..Register::default()
    }))
    .await
    .unwrap();
    let id = SessionId::parse(SESSION).unwrap();
    let held = SessionId([7; 16]);
    for id in [id, held] {
        let session = SessionRow {
            id: id.0.to_vec().into(),
            node: "n".to_owned(),
            ttl: "10s".to_owned(),
            ttl_ms: 10_000,
            lock_delay_ns: 60_000_000_000,
            ..SessionRow::default()
        };
        node.propose(Command::SessionCreate(SessionCreate {
            session: Some(session),
        }))
        .await
        .unwrap();
    }
    assert!(lock(&node, held).await);
    let destroy = |id: SessionId| {
        Command::SessionDestroy(SessionDestroy {
            id: id.0.to_vec().into(),
        })
    };
    node.propose(destroy(held)).await.unwrap();
    let archive = archive(&node).await;
    node.propose(destroy(id)).await.unwrap();
    assert!(node.renew_session(id).await.unwrap().is_none());

    restore(&node, &archive).await.unwrap();

    assert!(node.renew_session(id).await.unwrap().is_some());
    assert!(!lock(&node, id).await);
    stop(node).await;
}

/// Whether the key was acquired; a lock-delay refuses it.
async fn lock(node: &Node, id: SessionId) -> bool {
    let lock = KvLock {
        key: "held".into(),
        session: id.to_string(),
        ..KvLock::default()
    };
    matches!(node.propose(Command::KvLock(lock)).await, Ok(Outcome::Bool(true)))
}

/// A durable copy that is never done with an installation until it is let go.
struct Stuck {
    inner: MemCheckpoint,
    reached: mpsc::Sender<()>,
    go_on: mpsc::Receiver<()>,
}

impl Checkpoint for Stuck {
    fn write(&mut self, set: &WriteSet) -> Result<(), CheckpointError> {
        self.inner.write(set)
    }

    fn install(&mut self, state: &State, members: Option<&[u8]>) -> Result<LogIndex, CheckpointError> {
        self.reached.send(()).unwrap();
        self.go_on.recv().unwrap();
        self.inner.install(state, members)
    }

    fn flush(&mut self) -> Result<LogIndex, CheckpointError> {
        self.inner.flush()
    }

    fn space(&self) -> Result<(u64, u64), String> {
        self.inner.space()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_was_cut_short_is_done_after_the_restart() {
    let (folder, after_crash) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ((reached, has_reached), (let_go, go_on)) = (mpsc::channel(), mpsc::channel());
    let stuck = Stuck {
        inner: MemCheckpoint::default(),
        reached,
        go_on,
    };
    let disk = SimDisk::default();
    let node = start(folder.path(), &disk, stuck);
    set(&node, "k", "then").await;
    let archive = archive(&node).await;
    set(&node, "k", "now").await;

    restore(&node, &archive).await.unwrap();
    let after = set(&node, "after", "1").await;
    let reached = tokio::task::spawn_blocking(move || has_reached.recv());
    reached.await.unwrap().unwrap();
    // The disk as a crash would leave it now: the log with the entry, the archive, and no durable copy at all.
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, after_crash.path().join(path.file_name().unwrap())).unwrap();
    }
    let restarted = start(after_crash.path(), &disk, MemCheckpoint::default());
    restarted.read(Consistency::Default).await.unwrap();

    assert_eq!(value(&restarted, "k").as_deref(), Some("then"));
    assert_eq!(restarted.view().kv_get(b"after").unwrap().modify_index(), after);
    stop(restarted).await;
    assert_eq!(files(after_crash.path()), 0);
    let_go.send(()).unwrap();
    stop(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consuls_archive_is_taken_over_with_its_indexes() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(folder.path());
    let archive = include_bytes!("../../lictor-archive/tests/data/consul.tgz");

    restore(&node, archive).await.unwrap();

    let view = node.view();
    assert_eq!(view.kv_get(b"app/a").unwrap().modify_index(), 7);
    assert_eq!(view.sessions().count(), 2);
    drop(view);
    assert!(set(&node, "app/a", "new").await > 18);
    stop(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archives_on_their_way_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let node = node(folder.path());
    node.read(Consistency::Default).await.unwrap();
    let mut uploads = Vec::new();

    let refused = loop {
        match node.upload() {
            Ok(upload) => uploads.push(upload),
            Err(error) => break error,
        }
        assert!(uploads.len() < 100);
    };
    assert_eq!(refused.kind(), std::io::ErrorKind::ResourceBusy);
    assert!(node.save().await.is_err());
    uploads.pop();

    assert!(node.save().await.is_ok());
    drop(uploads);
    stop(node).await;
    assert_eq!(files(folder.path()), 0);
}
