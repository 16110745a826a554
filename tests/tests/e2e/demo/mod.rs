//! Raft-KV-Demo: its flags, its answers, and how its nodes come together and part.

mod members;
mod nodes;

use anyhow::{Context, Result};
use lictor_tests::{Server, is_consul, run};

use self::nodes::Nodes;
use crate::skip;

#[test]
fn the_commands_of_the_demo_do_what_they_say() -> Result<()> {
    if is_consul()? {
        return skip("Consul has no /key");
    }
    let node = Nodes::cluster(1)?;

    let stored = node.ask(1, "POST", "/key", r#"{"key":"raft","value":"paxos"}"#)?;
    assert_eq!((stored.status, stored.text().as_str()), (200, ""));
    for level in ["default", "stale", "consistent"] {
        for path in ["/key", "/key/"] {
            let answer = node.ask(1, "GET", &format!("{path}?key=raft&level={level}"), "")?;
            assert_eq!(
                (answer.status, answer.text().as_str()),
                (200, "paxos"),
                "{path} {level}"
            );
            assert_eq!(answer.header("Content-Type"), Some("text/plain; charset=utf-8"));
            assert_eq!(answer.header("X-Consul-Knownleader"), Some("true"));
        }
    }
    let gone = node.ask(1, "DELETE", "/key/?key=raft", "")?;
    assert_eq!((gone.status, gone.text().as_str()), (200, ""));
    let answer = node.get(1, "raft", "consistent")?;
    assert_eq!((answer.status, answer.text().as_str()), (404, ""));
    Ok(())
}

#[test]
fn requests_that_are_wrong_are_refused_and_change_nothing() -> Result<()> {
    if is_consul()? {
        return skip("Consul has no /key");
    }
    let node = Nodes::cluster(1)?;
    node.post(1, "a", "1")?;
    for (method, target, body, status) in [
        ("GET", "/key?key=a&level=strong", "", 400),
        ("GET", "/key?key=a&level=Stale", "", 400),
        ("GET", "/key?level=default", "", 400),
        ("GET", "/key?key=&level=stale", "", 400),
        ("GET", "/key?key=%zz", "", 400),
        ("GET", "/key?key=a", "", 200),
        ("HEAD", "/key?key=a", "", 200),
        ("POST", "/key", "", 400),
        ("POST", "/key", "key=a&value=2", 400),
        ("POST", "/key", r#"{"key":"a","value":2}"#, 400),
        ("POST", "/key", r#"{"value":"2"}"#, 400),
        ("DELETE", "/key", "", 400),
        ("DELETE", "/key?key=nobody-has-it", "", 200),
        ("PUT", "/key?key=a", "2", 405),
        ("GET", "/key/a", "", 404),
        ("GET", "/nothing-here", "", 404),
        ("GET", "/join", "", 400),
        ("GET", "/join?id=x", "", 400),
        ("GET", "/join?id=x&addr=nowhere", "", 400),
        ("GET", "/remove", "", 400),
        ("POST", "/remove?id=nobody", "", 200),
        ("GET", "/remove?id=node1", "", 500),
    ] {
        let answer = node.ask(1, method, target, body)?;
        assert_eq!(answer.status, status, "{method} {target} {body}");
    }
    let large = format!(r#"{{"key":"a","value":"{}"}}"#, "x".repeat(600 * 1024));
    assert_eq!(node.ask(1, "POST", "/key", &large)?.status, 413);
    assert_eq!(node.get(1, "a", "consistent")?.text(), "1");
    assert_eq!(node.members(1)?, ["node1"]);
    Ok(())
}

#[test]
fn there_is_one_set_of_keys_whichever_way_they_are_asked_for() -> Result<()> {
    if is_consul()? {
        return skip("Consul has no /key");
    }
    let node = Nodes::cluster(1)?;
    node.post(1, "raft", "paxos")?;
    let read = node.ask(1, "GET", "/v1/kv/raft", "")?;
    assert_eq!(read.value()?, b"paxos");
    let index = read.index()?;

    let watch = std::thread::scope(|scope| {
        let watch = scope.spawn(|| node.ask(1, "GET", &format!("/v1/kv/raft?index={index}&wait=60s"), ""));
        node.post(1, "raft", "multi-paxos")?;
        watch.join().map_err(|_| anyhow::anyhow!("the watch panicked"))?
    })?;
    assert_eq!(watch.value()?, b"multi-paxos");

    node.ask(1, "PUT", "/v1/kv/other", "x")?;
    assert_eq!(node.get(1, "other", "default")?.text(), "x");
    let odd = "%E5%88%86%20%2Fa%3F%26%3D";
    node.post(1, "\u{5206} /a?&=", "\u{5f0f}")?;
    assert_eq!(node.get(1, odd, "default")?.text(), "\u{5f0f}");
    Ok(())
}

#[test]
fn an_ordinary_agent_has_no_such_paths() -> Result<()> {
    let server = Server::start()?;
    for target in ["/key?key=a", "/join?id=a&addr=b:1", "/remove?id=a"] {
        assert_eq!(server.get(target)?.status, 404, "{target}");
    }
    Ok(())
}

#[test]
fn a_page_may_follow_a_redirect() -> Result<()> {
    if is_consul()? {
        return skip("Consul has no /key");
    }
    let mut nodes = Nodes::cluster(1)?;
    let leader = nodes.haddr(1);
    nodes.add()?;
    nodes.start(2, &["-join", &leader, "-cors=*"])?;
    nodes.await_vote(2)?;

    let answer = nodes.get(2, "a", "default")?;
    assert_eq!(
        (answer.status, answer.header("Access-Control-Allow-Origin")),
        (307, Some("*"))
    );
    Ok(())
}

#[test]
fn flags_that_do_not_go_together_end_the_start_in_one_line() -> Result<()> {
    if is_consul()? {
        return skip("Consul has no raft-kv-demo");
    }
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let data = data.to_str().context("odd path")?;
    let (raddr, haddr) = (lictor_tests::free_port()?, lictor_tests::free_port()?);
    let (raddr, haddr) = (format!("localhost:{raddr}"), format!("localhost:{haddr}"));
    let dead = format!("localhost:{}", lictor_tests::free_port()?);
    let common = [
        "raft-kv-demo",
        "-raddr",
        &raddr,
        "-haddr",
        &haddr,
        "-data-dir",
        data,
        "-log-level=off",
    ];
    for (flags, said) in [
        (&["-bootstrap", "-join", &dead][..], "give one of them"),
        (&["-join", &dead, "-join-timeout=1s"], "cannot join through"),
        (&["-raddr", "8080"], "-raddr: \"8080\""),
        (&["-nope"], "-nope"),
    ] {
        let output = run(&[&common[..], flags].concat())?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{flags:?}: {words}");
        assert!(words.contains(said), "{flags:?}: {words}");
    }
    Ok(())
}
