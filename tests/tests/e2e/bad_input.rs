//! Nonsense from outside: an error for the sender, nothing for anybody else.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lictor_tests::{Options, Server, until};

/// The server still serves, and kept what it had.
fn unharmed(server: &Server) -> Result<()> {
    ensure!(
        server.get("/v1/kv/kept?raw")?.body == b"kept",
        "the value is gone"
    );
    ensure!(server.put("/v1/kv/after", "x")?.is_true(), "no more writes");
    Ok(())
}

fn start() -> Result<Server> {
    let server = Server::start()?;
    server.put("/v1/kv/kept", "kept")?;
    Ok(server)
}

/// What the server answers to these bytes until it closes; empty if it just closes.
fn answer(server: &Server, bytes: &[u8]) -> Result<String> {
    let mut stream = server.client().connect()?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    // The server may have closed before all was sent.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn malformed_http_is_400_or_closed() -> Result<()> {
    let server = start()?;

    for bytes in [
        &b"\r\n\r\n\r\n"[..],
        b"GARBAGE\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v1/kv/kept HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /v1/kv/kept HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET /v1/kv/kept HTTP/1.1\r\nHost: x\r\nBad\x00Name: y\r\n\r\n",
        b"PUT /v1/kv/kept HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\nx",
        b"PUT /v1/kv/kept HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\nx",
        b"PUT /v1/kv/kept HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nx\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00\xff\xfe\xfd",
    ] {
        let answer = answer(&server, bytes)?;
        assert!(
            !answer.starts_with("HTTP/1.1 2"),
            "{:?} got {answer}",
            String::from_utf8_lossy(bytes)
        );
    }

    unharmed(&server)
}

#[test]
fn a_body_that_is_cut_off_is_not_stored() -> Result<()> {
    let server = start()?;

    answer(
        &server,
        b"PUT /v1/kv/kept HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf",
    )?;
    answer(
        &server,
        b"PUT /v1/kv/new HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf",
    )?;

    assert_eq!(server.get("/v1/kv/new")?.status, 404);
    unharmed(&server)
}

#[test]
fn random_bytes_do_no_harm() -> Result<()> {
    let server = start()?;
    let valid = b"PUT /v1/kv/fuzz?flags=1&cas=0 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nAccept-Encoding: gzip\r\n\r\nabc";
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap_or(0) % bound
    };

    for _ in 0..300 {
        let mut bytes = valid.to_vec();
        for _ in 0..=below(6) {
            let at = below(bytes.len());
            match below(3) {
                0 => bytes[at] = u8::try_from(below(256))?,
                1 => bytes.truncate(at + 1),
                _ => bytes.insert(at, u8::try_from(below(256))?),
            }
        }
        answer(&server, &bytes)?;
    }

    unharmed(&server)
}

#[test]
fn bad_percent_encoding_is_refused() -> Result<()> {
    let server = start()?;

    assert_eq!(server.get("/v1/kv/%zz")?.status, 400);
    assert_eq!(server.get("/v1/kv/a%00b")?.status, 400);
    let query = server.get("/v1/kv/kept?x=%zz")?;
    assert_eq!((query.status, query.body.len()), (500, 0));

    unharmed(&server)
}

#[test]
fn values_over_the_limit_are_413_before_they_are_sent() -> Result<()> {
    let server = start()?;

    let head = "PUT /v1/kv/kept HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000000\r\n\r\n";
    let mut stream = server.client().connect()?;
    stream.write_all(head.as_bytes())?;
    let mut start = [0; 12];
    stream.read_exact(&mut start)?;

    assert_eq!(&start, b"HTTP/1.1 413");
    unharmed(&server)
}

#[test]
fn huge_headers_are_refused() -> Result<()> {
    let server = start()?;

    let bytes = format!(
        "GET /v1/kv/kept HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n",
        "y".repeat(4 << 20)
    );
    let answer = answer(&server, bytes.as_bytes())?;

    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431") || answer.starts_with("HTTP/1.1 400"),
        "{answer}"
    );
    unharmed(&server)
}

#[test]
fn headers_that_do_not_come_close_the_connection() -> Result<()> {
    if lictor_tests::is_consul()? {
        return crate::skip("Consul gives headers as long as they like");
    }
    let server = start()?;
    let begun = Instant::now();
    let mut stream = server.client().connect()?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(b"GET /v1/kv/kept HTTP/1.1\r\nHost: x\r\nX-Slow: ")?;

    let mut rest = Vec::new();
    // A reset is as good as an end.
    let _ = stream.read_to_end(&mut rest);

    let took = begun.elapsed();
    assert!(
        took > Duration::from_secs(5) && took < Duration::from_secs(20),
        "closed after {took:?}"
    );
    unharmed(&server)
}

#[test]
fn connections_over_the_limit_of_one_address_get_429_and_room_comes_back() -> Result<()> {
    let server = Server::with(Options {
        hcl: "limits {\n http_max_conns_per_client = 10\n}\n".to_owned(),
        ..Options::default()
    })?;
    server.put("/v1/kv/kept", "kept")?;
    let mut held = Vec::new();
    for _ in 0..10 {
        let mut client = server.client();
        if client
            .get("/v1/status/leader")
            .is_ok_and(|response| response.status == 200)
        {
            held.push(client);
        }
    }
    assert!(held.len() >= 8, "only {} connections", held.len());

    let refused = until("a refusal", Duration::from_secs(10), || {
        let mut client = server.client();
        let response = client.get("/v1/status/leader")?;
        held.push(client);
        Ok((response.status != 200).then_some(response))
    })?;
    assert_eq!(refused.status, 429);
    assert!(
        refused.text().contains("too many concurrent connections"),
        "{}",
        refused.text()
    );
    drop(held);

    until("room", Duration::from_secs(10), || {
        Ok((server.get("/v1/kv/kept")?.status == 200).then_some(()))
    })
}

#[test]
fn unsupported_parameters_of_the_enterprise_edition_are_named() -> Result<()> {
    let server = start()?;

    for parameter in ["ns", "partition"] {
        let response = server.get(&format!("/v1/kv/kept?{parameter}=default"))?;
        assert_eq!(response.status, 400);
        assert!(response.text().contains(parameter), "{}", response.text());
    }
    unharmed(&server)
}
