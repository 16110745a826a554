//! Servers that are far behind, or empty.

use anyhow::{Result, anyhow, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lictor_tests::{Client, Cluster, Load, until, wipe};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{LONG, none_unclear, settle, trial, under_one_leader};

/// Operations in one transaction, as many as are allowed.
const BATCH: usize = 64;
const WRITERS: usize = 4;

/// Writes so many keys, many at a time.
fn fill(cluster: &Cluster, through: usize, name: &str, count: usize) -> Result<()> {
    let write = |mut client: Client, writer: usize| -> Result<()> {
        let keys: Vec<usize> = (writer..count).step_by(WRITERS).collect();
        for keys in keys.chunks(BATCH) {
            let set = |n: &usize| -> Value {
                json!({"KV": {"Verb": "set", "Key": format!("{name}/{n}"), "Value": STANDARD.encode(n.to_string())}})
            };
            let body = Value::Array(keys.iter().map(set).collect());
            let answer = client.put("/v1/txn", body.to_string())?;
            ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let client = cluster.server(through).client();
                scope.spawn(move || write(client, writer))
            })
            .collect();
        writers
            .into_iter()
            .try_for_each(|writer| writer.join().map_err(|_| anyhow!("a writer panicked"))?)
    })
}

/// Waits until a server answers stale reads with this key.
fn await_key(cluster: &Cluster, number: usize, key: &str) -> Result<()> {
    until("a server to catch up", LONG, || {
        let answer = cluster.server(number).get(&format!("/v1/kv/{key}?stale"))?;
        Ok((answer.status == 200).then_some(()))
    })
}

#[test]
fn an_empty_server_catches_up_with_many_keys_under_load() -> Result<()> {
    const KEYS: usize = 100_000;
    trial(3, |cluster| {
        let leader = cluster.leader(&[0, 1, 2])?;
        fill(cluster, leader, "many", KEYS)?;
        let empty = cluster.others(leader)[0];
        let load = Load::start("load", &cluster.http(&cluster.others(empty)));
        load.await_more(50)?;

        // Killed on its way, and wiped another time.
        cluster.server_mut(empty).kill()?;
        wipe(cluster.server(empty))?;
        cluster.server_mut(empty).relaunch()?;
        until("it to join", LONG, || {
            let log = cluster.server(empty).log();
            Ok(log.contains("joined the cluster").then_some(()))
        })?;
        cluster.server_mut(empty).kill()?;
        cluster.server_mut(empty).relaunch()?;
        cluster.await_ready()?;
        await_key(cluster, empty, &format!("many/{}", KEYS - 1))?;
        load.await_more(50)?;

        let told = load.stop()?;
        none_unclear(&told, "meanwhile")?;
        settle(cluster, &[0, 1, 2], &told)
    })
}

#[test]
fn a_server_that_missed_many_writes_catches_up() -> Result<()> {
    const KEYS: usize = 60_000;
    trial(3, |cluster| {
        let leader = cluster.leader(&[0, 1, 2])?;
        let behind = cluster.others(leader)[0];
        fill(cluster, leader, "before", 1000)?;
        cluster.server_mut(behind).kill()?;
        for round in 0..2 {
            fill(cluster, leader, &format!("missed/{round}"), KEYS / 2)?;
        }
        ensure!(cluster.server(leader).delete("/v1/kv/before?recurse")?.is_true());

        cluster.server_mut(behind).relaunch()?;
        cluster.await_ready()?;

        let stored = cluster.same(&[0, 1, 2])?;
        ensure!(stored.len() == KEYS, "{} keys", stored.len());
        Ok(())
    })
}

/// Its log is whole, but of the archives that the log names the others have kept the last two.
#[test]
fn a_server_that_stood_still_during_three_restores_goes_on() -> Result<()> {
    trial(3, |cluster| {
        let leader = cluster.leader(&[0, 1, 2])?;
        let still = cluster.others(leader)[0];
        cluster.server(still).pause()?;
        for n in 0..3 {
            ensure!(cluster.server(leader).put("/v1/kv/k", n.to_string())?.is_true());
            let archive = cluster.server(leader).get("/v1/snapshot")?.body;
            ensure!(
                cluster
                    .server(leader)
                    .put("/v1/kv/gone", n.to_string())?
                    .is_true()
            );
            let mut client = cluster.server(leader).client().with_timeout(LONG);
            let answer = client.put("/v1/snapshot", archive)?;
            ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        }
        ensure!(cluster.server(leader).put("/v1/kv/after", "v")?.is_true());

        cluster.server(still).signal(Signal::CONT)?;

        await_key(cluster, still, "after")?;
        let value = cluster.server(still).get("/v1/kv/k")?.value()?;
        ensure!(value == b"2", "{}", String::from_utf8_lossy(&value));
        let stored = cluster.same(&[0, 1, 2])?;
        ensure!(!stored.contains_key("gone"), "{:?}", stored.keys());
        ensure!(cluster.server(still).put("/v1/kv/later", "v")?.is_true());
        Ok(())
    })
}

/// What it missed is more than fits into what is under way to a follower at a time.
#[test]
fn a_server_that_stood_still_catches_up_with_large_values_under_the_same_leader() -> Result<()> {
    trial(3, |cluster| {
        under_one_leader(|load| catches_up_under_the_same_leader(cluster, load))
    })
}

/// Says whether nobody else was elected meanwhile, for then no write fails.
fn catches_up_under_the_same_leader(cluster: &Cluster, load: &str) -> Result<bool> {
    const VALUES: usize = 300;
    let value = |n: usize| format!("{n:4}").repeat(125 << 10);
    let leader = cluster.leader(&[0, 1, 2])?;
    let still = cluster.others(leader)[0];
    cluster.server(still).pause()?;
    let mut client = cluster.server(leader).client().with_timeout(LONG);
    for n in 0..VALUES {
        let answer = client.put(&format!("/v1/kv/large/{n}"), value(n))?;
        ensure!(answer.is_true(), "{} {}", answer.status, answer.text());
    }
    let term = super::term(cluster, leader)?;

    let load = Load::start(load, &cluster.http(&[leader]));
    load.await_more(10)?;
    cluster.server(still).signal(Signal::CONT)?;
    await_key(cluster, still, &format!("large/{}", VALUES - 1))?;
    load.await_more(50)?;

    let told = load.stop()?;
    let is_same_term = super::term(cluster, leader)? == term;
    if is_same_term {
        none_unclear(&told, "while a server caught up")?;
    }
    let keys = cluster.server(still).get("/v1/kv/large?keys&stale")?.json()?;
    let count = keys.as_array().map_or(0, Vec::len);
    ensure!(count == VALUES, "{count} keys");
    let last = cluster
        .server(still)
        .get(&format!("/v1/kv/large/{}?raw", VALUES - 1))?;
    ensure!(last.body == value(VALUES - 1).as_bytes(), "another value");
    // The rest is compared without them.
    ensure!(cluster.server(leader).delete("/v1/kv/large?recurse")?.is_true());
    settle(cluster, &[0, 1, 2], &told)?;
    Ok(is_same_term)
}
