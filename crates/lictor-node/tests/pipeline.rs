//! The whole pipeline on a log in memory.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::time::Duration;

use lictor_node::{Consistency, Identity, Node, ProposeError, Topic};
use lictor_proto::v1::{KvLock, KvSet, NodeRow, Register, SessionCreate, SessionRow};
use lictor_proto::{Command, SessionId};
use lictor_state::{ApplyError, Outcome};

fn node() -> Node {
    let identity = Identity {
        node: "n".to_owned(),
        node_id: "11111111-2222-3333-4444-555555555555".to_owned(),
        datacenter: "dc1".to_owned(),
        address: "127.0.0.1".to_owned(),
        server_port: 8300,
    };
    Node::in_memory(identity).unwrap()
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
