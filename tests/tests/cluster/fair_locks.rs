//! Fair locks on several servers: the order, the holder and those in line outlive any of them.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use lictor_tests::{Client, Cluster, Response, Server, until};
use serde_json::Value;

use crate::{LONG, QUICK};

fn trial(test: impl FnOnce(&mut Cluster) -> Result<()>) -> Result<()> {
    if lictor_tests::is_consul()? {
        return crate::skip("fair locks are Lictor's");
    }
    let hcl = format!("limits {{ http_max_conns_per_client = 5000 }}\n{QUICK}");
    Cluster::plan(3, 3)?.with_hcl(&hcl).trial(|cluster| {
        cluster.start()?;
        test(cluster)
    })
}

fn client(address: SocketAddr) -> Client {
    Client::new(address).with_timeout(Duration::from_secs(600))
}

fn ask(server: &Server, method: &str, path: &str) -> Result<Response> {
    client(server.http()).call(method, &format!("/mod/v2/lock/{path}"), &[], b"")
}

fn granted(response: &Response) -> Result<u64> {
    ensure!(response.status == 200, "{} {}", response.status, response.text());
    response.text().parse().context("no index")
}

/// Starts a request that waits.
fn waiting(server: &Server, path: &str) -> thread::JoinHandle<Result<Response>> {
    let (mut client, target) = (client(server.http()), format!("/mod/v2/lock/{path}"));
    thread::spawn(move || client.call("POST", &target, &[], b""))
}

fn answer(waits: thread::JoinHandle<Result<Response>>) -> Result<Response> {
    waits.join().map_err(|_| anyhow!("the client panicked"))?
}

/// Values of all entries in order, the holder's first.
fn line(server: &Server) -> Result<Vec<String>> {
    let entries = server.get("/v1/fair-locks")?.json()?;
    let entries = entries.as_array().context("no list")?.iter();
    Ok(entries
        .map(|entry| entry["Value"].as_str().unwrap_or("-").to_owned())
        .collect())
}

fn await_line(server: &Server, expected: &[&str]) -> Result<()> {
    until(&format!("{expected:?} to stand in line"), LONG, || {
        let found = line(server)?;
        ensure!(found == expected, "{found:?}");
        Ok(Some(()))
    })
}

#[test]
fn every_server_serves_the_same_lock_and_shows_what_it_granted() -> Result<()> {
    trial(|cluster| {
        let servers = [0, 1, 2].map(|number| cluster.server(number));
        granted(&ask(servers[0], "POST", "l?ttl=60&value=0")?)?;
        let mut line = Vec::new();
        for turn in 1..9 {
            line.push((
                turn,
                waiting(servers[turn % 3], &format!("l?ttl=60&value={turn}")),
            ));
            until("one more to stand in line", LONG, || {
                Ok((self::line(servers[0])?.len() == turn + 1).then_some(()))
            })?;
        }

        for (turn, waits) in line {
            // Released through a server that neither granted it nor waits for it.
            let other = servers[(turn + 1) % 3];
            let released = ask(other, "DELETE", &format!("l?value={}", turn - 1))?;
            ensure!(released.status == 200, "{} {}", released.status, released.text());
            let index = granted(&answer(waits)?)?;
            let shown = ask(servers[turn % 3], "GET", "l?field=index")?.text();
            ensure!(
                shown == index.to_string(),
                "{shown} is shown after {index} was granted"
            );
        }
        Ok(())
    })
}

#[test]
fn who_leaves_a_follower_leaves_the_line() -> Result<()> {
    trial(|cluster| {
        let leader = cluster.leader(&[0, 1, 2])?;
        let follower = cluster.server(cluster.others(leader)[0]);
        granted(&ask(follower, "POST", "l?ttl=600&value=holder")?)?;
        let mut gone = follower.client().connect()?;
        std::io::Write::write_all(
            &mut gone,
            b"POST /mod/v2/lock/l?ttl=600&value=gone HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        )?;
        await_line(follower, &["holder", "gone"])?;
        let twin = waiting(cluster.server(leader), "l?ttl=600&value=twin");
        await_line(follower, &["holder", "gone", "twin"])?;
        let closed = ask(follower, "POST", "l?ttl=600&value=twin&timeout=1")?;
        ensure!(closed.status == 500, "{} {}", closed.status, closed.text());

        drop(gone);

        await_line(follower, &["holder", "twin"])?;
        ensure!(!twin.is_finished(), "a place that two shared was given up by one");
        ask(follower, "DELETE", "l?value=holder")?;
        granted(&answer(twin)?)?;
        Ok(())
    })
}

/// Their server says so, to whoever leads, for longer than their TTL.
#[test]
fn waits_at_a_follower_outlast_their_ttl_and_their_leader() -> Result<()> {
    trial(|cluster| {
        let leader = cluster.leader(&[0, 1, 2])?;
        let others = cluster.others(leader);
        let follower = cluster.server(others[0]);
        granted(&ask(follower, "POST", "l?ttl=600&value=holder")?)?;
        let waits = [
            waiting(follower, "l?ttl=2&value=a"),
            waiting(follower, "l?ttl=1&value=b"),
        ];
        until("two to stand in line", LONG, || {
            Ok((line(follower)?.len() == 3).then_some(()))
        })?;
        let before = line(follower)?;
        let index = follower.get("/v1/fair-locks")?.index()?;

        let changed = follower.get(&format!("/v1/fair-locks?index={index}&wait=4s"))?;
        ensure!(changed.index()? == index, "nothing is logged while they wait");
        cluster.server_mut(leader).kill()?;
        cluster.leader(&others)?;
        let follower = cluster.server(others[0]);
        let changed = follower.get(&format!("/v1/fair-locks?index={index}&wait=4s"))?;
        ensure!(
            changed.index()? == index && line(follower)? == before,
            "{:?}",
            line(follower)?
        );

        ask(follower, "DELETE", "l?value=holder")?;
        for waits in waits {
            granted(&answer(waits)?)?;
        }
        Ok(())
    })
}

/// A renewal that was acknowledged counts, whoever leads; a lease that is not renewed ends, but never early.
#[test]
fn a_lock_outlives_its_leader_and_does_not_lapse_early() -> Result<()> {
    const TTL: Duration = Duration::from_secs(3);
    trial(|cluster| {
        let leader = cluster.leader(&[0, 1, 2])?;
        let others = cluster.others(leader);
        granted(&ask(cluster.server(leader), "POST", "l?ttl=3&value=a")?)?;
        let next = waiting(cluster.server(others[1]), "l?ttl=60&value=b");
        await_line(cluster.server(others[0]), &["a", "b"])?;
        let renewed = Instant::now();
        ensure!(ask(cluster.server(others[0]), "PUT", "l?ttl=3&value=a")?.status == 200);

        cluster.server_mut(leader).kill()?;
        granted(&answer(next)?)?;

        ensure!(
            renewed.elapsed() >= TTL,
            "it lapsed after {:?}",
            renewed.elapsed()
        );
        Ok(())
    })
}

/// Its clients come back with their values, or are passed over.
#[test]
fn the_places_of_a_dead_servers_clients_are_kept_for_their_ttl() -> Result<()> {
    trial(|cluster| {
        let leader = cluster.leader(&[0, 1, 2])?;
        let others = cluster.others(leader);
        let (dies, lives) = (others[0], others[1]);
        granted(&ask(cluster.server(lives), "POST", "l?ttl=600&value=holder")?)?;
        let lost = [
            waiting(cluster.server(dies), "l?ttl=600&value=back"),
            waiting(cluster.server(dies), "l?ttl=5&value=gone"),
        ];
        until("two to stand in line", LONG, || {
            Ok((line(cluster.server(lives))?.len() == 3).then_some(()))
        })?;

        cluster.server_mut(dies).kill()?;
        for lost in lost {
            ensure!(answer(lost).is_err(), "its server died");
        }
        let server = cluster.server(lives);
        let back = waiting(server, "l?ttl=600&value=back");

        await_line(server, &["holder", "back"])?;
        ask(server, "DELETE", "l?value=holder")?;
        granted(&answer(back)?)?;
        Ok(())
    })
}

const CLIENTS: usize = 1000;

/// What a thousand clients see together.
#[derive(Default)]
struct Seen {
    holders: AtomicUsize,
    together: AtomicUsize,
    done: AtomicUsize,
    /// Index and number of each that had the lock, in the order in which they had it.
    order: Mutex<Vec<(u64, usize)>>,
    tries: AtomicU64,
}

impl Seen {
    /// Waits for the lock, has it for a moment, gives it back; through whatever server answers.
    fn take_turn(&self, number: usize, servers: &[SocketAddr], deadline: Instant) -> Result<()> {
        let mut at = number;
        let mut ask = |method: &str, path: String| loop {
            self.tries.fetch_add(1, Ordering::Relaxed);
            let target = format!("/mod/v2/lock/{path}");
            match client(servers[at % servers.len()]).call(method, &target, &[], b"") {
                Ok(response) if response.status != 500 => return Ok(response),
                // Its server is dead, or is asked too early after another one died.
                failed if Instant::now() >= deadline => return failed,
                _ => {
                    at += 1;
                    thread::sleep(Duration::from_millis(20));
                }
            }
        };
        let index = granted(&ask("POST", format!("l?ttl=600&value={number}"))?)?;
        if self.holders.fetch_add(1, Ordering::SeqCst) > 0 {
            self.together.fetch_add(1, Ordering::SeqCst);
        }
        self.order
            .lock()
            .map_err(|_| anyhow!("a client panicked"))?
            .push((index, number));
        self.holders.fetch_sub(1, Ordering::SeqCst);
        let released = ask("DELETE", format!("l?value={number}"))?;
        // It may have been done by a request that was not answered.
        ensure!(
            matches!(released.status, 200 | 404),
            "{} {}",
            released.status,
            released.text()
        );
        self.done.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn a_thousand_in_line_keep_their_order_when_the_leader_dies() -> Result<()> {
    trial(|cluster| {
        let leader = cluster.leader(&[0, 1, 2])?;
        let servers = cluster.http(&[0, 1, 2]);
        let left = cluster.others(leader);
        granted(&ask(cluster.server(left[0]), "POST", "l?ttl=600&value=first")?)?;
        let seen = Seen::default();
        let deadline = Instant::now() + 8 * LONG;

        thread::scope(|scope| -> Result<()> {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|number| {
                    let (seen, servers) = (&seen, &servers);
                    scope.spawn(move || seen.take_turn(number, servers, deadline))
                })
                .collect();
            let server = cluster.server(left[0]);
            let order = until("all to stand in line", 4 * LONG, || {
                let list = server.get("/v1/fair-locks")?.json()?;
                let list = list.as_array().context("no list")?;
                Ok((list.len() == CLIENTS + 1).then(|| list.clone()))
            })?;
            ensure!(ask(server, "DELETE", "l?value=first")?.status == 200);
            until("a third to have had their turn", 4 * LONG, || {
                Ok((seen.done.load(Ordering::SeqCst) > CLIENTS / 3).then_some(()))
            })?;
            cluster.server(leader).signal(rustix::process::Signal::KILL)?;
            for client in clients {
                client.join().map_err(|_| anyhow!("a client panicked"))??;
            }
            check(&seen, &order[1..])
        })
    })
}

/// One holder at a time, in the order in which they stood in line, and all of them.
fn check(seen: &Seen, line: &[Value]) -> Result<()> {
    let together = seen.together.load(Ordering::SeqCst);
    ensure!(together == 0, "{together} times two had the lock together");
    let had = seen
        .order
        .lock()
        .map_err(|_| anyhow!("a client panicked"))?
        .clone();
    let stood: Vec<(u64, usize)> = line
        .iter()
        .map(|entry| {
            let number = entry["Value"].as_str().and_then(|value| value.parse().ok());
            Ok((
                entry["Index"].as_u64().context("no index")?,
                number.context("no number")?,
            ))
        })
        .collect::<Result<_>>()?;
    let differs = had.iter().zip(&stood).position(|(had, stood)| had != stood);
    ensure!(
        had == stood,
        "{} of {CLIENTS} had a turn; order differs at {differs:?}",
        had.len()
    );
    ensure!(had.is_sorted(), "the order is not that of the indexes");
    Ok(())
}
