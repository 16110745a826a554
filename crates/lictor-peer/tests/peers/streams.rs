//! Raft messages and bulk streams.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use lictor_peer::{BULK_CHUNK_MAX_BYTES, BULK_HEAD_MAX_BYTES, Dropped, Limits, NotSent, Security};
use lictor_proto::RaftId;

use crate::server::{ECHO, Happened, Plan, Server};

fn large_append() -> Bytes {
    let mut message = b"append".to_vec();
    message.resize(256 * 1024, 0);
    message.into()
}

async fn two(limits: Limits) -> (Server, Server) {
    let mut plan = Plan::new(1);
    plan.limits = limits;
    let (a, b) = (plan.start().await, Plan::new(2).start().await);
    a.knows(&b);
    (a, b)
}

/// Sends large appends until no more are taken.
fn fill(a: &Server, to: RaftId) -> (usize, Dropped) {
    let message = large_append();
    let mut taken = 0;
    loop {
        match a.peers.send_raft(to, false, message.clone()) {
            Ok(()) => taken += 1,
            Err(why) => return (taken, why),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_urgent_message_overtakes_appends_that_are_stuck() {
    let (a, mut b) = two(Limits::default()).await;
    b.handler.open_gate(false);

    let (taken, why) = fill(&a, b.id);
    a.peers.send_raft(b.id, true, "heartbeat".into()).unwrap();

    assert_eq!(why, Dropped::Full);
    assert_eq!(b.raft_message().await.1, "heartbeat");
    b.handler.open_gate(true);
    for _ in 0..taken {
        assert_eq!(b.raft_message().await.1.len(), 256 * 1024);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_queue_drops_and_a_lost_connection_reports_what_it_lost() {
    let limits = Limits {
        raft_queue_max_len: 8,
        ..Limits::default()
    };
    let (mut a, b) = two(limits).await;
    b.handler.open_gate(false);
    // Until the connection is full as well.
    while fill(&a, b.id).0 > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    a.peers.remove(b.id);

    let lost = |event| (event == Happened::Unreachable(RaftId(2))).then_some(());
    a.event(lost).await;
    assert_eq!(
        a.peers.send_raft(b.id, true, Bytes::new()),
        Err(Dropped::UnknownPeer)
    );
}

#[tokio::test]
async fn messages_stay_in_order_and_come_whole() {
    let (a, mut b) = two(Limits::default()).await;
    let messages: Vec<Bytes> = (0..300usize)
        .map(|number| {
            let mut message = number.to_le_bytes().to_vec();
            message.resize(8 + number * 97, 7);
            message.into()
        })
        .collect();

    for message in &messages {
        a.peers.send_raft(b.id, false, message.clone()).unwrap();
    }

    for message in messages {
        assert_eq!(b.raft_message().await, (a.id, message));
    }
}

#[tokio::test]
async fn a_message_over_the_limit_is_not_taken() {
    let (a, b) = two(Limits::default()).await;
    let message = Bytes::from(vec![0; Limits::default().raft_message_max_bytes + 1]);

    assert_eq!(a.peers.send_raft(b.id, false, message), Err(Dropped::TooLarge));
}

#[tokio::test]
async fn nothing_is_taken_for_a_peer_that_is_not_there() {
    let (a, b) = two(Limits::default()).await;
    a.call(b.id, ECHO, b"connected").await.unwrap();
    b.peers.stop().await;

    while a.peers.send_raft(b.id, true, "x".into()) != Err(Dropped::Unreachable) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slow_reader_slows_the_writer_of_a_bulk_stream() {
    const CHUNKS: usize = 192;
    /// What sockets and TLS of both sides may hold, generously.
    const AHEAD_MAX: usize = 64;
    let key = || Security::cluster_key(&[3; 32]).unwrap();
    for security in [[Security::open(), Security::open()], [key(), key()]] {
        let [one, other] = security;
        let (a, mut b) = (
            Plan::secured(1, one).start().await,
            Plan::secured(2, other).start().await,
        );
        a.knows(&b);
        let written = Arc::new(AtomicUsize::new(0));

        let mut stream = a.peers.bulk(b.id, 5, b"head").await.unwrap();
        let progress = Arc::clone(&written);
        let writing = tokio::spawn(async move {
            let chunk = vec![1; BULK_CHUNK_MAX_BYTES];
            for _ in 0..CHUNKS {
                stream.writer.write(&chunk).await.unwrap();
                progress.fetch_add(1, SeqCst);
            }
            stream.writer.finish().await.unwrap();
            stream.reader.read().await.unwrap()
        });
        let (kind, head, mut stream) = b.bulk.recv().await.unwrap();
        let mut read = 0;
        while let Some(chunk) = stream.reader.read().await.unwrap() {
            assert_eq!(chunk.len(), BULK_CHUNK_MAX_BYTES);
            read += 1;
            let ahead = written.load(SeqCst).saturating_sub(read);
            assert!(ahead <= AHEAD_MAX, "{ahead} chunks were written ahead");
        }
        stream.writer.write(b"thanks").await.unwrap();

        assert_eq!((kind, &head[..], read), (5, &b"head"[..], CHUNKS));
        assert_eq!(writing.await.unwrap().unwrap(), "thanks");
        assert!(stream.reader.read().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_bulk_stream_that_breaks_off_is_not_taken_for_a_whole_one() {
    let (a, mut b) = two(Limits::default()).await;

    let mut stream = a.peers.bulk(b.id, 5, b"").await.unwrap();
    stream.writer.write(b"half").await.unwrap();
    drop(stream);
    let (_, _, mut stream) = b.bulk.recv().await.unwrap();

    assert_eq!(stream.reader.read().await.unwrap().unwrap(), "half");
    assert!(stream.reader.read().await.is_err());
}

#[tokio::test]
async fn a_bulk_stream_needs_a_peer_and_a_small_head() {
    let (a, b) = two(Limits::default()).await;

    let unknown = a.peers.bulk(RaftId(9), 5, b"").await.unwrap_err();
    let long = a
        .peers
        .bulk(b.id, 5, &vec![0; BULK_HEAD_MAX_BYTES + 1])
        .await
        .unwrap_err();

    assert_eq!(unknown, NotSent::UnknownPeer);
    assert!(matches!(long, NotSent::TooLarge { .. }));
}
