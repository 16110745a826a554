use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::definition::{HttpRequest, OUTPUT_MAX_BYTES};

async fn run(definition: &CheckDefinition) -> Finding {
    super::run(definition, OUTPUT_MAX_BYTES).await
}

fn target(address: impl Into<String>) -> Target {
    Target {
        address: address.into(),
        ..Target::default()
    }
}

/// Serves one canned answer per connection and hands back what was asked.
async fn server(answers: Vec<String>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            asked.push(read_request(&mut stream).await);
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
        asked
    });
    (base, task)
}

async fn read_request(stream: &mut tokio::net::TcpStream) -> String {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).await.unwrap();
        request.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&request);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if read == 0 || body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text.into_owned();
            }
        }
    }
}

fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn get(url: String) -> CheckDefinition {
    with(HttpRequest {
        url,
        ..HttpRequest::default()
    })
}

fn with(request: HttpRequest) -> CheckDefinition {
    CheckDefinition {
        kind: CheckKind::Http(request),
        ..CheckDefinition::default()
    }
}

#[tokio::test]
async fn the_status_of_the_answer_is_the_health() {
    for (status, health) in [
        ("200 OK", Health::Passing),
        ("204 No Content", Health::Passing),
        ("429 Too Many Requests", Health::Warning),
        ("404 Not Found", Health::Critical),
        ("503 Service Unavailable", Health::Critical),
    ] {
        let (base, _) = server(vec![answer(status, "")]).await;

        let finding = run(&get(base.clone())).await;

        assert_eq!(
            finding,
            Finding::new(health, format!("HTTP GET {base}: {status} Output: "))
        );
    }
}

#[tokio::test]
async fn only_the_end_of_a_long_body_is_kept() {
    let (base, _) = server(vec![answer("200 OK", &format!("{}end", "x".repeat(10_000)))]).await;

    let finding = run(&get(base)).await;

    let output = finding.output.split_once("Output: ").unwrap().1;
    assert_eq!(output.len(), 4096);
    assert!(output.ends_with("xend"));
}

#[tokio::test]
async fn method_headers_and_body_are_sent_as_defined() {
    let (base, asked) = server(vec![answer("200 OK", "fine")]).await;
    let header = BTreeMap::from([("X-Own".to_owned(), vec!["1".to_owned(), "2".to_owned()])]);
    let request = HttpRequest {
        url: format!("{base}/h?q=1"),
        method: "POST".into(),
        header,
        body: "ping".into(),
        ..<_>::default()
    };

    let finding = run(&with(request)).await;

    assert_eq!(
        finding.output,
        format!("HTTP POST {base}/h?q=1: 200 OK Output: fine")
    );
    let asked = asked.await.unwrap().remove(0);
    assert!(asked.starts_with("POST /h?q=1 HTTP/1.1\r\n"), "{asked}");
    assert!(
        asked.contains("x-own: 1\r\nx-own: 2\r\n") && asked.ends_with("\r\n\r\nping"),
        "{asked}"
    );
}

#[tokio::test]
async fn redirects_are_followed_unless_they_are_not_wanted() {
    let redirect = "HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n".to_owned();
    let (base, asked) = server(vec![redirect.clone(), answer("200 OK", ""), redirect]).await;

    assert_eq!(run(&get(format!("{base}/here"))).await.health, Health::Passing);
    let stay = HttpRequest {
        url: base,
        disable_redirects: true,
        ..HttpRequest::default()
    };
    assert_eq!(run(&with(stay)).await.health, Health::Critical);

    assert!(asked.await.unwrap()[1].starts_with("GET /there "));
}

#[tokio::test]
async fn endless_redirects_end() {
    let redirect = "HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n".to_owned();
    let (base, _) = server(vec![redirect; 20]).await;

    let finding = run(&get(base.clone())).await;

    assert_eq!(
        finding,
        Finding::new(
            Health::Critical,
            format!("Get {base:?}: stopped after 10 redirects")
        )
    );
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_critical() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut definition = get(format!("http://{}", listener.local_addr().unwrap()));
    definition.timeout = 50_000_000;

    let finding = run(&definition).await;

    assert_eq!(finding.health, Health::Critical);
    assert!(finding.output.contains("deadline exceeded"), "{}", finding.output);
}

#[tokio::test]
async fn nobody_there_is_critical() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let tcp = CheckDefinition {
        kind: CheckKind::Tcp(target(address.to_string())),
        ..CheckDefinition::default()
    };

    let refused = format!("dial tcp {address}: connect: connection refused");
    assert_eq!(run(&tcp).await, Finding::new(Health::Critical, &refused));
    let url = format!("http://{address}/");
    assert_eq!(
        run(&get(url.clone())).await,
        Finding::new(Health::Critical, format!("Get {url:?}: {refused}"))
    );
}

#[tokio::test]
async fn a_connection_is_enough_for_a_tcp_check() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let tcp = CheckDefinition {
        kind: CheckKind::Tcp(target(address.clone())),
        ..CheckDefinition::default()
    };

    assert_eq!(
        run(&tcp).await,
        Finding::new(Health::Passing, format!("TCP connect {address}: Success"))
    );
}

#[tokio::test]
async fn addresses_that_are_none_are_critical() {
    for url in [
        "",
        "ftp://127.0.0.1/",
        "http://",
        "/path",
        "http://[",
        "http://127.0.0.1:99999/",
    ] {
        assert_eq!(run(&get(url.to_owned())).await.health, Health::Critical, "{url}");
    }
}

#[tokio::test]
async fn certificates_are_verified_unless_the_check_says_not_to() {
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key.into())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.read(&mut [0; 1024]).await;
                stream.write_all(answer("200 OK", "").as_bytes()).await.unwrap();
            }
        }
    });
    let request = HttpRequest {
        url,
        tls_server_name: "localhost".into(),
        ..HttpRequest::default()
    };

    let refused = run(&with(request.clone())).await;
    let taken = run(&with(HttpRequest {
        tls_skip_verify: true,
        ..request
    }))
    .await;

    assert_eq!(refused.health, Health::Critical);
    assert!(refused.output.contains("tls: "), "{}", refused.output);
    assert_eq!(taken.health, Health::Passing, "{}", taken.output);
}

#[tokio::test]
async fn a_method_that_is_none_makes_the_check_critical() {
    for (method, verb) in [("\u{e9}t\u{e9}", "\u{e9}t\u{e9}"), ("G T", "G t")] {
        let check = with(HttpRequest {
            url: "http://127.0.0.1:1/".to_owned(),
            method: method.to_owned(),
            ..HttpRequest::default()
        });

        let found = run(&check).await;

        assert_eq!(found.health, Health::Critical);
        assert_eq!(
            found.output,
            format!("{verb} \"http://127.0.0.1:1/\": net/http: invalid method")
        );
    }
}

async fn script(args: &[&str], timeout: Duration, keep: usize) -> Finding {
    let definition = CheckDefinition {
        kind: CheckKind::Script(args.iter().map(|arg| (*arg).to_owned()).collect()),
        timeout: timeout.as_nanos().try_into().unwrap(),
        ..CheckDefinition::default()
    };
    super::run(&definition, keep).await
}

async fn shell(script_text: &str) -> Finding {
    script(&["sh", "-c", script_text], Duration::from_secs(60), 4096).await
}

/// Exit codes and outputs as recorded with Consul.
#[tokio::test]
async fn the_exit_code_of_a_program_is_the_health() {
    for (text, health, output) in [
        ("echo out; echo err 1>&2; exit 0", Health::Passing, "out\nerr\n"),
        ("echo warn; exit 1", Health::Warning, "warn\n"),
        ("echo crit; exit 7", Health::Critical, "crit\n"),
        ("echo a; kill -9 $$", Health::Critical, "a\n"),
        ("cat", Health::Passing, ""),
    ] {
        assert_eq!(shell(text).await, Finding::new(health, output), "{text}");
    }
    for (program, output) in [
        (
            "/nonexistent",
            "fork/exec /nonexistent: no such file or directory",
        ),
        (
            "non-existent",
            "exec: \"non-existent\": executable file not found in $PATH",
        ),
        ("/", "fork/exec /: permission denied"),
    ] {
        let found = script(&[program], Duration::from_secs(60), 10).await;
        assert_eq!(found, Finding::new(Health::Critical, output));
    }
}

#[tokio::test]
async fn the_end_of_a_long_output_is_kept() {
    let text = "head -c 9000 /dev/zero | tr '\\0' x; printf END";

    let found = script(&["sh", "-c", text], Duration::from_secs(60), 20).await;

    let expected = format!("Captured 20 of 9003 bytes\n...\n{}END", "x".repeat(17));
    assert_eq!(found, Finding::new(Health::Passing, expected));
}

#[tokio::test]
async fn a_program_that_takes_too_long_is_killed_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("held");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    // The child of the shell holds the pipe open for as long as it lives.
    let text = format!("exec 3<>{0}; (sleep 600) & echo begun; wait", fifo.display());

    let found = script(&["sh", "-c", &text], Duration::from_secs(3), 4096).await;

    let expected = "Timed out (3s) running check\n\nbegun\n";
    assert_eq!(found, Finding::new(Health::Critical, expected));
    // Nobody reads: opening it for writing alone says so.
    let opened = || {
        use std::os::unix::fs::OpenOptionsExt as _;
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().try_into().unwrap();
        std::fs::OpenOptions::new()
            .write(true)
            .custom_flags(nonblocking)
            .open(&fifo)
    };
    while opened().is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn silence_is_well_for_a_datagram_and_a_refusal_is_not() {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let check = CheckDefinition {
        kind: CheckKind::Udp(address.clone()),
        timeout: 20_000_000,
        ..CheckDefinition::default()
    };

    let silent = run(&check).await;
    drop(socket);
    let patient = CheckDefinition { timeout: 0, ..check };
    let refused = run(&patient).await;

    assert_eq!(
        silent,
        Finding::new(Health::Passing, format!("UDP connect {address}: Success"))
    );
    assert_eq!(
        refused,
        Finding::new(
            Health::Critical,
            format!("read udp {address}: read: connection refused")
        )
    );
}

/// Answers every call with these trailers and this message.
async fn health_server(
    status: &'static str,
    message: &'static [u8],
) -> (String, tokio::task::JoinHandle<Vec<u8>>) {
    use http_body_util::{BodyExt as _, StreamBody};
    use hyper::body::Frame;
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (sender, mut asked) = tokio::sync::mpsc::channel(1);
        let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let sender = sender.clone();
            async move {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                assert_eq!(request.headers()["content-type"], "application/grpc");
                let body = request.into_body().collect().await.unwrap().to_bytes();
                sender.send(body.to_vec()).await.unwrap();
                let mut trailers = hyper::HeaderMap::new();
                trailers.insert("grpc-status", hyper::header::HeaderValue::from_static(status));
                trailers.insert(
                    "grpc-message",
                    hyper::header::HeaderValue::from_static("unknown service"),
                );
                let frames = [
                    Ok::<_, std::convert::Infallible>(Frame::data(bytes::Bytes::from_static(message))),
                    Ok(Frame::trailers(trailers)),
                ];
                Ok::<_, std::convert::Infallible>(hyper::Response::new(StreamBody::new(frames_of(frames))))
            }
        });
        // The client goes when it has its answer.
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
        asked.try_recv().unwrap_or_default()
    });
    (address, task)
}

fn frames_of<T>(items: impl IntoIterator<Item = T>) -> impl futures_util::Stream<Item = T> {
    let mut items = items.into_iter().collect::<std::collections::VecDeque<_>>();
    futures_util::stream::poll_fn(move |_| std::task::Poll::Ready(items.pop_front()))
}

#[tokio::test]
async fn a_grpc_check_asks_the_health_service() {
    let grpc = |address: String| CheckDefinition {
        kind: CheckKind::Grpc(target(address)),
        ..CheckDefinition::default()
    };
    for (status, message, service, asked, health, text) in [
        (
            "0",
            &b"\0\0\0\0\x02\x08\x01"[..],
            "",
            &b"\0\0\0\0\0"[..],
            Health::Passing,
            "gRPC check ADDRESS: success",
        ),
        (
            "0",
            b"\0\0\0\0\x02\x08\x02",
            "/web",
            b"\0\0\0\0\x05\x0a\x03web",
            Health::Critical,
            "gRPC ADDRESS/web serving status: NOT_SERVING",
        ),
        (
            "0",
            b"\0\0\0\0\0",
            "",
            b"\0\0\0\0\0",
            Health::Critical,
            "gRPC ADDRESS serving status: UNKNOWN",
        ),
        (
            "5",
            b"",
            "/x",
            b"\0\0\0\0\x03\x0a\x01x",
            Health::Critical,
            "rpc error: code = NotFound desc = unknown service",
        ),
        (
            "0",
            b"\0\0\0\0\x02\xff",
            "",
            b"\0\0\0\0\0",
            Health::Critical,
            "rpc error: code = Internal desc = the answer is no health status",
        ),
    ] {
        let (address, server) = health_server(status, message).await;

        let found = run(&grpc(format!("{address}{service}"))).await;

        assert_eq!(found, Finding::new(health, text.replace("ADDRESS", &address)));
        assert_eq!(server.await.unwrap(), asked);
    }

    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let found = run(&grpc(closed.to_string())).await;
    assert_eq!(
        found.output,
        format!(
            "rpc error: code = Unavailable desc = connection error: desc = \"transport: Error while dialing: dial tcp \
             {closed}: connect: connection refused\""
        )
    );
}

#[tokio::test]
async fn a_ping_is_answered_by_who_speaks_http2() {
    let h2ping = |address: String| CheckDefinition {
        kind: CheckKind::H2ping(target(address)),
        ..CheckDefinition::default()
    };
    let (address, server) = health_server("0", b"").await;

    let found = run(&h2ping(address)).await;

    assert_eq!(found, Finding::new(Health::Passing, "HTTP2 ping was successful"));
    server.await.unwrap();
    let (base, _server) = self::server(vec!["HTTP/1.1 400 Bad Request\r\n\r\n".to_owned()]).await;
    let found = run(&h2ping(base.replace("http://", ""))).await;
    assert_eq!(found.health, Health::Critical);
    assert!(
        found.output.starts_with("HTTP2 ping failed: "),
        "{}",
        found.output
    );
}
