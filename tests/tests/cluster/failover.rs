//! Servers that die, stop or sleep: nothing acknowledged is lost, and nothing old is served.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use lictor_tests::{Load, Response, exchange};
use rustix::process::Signal;

use crate::{none_unclear, settle, trial};

#[test]
fn nothing_acknowledged_is_lost_when_one_leader_after_the_other_is_killed() -> Result<()> {
    trial(3, |cluster| {
        let first = cluster.leader(&[0, 1, 2])?;
        let load = Load::crowd("load", &cluster.http(&cluster.others(first)));
        load.await_more(200)?;

        for _ in 0..2 {
            let leader = cluster.leader(&[0, 1, 2])?;
            cluster.server_mut(leader).kill()?;
            cluster.leader(&cluster.others(leader))?;
            load.await_more(200)?;
            cluster.server_mut(leader).relaunch()?;
            cluster.await_ready()?;
        }

        load.await_more(400)?;
        settle(cluster, &[0, 1, 2], &load.stop()?)
    })
}

#[test]
fn killed_all_at_once_they_come_back_with_everything() -> Result<()> {
    trial(3, |cluster| {
        for life in 0..3 {
            let load = Load::crowd(&format!("life/{life}"), &cluster.http(&[0, 1, 2]));
            load.await_more(500)?;
            for number in 0..3 {
                cluster.server(number).signal(Signal::KILL)?;
            }
            for number in 0..3 {
                cluster.server_mut(number).await_exit()?;
                cluster.server_mut(number).relaunch()?;
            }
            cluster.await_ready()?;
            load.await_more(200)?;
            settle(cluster, &[0, 1, 2], &load.stop()?)?;
        }
        Ok(())
    })
}

#[test]
fn a_killed_follower_is_missed_by_nobody() -> Result<()> {
    trial(3, |cluster| {
        let leader = cluster.leader(&[0, 1, 2])?;
        let follower = cluster.others(leader)[0];
        let load = Load::crowd("load", &cluster.http(&cluster.others(follower)));
        load.await_more(400)?;

        cluster.server_mut(follower).kill()?;
        load.await_more(200)?;
        cluster.server_mut(follower).relaunch()?;
        cluster.await_ready()?;
        load.await_more(400)?;

        let told = load.stop()?;
        settle(cluster, &[0, 1, 2], &told)?;
        none_unclear(&told, "for a dead follower")
    })
}

/// A clean stop hands over first, and says of everything it took what became of it.
#[test]
fn servers_restart_one_after_the_other_under_load_and_no_request_fails() -> Result<()> {
    trial(3, |cluster| {
        let mut unplanned = 0;
        for round in 0..6 {
            // The leader, or in every third round one that follows.
            let leader = cluster.leader(&[0, 1, 2])?;
            let stops = if round % 3 == 2 {
                cluster.others(leader)[0]
            } else {
                leader
            };
            let term = super::term(cluster, leader)? + u64::from(stops == leader);
            let load = Load::crowd(&format!("round/{round}"), &cluster.http(&cluster.others(stops)));
            load.await_more(200)?;

            cluster.server(stops).signal(Signal::INT)?;
            let status = cluster.server_mut(stops).await_exit()?;
            ensure!(status.success(), "server {stops} ended with {status}");
            load.await_more(200)?;
            cluster.server_mut(stops).relaunch()?;
            cluster.await_ready()?;
            load.await_more(100)?;

            let told = load.stop()?;
            settle(cluster, &[0, 1, 2], &told)?;
            // A leader that gets no processor or disk for a while is replaced, which nobody planned: once in all.
            if super::term(cluster, stops)? == term {
                none_unclear(&told, "while a server restarted")?;
            } else {
                unplanned += 1;
                writeln!(
                    std::io::stderr(),
                    "round {round}: an election that nobody planned"
                )?;
            }
        }
        ensure!(unplanned <= 1, "{unplanned} elections that nobody planned");
        Ok(())
    })
}

#[test]
fn the_leadership_moves_under_load_and_no_request_fails() -> Result<()> {
    trial(3, |cluster| {
        // Those of the leader too: it answers what the next one commits.
        let load = Load::crowd("load", &cluster.http(&[0, 1, 2]));
        let mut late = 0;
        for _ in 0..5 {
            let leader = cluster.leader(&[0, 1, 2])?;
            load.await_more(200)?;
            let moved = cluster.server(leader).client().call(
                "POST",
                "/v1/operator/raft/transfer-leader",
                &[],
                b"",
            )?;
            // A server that gets no processor may miss its turn, once in all.
            let is_late = moved.text() == "leadership transfer timeout";
            late += usize::from(is_late);
            ensure!(
                moved.status == 200 || is_late && late == 1,
                "{} {}",
                moved.status,
                moved.text()
            );
            load.await_more(200)?;
        }

        let told = load.stop()?;
        settle(cluster, &[0, 1, 2], &told)?;
        none_unclear(&told, "while the leadership moved")
    })
}

/// Requests that a server finds when it wakes up. Sent as bytes, since it does not answer while it sleeps.
struct Asleep(TcpStream);

impl Asleep {
    fn send(cluster: &lictor_tests::Cluster, number: usize, method: &str, target: &str) -> Result<Self> {
        let mut stream = cluster.server(number).client().connect()?;
        let mut request = String::new();
        write!(
            request,
            "{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        )?;
        stream.write_all(request.as_bytes())?;
        Ok(Self(stream))
    }

    fn answer(mut self) -> Result<Response> {
        exchange(&mut self.0, b"").context("a request that waited")
    }
}

/// Its lease is over, whatever it believes in its first moments awake.
#[test]
fn a_leader_that_slept_serves_nothing_old_and_grants_nothing() -> Result<()> {
    trial(3, |cluster| {
        for round in 0..3 {
            let old = cluster.leader(&[0, 1, 2])?;
            let awake = cluster.others(old);
            let server = cluster.server(awake[0]);
            ensure!(server.put("/v1/kv/k", format!("old {round}"))?.is_true());
            let index = server.get("/v1/kv/k")?.entry()?["ModifyIndex"].clone();
            let [first, second] = [
                server.session(r#"{"LockDelay":"0s"}"#)?,
                server.session(r#"{"LockDelay":"0s"}"#)?,
            ];
            let lock = format!("lock/{round}");

            cluster.server(old).pause()?;
            cluster.leader(&awake)?;
            let server = cluster.server(awake[0]);
            let new = format!("new {round}");
            ensure!(server.put("/v1/kv/k", &new)?.is_true());
            ensure!(
                server
                    .put(&format!("/v1/kv/{lock}?acquire={second}"), "")?
                    .is_true()
            );
            // Begun after all that was acknowledged elsewhere.
            let reads = (0..20)
                .map(|n| {
                    let mode = if n % 2 == 0 { "default" } else { "consistent" };
                    Asleep::send(cluster, old, "GET", &format!("/v1/kv/k?{mode}"))
                })
                .collect::<Result<Vec<_>>>()?;
            let acquire = Asleep::send(cluster, old, "PUT", &format!("/v1/kv/{lock}?acquire={first}"))?;
            let cas = Asleep::send(cluster, old, "PUT", &format!("/v1/kv/k?cas={index}"))?;
            cluster.server(old).signal(Signal::CONT)?;

            for read in reads {
                let answer = read.answer()?;
                ensure!(
                    answer.status == 500 || answer.value()? == new.as_bytes(),
                    "{} {}",
                    answer.status,
                    answer.text()
                );
            }
            for late in [acquire, cas] {
                let answer = late.answer()?;
                ensure!(!answer.is_true(), "a late request came into force");
            }
            let holder = cluster
                .server(old)
                .get(&format!("/v1/kv/{lock}?consistent"))?
                .entry()?;
            ensure!(holder["Session"] == second.as_str(), "{holder}");
            cluster.leader(&[0, 1, 2])?;
            cluster.same(&[0, 1, 2])?;
        }
        Ok(())
    })
}
