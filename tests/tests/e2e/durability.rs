//! What a restart keeps: everything.

use std::time::{Duration, Instant};

use anyhow::Result;
use lictor_tests::{Server, until};
use rustix::process::Signal;
use serde_json::{Value, json};

/// One of everything; answers the sessions with a lock-delay running, holding, and with a TTL.
struct Filled {
    holder: String,
    waiting: String,
    ttl: String,
}

fn fill(server: &Server) -> Result<Filled> {
    for n in 0..50 {
        server.put(&format!("/v1/kv/keep/{n:02}?flags={n}"), format!("value {n}"))?;
    }
    server.delete("/v1/kv/keep/49")?;
    server.put("/v1/kv/tree/a", "x")?;
    server.delete("/v1/kv/tree?recurse")?;
    let filled = Filled {
        holder: server.session(r#"{"Name":"holder","LockDelay":"7s"}"#)?,
        waiting: server.session(r#"{"LockDelay":"0s"}"#)?,
        ttl: server.session(r#"{"TTL":"30s","Behavior":"delete"}"#)?,
    };
    server.put(&format!("/v1/kv/lock/held?acquire={}", filled.holder), "mine")?;
    server.put(&format!("/v1/kv/lock/ttl?acquire={}", filled.ttl), "mine")?;
    Ok(filled)
}

/// All that a client can see, with all indexes.
fn picture(server: &Server) -> Result<Value> {
    let rows = server.get("/v1/kv/?recurse")?;
    let tree = server.get("/v1/kv/tree?recurse")?;
    let sessions = server.get("/v1/session/list")?;
    Ok(json!([
        rows.json()?,
        rows.index()?,
        tree.index()? > 0,
        sessions.json()?
    ]))
}

#[test]
fn kill_9_keeps_keys_indexes_sessions_and_locks() -> Result<()> {
    let mut server = Server::start()?;
    let filled = fill(&server)?;
    let before = picture(&server)?;

    server.crash_and_restart()?;

    assert_eq!(picture(&server)?, before);
    assert!(
        server
            .put(&format!("/v1/kv/lock/held?acquire={}", filled.waiting), "x")?
            .is_false()
    );
    assert!(
        server
            .put(&format!("/v1/kv/lock/held?release={}", filled.holder), "x")?
            .is_true()
    );
    assert_eq!(
        server
            .put(&format!("/v1/session/renew/{}", filled.ttl), "")?
            .status,
        200
    );
    let newest = before[1].as_u64().unwrap_or(u64::MAX);
    server.put("/v1/kv/new", "x")?;
    assert!(server.get("/v1/kv/new")?.index()? > newest);
    Ok(())
}

#[test]
fn an_orderly_stop_keeps_the_same() -> Result<()> {
    let mut server = Server::start()?;
    fill(&server)?;
    let before = picture(&server)?;

    server.signal(Signal::INT)?;
    server.await_exit()?;
    server.relaunch()?;
    server.await_ready()?;

    assert_eq!(picture(&server)?, before);
    Ok(())
}

/// R15: a lock-delay that runs when the server dies runs on afterwards, and ends.
#[test]
fn r15_a_lock_delay_outlives_a_crash() -> Result<()> {
    if lictor_tests::is_consul()? {
        return crate::skip("Consul forgets lock-delays with its process");
    }
    let mut server = Server::start()?;
    let filled = fill(&server)?;
    server.put(&format!("/v1/session/destroy/{}", filled.holder), "")?;
    let ended = Instant::now();

    server.crash_and_restart()?;

    let acquire = format!("/v1/kv/lock/held?acquire={}", filled.waiting);
    assert!(
        ended.elapsed() < Duration::from_secs(6),
        "the restart took too long to tell"
    );
    assert!(server.put(&acquire, "x")?.is_false());
    until("the lock-delay's end", Duration::from_secs(20), || {
        Ok(server.put(&acquire, "x")?.is_true().then_some(()))
    })?;
    assert!(ended.elapsed() > Duration::from_millis(6_900));
    Ok(())
}

#[test]
fn ten_restarts_in_a_row_change_nothing() -> Result<()> {
    let mut server = Server::start()?;
    fill(&server)?;
    let before = picture(&server)?;

    let restarts = if lictor_tests::is_consul()? { 1 } else { 10 };
    for _ in 0..restarts {
        server.crash_and_restart()?;
        assert_eq!(picture(&server)?, before);
    }
    Ok(())
}

/// R16: after a restart each session has at least its TTL from then on, and still ends.
#[test]
fn r16_sessions_are_armed_again_by_a_restart() -> Result<()> {
    let mut server = Server::start()?;
    let session = server.session(r#"{"TTL":"10s","LockDelay":"0s"}"#)?;
    server.put(&format!("/v1/kv/l?acquire={session}"), "x")?;

    server.kill()?;
    let died = Instant::now();
    server.relaunch()?;
    server.await_ready()?;
    let ready = Instant::now();
    let index = server.get("/v1/kv/l")?.index()?;
    let watch = server.watch(format!("/v1/kv/l?index={index}&wait=100s"));
    let woken = watch.join().map_err(|_| anyhow::anyhow!("panicked"))??;

    assert!(woken.entry()?.get("Session").is_none());
    assert!(
        died.elapsed() >= Duration::from_secs(10),
        "ended {:?} after the crash",
        died.elapsed()
    );
    assert!(
        ready.elapsed() <= Duration::from_secs(30),
        "ended {:?} after the restart",
        ready.elapsed()
    );
    Ok(())
}
