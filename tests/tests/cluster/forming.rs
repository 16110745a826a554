//! How servers become a cluster, come back, and whom they refuse.

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lictor_tests::{Cluster, Load, Server, free_port, join_address, until};
use rustix::process::Signal;

use crate::{LONG, QUICK, none_unclear, settle, skip, trial};

/// How many servers the cluster has, as this one sees it.
pub(crate) fn await_peers(server: &Server, count: usize) -> Result<()> {
    until("all servers to be members", LONG, || {
        let peers = server.get("/v1/status/peers")?.json()?;
        let found = peers.as_array().map_or(0, Vec::len);
        ensure!(found == count, "{peers}");
        Ok(Some(()))
    })
}

/// Waits until a server tells where another one is now.
fn await_address(server: &Server, other: &Server) -> Result<()> {
    let address = format!("{}:{}", other.seat().address, other.seat().server);
    until("the new address to be known", LONG, || {
        let peers = server.get("/v1/status/peers?stale")?.text();
        ensure!(peers.contains(&address), "{peers}");
        Ok(Some(()))
    })
}

/// Waits until a log has all these words in one line.
pub(crate) fn await_line(server: &Server, words: &[&str]) -> Result<String> {
    until(&format!("a line with {words:?}"), LONG, || {
        let log = server.log();
        let line = log
            .lines()
            .find(|line| words.iter().all(|word| line.contains(word)));
        Ok(line.map(str::to_owned))
    })
}

/// A server that is on its way into a cluster speaks with others, but answers no writes.
fn await_http(server: &Server) -> Result<()> {
    until("HTTP", LONG, || Ok(Some(server.get("/v1/status/leader")?))).map(|_| ())
}

#[test]
fn three_servers_form_a_cluster_in_any_order() -> Result<()> {
    for order in [[2, 0, 1], [1, 2, 0]] {
        Cluster::plan(3, 3)?.trial(|cluster| {
            for number in order {
                cluster.launch(number)?;
                await_http(cluster.server(number))?;
            }
            cluster.await_ready()?;

            cluster.leader(&[0, 1, 2])?;
            for number in order {
                await_peers(cluster.server(number), 3)?;
                ensure!(
                    cluster
                        .server(number)
                        .put(&format!("/v1/kv/{number}"), "v")?
                        .is_true()
                );
            }
            ensure!(cluster.same(&[0, 1, 2])?.len() == 3);
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn more_servers_than_expected_become_one_cluster() -> Result<()> {
    Cluster::plan(5, 3)?.with_hcl(QUICK).trial(|cluster| {
        cluster.start()?;

        cluster.leader(&[0, 1, 2, 3, 4])?;
        for number in 0..5 {
            await_peers(cluster.server(number), 5)?;
        }
        ensure!(cluster.server(4).put("/v1/kv/k", "v")?.is_true());
        ensure!(cluster.same(&[0, 1, 2, 3, 4])?.len() == 1);
        Ok(())
    })
}

/// It learns first and votes then: with its vote, two of the first three can be missing no more than one of four.
#[test]
fn a_fourth_server_joins_under_load_and_votes() -> Result<()> {
    trial(3, |cluster| {
        let load = Load::start("load", &cluster.http(&[0, 1, 2]));
        load.await_more(50)?;

        let fourth = cluster.add()?;
        cluster.launch(fourth)?;
        cluster.await_ready()?;
        await_peers(cluster.server(fourth), 4)?;
        load.await_more(50)?;

        let told = load.stop()?;
        settle(cluster, &[0, 1, 2, fourth], &told)?;
        none_unclear(&told, "while a server joined")?;
        until("the fourth server to vote", LONG, || {
            Ok((0..3)
                .any(|number| cluster.server(number).log().contains("it is caught up"))
                .then_some(()))
        })?;
        // Now three of four decide: with one of the first three gone, nothing is decided without the fourth.
        let gone = cluster.leader(&[0, 1, 2, fourth])?;
        cluster.server_mut(gone).kill()?;
        cluster.leader(&cluster.others(gone))?;
        let one = cluster.others(gone)[0];
        ensure!(cluster.server(one).put("/v1/kv/after", "v")?.is_true());
        cluster.same(&cluster.others(gone)).map(|_| ())
    })
}

#[test]
fn all_servers_come_back_after_a_clean_stop_and_at_other_ports() -> Result<()> {
    trial(3, |cluster| {
        ensure!(cluster.server(1).put("/v1/kv/k", "before")?.is_true());
        // Where they were, and then elsewhere, all at once.
        for life in 0..2 {
            for number in 0..3 {
                cluster.server(number).signal(Signal::INT)?;
            }
            for number in 0..3 {
                let status = cluster.server_mut(number).await_exit()?;
                ensure!(status.success(), "server {number} ended with {status}");
            }
            let mut seats: Vec<_> = (0..3).map(|n| cluster.server(n).seat().clone()).collect();
            if life == 1 {
                for seat in &mut seats {
                    (seat.http, seat.server, seat.serf_lan) = (free_port()?, free_port()?, free_port()?);
                }
                let join: Vec<String> = seats.iter().map(join_address).collect();
                for seat in &mut seats {
                    seat.join.clone_from(&join);
                }
            }
            for (number, seat) in seats.into_iter().enumerate() {
                cluster.server_mut(number).relaunch_at(seat)?;
            }
            cluster.await_ready()?;
            // All name the leader by where it is now.
            cluster.leader(&[0, 1, 2])?;
            let key = format!("/v1/kv/life/{life}");
            ensure!(cluster.server(2).put(&key, "v")?.is_true());
        }

        ensure!(cluster.same(&[0, 1, 2])?.len() == 3);
        Ok(())
    })
}

/// The leader and one more move, at a time when the third runs on and believes them where they were.
#[test]
fn who_stays_finds_the_leader_that_moved() -> Result<()> {
    trial(3, |cluster| {
        let leader = cluster.leader(&[0, 1, 2])?;
        let stays = cluster.others(leader)[0];
        let moving = cluster.others(stays);
        for &number in &moving {
            cluster.server_mut(number).kill()?;
        }
        for &number in &moving {
            let mut seat = cluster.server(number).seat().clone();
            (seat.http, seat.server, seat.serf_lan) = (free_port()?, free_port()?, free_port()?);
            cluster.server_mut(number).relaunch_at(seat)?;
        }

        cluster.await_ready()?;
        cluster.leader(&[0, 1, 2])?;
        ensure!(cluster.server(stays).put("/v1/kv/k", "v")?.is_true());
        cluster.same(&[0, 1, 2]).map(|_| ())
    })
}

#[test]
fn a_server_whom_nobody_answers_ends_after_as_many_attempts_as_it_may_make() -> Result<()> {
    if lictor_tests::is_consul()? {
        return skip("a Consul waits half a minute for each");
    }
    let hcl = "retry_interval = \"100ms\"\nretry_max = 3";
    Cluster::plan(2, 2)?.with_hcl(hcl).trial(|cluster| {
        cluster.launch(0)?;

        let status = cluster.server_mut(0).await_exit()?;

        ensure!(status.code() == Some(1), "{status}");
        let log = cluster.server(0).log();
        ensure!(log.contains("no other server answered in 3 attempts"), "{log}");
        Ok(())
    })
}

#[test]
fn one_server_moves_to_other_ports() -> Result<()> {
    trial(3, |cluster| {
        for moves in cluster.all() {
            let mut seat = cluster.server(moves).seat().clone();
            (seat.http, seat.server, seat.serf_lan) = (free_port()?, free_port()?, free_port()?);
            cluster.server_mut(moves).kill()?;
            cluster.server_mut(moves).relaunch_at(seat)?;
            cluster.await_ready()?;
            cluster.leader(&[0, 1, 2])?;
            // Until then only those know it who have heard it from itself, and the next to move is one of them.
            for number in cluster.all() {
                await_address(cluster.server(number), cluster.server(moves))?;
            }
            ensure!(
                cluster
                    .server(moves)
                    .put(&format!("/v1/kv/{moves}"), "v")?
                    .is_true()
            );
        }

        let stored = cluster.same(&[0, 1, 2])?;
        ensure!(stored.len() == 3, "{stored:?}");
        Ok(())
    })
}

#[test]
fn a_server_of_another_cluster_is_refused_in_one_line() -> Result<()> {
    trial(2, |cluster| {
        let contact = join_address(cluster.server(0).seat());
        Cluster::plan(1, 1)?.trial(|other| {
            other.start()?;
            other.server_mut(0).kill()?;
            let mut seat = other.server(0).seat().clone();
            seat.join = vec![contact];
            other.server_mut(0).relaunch_at(seat)?;
            other.await_ready()?;

            // It goes on as what it is, and neither takes the other in.
            await_peers(other.server(0), 1)?;
            await_peers(cluster.server(0), 2)?;
            await_line(other.server(0), &["WARN", "cluster"]).map(|_| ())
        })
    })
}

#[test]
fn a_server_with_the_name_of_a_living_one_is_refused_in_one_line() -> Result<()> {
    trial(2, |cluster| {
        let number = cluster.add()?;
        cluster.seat_mut(number).name = "server-0".to_owned();
        cluster.launch(number)?;

        let line = await_line(cluster.server(number), &["WARN", "no cluster yet", "name"])?;

        ensure!(line.contains("server-0"), "{line}");
        await_peers(cluster.server(0), 2)
    })
}

#[test]
fn who_lacks_the_key_of_the_cluster_is_refused_in_one_line() -> Result<()> {
    let key = |byte: u8| format!("encrypt = \"{}\"", STANDARD.encode([byte; 32]));
    for other in [key(2), String::new()] {
        Cluster::plan(3, 2)?
            .with_hcl(&format!("{}\n{QUICK}", key(1)))
            .trial(|cluster| {
                cluster.launch(0)?;
                cluster.launch(1)?;
                cluster.await_ready()?;
                ensure!(cluster.server(0).put("/v1/kv/k", "v")?.is_true());

                let alone = Cluster::of(vec![cluster.seat_mut(2).clone()]).with_hcl(&other);
                alone.trial(|alone| {
                    alone.seat_mut(0).join = vec![join_address(cluster.server(0).seat())];
                    alone.launch(0)?;
                    await_line(alone.server(0), &["WARN", "no cluster yet", "key"]).map(|_| ())
                })?;

                await_peers(cluster.server(0), 2)
            })?;
    }
    Ok(())
}

#[test]
fn a_server_without_contacts_waits_and_says_so() -> Result<()> {
    Cluster::plan(1, 3)?.trial(|cluster| {
        cluster.launch(0)?;
        await_http(cluster.server(0))?;

        let answer = cluster.server(0).put("/v1/kv/k", "v")?;

        ensure!(
            answer.status == 500 && answer.text() == "No cluster leader",
            "{} {}",
            answer.status,
            answer.text()
        );
        Ok(())
    })
}
