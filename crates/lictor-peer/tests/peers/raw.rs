//! Who connects and is no server, or a bad one.

use std::time::Duration;

use lictor_peer::{CallError, Limits, NotSent};
use lictor_proto::v1;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::server::{PATIENCE, Plan, Server};

const RAFT: u8 = 1;
const RPC: u8 = 3;

/// Waits until the other side closes, and answers what it said.
async fn rest(mut socket: TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    // A reset is an end too.
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut said))
        .await
        .expect("the server closes the connection");
    said
}

async fn said(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    rest(socket).await
}

/// Connects as a server of the cluster does.
async fn introduced(server: &Server, lane: u8) -> TcpStream {
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let preamble = [1, 1, lane, 0];
    socket.write_all(b"LICT").await.unwrap();
    socket.write_all(&preamble).await.unwrap();
    let hello = v1::PeerHello {
        cluster_id: Uuid::from_u128(1).as_bytes().to_vec().into(),
        node_id: Uuid::from_u128(2).as_bytes().to_vec().into(),
        raft_id: 77,
        name: "raw".to_owned(),
        address: "127.0.0.1:1".to_owned(),
        datacenter: "dc1".to_owned(),
        version: String::new(),
        preamble: preamble.to_vec().into(),
    }
    .encode_to_vec();
    socket
        .write_u32_le(u32::try_from(hello.len()).unwrap())
        .await
        .unwrap();
    socket.write_all(&hello).await.unwrap();
    let mut start = [0; 8];
    socket.read_exact(&mut start).await.unwrap();
    assert_eq!(start[4], 0);
    let length = socket.read_u32_le().await.unwrap();
    let mut answer = vec![0; length as usize];
    socket.read_exact(&mut answer).await.unwrap();
    let answer = v1::PeerAnswer::decode(&answer[..]).unwrap();
    assert_eq!(answer.refused, "");
    socket
}

#[tokio::test]
async fn garbage_is_closed_without_an_answer_and_disturbs_nobody() {
    let (a, b) = (Plan::new(1).start().await, Plan::new(2).start().await);

    assert_eq!(said(&a, b"GET / HTTP/1.1\r\n\r\n").await, b"");
    assert_eq!(said(&a, &[0; 4096]).await, b"");
    // The right beginning, and a hello that is none, or too long.
    for hello in [
        &b"\x04\0\0\0\xff\xff\xff\xff"[..],
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
    ] {
        let bytes = [b"LICT\x01\x01\x03\x00", hello].concat();
        assert_eq!(said(&a, &bytes).await, b"LICT\0\x01\x01\0");
    }

    assert_eq!(b.ask(a.address).await.unwrap().1, "hello");
}

#[tokio::test]
async fn another_version_is_named_to_both_sides() {
    let a = Plan::new(1).start().await;
    let fake = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = fake.local_addr().unwrap();
    let answer = tokio::spawn(async move {
        let (mut socket, _) = fake.accept().await.unwrap();
        socket.write_all(b"LICT\x01\x08\x09\x00").await.unwrap();
        rest(socket).await
    });

    assert_eq!(said(&a, b"LICT\x08\x09\x03\x00").await, b"LICT\x01\x01\x01\x00");
    let text = a.ask_refused(address).await;

    assert!(
        text.contains("this server speaks 1 to 1, the other 8 to 9"),
        "{text}"
    );
    assert_eq!(answer.await.unwrap().len(), 8);
}

#[tokio::test]
async fn a_port_of_something_else_is_not_taken_for_a_server() {
    let a = Plan::new(1).start().await;
    let fake = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = fake.local_addr().unwrap();
    let web = tokio::spawn(async move {
        let (mut socket, _) = fake.accept().await.unwrap();
        socket
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        rest(socket).await
    });

    let error = a.ask(address).await.unwrap_err();

    let CallError::NotSent(NotSent::Unreachable(text)) = error else {
        panic!("{error:?}");
    };
    assert!(text.contains("does not speak Lictor's peer protocol"), "{text}");
    web.await.unwrap();
}

#[tokio::test]
async fn slow_strangers_are_closed_and_many_are_not_taken() {
    let mut plan = Plan::new(1);
    plan.limits = Limits {
        handshake_timeout: Duration::from_secs(2),
        strangers_max_per_address: 2,
        ..Limits::default()
    };
    let a = plan.start().await;
    let b = Plan::new(2).start().await;

    let mut half_open = TcpStream::connect(a.address).await.unwrap();
    let mut slow = TcpStream::connect(a.address).await.unwrap();
    half_open.write_all(b"L").await.unwrap();
    slow.write_all(b"LICT\x01\x01\x03\x00\x40").await.unwrap();
    let mut answered = [0; 8];
    slow.read_exact(&mut answered).await.unwrap();
    // Both places are taken, so this one is closed before it says anything.
    assert_eq!(rest(TcpStream::connect(a.address).await.unwrap()).await, b"");
    assert_eq!(rest(half_open).await, b"");
    assert_eq!(rest(slow).await, b"");

    assert_eq!(b.ask(a.address).await.unwrap().1, "hello");
}

#[tokio::test]
async fn a_frame_over_the_limit_ends_the_connection() {
    let a = Plan::new(1).start().await;

    for lane in [RAFT, RPC] {
        let mut socket = introduced(&a, lane).await;
        socket.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
        assert_eq!(rest(socket).await, b"");
    }
}

#[tokio::test]
async fn unknown_frames_and_ids_used_twice_end_the_connection() {
    let a = Plan::new(1).start().await;
    let never = b"\x0f\0\0\0\x01\x07\0\0\0\0\0\0\0\xff\xff\0\0\x02\0";

    for bytes in [&b"\x01\0\0\0\x09"[..], b"\0\0\0\0", &[&never[..], never].concat()] {
        let mut socket = introduced(&a, RPC).await;
        socket.write_all(bytes).await.unwrap();
        assert_eq!(rest(socket).await, b"");
    }
}

#[tokio::test]
async fn a_newer_connection_takes_the_place_of_an_older_one() {
    let a = Plan::new(1).start().await;

    let older = introduced(&a, RAFT).await;
    let newer = introduced(&a, RAFT).await;

    assert_eq!(rest(older).await, b"");
    drop(newer);
}
