//! The cluster keys of all servers, looked at and changed through any of them.
//!
//! Each server keeps its keys itself: they are what lets it connect, so that they can come neither through the log nor
//! lie in snapshots. Whoever is asked asks all the others, and tells who did not do it. Client agents get the keys of the
//! server that they attend.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use lictor_peer::{KEYS_MAX, Peers, SecurityError};
use lictor_proto::RaftId;
use lictor_proto::v1::keyring_order::Order;
use lictor_proto::v1::{KeyringOrder, KeyringReply, ServerRow};
use lictor_state::{State, fold_name};
use parking_lot::Mutex;
use prost::Message as _;

use super::keeper::HEALTH_CHECK;
use super::kind;
use crate::Node;

/// How long a server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(7);
/// How long a removal waits for client agents that have not got the primary key yet.
const AGENTS_PATIENCE: Duration = Duration::from_secs(4);
/// How often it looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// An agent that was silent for so long attends this server no more.
const ATTENDS_WITHIN: Duration = Duration::from_secs(5);
/// Agents that are told apart; further ones get keys all the same.
const AGENTS_MAX: usize = 16 * 1024;
/// The lengths that Consul's keys have.
const KEY_LENGTHS: [usize; 3] = [16, 24, 32];

/// Why the keys of a server were not changed, or not listed.
#[derive(Debug, thiserror::Error)]
enum KeyringError {
    #[error("Keyring is empty (encryption not enabled)")]
    NothingToList,
    #[error("No keyring to modify (encryption not enabled)")]
    NothingToModify,
    #[error("key size must be 16, 24 or 32 bytes")]
    Length,
    #[error("Requested key is not in the keyring")]
    Unknown,
    #[error("Removing the primary key is not allowed")]
    Primary,
    #[error("the keyring has {KEYS_MAX} keys; remove one first")]
    Full,
    #[error("{0} client agents have not got the primary key yet; try again")]
    AgentsBehind(usize),
    #[error("{0}")]
    Ring(#[from] SecurityError),
}

/// What one server says of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerKeys {
    /// The server's name.
    pub server: String,
    /// Its answer; none if it gave none in time.
    pub answer: Option<Result<Keys, String>>,
}

/// The keys of a server, and who else has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// The primary first.
    pub keys: Vec<Vec<u8>>,
    /// The client agents that attend the server.
    pub agents: u32,
    /// How many of these have not got its keys yet.
    pub agents_behind: u32,
}

/// What is to be done with the keys of all servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyringChange {
    /// The key is accepted from now on.
    Install(Vec<u8>),
    /// The key, which is installed, is the one that servers show.
    MakePrimary(Vec<u8>),
    /// The key, which is not the primary, is not accepted any more.
    Remove(Vec<u8>),
}

/// The keys that the client agents have which attend this server: when each told last, and the digest of its keys.
#[derive(Debug, Default)]
pub(crate) struct AgentKeys(Mutex<BTreeMap<Bytes, (Instant, Bytes)>>);

impl AgentKeys {
    pub(super) fn note(&self, agent: &str, digest: Bytes) {
        let (name, mut known) = (fold_name(agent), self.0.lock());
        if known.len() >= AGENTS_MAX {
            known.retain(|_, (heard, _)| heard.elapsed() < ATTENDS_WITHIN);
        }
        if known.len() < AGENTS_MAX || known.contains_key(&name) {
            known.insert(name, (Instant::now(), digest));
        }
    }

    /// How many there are, and how many of them have other keys than these.
    fn count(&self, digest: &[u8]) -> (usize, usize) {
        let mut known = self.0.lock();
        known.retain(|_, (heard, _)| heard.elapsed() < ATTENDS_WITHIN);
        let behind = known.values().filter(|(_, theirs)| *theirs != digest).count();
        (known.len(), behind)
    }
}

impl Node {
    /// The cluster keys of all servers that are not known to have failed, this one first.
    pub async fn cluster_keys(&self) -> Vec<ServerKeys> {
        self.order_keys(Order::List(true)).await
    }

    /// Changes the cluster keys of all servers that are not known to have failed, and says what each has then, this one
    /// first. Servers that refused or did not answer have what they had.
    pub async fn change_cluster_keys(&self, change: KeyringChange) -> Vec<ServerKeys> {
        let order = match change {
            KeyringChange::Install(key) => Order::Install(key.into()),
            KeyringChange::MakePrimary(key) => Order::MakePrimary(key.into()),
            KeyringChange::Remove(key) => Order::Remove(key.into()),
        };
        self.order_keys(order).await
    }

    async fn order_keys(&self, order: Order) -> Vec<ServerKeys> {
        let (roster, view, me) = (self.roster(), self.view(), self.raft_id());
        let others = roster.servers().filter(|server| server.raft_id != me.0);
        let others = others.filter(|server| !has_failed(&view, server));
        let asked = others.map(|server| self.order_keys_at(server, &order));
        let here = async {
            ServerKeys {
                server: self.identity().node.clone(),
                answer: Some(self.obey(order.clone()).await.map_err(|error| error.to_string())),
            }
        };
        let (here, others) = tokio::join!(here, join_all(asked));
        std::iter::once(here).chain(others).collect()
    }

    async fn order_keys_at(&self, server: &ServerRow, order: &Order) -> ServerKeys {
        let answer = async {
            let peers = self.peers()?;
            // Without keys here there are none anywhere, and nothing would hide the new one on its way.
            if peers.keys().is_none() {
                return Some(Err(none_to(order).to_string()));
            }
            let body = KeyringOrder {
                order: Some(order.clone()),
            };
            let deadline = Instant::now() + ANSWER_TIMEOUT;
            let body = body.encode_to_vec().into();
            let answer = peers.call(RaftId(server.raft_id), kind::KEYRING, body, deadline);
            let reply = KeyringReply::decode(answer.await.ok()?).ok()?;
            Some(if reply.refused.is_empty() {
                Ok(Keys {
                    keys: reply.keys.into_iter().map(Vec::from).collect(),
                    agents: reply.agents,
                    agents_behind: reply.agents_behind,
                })
            } else {
                Err(reply.refused)
            })
        };
        ServerKeys {
            server: server.name.clone(),
            answer: answer.await,
        }
    }

    /// Answers [`kind::KEYRING`].
    pub(super) async fn take_keyring_order(&self, body: Bytes) -> Bytes {
        let order = KeyringOrder::decode(body).ok().and_then(|order| order.order);
        let done = match order {
            Some(order) => self.obey(order).await.map_err(|error| error.to_string()),
            None => Err("the request cannot be read".to_owned()),
        };
        let reply = match done {
            Ok(keys) => KeyringReply {
                refused: String::new(),
                keys: keys.keys.into_iter().map(Bytes::from).collect(),
                agents: keys.agents,
                agents_behind: keys.agents_behind,
            },
            Err(refused) => KeyringReply {
                refused,
                ..KeyringReply::default()
            },
        };
        reply.encode_to_vec().into()
    }

    /// Carries out an order on this server's keys.
    async fn obey(&self, order: Order) -> Result<Keys, KeyringError> {
        let Some(peers) = self.peers().filter(|peers| peers.keys().is_some()) else {
            return Err(none_to(&order));
        };
        let agents = &self.shared().agents.keys;
        if let Order::Remove(key) = &order
            && peers
                .keys()
                .is_some_and(|keys| keys.iter().skip(1).any(|known| known == key))
        {
            let deadline = Instant::now() + AGENTS_PATIENCE;
            loop {
                let (_, behind) = agents.count(&peers.keys_digest());
                if behind == 0 {
                    break;
                }
                if Instant::now() >= deadline {
                    return Err(KeyringError::AgentsBehind(behind));
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        let what = match &order {
            Order::List(_) => None,
            Order::Install(_) => Some("installed"),
            Order::MakePrimary(_) => Some("made the primary"),
            Order::Remove(_) => Some("removed"),
        };
        self.change_keys_here(peers, order).await?;
        if let Some(what) = what {
            tracing::info!("a cluster key was {what}");
        }
        let (agents, behind) = agents.count(&peers.keys_digest());
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Ok(Keys {
            keys: peers.keys().unwrap_or_default(),
            agents: count(agents),
            agents_behind: count(behind),
        })
    }

    /// Off the runtime's threads: the keys are written to disk.
    async fn change_keys_here(&self, peers: &Peers, order: Order) -> Result<(), KeyringError> {
        let peers = peers.clone();
        let changed = tokio::task::spawn_blocking(move || peers.change_keys(|keys| apply(keys, &order)));
        changed.await.unwrap_or(Err(KeyringError::Unknown))
    }
}

fn none_to(order: &Order) -> KeyringError {
    match order {
        Order::List(_) => KeyringError::NothingToList,
        _ => KeyringError::NothingToModify,
    }
}

fn has_failed(state: &State, server: &ServerRow) -> bool {
    let check = state.check(&server.name, HEALTH_CHECK);
    check.is_some_and(|check| check.status == "critical")
}

/// Changes a list of keys, whose first is the primary.
fn apply(keys: &mut Vec<Vec<u8>>, order: &Order) -> Result<(), KeyringError> {
    let place = |key: &[u8]| keys.iter().position(|known| known == key);
    match order {
        Order::List(_) => {}
        Order::Install(key) => {
            if !KEY_LENGTHS.contains(&key.len()) {
                return Err(KeyringError::Length);
            }
            if place(key).is_none() {
                if keys.len() >= KEYS_MAX {
                    return Err(KeyringError::Full);
                }
                keys.push(key.to_vec());
            }
        }
        Order::MakePrimary(key) => {
            let at = place(key).ok_or(KeyringError::Unknown)?;
            keys[..=at].rotate_right(1);
        }
        Order::Remove(key) => match place(key) {
            Some(0) => return Err(KeyringError::Primary),
            Some(at) => {
                keys.remove(at);
            }
            None => {}
        },
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Bytes {
        vec![byte; 16].into()
    }

    #[test]
    fn a_key_is_installed_made_the_primary_and_the_old_one_removed() {
        let mut keys = vec![key(1).to_vec()];

        apply(&mut keys, &Order::Install(key(2))).unwrap();
        apply(&mut keys, &Order::Install(key(2))).unwrap();
        assert_eq!(keys, [key(1), key(2)]);
        apply(&mut keys, &Order::MakePrimary(key(2))).unwrap();
        assert_eq!(keys, [key(2), key(1)]);
        apply(&mut keys, &Order::Remove(key(1))).unwrap();
        apply(&mut keys, &Order::Remove(key(1))).unwrap();
        assert_eq!(keys, [key(2)]);
    }

    #[test]
    fn what_cannot_be_is_refused_and_changes_nothing() {
        let mut keys = vec![key(1).to_vec()];
        let orders = [
            Order::Install(vec![1; 17].into()),
            Order::Install(Bytes::new()),
            Order::MakePrimary(key(2)),
            Order::Remove(key(1)),
        ];

        let texts = orders.map(|order| apply(&mut keys, &order).unwrap_err().to_string());

        assert_eq!(
            texts,
            [
                "key size must be 16, 24 or 32 bytes",
                "key size must be 16, 24 or 32 bytes",
                "Requested key is not in the keyring",
                "Removing the primary key is not allowed",
            ]
        );
        assert_eq!(keys, [key(1)]);
    }

    #[test]
    fn a_ring_has_a_bound() {
        let mut keys = vec![key(0).to_vec()];

        let refused = (1..=u8::MAX).find(|byte| apply(&mut keys, &Order::Install(key(*byte))).is_err());

        assert_eq!(refused.map(usize::from), Some(KEYS_MAX));
    }

    #[test]
    fn agents_with_other_keys_are_behind() {
        let agents = AgentKeys::default();
        agents.note("a", Bytes::from_static(b"new"));
        agents.note("A", Bytes::from_static(b"old"));
        agents.note("b", Bytes::from_static(b"new"));

        assert_eq!(agents.count(b"new"), (2, 1));
    }
}
