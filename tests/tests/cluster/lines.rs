//! Sessions in line for a key's lock, at any server: their order and the one holder outlive the leader.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use lictor_tests::{Client, Cluster, Server, until};
use serde_json::Value;

use crate::{LONG, QUICK};

const CLIENTS: usize = 120;

fn trial(test: impl FnOnce(&mut Cluster) -> Result<()>) -> Result<()> {
    if lictor_tests::is_consul()? {
        return crate::skip("lines for locks are Lictor's");
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

/// The sessions in line, the next first.
fn line(server: &Server) -> Result<Vec<String>> {
    let locks = server.get("/v1/locks")?.json()?;
    let of_key = |lock: &&Value| lock["Key"] == "l";
    let lock = locks.as_array().context("no list")?.iter().find(of_key);
    let waiting = lock.and_then(|lock| lock["Waiting"].as_array()).cloned();
    let names = waiting.unwrap_or_default();
    Ok(names
        .iter()
        .map(|id| id.as_str().unwrap_or_default().to_owned())
        .collect())
}

fn new_session(server: &Server) -> Result<String> {
    server.session(r#"{"LockDelay":"0s"}"#)
}

#[derive(Default)]
struct Seen {
    holders: AtomicUsize,
    together: AtomicUsize,
    done: AtomicUsize,
    /// Sessions in the order in which they had the lock.
    order: Mutex<Vec<String>>,
}

impl Seen {
    /// Waits for the lock, has it for a moment, gives it back; through whatever server answers.
    fn take_turn(
        &self,
        number: usize,
        session: &str,
        servers: &[SocketAddr],
        deadline: Instant,
    ) -> Result<()> {
        let mut at = number;
        let mut ask = |query: String| loop {
            let target = format!("/v1/kv/l?{query}");
            match client(servers[at % servers.len()]).put(&target, session) {
                Ok(response) if response.status == 200 => return Ok(response),
                // Its server is dead, or is asked too early after another one died.
                failed if Instant::now() >= deadline => return failed,
                _ => {
                    at += 1;
                    thread::sleep(Duration::from_millis(20));
                }
            }
        };
        let granted = ask(format!("acquire={session}&queue&wait=300s"))?;
        ensure!(granted.is_true(), "{}", granted.text());
        if self.holders.fetch_add(1, Ordering::SeqCst) > 0 {
            self.together.fetch_add(1, Ordering::SeqCst);
        }
        let mut order = self.order.lock().map_err(|_| anyhow!("a client panicked"))?;
        order.push(session.to_owned());
        drop(order);
        self.holders.fetch_sub(1, Ordering::SeqCst);
        // False if an attempt that was not answered has done it.
        ask(format!("release={session}"))?;
        self.done.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn a_line_keeps_its_order_when_the_leader_dies() -> Result<()> {
    trial(|cluster| {
        let leader = cluster.leader(&[0, 1, 2])?;
        let servers = cluster.http(&[0, 1, 2]);
        let left = cluster.others(leader);
        let server = cluster.server(left[0]);
        let first = new_session(server)?;
        ensure!(
            server
                .put(&format!("/v1/kv/l?acquire={first}"), "first")?
                .is_true()
        );
        let sessions: Vec<_> = (0..CLIENTS).map(|_| new_session(server)).collect::<Result<_>>()?;
        let seen = Seen::default();
        let deadline = Instant::now() + 8 * LONG;

        let order = thread::scope(|scope| -> Result<Vec<String>> {
            let clients: Vec<_> = sessions
                .iter()
                .enumerate()
                .map(|(number, session)| {
                    let (seen, servers) = (&seen, &servers);
                    scope.spawn(move || seen.take_turn(number, session, servers, deadline))
                })
                .collect();
            let order = until("all to stand in line", 4 * LONG, || {
                let line = line(server)?;
                Ok((line.len() == CLIENTS).then_some(line))
            })?;
            ensure!(server.put(&format!("/v1/kv/l?release={first}"), "")?.is_true());
            until("a third to have had their turn", 4 * LONG, || {
                Ok((seen.done.load(Ordering::SeqCst) > CLIENTS / 3).then_some(()))
            })?;
            cluster.server(leader).signal(rustix::process::Signal::KILL)?;
            for client in clients {
                client.join().map_err(|_| anyhow!("a client panicked"))??;
            }
            Ok(order)
        })?;

        let had = seen
            .order
            .lock()
            .map_err(|_| anyhow!("a client panicked"))?
            .clone();
        ensure!(
            seen.together.load(Ordering::SeqCst) == 0,
            "two had the lock together"
        );
        let place: BTreeMap<_, _> = order.iter().zip(0..).collect();
        let turns: Vec<i32> = had
            .iter()
            .map(|id| place.get(id).copied().unwrap_or(-1))
            .collect();
        ensure!(had.len() == CLIENTS, "{} had a turn", had.len());
        ensure!(had == order, "not in the order of the line: {turns:?}");
        Ok(())
    })
}

/// A client of a follower that goes, and one whose wait is over, leave the line; the rest stay where they are.
#[test]
fn who_leaves_a_follower_leaves_the_line() -> Result<()> {
    trial(|cluster| {
        let leader = cluster.leader(&[0, 1, 2])?;
        let follower = cluster.server(cluster.others(leader)[0]);
        let ids: Vec<_> = (0..4).map(|_| new_session(follower)).collect::<Result<_>>()?;
        ensure!(
            follower
                .put(&format!("/v1/kv/l?acquire={}", ids[0]), "v")?
                .is_true()
        );
        let mut gone = follower.client().connect()?;
        let head = format!(
            "PUT /v1/kv/l?acquire={}&queue HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            ids[1]
        );
        std::io::Write::write_all(&mut gone, head.as_bytes())?;
        await_line(follower, &ids[1..2])?;
        let mut other = client(cluster.server(leader).http());
        let target = format!("/v1/kv/l?acquire={}&queue&wait=300s", ids[2]);
        let waits = thread::spawn(move || other.put(&target, "third"));
        await_line(follower, &ids[1..3])?;

        let refused = follower.put(&format!("/v1/kv/l?acquire={}&queue&wait=1s", ids[3]), "v")?;
        ensure!(refused.is_false(), "{} {}", refused.status, refused.text());
        await_line(follower, &ids[1..3])?;
        drop(gone);
        await_line(follower, &ids[2..3])?;
        ensure!(
            follower
                .put(&format!("/v1/kv/l?release={}", ids[0]), "")?
                .is_true()
        );

        let told = waits.join().map_err(|_| anyhow!("the client panicked"))??;
        ensure!(told.is_true(), "{} {}", told.status, told.text());
        Ok(())
    })
}

fn await_line(server: &Server, expected: &[String]) -> Result<()> {
    until(&format!("{expected:?} to stand in line"), LONG, || {
        let found = line(server)?;
        ensure!(found == expected, "{found:?}");
        Ok(Some(()))
    })
}
