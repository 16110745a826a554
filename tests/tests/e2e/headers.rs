//! Headers as they stand on the wire: scripts grep for them, so names have Go's case.

use std::io::{Read as _, Write as _};

use anyhow::Result;
use lictor_tests::Server;

#[test]
fn names_are_cased_as_consul_cases_them() -> Result<()> {
    let server = Server::start()?;
    server.put("/v1/kv/k", "v")?;

    let response = server.get("/v1/kv/k")?;

    assert_eq!(response.header("Content-Type"), Some("application/json"));
    assert_eq!(response.header("Vary"), Some("Accept-Encoding"));
    assert_eq!(response.header("X-Consul-Default-Acl-Policy"), Some("allow"));
    assert_eq!(response.header("X-Consul-Knownleader"), Some("true"));
    assert_eq!(response.header("X-Consul-Lastcontact"), Some("0"));
    assert!(
        response
            .header("X-Consul-Index")
            .is_some_and(|index| index.parse::<u64>().is_ok_and(|index| index > 0))
    );
    assert!(response.header("Content-Length").is_some());
    assert!(response.header("Date").is_some_and(|date| date.ends_with(" GMT")));
    Ok(())
}

#[test]
fn long_answers_are_compressed_for_those_who_ask() -> Result<()> {
    let server = Server::start()?;
    server.put("/v1/kv/long", "x".repeat(4000))?;
    server.put("/v1/kv/short", "x")?;
    let mut client = server.client();
    let mut get =
        |target: &str, accept: &str| client.call("GET", target, &[("Accept-Encoding", accept)], b"");

    let packed = get("/v1/kv/long", "gzip")?;
    assert_eq!(packed.header("Content-Encoding"), Some("gzip"));
    assert!(packed.body.starts_with(&[0x1f, 0x8b]) && packed.body.len() < 1000);
    assert!(packed.header("X-Consul-Index").is_some());
    for (target, accept) in [
        ("/v1/kv/short", "gzip"),
        ("/v1/kv/long", "identity"),
        ("/v1/kv/long", "gzip;q=0"),
    ] {
        assert_eq!(
            get(target, accept)?.header("Content-Encoding"),
            None,
            "{target} {accept}"
        );
    }
    Ok(())
}

#[test]
fn wrong_methods_are_405_and_name_the_right_ones() -> Result<()> {
    let server = Server::start()?;
    let mut client = server.client();

    let post = client.call("POST", "/v1/kv/k", &[], b"x")?;
    assert_eq!(
        (post.status, post.header("Allow")),
        (405, Some("OPTIONS,GET,PUT,DELETE"))
    );
    assert!(post.text().contains("method POST not allowed"), "{}", post.text());
    let options = client.call("OPTIONS", "/v1/kv/k", &[], b"")?;
    assert_eq!(
        (options.status, options.header("Allow")),
        (200, Some("OPTIONS,GET,PUT,DELETE"))
    );
    let head = client.call("HEAD", "/v1/kv/k", &[], b"")?;
    assert_eq!((head.status, head.body.len()), (405, 0));
    assert_eq!(client.get("/v1/session/create")?.status, 405);
    assert_eq!(client.get("/v1/txn")?.status, 405);
    Ok(())
}

#[test]
fn unknown_paths_are_404_with_a_hint() -> Result<()> {
    let server = Server::start()?;

    let inside = server.get("/v1/nothing/here")?;
    assert_eq!(
        (inside.status, inside.text().as_str()),
        (404, "Invalid URL path: not a recognized HTTP API endpoint\n")
    );
    let outside = server.get("/kv/k")?;
    assert_eq!(outside.status, 404);
    assert!(
        outside.text().contains("ensure the path starts with '/v1/'"),
        "{}",
        outside.text()
    );
    Ok(())
}

#[test]
fn pretty_indents_by_four_blanks() -> Result<()> {
    let server = Server::start()?;
    server.put("/v1/kv/k", "v")?;

    let text = server.get("/v1/kv/k?pretty")?.text();

    assert!(
        text.starts_with("[\n    {\n        \"LockIndex\": 0,\n") && text.ends_with("]\n"),
        "{text}"
    );
    Ok(())
}

#[test]
fn one_connection_carries_many_requests_also_pipelined() -> Result<()> {
    let server = Server::start()?;
    let mut stream = server.client().connect()?;

    let put = |n: usize| {
        format!(
            "PUT /v1/kv/p/{n} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n{}",
            n % 10
        )
    };
    let all: String = (0..20).map(put).collect();
    stream.write_all(all.as_bytes())?;
    stream.write_all(b"GET /v1/kv/p/19?raw HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answers = String::new();
    stream.read_to_string(&mut answers)?;

    assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 21);
    assert!(answers.ends_with("\r\n\r\n9"), "{answers}");
    Ok(())
}

#[test]
fn status_names_the_leader_and_its_peers() -> Result<()> {
    let server = Server::start()?;

    let leader = server.get("/v1/status/leader")?.json()?;
    let peers = server.get("/v1/status/peers")?.json()?;

    assert!(
        leader
            .as_str()
            .is_some_and(|leader| leader.starts_with("127.0.0.1:")),
        "{leader}"
    );
    assert_eq!(peers, serde_json::json!([leader]));
    Ok(())
}
