//! Cluster keys that change while servers talk.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use lictor_peer::{CallError, Peers, Security, SecurityError};
use lictor_proto::RaftId;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::server::{ECHO, Happened, LATER, NEVER, PATIENCE, Plan, Server};

fn key(byte: u8) -> Vec<u8> {
    vec![byte; 32]
}

fn shared(keys: &[u8]) -> Security {
    let keys: Vec<_> = keys.iter().map(|byte| key(*byte)).collect();
    Security::keyring(&keys, |_| Ok(())).unwrap()
}

/// Gives a server these keys, the primary first.
fn set(peers: &Peers, keys: &[u8]) {
    let keys = keys.iter().map(|byte| key(*byte)).collect();
    peers
        .change_keys::<SecurityError>(|known| {
            *known = keys;
            Ok(())
        })
        .unwrap();
}

/// A call of a server, on a task of its own.
fn calling(from: &Server, to: RaftId, kind: u16) -> JoinHandle<Result<Bytes, CallError>> {
    let peers = from.peers.clone();
    tokio::spawn(async move {
        let deadline = Instant::now() + PATIENCE;
        peers.call(to, kind, Bytes::from_static(b"call"), deadline).await
    })
}

#[tokio::test]
async fn a_key_is_changed_for_another_and_no_call_is_lost() {
    let a = Plan::secured(1, shared(&[1])).start().await;
    let mut b = Plan::secured(2, shared(&[1])).start().await;
    a.knows(&b);
    assert_eq!(a.call(b.id, ECHO, b"one").await.unwrap(), "one");
    let slow = calling(&a, b.id, LATER);
    b.event(|event| (event == Happened::Began(LATER)).then_some(()))
        .await;

    for keys in [&[1, 2], &[2, 1]] {
        set(&a.peers, keys);
        set(&b.peers, keys);
    }
    // What is under way is answered where it was asked, and only then is the connection made anew.
    let next = calling(&a, b.id, ECHO);
    b.handler.later.notify_one();
    assert_eq!(slow.await.unwrap().unwrap(), "call");
    assert_eq!(next.await.unwrap().unwrap(), "call");
    set(&a.peers, &[2]);
    set(&b.peers, &[2]);

    assert_eq!(a.call_until_reached(b.id).await, "there?");
    assert_eq!((a.peers.key_era(), a.peers.keys()), (1, Some(vec![key(2)])));
}

#[tokio::test]
async fn a_call_that_takes_long_keeps_no_others_back_while_a_key_is_changed() {
    let a = Plan::secured(1, shared(&[1])).start().await;
    let mut b = Plan::secured(2, shared(&[1])).start().await;
    a.knows(&b);
    let slow = calling(&a, b.id, LATER);
    b.event(|event| (event == Happened::Began(LATER)).then_some(()))
        .await;
    for keys in [&[1, 2], &[2, 1]] {
        set(&a.peers, keys);
        set(&b.peers, keys);
    }

    assert_eq!(a.call(b.id, ECHO, b"meanwhile").await.unwrap(), "meanwhile");

    b.handler.later.notify_one();
    assert_eq!(slow.await.unwrap().unwrap(), "call");
    set(&a.peers, &[2]);
    set(&b.peers, &[2]);
    assert_eq!(a.call_until_reached(b.id).await, "there?");
}

#[tokio::test]
async fn who_has_a_removed_key_alone_is_cut_and_stays_outside() {
    let a = Plan::secured(1, shared(&[1])).start().await;
    let mut b = Plan::secured(2, shared(&[1, 2])).start().await;
    a.knows(&b);
    assert_eq!(a.call(b.id, ECHO, b"in").await.unwrap(), "in");
    let cut = calling(&a, b.id, NEVER);
    b.event(|event| (event == Happened::Began(NEVER)).then_some(()))
        .await;

    set(&b.peers, &[2]);

    let lost = cut.await.unwrap();
    assert!(matches!(lost, Err(CallError::OutcomeUnknown(_))), "{lost:?}");
    let text = a.ask_refused(b.address).await;
    assert_eq!(text, "the other side has another cluster key");
}

/// Each shows its own primary key to the other, which has it too.
#[tokio::test]
async fn servers_with_different_primary_keys_talk() {
    let a = Plan::secured(1, shared(&[1, 2])).start().await;
    let b = Plan::secured(2, shared(&[2, 1])).start().await;
    a.knows(&b);
    b.knows(&a);

    assert_eq!(a.call(b.id, ECHO, b"one").await.unwrap(), "one");
    assert_eq!(b.call(a.id, ECHO, b"two").await.unwrap(), "two");
    assert_ne!(a.peers.keys_digest(), b.peers.keys_digest());
}

#[tokio::test]
async fn keys_that_cannot_be_kept_are_not_changed() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let disk = Arc::clone(&kept);
    let security = Security::keyring(&[key(1)], move |keys| {
        if keys.len() > 2 {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        *disk.lock() = keys.to_vec();
        Ok(())
    });
    let a = Plan::secured(1, security.unwrap()).start().await;
    let change = |keys: &[u8]| {
        let keys: Vec<_> = keys.iter().map(|byte| key(*byte)).collect();
        a.peers.change_keys::<SecurityError>(|known| {
            *known = keys;
            Ok(())
        })
    };

    assert!(matches!(change(&[1, 2, 3]), Err(SecurityError::NotKept(_))));
    assert!(matches!(change(&[]), Err(SecurityError::KeyCount { .. })));
    assert_eq!(a.peers.keys(), Some(vec![key(1)]));
    assert!(change(&[2, 1]).is_ok());

    assert_eq!(*kept.lock(), [key(2), key(1)]);
    assert_eq!(a.peers.keys(), Some(vec![key(2), key(1)]));
}
