//! `acquire`, `release`, lock-delay.

use std::time::{Duration, Instant};

use anyhow::Result;
use lictor_tests::{Server, until};
use serde_json::json;

const NO_DELAY: &str = r#"{"LockDelay":"0s"}"#;

#[test]
fn a_lock_has_one_holder_until_it_is_released() -> Result<()> {
    let server = Server::start()?;
    let (a, b) = (server.session(NO_DELAY)?, server.session(NO_DELAY)?);

    assert!(server.put(&format!("/v1/kv/l?acquire={a}"), "a")?.is_true());
    assert!(server.put(&format!("/v1/kv/l?acquire={b}"), "b")?.is_false());
    assert!(server.put(&format!("/v1/kv/l?release={b}"), "b")?.is_false());
    let held = server.get("/v1/kv/l")?;
    assert_eq!(
        (
            held.value()?,
            &held.entry()?["Session"],
            &held.entry()?["LockIndex"]
        ),
        (b"a".to_vec(), &json!(a), &json!(1))
    );
    assert!(server.put(&format!("/v1/kv/l?release={a}"), "bye")?.is_true());
    assert!(server.put(&format!("/v1/kv/l?acquire={b}"), "b")?.is_true());

    let entry = server.get("/v1/kv/l")?.entry()?;
    assert_eq!((&entry["Session"], &entry["LockIndex"]), (&json!(b), &json!(2)));
    Ok(())
}

#[test]
fn acquiring_again_keeps_the_lock_index_and_may_change_the_value() -> Result<()> {
    let server = Server::start()?;
    let session = server.session(NO_DELAY)?;
    let acquire = format!("/v1/kv/l?acquire={session}");

    assert!(server.put(&acquire, "one")?.is_true());
    let first = server.get("/v1/kv/l")?.index()?;
    assert!(server.put(&acquire, "one")?.is_true());
    assert_eq!(server.get("/v1/kv/l")?.index()?, first, "nothing changed");
    assert!(server.put(&acquire, "two")?.is_true());

    let response = server.get("/v1/kv/l")?;
    assert_eq!(
        (response.value()?, &response.entry()?["LockIndex"]),
        (b"two".to_vec(), &json!(1))
    );
    Ok(())
}

#[test]
fn acquire_needs_a_living_session_and_says_so_as_consul_does() -> Result<()> {
    let server = Server::start()?;
    let ended = server.session(NO_DELAY)?;
    server.put(&format!("/v1/session/destroy/{ended}"), "")?;

    for (session, text) in [
        (
            ended.as_str(),
            format!("raft apply failed: invalid session \"{ended}\""),
        ),
        ("junk", "raft apply failed: invalid session \"junk\"".to_owned()),
        ("", "raft apply failed: missing session".to_owned()),
    ] {
        let response = server.put(&format!("/v1/kv/l?acquire={session}"), "x")?;
        assert_eq!(response.status, 500);
        assert!(response.text().contains(&text), "{}", response.text());
    }
    assert!(server.put(&format!("/v1/kv/l?release={ended}"), "x")?.is_false());
    assert_eq!(server.get("/v1/kv/l")?.status, 404);
    Ok(())
}

#[test]
fn a_plain_write_over_a_locked_key_keeps_the_holder() -> Result<()> {
    let server = Server::start()?;
    let session = server.session(NO_DELAY)?;
    server.put(&format!("/v1/kv/l?acquire={session}"), "mine")?;

    assert!(server.put("/v1/kv/l", "theirs")?.is_true());

    let response = server.get("/v1/kv/l")?;
    assert_eq!(
        (response.value()?, &response.entry()?["Session"]),
        (b"theirs".to_vec(), &json!(session))
    );
    assert_eq!(response.entry()?["LockIndex"], json!(0));
    Ok(())
}

/// R13: a key stores the session as it was written.
#[test]
fn r13_a_session_is_found_in_any_case_and_stored_as_written() -> Result<()> {
    let server = Server::start()?;
    let session = server.session(NO_DELAY)?;
    let capitals = session.to_uppercase();

    assert!(
        server
            .put(&format!("/v1/kv/l?acquire={capitals}"), "x")?
            .is_true()
    );

    assert_eq!(server.get("/v1/kv/l")?.entry()?["Session"], json!(capitals));
    assert!(
        server
            .put(&format!("/v1/kv/l?release={session}"), "x")?
            .is_false()
    );
    assert!(
        server
            .put(&format!("/v1/kv/l?release={capitals}"), "x")?
            .is_true()
    );
    Ok(())
}

#[test]
fn lock_delay_refuses_locks_and_nothing_else_until_it_is_over() -> Result<()> {
    let server = Server::start()?;
    let (old, new) = (
        server.session(r#"{"LockDelay":"2s"}"#)?,
        server.session(NO_DELAY)?,
    );
    server.put(&format!("/v1/kv/l?acquire={old}"), "old")?;

    server.put(&format!("/v1/session/destroy/{old}"), "")?;
    let ended = Instant::now();
    let acquire = format!("/v1/kv/l?acquire={new}");
    assert!(server.put(&acquire, "new")?.is_false());
    assert!(server.put("/v1/kv/l", "plain")?.is_true());
    let txn = json!([{"KV": {"Verb": "lock", "Key": "l", "Value": "dg==", "Session": new}}]).to_string();
    let refused = server.put("/v1/txn", txn)?;
    assert_ne!(refused.status, 200, "{}", refused.text());
    until("the end of the lock-delay", Duration::from_secs(10), || {
        Ok(server.put(&acquire, "new")?.is_true().then_some(()))
    })?;

    let took = ended.elapsed();
    assert!(
        took >= Duration::from_millis(1_900) && took < Duration::from_secs(4),
        "{took:?}"
    );
    Ok(())
}

#[test]
fn there_is_no_lock_delay_after_an_orderly_release() -> Result<()> {
    let server = Server::start()?;
    let (a, b) = (server.session("")?, server.session("")?);
    server.put(&format!("/v1/kv/l?acquire={a}"), "a")?;

    server.put(&format!("/v1/kv/l?release={a}"), "a")?;
    server.put(&format!("/v1/session/destroy/{a}"), "")?;

    assert!(server.put(&format!("/v1/kv/l?acquire={b}"), "b")?.is_true());
    Ok(())
}

#[test]
fn deleting_a_locked_key_frees_it_without_a_session() -> Result<()> {
    let server = Server::start()?;
    let (a, b) = (server.session("")?, server.session("")?);
    server.put(&format!("/v1/kv/l?acquire={a}"), "a")?;

    assert!(server.delete("/v1/kv/l")?.is_true());

    assert!(server.put(&format!("/v1/kv/l?acquire={b}"), "b")?.is_true());
    assert_eq!(server.get("/v1/kv/l")?.entry()?["LockIndex"], json!(1));
    Ok(())
}

#[test]
fn of_many_that_acquire_at_once_exactly_one_holds() -> Result<()> {
    let server = Server::start()?;
    let sessions = (0..16)
        .map(|_| server.session(NO_DELAY))
        .collect::<Result<Vec<_>>>()?;

    let winners: Vec<&String> = std::thread::scope(|scope| {
        let server = &server;
        let tries: Vec<_> = sessions
            .iter()
            .map(|id| {
                (
                    id,
                    scope.spawn(move || server.put(&format!("/v1/kv/l?acquire={id}"), id)),
                )
            })
            .collect();
        tries
            .into_iter()
            .filter_map(|(id, t)| t.join().ok()?.ok()?.is_true().then_some(id))
            .collect()
    });

    let holder = server.get("/v1/kv/l")?.entry()?["Session"].clone();
    assert_eq!(json!(winners), json!([holder]));
    Ok(())
}
