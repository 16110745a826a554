//! Blocking queries: who wakes, who does not.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use lictor_tests::{Response, Server};
use serde_json::json;

fn woken(watch: JoinHandle<Result<Response>>) -> Result<Response> {
    watch.join().map_err(|_| anyhow!("the watcher panicked"))?
}

/// Starts a watch on what `path` shows now and waits until the server has it.
fn watch(server: &Server, path: &str) -> Result<(u64, JoinHandle<Result<Response>>)> {
    let index = server.get(path)?.index()?;
    let mark = if path.contains('?') { '&' } else { '?' };
    let before = server.open_connections()?;
    let watch = server.watch(format!("{path}{mark}index={index}&wait=60s"));
    server.await_open_connections(before + 1)?;
    Ok((index, watch))
}

#[test]
fn a_change_of_the_key_wakes_with_the_new_value() -> Result<()> {
    let server = Server::start()?;
    server.put("/v1/kv/k", "old")?;
    let (index, watch) = watch(&server, "/v1/kv/k")?;

    server.put("/v1/kv/k", "new")?;

    let response = woken(watch)?;
    assert_eq!(response.value()?, b"new");
    assert!(response.index()? > index);
    Ok(())
}

#[test]
fn a_watch_sleeps_through_changes_of_other_keys() -> Result<()> {
    let server = Server::start()?;
    server.put("/v1/kv/k", "old")?;
    let (_, watch) = watch(&server, "/v1/kv/k")?;

    for key in ["j", "k/below", "kk", "l"] {
        server.put(&format!("/v1/kv/{key}"), "x")?;
    }
    assert!(server.put("/v1/kv/k", "old")?.is_true(), "the same value again");
    assert!(server.put("/v1/kv/k?cas=1", "x")?.is_false());
    server.put("/v1/txn", json!([{"KV": {"Verb": "set", "Key": "k", "Value": "dg=="}}, {"KV": {"Verb": "get", "Key": "missing"}}]).to_string())?;
    let before = server.get("/v1/kv/k")?.index()?;
    server.put("/v1/kv/k", "new")?;

    let response = woken(watch)?;
    assert_eq!(response.value()?, b"new", "it slept until now");
    assert!(response.index()? > before);
    Ok(())
}

#[test]
fn a_delete_wakes_with_404() -> Result<()> {
    let server = Server::start()?;
    server.put("/v1/kv/k", "x")?;
    let (index, watch) = watch(&server, "/v1/kv/k")?;

    server.delete("/v1/kv/k")?;

    let response = woken(watch)?;
    assert_eq!(response.status, 404);
    assert!(response.index()? > index);
    Ok(())
}

#[test]
fn a_list_wakes_for_anything_below_its_prefix() -> Result<()> {
    let server = Server::start()?;
    server.put("/v1/kv/p/a", "1")?;

    let (_, watching) = watch(&server, "/v1/kv/p/?keys")?;
    server.put("/v1/kv/p/a", "2")?;
    assert_eq!(
        woken(watching)?.json()?,
        json!(["p/a"]),
        "also a key list for a change of value"
    );

    let (_, watching) = watch(&server, "/v1/kv/p/?recurse")?;
    server.put("/v1/kv/p/b/c", "3")?;
    assert_eq!(woken(watching)?.json()?.as_array().map(Vec::len), Some(2));

    let (_, watching) = watch(&server, "/v1/kv/p/?recurse")?;
    server.delete("/v1/kv/p/?recurse")?;
    assert_eq!(woken(watching)?.status, 404);
    Ok(())
}

#[test]
fn lock_release_and_the_end_of_the_holder_wake() -> Result<()> {
    let server = Server::start()?;
    let session = server.session(r#"{"LockDelay":"0s"}"#)?;
    server.put("/v1/kv/l", "free")?;

    let (_, watching) = watch(&server, "/v1/kv/l")?;
    server.put(&format!("/v1/kv/l?acquire={session}"), "free")?;
    assert_eq!(woken(watching)?.entry()?["Session"], json!(session));

    let (_, watching) = watch(&server, "/v1/kv/l")?;
    server.put(&format!("/v1/kv/l?release={session}"), "free")?;
    assert!(woken(watching)?.entry()?.get("Session").is_none());

    server.put(&format!("/v1/kv/l?acquire={session}"), "free")?;
    let (_, watching) = watch(&server, "/v1/kv/l")?;
    server.put(&format!("/v1/session/destroy/{session}"), "")?;
    assert!(woken(watching)?.entry()?.get("Session").is_none());
    Ok(())
}

#[test]
fn the_end_of_a_session_wakes_who_watches_it_and_deletes_its_keys() -> Result<()> {
    let server = Server::start()?;
    let session = server.session(r#"{"Behavior":"delete"}"#)?;
    server.put(&format!("/v1/kv/l?acquire={session}"), "x")?;
    let (_, on_key) = watch(&server, "/v1/kv/l")?;
    let (_, on_session) = watch(&server, &format!("/v1/session/info/{session}"))?;

    server.put(&format!("/v1/session/destroy/{session}"), "")?;

    assert_eq!(woken(on_key)?.status, 404);
    assert_eq!(woken(on_session)?.json()?, json!([]));
    Ok(())
}

#[test]
fn a_wait_that_nothing_ends_answers_as_ever_with_the_same_index() -> Result<()> {
    let server = Server::start()?;
    server.put("/v1/kv/k", "x")?;
    let index = server.get("/v1/kv/k")?.index()?;

    let begun = Instant::now();
    let response = server.get(&format!("/v1/kv/k?index={index}&wait=1s"))?;

    let took = begun.elapsed();
    assert_eq!((response.status, response.index()?), (200, index));
    assert!(
        took >= Duration::from_secs(1) && took < Duration::from_secs(10),
        "{took:?}"
    );
    Ok(())
}

/// R14: sleeping is allowed only for a client that knows at least as much as is still known of deletes.
#[test]
fn r14_index_1_on_a_missing_key_answers_at_once() -> Result<()> {
    let server = Server::start()?;
    server.put("/v1/kv/other", "x")?;

    let begun = Instant::now();
    let response = server.get("/v1/kv/missing?index=1&wait=30s")?;

    assert_eq!(response.status, 404);
    assert!(begun.elapsed() < Duration::from_secs(5));
    Ok(())
}

#[test]
fn index_0_and_an_old_index_never_block() -> Result<()> {
    let server = Server::start()?;
    server.put("/v1/kv/k", "x")?;
    server.put("/v1/kv/k", "y")?;
    let index = server.get("/v1/kv/k")?.index()?;

    let begun = Instant::now();
    for asked in ["0".to_owned(), String::new(), (index - 1).to_string()] {
        assert_eq!(
            server.get(&format!("/v1/kv/k?index={asked}&wait=30s"))?.value()?,
            b"y"
        );
    }

    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(server.get("/v1/kv/k?index=x")?.status, 400);
    assert_eq!(server.get("/v1/kv/k?index=1&wait=10")?.status, 400);
    Ok(())
}

/// Every change of one key reaches a client that always asks with the last index; none is seen twice.
#[test]
fn a_loop_of_watches_sees_the_last_value_and_never_an_index_twice() -> Result<()> {
    let server = Server::start()?;
    server.put("/v1/kv/k", "0")?;

    std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<()> {
            let mut client = server.client();
            for n in 1..=500 {
                client.put("/v1/kv/k", n.to_string())?;
            }
            Ok(())
        });
        let mut client = server.client();
        let (mut index, mut last) = (0, 0);
        while last < 500 {
            let response = client.get(&format!("/v1/kv/k?index={index}&wait=20s"))?;
            let value = String::from_utf8(response.value()?)?.parse::<u32>()?;
            assert!(response.index()? > index, "woken without news at {value}");
            assert!(value > last || last == 0);
            (index, last) = (response.index()?, value);
        }
        writer.join().map_err(|_| anyhow!("panicked"))?
    })
}

#[test]
fn hundreds_of_watchers_of_one_key_all_wake() -> Result<()> {
    let server = Server::with(lictor_tests::Options {
        hcl: "limits {\n http_max_conns_per_client = 2000\n}\n".to_owned(),
        ..Default::default()
    })?;
    server.put("/v1/kv/k", "old")?;
    let index = server.get("/v1/kv/k")?.index()?;
    let watches: Vec<_> = (0..400)
        .map(|_| server.watch(format!("/v1/kv/k?index={index}&wait=60s")))
        .collect();
    server.await_open_connections(400)?;

    server.put("/v1/kv/k", "new")?;

    for watch in watches {
        assert_eq!(woken(watch)?.value()?, b"new");
    }
    Ok(())
}
