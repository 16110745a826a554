//! Bad input, slow clients and too many of them: nothing grows, nothing panics, others are served.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::{Server, until};
use crate::Limits;

#[tokio::test]
async fn malformed_requests_are_refused_and_the_server_lives_on() {
    let server = Server::start().await;
    for garbage in [
        "\0\0\0\0\r\n\r\n",
        "GET\r\n\r\n",
        "GET /v1/kv/a HTTP/9.9\r\n\r\n",
        "GET /v1/kv/a HTTP/1.1\r\nno colon\r\n\r\n",
        "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ] {
        let mut client = server.connect().await;
        client.send(garbage).await;
        assert_eq!(client.answer().await.status, 400, "{garbage:?}");
        client.closed().await;
    }

    let mut client = server.connect().await;
    for (target, status) in [
        ("/v1/kv/a%zz", 400),
        ("/v1/kv/%0A", 400),
        ("/v1/kv/a?%zz", 500),
        ("/v1/kv/a?raw;keys", 500),
        ("/v1/kv/a?index=99999999999999999999", 400),
        ("/v1/kv/a?index=1&wait=1e9s", 400),
        ("/v1/session/info/%FF%FE", 200),
        ("/v1/kv/a", 404),
    ] {
        assert_eq!(client.get(target).await.status, status, "{target}");
    }
}

#[tokio::test]
async fn bad_bodies_are_refused_with_consuls_status() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    let deep = "[".repeat(200_000);

    assert_eq!(client.put("/v1/txn", &deep).await.status, 400);
    assert_eq!(client.put("/v1/session/create", &deep).await.status, 400);
    assert_eq!(client.put("/v1/txn", "\u{fffd}").await.status, 400);
    assert_eq!(client.put("/v1/snapshot", "garbage").await.status, 500);
}

#[tokio::test]
async fn a_value_over_the_limit_is_refused_before_it_is_read() {
    let server = Server::start().await;
    let mut client = server.connect().await;

    client
        .send("PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nContent-Length: 524289\r\n\r\n")
        .await;

    let answer = client.answer().await;
    assert_eq!(answer.status, 413);
    assert!(
        answer
            .text()
            .starts_with("Request body(524289 bytes) too large, max size: 524288 bytes. See https://")
    );
}

#[tokio::test]
async fn a_value_over_the_limit_is_not_asked_for() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client
        .send("PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 524289\r\n\r\n")
        .await;

    assert_eq!(client.answer().await.status, 413);
    client.closed().await;
}

#[tokio::test]
async fn a_chunked_body_without_an_end_is_cut_off() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client
        .send("PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;

    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for _ in 0..10 {
        client.send(&chunk).await;
    }

    assert_eq!(client.answer().await.status, 413);
}

#[tokio::test]
async fn a_body_that_trickles_is_cut_off() {
    let limits = Limits {
        body_grace: Duration::from_millis(100),
        ..Limits::default()
    };
    let server = Server::with_limits(limits).await;
    for start in [
        "Content-Length: 1000\r\n\r\nx",
        "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
    ] {
        let mut client = server.connect().await;
        client
            .send(format!("PUT /v1/kv/a HTTP/1.1\r\nHost: x\r\n{start}"))
            .await;

        let answer = client.answer().await;

        assert_eq!(
            (answer.status, answer.text()),
            (408, "Request body came too slowly")
        );
        client.closed().await;
    }
    assert_eq!(server.node.view().kv_len(), 0);
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused() {
    let server = Server::start().await;
    let mut client = server.connect().await;

    client
        .send(format!(
            "GET /v1/kv/{} HTTP/1.1\r\nHost: x\r\n",
            "k".repeat(70 * 1024)
        ))
        .await;

    let status = client.answer().await.status;
    assert!(matches!(status, 431 | 414), "{status}");
}

#[tokio::test]
async fn a_slow_head_is_cut_off() {
    let timeout = Duration::from_millis(300);
    let server = Server::with_limits(Limits {
        header_timeout: timeout,
        ..Limits::default()
    })
    .await;
    let mut client = server.connect().await;
    let started = Instant::now();

    client.send("GET /v1/kv/a HTTP/1.1\r\nHo").await;
    client.closed().await;

    assert!(started.elapsed() >= timeout);
}

#[tokio::test]
async fn an_idle_connection_is_left_alone() {
    let server = Server::with_limits(Limits {
        header_timeout: Duration::from_millis(50),
        ..Limits::default()
    })
    .await;
    let mut client = server.connect().await;
    let mut slow = server.connect().await;
    assert_eq!(client.get("/v1/kv/a").await.status, 404);

    // Once the limit has cut off the slow one, it has run out for the idle one too.
    slow.send("GET /v1/kv/a HTTP/1.1\r\nHo").await;
    slow.closed().await;

    assert_eq!(client.get("/v1/kv/a").await.status, 404);
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_closed_and_who_waits_is_not() {
    let server = Server::with_limits(Limits {
        write_timeout: Duration::from_millis(50),
        ..Limits::default()
    })
    .await;
    let mut waiter = server.connect().await;
    for at in 0..24 {
        waiter.put(&format!("/v1/kv/l/{at}"), &"x".repeat(500_000)).await;
    }
    let index = waiter.get("/v1/kv/w").await.index();
    waiter.ask("GET", &format!("/v1/kv/w?index={index}"), "").await;
    let deaf = TcpStream::connect(server.address).await.unwrap();

    // Two lists of 16 MB fit into no socket's buffers.
    let request = "GET /v1/kv/l/?recurse HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2);
    assert_eq!(deaf.try_write(request.as_bytes()).unwrap(), request.len());
    let is_closed = || {
        deaf.try_write(b"x")
            .is_err_and(|error| error.kind() != ErrorKind::WouldBlock)
    };
    until("the connection that is not read is closed", is_closed).await;

    server.connect().await.put("/v1/kv/w", "1").await;
    assert_eq!(waiter.answer().await.status, 200);
}

#[tokio::test]
async fn one_address_may_have_so_many_connections_and_no_more() {
    let server = Server::with_limits(Limits {
        connections_per_client: 2,
        ..Limits::default()
    })
    .await;
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    assert_eq!(first.get("/v1/kv/a").await.status, 404);
    assert_eq!(second.get("/v1/kv/a").await.status, 404);

    let mut third = server.connect().await;
    assert_eq!(third.answer().await.status, 429);
    third.closed().await;

    drop(first);
    // The place is free as soon as the server has seen the close.
    loop {
        let mut next = server.connect().await;
        next.ask("GET", "/v1/kv/a", "").await;
        match next.answer().await.status {
            404 => break,
            status => assert_eq!(status, 429),
        }
    }
}
