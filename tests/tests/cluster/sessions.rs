//! Sessions outlive the leader that knew them, and end neither early nor never.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use lictor_tests::{Client, Cluster, Server, until};
use rustix::process::Signal;

use crate::{LONG, QUICK};

const TTL: Duration = Duration::from_secs(3);
const LOCK_DELAY: Duration = Duration::from_secs(6);

fn trial(test: impl FnOnce(&mut Cluster) -> Result<()>) -> Result<()> {
    if lictor_tests::is_consul()? {
        return crate::skip("these tests are about Lictor's servers");
    }
    let hcl = format!("session_ttl_min = \"1s\"\n{QUICK}");
    Cluster::plan(3, 3)?.with_hcl(&hcl).trial(|cluster| {
        cluster.start()?;
        test(cluster)
    })
}

fn lives(server: &Server, session: &str) -> Result<bool> {
    let answer = server.get(&format!("/v1/session/info/{session}?consistent"))?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    Ok(!answer.json()?.as_array().is_none_or(Vec::is_empty))
}

#[test]
fn a_session_outlives_its_leader_and_does_not_end_early() -> Result<()> {
    trial(|cluster| {
        let leader = cluster.leader(&[0, 1, 2])?;
        let left = cluster.others(leader);
        let server = cluster.server(left[0]);
        let session = server.session(r#"{"TTL":"3s","LockDelay":"0s"}"#)?;
        ensure!(
            server
                .put(&format!("/v1/kv/lock?acquire={session}"), "")?
                .is_true()
        );
        let renewed = Instant::now();
        ensure!(server.put(&format!("/v1/session/renew/{session}"), "")?.status == 200);

        cluster.server_mut(leader).kill()?;
        cluster.leader(&left)?;
        let server = cluster.server(left[1]);
        until("the session to end", LONG, || {
            Ok((!lives(server, &session)?).then_some(()))
        })?;

        ensure!(
            renewed.elapsed() >= TTL,
            "it ended {:?} after its renewal",
            renewed.elapsed()
        );
        let lock = server.get("/v1/kv/lock")?.entry()?;
        ensure!(lock.get("Session").is_none(), "{lock}");
        let late = server.put(&format!("/v1/session/renew/{session}"), "")?;
        ensure!(late.status == 404, "{} {}", late.status, late.text());
        Ok(())
    })
}

/// Renews a session at each of some servers until it is stopped: one that is dead or on its way holds up no other.
struct Renewals {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Renewals {
    fn start(servers: Vec<SocketAddr>, session: &str) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let renew = |server: SocketAddr| {
            let (stop, target) = (Arc::clone(&stop), format!("/v1/session/renew/{session}"));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    // One that is dead, or knows no leader, renews nothing.
                    if let Ok(answer) = Client::new(server).put(&target, "") {
                        let text = answer.text();
                        ensure!(matches!(answer.status, 200 | 500), "{} {text}", answer.status);
                    }
                    std::thread::sleep(TTL / 15);
                }
                Ok(())
            })
        };
        let threads = servers.into_iter().map(renew).collect();
        Self { stop, threads }
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let mut threads = self.threads.into_iter();
        threads.try_for_each(|thread| thread.join().map_err(|_| anyhow!("panicked"))?)
    }
}

#[test]
fn a_session_that_is_renewed_lives_through_one_failover_after_the_other() -> Result<()> {
    trial(|cluster| {
        // It depends on no server: each of them dies once, and is taken for dead before it is back.
        let session = cluster.server(0).session(r#"{"TTL":"3s","NodeChecks":[]}"#)?;
        ensure!(
            cluster
                .server(0)
                .put(&format!("/v1/kv/lock?acquire={session}"), "")?
                .is_true()
        );
        let renewals = Renewals::start(cluster.http(&[0, 1, 2]), &session);
        for _ in 0..3 {
            let leader = cluster.leader(&[0, 1, 2])?;
            cluster.server_mut(leader).kill()?;
            // Longer than a session lives without renewals.
            std::thread::sleep(2 * TTL);
            cluster.server_mut(leader).relaunch()?;
            cluster.await_ready()?;
        }
        renewals.stop()?;

        let lock = cluster.server(1).get("/v1/kv/lock?consistent")?.entry()?;
        ensure!(lock["Session"] == session.as_str(), "{lock}");
        cluster.same(&[0, 1, 2]).map(|_| ())
    })
}

/// What a server tells of times: a kind and a name, in milliseconds.
fn time_left(server: &Server, query: &str, kind: &str, name: &str) -> Result<u64> {
    let answer = server.get(&format!("/v1/locks/times?{query}"))?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let left = answer.json()?[kind][name].as_u64();
    left.with_context(|| format!("{kind} {name}: {}", answer.text()))
}

/// The leader alone knows, and whoever is asked asks it.
#[test]
fn every_server_and_agent_tells_how_long_sessions_and_locks_last() -> Result<()> {
    trial(|cluster| {
        let leader = cluster.leader(&[0, 1, 2])?;
        let left = cluster.others(leader);
        let server = cluster.server(left[0]);
        let session = server.session(r#"{"TTL":"1000s"}"#)?;
        let ended = server.session(r#"{"LockDelay":"60s"}"#)?;
        ensure!(server.put(&format!("/v1/kv/k?acquire={ended}"), "")?.is_true());
        ensure!(server.put(&format!("/v1/session/destroy/{ended}"), "")?.is_true());
        let held = server
            .client()
            .call("POST", "/mod/v2/lock/f?ttl=500&value=v", &[], b"")?;
        ensure!(held.status == 200, "{} {}", held.status, held.text());
        let query = format!("session={session}&key=k&fair-lock=f");

        let agent = cluster.client_agent("web-1")?;
        for asked in [&agent, cluster.server(0), cluster.server(1), cluster.server(2)] {
            let lives_ms = time_left(asked, &query, "Sessions", &session)?;
            ensure!((1_000_000..=2_000_000).contains(&lives_ms), "{lives_ms}");
            let delay_ms = time_left(asked, &query, "LockDelays", "k")?;
            ensure!((1..=60_000).contains(&delay_ms), "{delay_ms}");
            let lease_ms = time_left(asked, &query, "FairLocks", "f")?;
            ensure!((1..=500_000).contains(&lease_ms), "{lease_ms}");
        }

        let other = cluster.server(left[1]);
        let before_ms = until("some time to go by", LONG, || {
            let left_ms = time_left(other, &query, "Sessions", &session)?;
            Ok((left_ms < 1_999_000).then_some(left_ms))
        })?;
        ensure!(server.put(&format!("/v1/session/renew/{session}"), "")?.status == 200);
        let renewed_ms = time_left(other, &query, "Sessions", &session)?;
        ensure!(renewed_ms > before_ms, "{renewed_ms} after {before_ms}");

        cluster.server_mut(leader).kill()?;
        cluster.server_mut(left[1]).kill()?;
        let alone = cluster.server(left[0]).get(&format!("/v1/locks/times?{query}"))?;
        ensure!(
            alone.status == 500 && alone.text() == "No cluster leader",
            "{} {}",
            alone.status,
            alone.text()
        );
        Ok(())
    })
}

#[test]
fn a_lock_delay_outlives_the_leader() -> Result<()> {
    trial(|cluster| {
        let leader = cluster.leader(&[0, 1, 2])?;
        let left = cluster.others(leader);
        let server = cluster.server(left[0]);
        let holder = server.session(r#"{"LockDelay":"6s"}"#)?;
        let next = server.session(r#"{"LockDelay":"0s"}"#)?;
        ensure!(
            server
                .put(&format!("/v1/kv/lock?acquire={holder}"), "")?
                .is_true()
        );
        let ended = Instant::now();
        ensure!(
            server
                .put(&format!("/v1/session/destroy/{holder}"), "")?
                .is_true()
        );

        cluster.server_mut(leader).kill()?;
        cluster.leader(&left)?;
        let server = cluster.server(left[1]);
        let acquire = format!("/v1/kv/lock?acquire={next}");
        until("the lock to be free", LONG, || {
            let answer = server.put(&acquire, "")?;
            ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
            Ok(answer.is_true().then_some(()))
        })?;

        ensure!(
            ended.elapsed() >= LOCK_DELAY,
            "the lock was given away after {:?}",
            ended.elapsed()
        );
        Ok(())
    })
}

/// Its node's check turns critical, and what depends on it ends, but nothing else.
#[test]
fn the_sessions_of_a_dead_server_end_and_no_others() -> Result<()> {
    trial(|cluster| {
        let leader = cluster.leader(&[0, 1, 2])?;
        let dead = cluster.others(leader)[0];
        let living = cluster.others(leader)[1];
        let of_dead = cluster.server(dead).session(r#"{"LockDelay":"0s"}"#)?;
        let of_living = cluster.server(living).session(r#"{"LockDelay":"0s"}"#)?;

        cluster.server_mut(dead).kill()?;
        let server = cluster.server(living);
        until("the session to end with its server", LONG, || {
            Ok((!lives(server, &of_dead)?).then_some(()))
        })?;

        ensure!(lives(server, &of_living)?);
        let health = server.get(&format!("/v1/health/node/server-{dead}"))?.entry()?;
        ensure!(health["Status"] == "critical", "{health}");
        cluster.server_mut(dead).relaunch()?;
        cluster.await_ready()?;
        let server = cluster.server(living);
        until("the server to be healthy again", LONG, || {
            let health = server.get(&format!("/v1/health/node/server-{dead}"))?.entry()?;
            Ok((health["Status"] == "passing").then_some(()))
        })?;
        ensure!(lives(server, &of_living)?);
        Ok(())
    })
}

/// It has heard nobody for as long as it takes to be dead, and is replaced itself before it could say so of others.
#[test]
fn a_leader_that_slept_long_takes_nobody_for_dead() -> Result<()> {
    trial(|cluster| {
        let slept = cluster.leader(&[0, 1, 2])?;
        let awake = cluster.others(slept);
        let sessions = awake
            .iter()
            .map(|&number| cluster.server(number).session(r#"{"LockDelay":"0s"}"#))
            .collect::<Result<Vec<_>>>()?;
        let await_health = |server: &Server, wanted: &str| {
            until("its health to be known", LONG, || {
                let health = server.get(&format!("/v1/health/node/server-{slept}"))?.entry()?;
                Ok((health["Status"] == wanted).then_some(()))
            })
        };

        cluster.server(slept).pause()?;
        await_health(cluster.server(awake[0]), "critical")?;
        cluster.server(slept).signal(Signal::CONT)?;
        await_health(cluster.server(awake[0]), "passing")?;

        for (&number, session) in awake.iter().zip(&sessions) {
            ensure!(
                lives(cluster.server(awake[0]), session)?,
                "the session of {number} ended"
            );
            let log = cluster
                .server(awake[0])
                .get(&format!("/v1/health/node/server-{number}"))?
                .entry()?;
            ensure!(
                log["ModifyIndex"] == log["CreateIndex"],
                "its health changed: {log}"
            );
        }
        Ok(())
    })
}
