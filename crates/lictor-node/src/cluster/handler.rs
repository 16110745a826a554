//! What other servers ask of this one.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use lictor_peer::{BulkStream, Handler, Remote, Role};
use lictor_proto::RaftId;
use lictor_proto::v1::Hello;
use lictor_raft::PeerMessage;
use prost::Message as _;

use super::{Forming, archives, compare, form, keeper, kind, snapshots, waits};
use crate::Node;
use crate::node::Shared;
use crate::pending::Telling;
use crate::pipeline::Event;

/// Raft messages that may wait for the raft thread; more are dropped, and raft sends them again.
pub(crate) const INBOX_MAX: usize = 16 * 1024;

/// The node as the transport sees it. The node holds the transport, so this holds the node only weakly.
#[derive(Debug)]
pub struct PeerHandler {
    pub(crate) shared: Weak<Shared>,
    pub(crate) forming: Arc<Forming>,
}

impl PeerHandler {
    fn tell(&self, event: Event) {
        if let Some(shared) = self.shared.upgrade()
            && shared.raft.push_if_below(INBOX_MAX, event).is_err()
        {
            // A full or closed mailbox loses a message, which raft expects of networks.
            shared.metrics.inbox_refused.one();
        }
    }
}

/// A member that was away may be greeted by a leader that it does not know.
fn note_leader(node: &Node, hello: &Bytes) {
    let (shared, roster) = (node.shared(), node.roster());
    let has_members = roster.members().voters().next().is_some();
    if let (true, Some(net)) = (has_members, shared.net.get())
        && let Ok(Hello {
            server: Some(server), ..
        }) = Hello::decode(hello.clone())
        && server.raft_id != shared.me.0
    {
        net.note_stranger(&roster, &server);
    }
}

impl Handler for PeerHandler {
    fn admit(&self, remote: &Remote) -> Result<(), String> {
        let Some(shared) = self.shared.upgrade() else {
            return Err("the server is stopping".to_owned());
        };
        let identity = &remote.identity;
        if identity.raft_id == shared.me || identity.name == shared.identity.node {
            return Err(format!("the node name {} is this server's own", identity.name));
        }
        if let Some(net) = shared.net.get() {
            net.note_address(&shared.roster.load(), identity.raft_id, &identity.address);
        }
        Ok(())
    }

    fn raft(&self, from: RaftId, message: Bytes) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        shared.metrics.messages_received.one();
        self.tell(Event::Peer(PeerMessage {
            from,
            to: shared.me,
            urgent: false,
            bytes: message.into(),
        }));
    }

    fn call(&self, from: &Arc<Remote>, kind: u16, body: Bytes) -> BoxFuture<'static, Bytes> {
        let Some(node) = self.shared.upgrade().map(Node::of) else {
            return Box::pin(std::future::ready(Bytes::new()));
        };
        if from.role == Role::Agent && !kind::OF_AGENTS.contains(&kind) {
            return Box::pin(std::future::ready(Bytes::new()));
        }
        if kind == kind::WAN {
            return Box::pin(std::future::ready(node.take_wan_hello(from, body)));
        }
        if from.identity.datacenter != node.identity().datacenter {
            return Box::pin(std::future::ready(Bytes::new()));
        }
        match kind {
            kind::PROPOSE => Box::pin(async move { node.take_forwarded(body, Telling::Whether).await }),
            kind::PROPOSE_EXPLAINED => Box::pin(async move { node.take_forwarded(body, Telling::Why).await }),
            kind::RENEW => Box::pin(async move { node.take_forwarded_renewal(&body).await }),
            kind::TIMES => Box::pin(async move { node.take_times_of(body).await }),
            kind::HELLO | kind::PROMISE => {
                if kind == kind::HELLO {
                    note_leader(&node, &body);
                }
                Box::pin(std::future::ready(form::answer(&self.forming, kind, body)))
            }
            kind::JOIN => {
                let forming = Arc::clone(&self.forming);
                Box::pin(async move { keeper::join(&node, &forming, body).await })
            }
            kind::OPERATE => Box::pin(async move { node.take_order(body).await }),
            kind::KEYRING => Box::pin(async move { node.take_keyring_order(body).await }),
            kind::ATTEND => {
                let forming = Arc::clone(&self.forming);
                Box::pin(async move { node.take_attendance(&forming, body).await })
            }
            kind::PROPOSE_FOR => Box::pin(async move { node.take_for_agent(body).await }),
            kind::HEARD => Box::pin(std::future::ready(node.take_sign_of_life(&body))),
            kind::DEPART => Box::pin(async move { node.take_departure(body).await }),
            kind::LEFT => {
                node.take_left(body);
                Box::pin(std::future::ready(Bytes::new()))
            }
            kind::QUEUE_REPORT => {
                let reply = waits::take(node.shared(), from.identity.raft_id, body);
                Box::pin(std::future::ready(reply))
            }
            kind::LEAVE => Box::pin(async move { keeper::leave(&node, body).await }),
            kind::DIGEST => Box::pin(async move { node.take_digest_of(body).await }),
            kind::REBUILD => Box::pin(std::future::ready(node.take_rebuild(body))),
            kind::BROADCAST => {
                node.shared().agents.note_event(body.clone());
                // Nobody may listen.
                let _ = node.shared().heard.send(body);
                Box::pin(std::future::ready(Bytes::new()))
            }
            _ => Box::pin(std::future::ready(Bytes::new())),
        }
    }

    fn bulk(&self, from: &Arc<Remote>, kind: u16, head: Bytes, stream: BulkStream) -> BoxFuture<'static, ()> {
        if from.role == Role::Agent && !kind::OF_AGENTS.contains(&kind) {
            return Box::pin(std::future::ready(()));
        }
        match self.shared.upgrade() {
            Some(shared) if kind == kind::SNAPSHOT => {
                Box::pin(snapshots::send(shared, from.identity.raft_id, head, stream))
            }
            Some(shared) if kind == kind::STATE => {
                Box::pin(compare::send(shared, from.identity.raft_id, head, stream))
            }
            Some(shared)
                if matches!(
                    kind,
                    kind::ARCHIVE_STAGE | kind::ARCHIVE_RESTORE | kind::ARCHIVE_FETCH
                ) =>
            {
                Box::pin(archives::answer(Node::of(shared), kind, head, stream))
            }
            Some(shared) if kind == kind::TUNNEL => {
                let agent = from.identity.name.clone();
                Box::pin(async move { shared.agents.tunnel(&agent, stream.into_raw()).await })
            }
            _ => Box::pin(std::future::ready(())),
        }
    }

    fn connected(&self, _peer: RaftId) {}

    fn unreachable(&self, peer: RaftId) {
        self.tell(Event::Unreachable(peer));
    }
}
