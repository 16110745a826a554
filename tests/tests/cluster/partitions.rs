//! Networks that break: each server lives in a network namespace, and a hub between them drops what it is told to.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use lictor_tests::{Client, Cluster, Load, seat};

use crate::{QUICK, none_unclear, settle, skip, under_one_leader};

/// Addresses of one network; the first four are the link between the test and the hub.
const BLOCK: u8 = 64;

/// A hub with a link to each server and one to the test. Gone with all its links when dropped.
struct Network {
    tag: String,
    /// The second and third byte of all addresses, and where the block begins.
    base: (u8, u8, u8),
    servers: u8,
}

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output()?;
    ensure!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

impl Network {
    /// `None` where namespaces are not allowed.
    fn new(servers: u8) -> Result<Option<Self>> {
        static COUNT: AtomicU8 = AtomicU8::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let [.., high, low] = std::process::id().to_be_bytes();
        let network = Self {
            tag: format!("lt{:x}{count}", std::process::id()),
            base: (64 + high % 128, low, (count % 4) * BLOCK),
            servers,
        };
        if ip(&format!("netns add {}", network.hub())).is_err() {
            return Ok(None);
        }
        network.build()?;
        Ok(Some(network))
    }

    fn build(&self) -> Result<()> {
        let hub = self.hub();
        ip(&format!("netns exec {hub} sysctl -qw net.ipv4.ip_forward=1"))?;
        ip(&format!(
            "link add {} type veth peer name test netns {hub}",
            self.tag
        ))?;
        ip(&format!("addr add {}/30 dev {}", self.address(1), self.tag))?;
        ip(&format!("link set {} up", self.tag))?;
        ip(&format!("-n {hub} addr add {}/30 dev test", self.address(2)))?;
        ip(&format!("-n {hub} link set test up"))?;
        ip(&format!(
            "route add {}/26 via {}",
            self.address(0),
            self.address(2)
        ))?;
        for server in 0..self.servers {
            let (namespace, gateway) = (self.namespace(server), self.address(4 * server + 5));
            ip(&format!("netns add {namespace}"))?;
            ip(&format!(
                "-n {hub} link add s{server} type veth peer name eth0 netns {namespace}"
            ))?;
            ip(&format!("-n {hub} addr add {gateway}/30 dev s{server}"))?;
            ip(&format!("-n {hub} link set s{server} up"))?;
            ip(&format!(
                "-n {namespace} addr add {}/30 dev eth0",
                self.server(server)
            ))?;
            ip(&format!("-n {namespace} link set eth0 up"))?;
            ip(&format!("-n {namespace} link set lo up"))?;
            ip(&format!("-n {namespace} route add default via {gateway}"))?;
        }
        Ok(())
    }

    fn hub(&self) -> String {
        format!("{}hub", self.tag)
    }

    fn namespace(&self, server: u8) -> String {
        format!("{}s{server}", self.tag)
    }

    fn address(&self, offset: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.base.0, self.base.1, self.base.2 + offset)
    }

    fn server(&self, number: u8) -> Ipv4Addr {
        self.address(4 * number + 6)
    }

    /// Loses, or loses no more, what one server sends to another.
    fn one_way(&self, verb: &str, from: usize, to: usize) -> Result<()> {
        let to = self.server(u8::try_from(to)?);
        ip(&format!(
            "-n {} rule {verb} iif s{from} to {to} blackhole",
            self.hub()
        ))
    }

    fn cluster(&self) -> Result<Cluster> {
        let seats = (0..self.servers)
            .map(|number| {
                let mut seat = seat(number.into(), self.server(number), self.servers.into())?;
                seat.namespace = Some(self.namespace(number));
                Ok(seat)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Cluster::of(seats).with_hcl(QUICK))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Links go with their namespaces. What was never made cannot be removed.
        for server in 0..self.servers {
            let _ = ip(&format!("netns del {}", self.namespace(server)));
        }
        let _ = ip(&format!("netns del {}", self.hub()));
    }
}

fn trial(test: impl FnOnce(&Network, &mut Cluster) -> Result<()>) -> Result<()> {
    if lictor_tests::is_consul()? {
        return skip("these tests are about Lictor's servers");
    }
    let Some(network) = Network::new(3)? else {
        return skip("network namespaces need root");
    };
    network.cluster()?.trial(|cluster| {
        cluster.start()?;
        test(&network, cluster)
    })
}

/// Which ways are cut between a server and all others.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Both,
    /// Nobody hears it.
    Out,
    /// It hears nobody.
    In,
}

fn cut(network: &Network, verb: &str, which: Cut, server: usize, others: &[usize]) -> Result<()> {
    for &other in others {
        if matches!(which, Cut::Both | Cut::Out) {
            network.one_way(verb, server, other)?;
        }
        if matches!(which, Cut::Both | Cut::In) {
            network.one_way(verb, other, server)?;
        }
    }
    Ok(())
}

/// Another leads, nothing acknowledged is lost, and the one behind the cut answers nothing that is not true any more.
fn leader_behind(which: Cut) -> Result<()> {
    trial(|network, cluster| {
        let old = cluster.leader(&[0, 1, 2])?;
        let others = cluster.others(old);
        ensure!(cluster.server(old).put("/v1/kv/k", "old")?.is_true());
        let load = Load::start("load", &cluster.http(&others));
        load.await_more(50)?;

        cut(network, "add", which, old, &others)?;
        // A server that still hears the old leader may name it for long; writes are what counts.
        load.await_more(150)?;
        ensure!(cluster.server(others[0]).put("/v1/kv/k", "new")?.is_true());
        let mut behind: Client = cluster.server(old).client().with_timeout(Duration::from_secs(30));
        for mode in ["default", "consistent"] {
            let seen = behind.get(&format!("/v1/kv/k?{mode}"))?;
            if seen.status == 200 && seen.value()? != b"new" {
                bail!("{mode} read behind the cut: {}", seen.text());
            }
        }
        cut(network, "del", which, old, &others)?;

        load.await_more(50)?;
        cluster.leader(&[0, 1, 2])?;
        settle(cluster, &[0, 1, 2], &load.stop()?)
    })
}

#[test]
fn a_leader_cut_off_both_ways_is_replaced() -> Result<()> {
    leader_behind(Cut::Both)
}

#[test]
fn a_leader_that_nobody_hears_is_replaced() -> Result<()> {
    leader_behind(Cut::Out)
}

#[test]
fn a_leader_that_hears_nobody_is_replaced() -> Result<()> {
    leader_behind(Cut::In)
}

/// It may not force an election on the others when it comes back, nor while it is half away.
#[test]
fn a_follower_behind_a_cut_disturbs_nobody() -> Result<()> {
    trial(|network, cluster| under_one_leader(|load| a_follower_is_cut_off(network, cluster, load)))
}

/// Says whether nobody else was elected meanwhile, for then no write fails.
fn a_follower_is_cut_off(network: &Network, cluster: &Cluster, load: &str) -> Result<bool> {
    let leader = cluster.leader(&[0, 1, 2])?;
    let term = crate::term(cluster, leader)?;
    let follower = cluster.others(leader)[0];
    let others = cluster.others(follower);
    let load = Load::start(load, &cluster.http(&others));
    for which in [Cut::Both, Cut::In, Cut::Out] {
        cut(network, "add", which, follower, &others)?;
        load.await_more(200)?;
        cut(network, "del", which, follower, &others)?;
        load.await_more(50)?;
        cluster.leader(&[0, 1, 2])?;
    }

    let told = load.stop()?;
    settle(cluster, &[0, 1, 2], &told)?;
    let is_same_term = crate::term(cluster, cluster.leader(&[0, 1, 2])?)? == term;
    if is_same_term {
        none_unclear(&told, "for a follower behind a cut")?;
    }
    Ok(is_same_term)
}
