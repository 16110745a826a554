//! The servers of other datacenters: that they are there, and whether they live. Nothing else is shared with them.
//!
//! Servers that were joined tell each other whom they know ([`kind::WAN`]), and go on to ask each of those every few
//! seconds. Who they are is kept in memory alone: a server that starts anew hears of the others from those who still ask
//! it.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use lictor_peer::{Peers, Remote};
use lictor_proto::v1::{ServerRow, WanHello, WanServer};
use parking_lot::Mutex;
use prost::Message as _;

use super::{address, kind};
use crate::Node;
use crate::node::Shared;

/// How often each known server is asked.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How long it may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// A server that was silent for so long has failed.
const DEAD_AFTER: Duration = Duration::from_secs(15);
/// A server that was silent for so long is forgotten (Consul: `reconnect_timeout_wan`).
const FORGOTTEN_AFTER: Duration = Duration::from_secs(72 * 60 * 60);
/// Servers of other datacenters that are known; further ones are not taken in.
const SERVERS_MAX: usize = 256;

/// Longest name, address, id and datacenter.
const TEXT_MAX_BYTES: usize = 512;

/// The servers of other datacenters, by datacenter and name.
#[derive(Debug, Default)]
pub(crate) struct Wan(Mutex<BTreeMap<(String, String), Known>>);

#[derive(Debug)]
struct Known {
    server: ServerRow,
    heard: Instant,
}

/// A server of another datacenter.
#[derive(Debug, Clone, PartialEq)]
pub struct Foreigner {
    /// Its datacenter.
    pub datacenter: String,
    /// Who and where it is.
    pub server: ServerRow,
    /// Whether it was heard of lately.
    pub is_alive: bool,
}

impl Wan {
    /// Takes in what a server said: of itself for sure, of others by hearsay, which makes them known and no more.
    fn note(&self, own: &str, from: &Remote, hello: WanHello) {
        let mut known = self.0.lock();
        for WanServer { server, datacenter } in hello.servers {
            let fits = |server: &ServerRow| {
                let texts = [&datacenter, &server.name, &server.address, &server.node_id];
                texts.iter().all(|text| text.len() <= TEXT_MAX_BYTES)
            };
            let Some(server) = server.filter(|server| datacenter != own && fits(server)) else {
                continue;
            };
            let is_itself = server.raft_id == from.identity.raft_id.0;
            let key = (datacenter, server.name.clone());
            if !known.contains_key(&key) && known.len() >= SERVERS_MAX {
                continue;
            }
            let now = Instant::now();
            let known = known.entry(key).or_insert_with(|| Known {
                server: server.clone(),
                heard: now,
            });
            if is_itself {
                *known = Known { server, heard: now };
            }
        }
    }

    fn list(&self) -> Vec<Foreigner> {
        let mut known = self.0.lock();
        known.retain(|_, known| known.heard.elapsed() < FORGOTTEN_AFTER);
        let foreigner = |((datacenter, _), known): (&(String, String), &Known)| Foreigner {
            datacenter: datacenter.clone(),
            server: known.server.clone(),
            is_alive: known.heard.elapsed() < DEAD_AFTER,
        };
        known.iter().map(foreigner).collect()
    }
}

impl Node {
    /// The servers of other datacenters that are known, failed ones included.
    pub fn foreigners(&self) -> Vec<Foreigner> {
        self.shared().wan.list()
    }

    /// Makes this server and those of the datacenter of the one at `contact` (`host:port`) known to each other. They are
    /// listed as members and watched; nothing else is shared.
    ///
    /// # Errors
    /// Nobody is there, or it is of another cluster of the same datacenter.
    pub async fn join_abroad(&self, contact: &str) -> Result<(), String> {
        let Some(peers) = self.peers() else {
            return Err("this agent cannot reach other servers".to_owned());
        };
        let remote = self.ask_abroad(peers, contact).await?;
        if remote.identity.datacenter == self.identity().datacenter && remote.cluster != peers.cluster() {
            return Err(format!(
                "{} is of another cluster, but of the same datacenter",
                remote.identity.name
            ));
        }
        self.ask_all(peers).await;
        Ok(())
    }

    /// Tells a server whom this one knows, and learns whom it knows.
    async fn ask_abroad(&self, peers: &Peers, contact: &str) -> Result<Remote, String> {
        let deadline = Instant::now() + ASK_TIMEOUT;
        let body = self.wan_hello();
        let asked = peers.call_abroad(contact, kind::WAN, body, deadline).await;
        let (remote, answer) = asked.map_err(|error| error.to_string())?;
        let hello = WanHello::decode(answer).map_err(|error| error.to_string())?;
        self.shared()
            .wan
            .note(&self.identity().datacenter, &remote, hello);
        Ok(remote)
    }

    async fn ask_all(&self, peers: &Peers) {
        let foreigners = self.foreigners();
        let asked = foreigners.iter().map(async |foreigner| {
            let contact = address(&foreigner.server);
            if let Err(why) = self.ask_abroad(peers, &contact).await
                && foreigner.is_alive
            {
                tracing::debug!(%contact, why, "a server of another datacenter did not answer");
            }
        });
        join_all(asked).await;
    }

    /// Answers [`kind::WAN`].
    pub(super) fn take_wan_hello(&self, from: &Remote, body: Bytes) -> Bytes {
        if let Ok(hello) = WanHello::decode(body) {
            self.shared().wan.note(&self.identity().datacenter, from, hello);
        }
        self.wan_hello()
    }

    fn wan_hello(&self) -> Bytes {
        let (roster, me) = (self.roster(), self.raft_id());
        let own = |server| WanServer {
            server: Some(server),
            datacenter: self.identity().datacenter.clone(),
        };
        let here = std::iter::once(self.identity().server(me));
        let fellows = roster.servers().filter(|server| server.raft_id != me.0).cloned();
        let living = self
            .foreigners()
            .into_iter()
            .filter(|foreigner| foreigner.is_alive);
        let living = living.map(|foreigner| WanServer {
            server: Some(foreigner.server),
            datacenter: foreigner.datacenter,
        });
        let servers = here.chain(fellows).map(own).chain(living).collect();
        WanHello { servers }.encode_to_vec().into()
    }
}

/// Asks all known servers of other datacenters, again and again.
pub(crate) async fn look_abroad(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        let Some(node) = shared.upgrade().map(Node::of) else {
            return;
        };
        if node.shared().progress.is_stopping() {
            return;
        }
        if let Some(peers) = node.peers() {
            node.ask_all(peers).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use lictor_peer::{Identity, Role};
    use lictor_proto::RaftId;
    use uuid::Uuid;

    use super::*;

    fn server(raft_id: u64, port: u32) -> ServerRow {
        ServerRow {
            raft_id,
            name: format!("s{raft_id}"),
            port,
            ..ServerRow::default()
        }
    }

    fn remote(raft_id: u64, datacenter: &str) -> Remote {
        Remote {
            identity: Identity {
                node_id: Uuid::nil(),
                raft_id: RaftId(raft_id),
                name: format!("s{raft_id}"),
                address: String::new(),
                datacenter: datacenter.to_owned(),
                version: String::new(),
            },
            cluster: None,
            role: Role::Server,
            socket: ([127, 0, 0, 1], 1).into(),
        }
    }

    fn hello(servers: impl IntoIterator<Item = (ServerRow, &'static str)>) -> WanHello {
        let servers = servers.into_iter().map(|(server, datacenter)| WanServer {
            server: Some(server),
            datacenter: datacenter.to_owned(),
        });
        WanHello {
            servers: servers.collect(),
        }
    }

    #[test]
    fn servers_of_other_datacenters_become_known_and_tell_where_they_are() {
        let wan = Wan::default();
        let said = hello([
            (server(2, 20), "dc2"),
            (server(3, 30), "dc3"),
            (server(1, 10), "dc1"),
        ]);
        wan.note("dc1", &remote(2, "dc2"), said);
        // Moved, as it says itself; of another it says what is not so any more.
        wan.note(
            "dc1",
            &remote(2, "dc2"),
            hello([(server(2, 21), "dc2"), (server(3, 31), "dc3")]),
        );

        let known = wan.list();

        let seen: Vec<_> = known
            .iter()
            .map(|known| (known.datacenter.as_str(), known.server.port, known.is_alive))
            .collect();
        assert_eq!(seen, [("dc2", 21, true), ("dc3", 30, true)]);
    }

    #[test]
    fn what_is_known_has_a_bound() {
        let wan = Wan::default();

        let long = ServerRow {
            name: "x".repeat(TEXT_MAX_BYTES + 1),
            ..server(1, 1)
        };
        wan.note("dc1", &remote(2, "dc2"), hello([(long, "dc2")]));
        assert_eq!(wan.list(), []);
        let many = (2..).take(2 * SERVERS_MAX).map(|id| (server(id, 1), "dc2"));
        wan.note("dc1", &remote(2, "dc2"), hello(many));

        assert_eq!(wan.list().len(), SERVERS_MAX);
    }
}
