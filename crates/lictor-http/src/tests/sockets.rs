//! What goes over plain, TLS and Unix sockets.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::client::Connection;
use super::{Server, agent, serve, until};
use crate::{Limits, Listener};

#[tokio::test]
async fn headers_are_cased_as_go_cases_them() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.put("/v1/kv/a%2Fb?flags=7", "hello").await;

    let answer = client.get("/v1/kv/a/b").await;

    let index = answer.index();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("X-Consul-Knownleader"), Some("true"));
    assert_eq!(answer.header("X-Consul-Lastcontact"), Some("0"));
    assert_eq!(answer.header("X-Consul-Default-Acl-Policy"), Some("allow"));
    assert_eq!(answer.header("Vary"), Some("Accept-Encoding"));
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    let row = r#""LockIndex":0,"Key":"a/b","Flags":7,"Value":"aGVsbG8=""#;
    assert_eq!(
        answer.text(),
        format!(r#"[{{{row},"CreateIndex":{index},"ModifyIndex":{index}}}]"#)
    );
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.put("/v1/kv/a", "1").await;
    client.put("/v1/kv/b", "2").await;

    client
        .send("GET /v1/kv/a?raw HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/kv/b?raw HTTP/1.1\r\nHost: x\r\n\r\n")
        .await;

    assert_eq!(client.answer().await.text(), "1");
    assert_eq!(client.answer().await.text(), "2");
}

#[tokio::test]
async fn chunked_and_split_bodies_are_whole() {
    let server = Server::start().await;
    let mut client = server.connect().await;

    client
        .send("PUT /v1/kv/c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        .await;
    client.send("7\r\n, world\r\n0\r\n\r\n").await;

    assert_eq!(client.answer().await.text(), "true");
    assert_eq!(client.get("/v1/kv/c?raw").await.text(), "hello, world");
}

#[tokio::test]
async fn targets_may_hold_what_delimits_uris() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.put("/v1/kv/cfg", "as it was").await;
    let pipelined = "PUT /v1/kv/p#1 HTTP/1.1\r\nHost: x\r\nContent-Length: 22\r\n\r\nGET /# HTTP/1.1\r\n\r\n\"#<\
                     GET /v1/kv/p#1?raw HTTP/1.1\r\nHost: x\r\n\r\n";

    for key in ["cfg#1", "cfg#", "#", "a\"b", "<a>", "a`b", "ä#"] {
        assert_eq!(
            client.put(&format!("/v1/kv/{key}"), "#<>").await.text(),
            "true",
            "{key}"
        );
        assert_eq!(
            client.get(&format!("/v1/kv/{key}?raw")).await.text(),
            "#<>",
            "{key}"
        );
    }
    client.send(pipelined).await;

    assert_eq!(client.answer().await.text(), "true");
    assert_eq!(client.answer().await.text(), "GET /# HTTP/1.1\r\n\r\n\"#<");
    assert_eq!(client.get("/v1/kv/cfg?raw").await.text(), "as it was");
    let keys = client.get("/v1/kv/?keys").await;
    let keys: Vec<String> = serde_json::from_str(keys.text()).unwrap();
    assert_eq!(
        keys,
        ["#", "<a>", "a\"b", "a`b", "cfg", "cfg#", "cfg#1", "p#1", "ä#"]
    );
    let filtered = client.get("/v1/agent/services?filter=Service==\"web\"").await;
    assert_eq!((filtered.status, filtered.text()), (200, "{}"));
}

#[tokio::test]
async fn who_sends_no_more_is_answered() {
    let server = Server::start().await;
    for (sent, status, text) in [
        (
            "PUT /v1/kv/h HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1",
            200,
            "true",
        ),
        ("GET /v1/kv/h?raw HTTP/1.1\r\nHost: x\r\n\r\n", 200, "1"),
        ("GET /v1/kv/h?raw&index=1 HTTP/1.1\r\nHost: x\r\n\r\n", 200, "1"),
        (
            "PUT /v1/kv/h HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1",
            500,
            "unexpected EOF",
        ),
        (
            "PUT /v1/txn HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n[",
            400,
            "Failed to parse body: unexpected EOF",
        ),
        (
            "PUT /v1/session/create HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
            400,
            "Request decode failed: unexpected EOF",
        ),
    ] {
        let mut client = server.connect().await;
        client.send(sent).await;
        client.close_half().await;

        let answer = client.answer().await;

        assert_eq!((answer.status, answer.text()), (status, text), "{sent}");
        client.closed().await;
    }
}

#[tokio::test]
async fn who_sends_no_more_while_a_query_waits_is_let_go() {
    let server = Server::start().await;
    let waiters = || server.node.watches().waiters();
    let before = waiters();
    let mut client = server.connect().await;
    client.ask("GET", "/v1/kv/h?index=1&wait=10m", "").await;
    until("the query waits", || waiters() > before).await;
    client.close_half().await;
    client.closed().await;

    until("nobody waits", || waiters() == before).await;
}

#[tokio::test]
async fn gzip_is_sent_to_who_asks_and_to_nobody_else() {
    let server = Server::start().await;
    let mut client = server.connect().await;
    client.put("/v1/kv/big", &"x".repeat(4000)).await;

    client
        .send("GET /v1/kv/big?raw HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n")
        .await;
    let packed = client.answer().await;
    let plain = client.get("/v1/kv/big?raw").await;

    assert_eq!(packed.header("Content-Encoding"), Some("gzip"));
    assert_eq!(packed.header("Content-Security-Policy"), Some("sandbox"));
    let mut unpacked = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&packed.body[..]), &mut unpacked)
        .unwrap();
    assert_eq!(unpacked, plain.text());
    assert_eq!(plain.header("Content-Encoding"), None);
}

#[tokio::test]
async fn a_unix_socket_serves_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("http.sock");
    let agent = agent().await;
    let handle = serve(
        agent,
        Listener::Unix(UnixListener::bind(&path).unwrap()),
        Limits::default(),
    );

    let mut client = Connection::over(UnixStream::connect(&path).await.unwrap());

    assert_eq!(client.get("/v1/status/leader").await.text(), "\"127.0.0.1:8300\"");
    handle.shutdown().await;
    client.closed().await;
}

struct Tls {
    server: Arc<rustls::ServerConfig>,
    roots: rustls::RootCertStore,
}

fn tls() -> Tls {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let mut server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    Tls {
        server: Arc::new(server),
        roots,
    }
}

async fn tls_stream(
    address: std::net::SocketAddr,
    roots: rustls::RootCertStore,
    protocol: &[u8],
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = TcpStream::connect(address).await.unwrap();
    connector
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await
        .unwrap()
}

/// Seven bytes of a frame of headers that says it has nine and more.
const HALF_A_HEAD: &[u8] = b"\0\0\x20\x01\x04\0\0";

#[tokio::test]
async fn an_http2_client_that_does_not_end_its_preface_or_a_head_is_closed() {
    let tls = tls();
    let agent = agent().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits {
        header_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let _handle = serve(agent, Listener::Tls(listener, tls.server), limits);
    let preface: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

    for sent in [
        &preface[..0],
        &preface[..20],
        &[preface, settings, HALF_A_HEAD].concat(),
    ] {
        let mut stream = tls_stream(address, tls.roots.clone(), b"h2").await;
        stream.write_all(sent).await.unwrap();

        // Settings and a ping may come; then the connection ends, in whatever way.
        let mut answer = Vec::new();
        while stream.read_buf(&mut answer).await.unwrap_or(0) > 0 {}
    }
}

#[tokio::test]
async fn tls_serves_http1_and_http2_as_the_client_chooses() {
    let tls = tls();
    let agent = agent().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let handle = serve(agent, Listener::Tls(listener, tls.server), Limits::default());

    let mut old = Connection::over(tls_stream(address, tls.roots.clone(), b"http/1.1").await);
    assert_eq!(old.put("/v1/kv/t", "over tls").await.text(), "true");

    let stream = tls_stream(address, tls.roots, b"h2").await;
    let io = TokioIo::new(stream);
    let (mut new, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get("https://localhost/v1/kv/t?raw")
        .body(crate::answer::Body::default())
        .unwrap();
    let response = new.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap()
        .to_bytes();
    assert_eq!(body, "over tls");

    handle.shutdown().await;
    connection.await.unwrap().unwrap();
}
