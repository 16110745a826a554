//! Pages of other origins, and further addresses.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use lictor_tests::{Client, Options, Server, free_port, is_consul, run};

use crate::skip;

const ALLOW_ORIGIN: &str = "Access-Control-Allow-Origin";

fn started_with(args: &[&str]) -> Result<Server> {
    Server::with(Options {
        args: args.iter().map(ToString::to_string).collect(),
        ..Options::default()
    })
}

#[test]
fn a_star_lets_every_page_read_every_answer() -> Result<()> {
    if is_consul()? {
        return skip("Consul has no -cors");
    }
    for flag in ["-cors=*", "--cors=*"] {
        let server = started_with(&[flag])?;
        let mut client = server.client();
        for (target, status) in [("/v1/kv/a", 404), ("/v1/kv?x", 307), ("/nope", 404)] {
            let answer = client.get(target)?;
            assert_eq!(
                (answer.status, answer.header(ALLOW_ORIGIN)),
                (status, Some("*")),
                "{target}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_page_of_a_listed_origin_may_write() -> Result<()> {
    if is_consul()? {
        return skip("Consul has no -cors");
    }
    let server = started_with(&["-cors", "http://a.example, http://b.example:4001"])?;
    let mut client = server.client();
    for (origin, allowed) in [
        ("http://a.example", true),
        ("http://b.example:4001", true),
        ("http://b.example", false),
        ("HTTP://A.EXAMPLE", false),
    ] {
        let origin_header = [("Origin", origin), ("Access-Control-Request-Method", "PUT")];
        let asked = client.call("OPTIONS", "/v1/kv/a", &origin_header, b"")?;
        assert_eq!((asked.status, asked.body.len()), (200, 0));
        assert_eq!(asked.header(ALLOW_ORIGIN), allowed.then_some(origin));
        let wrote = client.call("PUT", "/v1/kv/a", &origin_header[..1], b"x")?;
        assert!(wrote.is_true());
        assert_eq!(wrote.header(ALLOW_ORIGIN), allowed.then_some(origin));
    }
    Ok(())
}

#[test]
fn an_origin_that_is_none_ends_the_start_in_one_line() -> Result<()> {
    if is_consul()? {
        return skip("Consul has no -cors");
    }
    let output = run(&[
        "agent",
        "-dev",
        "-http-port=-1",
        "-cors=http://ok.example,http://[::1",
    ])?;

    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cors: \"http://[::1\""), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    Ok(())
}

#[test]
fn the_same_is_served_on_a_further_address() -> Result<()> {
    if is_consul()? {
        return skip("Consul has no -addr");
    }
    let port = free_port()?;
    let server = started_with(&["-addr", &format!("localhost:{port}")])?;
    let mut second = Client::new(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));

    assert!(second.put("/v1/kv/a", "x")?.is_true());
    assert_eq!(server.get("/v1/kv/a?raw")?.text(), "x");
    Ok(())
}
