//! The whole pipeline on a log in memory.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::time::Duration;

use lictor_node::{
    Begin, Checkpoint, CheckpointError, Consistency, Identity, Node, Options, ProposeError, Topic, WriteSet,
};
use lictor_proto::v1::{KvLock, KvSet, NodeRow, Register, SessionCreate, SessionRow};
use lictor_proto::{Command, LogIndex, RaftId, SessionId};
use lictor_raft::{Config, MemLog};
use lictor_state::{ApplyError, Outcome, State};

fn identity() -> Identity {
    Identity {
        node: "n".to_owned(),
        node_id: "11111111-2222-3333-4444-555555555555".to_owned(),
        datacenter: "dc1".to_owned(),
        address: "127.0.0.1".to_owned(),
        server_port: 8300,
        http_address: String::new(),
    }
}

fn node() -> Node {
    Node::in_memory(identity()).unwrap()
}

/// A durable copy on a disk without room.
struct FullDisk {
    /// Whether it still takes rows in, as one does that is only nearly full.
    takes: bool,
}

impl Checkpoint for FullDisk {
    fn write(&mut self, _: &WriteSet) -> Result<(), CheckpointError> {
        if self.takes {
            return Ok(());
        }
        Err(CheckpointError::Full("No space left on device".to_owned()))
    }

    fn install(&mut self, _: &State, _: Option<&[u8]>) -> Result<LogIndex, CheckpointError> {
        Err(CheckpointError::Full("No space left on device".to_owned()))
    }

    fn flush(&mut self) -> Result<LogIndex, CheckpointError> {
        Err(CheckpointError::Full("No space left on device".to_owned()))
    }

    fn space(&self) -> Result<(u64, u64), String> {
        Ok((0, 1 << 30))
    }
}

fn node_on_full_disk(takes: bool) -> Node {
    let me = RaftId(1);
    let options = Options {
        identity: identity(),
        raft_id: me,
        limit_watches: 10,
        staging: std::env::temp_dir().join("lictor-unused"),
    };
    let begin = Begin::founding(Config::new(me, 1), [options.identity.server(me)]);
    let node = Node::new(options).unwrap();
    node.begin(begin, MemLog::default(), FullDisk { takes }).unwrap();
    node
}

fn set(key: &str, value: &str, cas: Option<u64>) -> Command {
    Command::KvSet(KvSet {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        flags: 0,
        cas,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_seen_by_whoever_reads_after_its_answer() {
    let node = node();
    node.read(Consistency::Consistent).await.unwrap();

    for value in 0..100 {
        let outcome = node.propose(set("k", &value.to_string(), None)).await.unwrap();

        assert!(matches!(outcome, Outcome::Bool(true)));
        assert_eq!(
            node.view().kv_get(b"k").unwrap().value(),
            value.to_string().as_bytes()
        );
    }
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_write_of_a_batch_has_a_modify_index_of_its_own() {
    let node = node();
    let writers = (0..200).map(|at| {
        let node = node.clone();
        tokio::spawn(async move { node.propose(set(&format!("k{at}"), "v", None)).await })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap().unwrap();
    }

    let view = node.view();
    let mut indexes: Vec<u64> = view
        .kv_list(b"k")
        .map(lictor_state::KvRow::modify_index)
        .collect();
    indexes.sort_unstable();
    indexes.dedup();
    assert_eq!(indexes.len(), 200);
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_writers_with_one_index_one_wins() {
    let node = node();
    let writers: Vec<_> = (0..50)
        .map(|at| {
            let node = node.clone();
            tokio::spawn(async move { node.propose(set("leader", &at.to_string(), Some(0))).await })
        })
        .collect();

    let mut winners = 0;
    for writer in writers {
        if matches!(writer.await.unwrap().unwrap(), Outcome::Bool(true)) {
            winners += 1;
        }
    }

    assert_eq!(winners, 1);
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_wakes_after_the_view_that_shows_the_change() {
    let node = node();
    node.read(Consistency::Default).await.unwrap();
    let mut waiter = node.watches().register(&[Topic::Prefix(b"a/")]).unwrap();
    assert!(node.view().kv_get(b"a/b").is_none());

    let writer = tokio::spawn({
        let node = node.clone();
        async move { node.propose(set("a/b", "1", None)).await }
    });
    tokio::time::timeout(Duration::from_secs(30), waiter.changed())
        .await
        .expect("the watcher wakes");

    assert!(node.view().kv_get(b"a/b").is_some());
    writer.await.unwrap().unwrap();
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_refuses_and_still_shows_its_last_state() {
    let node = node();
    node.propose(set("k", "1", None)).await.unwrap();
    let stopping = node.clone();
    tokio::task::spawn_blocking(move || stopping.stop())
        .await
        .unwrap();

    let refused = node.propose(set("k", "2", None)).await;

    assert!(matches!(refused, Err(ProposeError::Stopping)), "{refused:?}");
    assert_eq!(node.view().kv_get(b"k").unwrap().value(), b"1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_over_the_entry_limit_is_refused_before_it_is_logged() {
    let node = node();
    let huge = "x".repeat(lictor_proto::limits::ENTRY_MAX_BYTES);

    let refused = node.propose(set("k", &huge, None)).await;

    assert!(matches!(refused, Err(ProposeError::TooLarge(_))), "{refused:?}");
    node.stop();
}

fn register() -> Command {
    let node = NodeRow {
        node: "n".to_owned(),
        address: "127.0.0.1".to_owned(),
        ..NodeRow::default()
    };
    Command::Register(Register {
        node: Some(node),
        ..Register::default()
    })
}

fn session(id: u8) -> Command {
    let row = SessionRow {
        id: vec![id; 16].into(),
        node: "n".to_owned(),
        ..SessionRow::default()
    };
    Command::SessionCreate(SessionCreate { session: Some(row) })
}

fn lock(id: u8) -> Command {
    let session = SessionId([id; 16]).to_string();
    Command::KvLock(KvLock {
        key: "lock".into(),
        value: "v".into(),
        session,
        ..KvLock::default()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_held_is_refused_without_a_log_entry() {
    let node = node();
    for command in [register(), session(1), session(2), lock(1)] {
        node.propose(command).await.unwrap();
    }
    let last = node.view().applied();

    let refused = node.propose(lock(2)).await.unwrap();
    assert!(matches!(refused, Outcome::Bool(false)));
    assert_eq!(node.view().applied(), last);

    let again = node.propose(lock(1)).await.unwrap();
    assert!(
        matches!(again, Outcome::Bool(true)),
        "the holder may take it again"
    );
    let unknown = node.propose(lock(3)).await.unwrap();
    assert!(
        matches!(unknown, Outcome::Failed(ApplyError::InvalidSession(_))),
        "{unknown:?}"
    );
    node.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_does_not_hold_up_the_stop() {
    let node = node_on_full_disk(false);
    node.propose(set("a", "1", None)).await.unwrap();
    let (done, stopped) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        node.stop();
        done.send(()).unwrap();
    });

    assert_eq!(stopped.recv_timeout(Duration::from_secs(30)), Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_end_a_full_disk_holds_up_is_not_waited_for() {
    let node = node_on_full_disk(true);
    node.propose(register()).await.unwrap();
    let mut timed = session(1);
    if let Command::SessionCreate(create) = &mut timed {
        create.session.as_mut().unwrap().ttl_ms = 1000;
    }
    node.propose(timed).await.unwrap();
    while !matches!(
        node.propose(set("a", "1", None)).await,
        Err(ProposeError::Storage(_))
    ) {}
    let id = SessionId([1; 16]);

    // A renewal would put the end off, so the question is asked once it has passed. After a stall of the machine it may
    // come too early all the same.
    let refused = loop {
        tokio::time::sleep(Duration::from_millis(2100)).await;
        match node.renew_session(id).await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };

    assert!(matches!(refused, Err(ProposeError::Storage(_))), "{refused:?}");
    assert!(node.view().session(id).is_some());
    node.stop();
}
