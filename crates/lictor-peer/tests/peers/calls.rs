//! Calls: deadlines, cancellation, and what is known when a connection ends.

use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_peer::{CallError, Limits, Lost, NotSent, Security};
use lictor_proto::RaftId;

use crate::server::{ECHO, Happened, LATER, NEVER, Plan, Server, TOO_MUCH};

async fn two() -> (Server, Server) {
    let (a, b) = (Plan::new(1).start().await, Plan::new(2).start().await);
    a.knows(&b);
    (a, b)
}

fn began(kind: u16) -> impl Fn(Happened) -> Option<()> {
    move |event| (event == Happened::Began(kind)).then_some(())
}

fn dropped() -> impl Fn(Happened) -> Option<()> {
    |event| (event == Happened::Dropped).then_some(())
}

#[tokio::test]
async fn many_calls_share_a_connection_and_each_gets_its_answer() {
    let (a, b) = two().await;
    let deadline = Instant::now() + crate::server::PATIENCE;

    let calls = (0..2000u32).map(|number| {
        let body = Bytes::from(vec![number.to_le_bytes()[0]; number as usize * 10]);
        let peers = a.peers.clone();
        async move { (peers.call(b.id, ECHO, body.clone(), deadline).await, body) }
    });

    for (answer, body) in futures_util::future::join_all(calls).await {
        assert_eq!(answer.unwrap(), body);
    }
}

#[tokio::test]
async fn a_call_past_its_deadline_ends_on_both_sides_with_an_unknown_outcome() {
    let (a, mut b) = two().await;
    a.call(b.id, ECHO, b"connected").await.unwrap();

    let deadline = Instant::now() + Duration::from_secs(1);
    let error = a
        .peers
        .call(b.id, NEVER, Bytes::new(), deadline)
        .await
        .unwrap_err();

    assert_eq!(error, CallError::OutcomeUnknown(Lost::Deadline));
    b.event(dropped()).await;
}

#[tokio::test]
async fn a_call_that_could_not_leave_by_its_deadline_was_not_sent() {
    let a = Plan::new(1).start().await;
    // Accepts, by its backlog, and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = RaftId(9);
    a.peers
        .set_address(peer, &silent.local_addr().unwrap().to_string());

    let deadline = Instant::now() + Duration::from_millis(100);
    let error = a
        .peers
        .call(peer, ECHO, Bytes::new(), deadline)
        .await
        .unwrap_err();

    assert_eq!(error, CallError::NotSent(NotSent::Deadline));
}

#[tokio::test]
async fn who_gives_up_stops_the_work_on_the_other_side() {
    let (a, mut b) = two().await;

    let call = {
        let peers = a.peers.clone();
        let deadline = Instant::now() + crate::server::PATIENCE;
        tokio::spawn(async move { peers.call(RaftId(2), NEVER, Bytes::new(), deadline).await })
    };
    b.event(began(NEVER)).await;
    call.abort();

    b.event(dropped()).await;
}

#[tokio::test]
async fn a_connection_that_ends_after_the_call_left_makes_its_outcome_unknown() {
    let (a, mut b) = two().await;

    let peers = a.peers.clone();
    let deadline = Instant::now() + crate::server::PATIENCE;
    let call = tokio::spawn(async move { peers.call(RaftId(2), NEVER, Bytes::new(), deadline).await });
    b.event(began(NEVER)).await;
    b.peers.stop().await;

    let error = call.await.unwrap().unwrap_err();
    assert!(
        matches!(error, CallError::OutcomeUnknown(Lost::Connection(_))),
        "{error:?}"
    );
}

/// So a server that stops costs its callers nothing: they know what was done, and what they may ask of another.
#[tokio::test]
async fn a_server_that_stops_answers_what_it_has_taken_and_says_what_it_has_not() {
    for security in [Security::open(), Security::cluster_key(&[7; 32]).unwrap()] {
        let plan = |id| Plan::secured(id, security.clone());
        let (a, mut b) = (plan(1).start().await, plan(2).start().await);
        a.knows(&b);
        let deadline = Instant::now() + crate::server::PATIENCE;
        let call = |kind, body: &'static [u8]| {
            let peers = a.peers.clone();
            tokio::spawn(async move {
                peers
                    .call(RaftId(2), kind, Bytes::from_static(body), deadline)
                    .await
            })
        };
        let first = call(LATER, b"taken");
        b.event(began(LATER)).await;

        let stop = {
            let peers = b.peers.clone();
            tokio::spawn(async move { peers.stop().await })
        };
        let late: Vec<_> = (0..20).map(|_| call(ECHO, b"late")).collect();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        b.handler.later.notify_one();

        assert_eq!(first.await.unwrap().unwrap(), "taken");
        for call in late {
            let answer = call.await.unwrap();
            assert!(!matches!(answer, Err(CallError::OutcomeUnknown(_))), "{answer:?}");
        }
        stop.await.unwrap();
    }
}

#[tokio::test]
async fn a_call_to_who_cannot_be_reached_or_is_unknown_was_not_sent() {
    let (a, b) = two().await;
    a.call(b.id, ECHO, b"connected").await.unwrap();
    b.peers.stop().await;
    // Until the loss is noticed a call may leave, and its outcome is unknown; then it is refused, at once.
    let error = loop {
        match a.call(b.id, ECHO, b"x").await {
            Err(CallError::NotSent(error)) => break error,
            Err(CallError::OutcomeUnknown(_)) => {}
            Ok(answer) => panic!("an answer of a server that has stopped: {answer:?}"),
        }
    };
    assert!(matches!(error, NotSent::Unreachable(_)), "{error:?}");

    a.peers.remove(b.id);
    let unknown = a.call(b.id, ECHO, b"x").await.unwrap_err();
    assert_eq!(unknown, CallError::NotSent(NotSent::UnknownPeer));
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused() {
    let (a, b) = two().await;
    let deadline = Instant::now() + crate::server::PATIENCE;
    let body = Bytes::from(vec![0; Limits::default().call_max_bytes + 1]);

    let call = a.peers.call(b.id, ECHO, body, deadline).await.unwrap_err();
    let answer = a.call(b.id, TOO_MUCH, b"").await.unwrap_err();

    assert!(matches!(call, CallError::NotSent(NotSent::TooLarge { .. })));
    assert_eq!(answer, CallError::OutcomeUnknown(Lost::AnswerTooLarge));
    assert_eq!(a.call(b.id, ECHO, b"still there").await.unwrap(), "still there");
}

#[tokio::test]
async fn more_calls_than_the_limit_are_refused_as_not_sent() {
    let limits = Limits {
        calls_max: 2,
        ..Limits::default()
    };
    let (mut plan, mut other) = (Plan::new(1), Plan::new(2));
    (plan.limits, other.limits) = (limits.clone(), limits);
    let (a, mut b) = (plan.start().await, other.start().await);
    a.knows(&b);
    let deadline = Instant::now() + crate::server::PATIENCE;
    let call = || {
        let peers = a.peers.clone();
        tokio::spawn(async move { peers.call(RaftId(2), NEVER, Bytes::new(), deadline).await })
    };

    // Two are there, two wait here.
    let running = [call(), call()];
    b.event(began(NEVER)).await;
    b.event(began(NEVER)).await;
    let waiting = [call(), call()];
    let refused = loop {
        tokio::task::yield_now().await;
        let short = Instant::now() + Duration::from_millis(50);
        match a.peers.call(b.id, ECHO, Bytes::new(), short).await {
            Err(CallError::NotSent(NotSent::Deadline)) => {}
            other => break other,
        }
    };

    assert_eq!(refused, Err(CallError::NotSent(NotSent::Busy)));
    running
        .iter()
        .chain(&waiting)
        .for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_peer_that_comes_back_elsewhere_is_reached_there() {
    let (a, b) = two().await;
    a.call(b.id, ECHO, b"connected").await.unwrap();
    b.peers.stop().await;

    let mut again = Plan::new(2).start().await;
    assert_ne!(again.address, b.address);
    a.knows(&again);

    assert_eq!(a.call_until_reached(b.id).await, "there?");
    while a.peers.send_raft(b.id, false, "append".into()).is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(again.raft_message().await.1, "append");
}

#[tokio::test]
async fn signs_of_life_are_measured() {
    let (a, b) = two().await;
    assert_eq!(a.peers.health_of(RaftId(9)), None);

    a.call(b.id, ECHO, b"x").await.unwrap();
    let health = loop {
        let health = a.peers.health_of(b.id).unwrap();
        if health.round_trip.is_some() {
            break health;
        }
        tokio::task::yield_now().await;
    };

    assert!(health.connected && health.last_heard.is_some());
    assert_eq!(a.peers.health().len(), 1);
}
