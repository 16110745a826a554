//! Servers that are taken in because somebody else asks for it, and how all learn where their HTTP service is.
//!
//! ```text
//! enlist(name, address) at the leader ──who is there?──> a server, at that address and of that name
//!     it becomes a learner, or a member that has moved
//!     ──hello──> it belongs to no cluster: it now knows the leader, and joins it (form.rs)
//!                it was a member once: it now knows whom to answer
//!     it is heard of, and caught up: the keeper lets it vote
//!     it is not: it is no member any more
//! ```
//! Until it votes a newcomer has no part in any decision, so one that dies on the way costs nothing.

use std::time::{Duration, Instant};

use lictor_peer::{CallError, NotSent};
use lictor_proto::v1::{Hello, HelloReply, Join, JoinReply, ServerRow};
use lictor_proto::{HostPort, RaftId};
use lictor_raft::MemberChange;
use prost::Message as _;

use super::form::ask;
use super::keeper::{self, NotTakenIn};
use super::{address, kind};
use crate::{Node, ProposeError};

/// How long a server is waited for that has made room for the newcomer, or another change of the members.
const MAKE_ROOM: Duration = Duration::from_secs(3);
/// How long a learner may be silent before it is given up.
const REACH: Duration = Duration::from_secs(5);
/// How long it may take to catch up. It is not given up then: it votes later.
const CATCH_UP: Duration = Duration::from_secs(60);
/// The pause before a server is greeted again that has not been heard of.
const GREET_AGAIN: Duration = Duration::from_secs(1);
/// The pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The pause before a leader is told again where this server's HTTP service is.
const TELL_AGAIN: Duration = Duration::from_secs(1);

/// A server that is to become a member.
#[derive(Debug, Clone)]
pub struct Newcomer {
    /// The name of its node.
    pub name: String,
    /// Where other servers reach it.
    pub address: HostPort,
    /// Where clients reach its HTTP service, if that is not to be what it says itself.
    pub http_address: Option<HostPort>,
}

/// Why a server was not taken in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnlistError {
    /// This server does not lead, or leads no more.
    #[error("this server does not lead")]
    NotLeader,
    /// The members are as before.
    #[error("no server can be reached at that address: {0}")]
    Unreachable(String),
    /// The members are as before.
    #[error("{0}")]
    Refused(String),
    /// It is a member that does not vote yet, and will once it has caught up.
    #[error("it has not caught up within {} s, and will vote once it has", CATCH_UP.as_secs())]
    Lags,
    /// The members could not be changed.
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

impl From<NotTakenIn> for EnlistError {
    fn from(error: NotTakenIn) -> Self {
        match error {
            NotTakenIn::Refused(text) => Self::Refused(text),
            NotTakenIn::Later(ProposeError::NoLeader) => Self::NotLeader,
            NotTakenIn::Later(error) => Self::Propose(error),
        }
    }
}

impl Node {
    /// Takes a server in, if this one leads, and waits until it votes. Nothing to do for one that does. A member of this
    /// name that has moved is known by its new address then.
    ///
    /// # Errors
    /// See [`EnlistError`].
    pub async fn enlist(&self, newcomer: &Newcomer) -> Result<(), EnlistError> {
        if !self.shared().progress.is_serving() {
            return Err(EnlistError::NotLeader);
        }
        let mut server = match self.who_is_at(newcomer).await {
            Ok(server) => server,
            Err(_) if self.is_voter_at(newcomer) => return Ok(()),
            Err(error) => return Err(error),
        };
        if let Some(http) = &newcomer.http_address {
            server.http_address = http.to_string();
            server.http_address_given = true;
        }
        let id = RaftId(server.raft_id);
        let is_new = !self.roster().members().names(id);
        self.make_room_for(&server).await?;
        let voted = self.until_it_votes(id, newcomer).await;
        if let (true, Err(EnlistError::Unreachable(_))) = (is_new, &voted) {
            let removed = self.change_members(vec![MemberChange::Remove(id)], Vec::new());
            if let Err(error) = removed.await {
                tracing::warn!(server = server.name, %error, "a learner that cannot be reached was not removed");
            }
        }
        voted
    }

    /// Whether it votes and was last known to be where the newcomer is said to be.
    fn is_voter_at(&self, newcomer: &Newcomer) -> bool {
        let roster = self.roster();
        let listed = roster.named(&newcomer.name);
        listed.is_some_and(|server| {
            let id = RaftId(server.raft_id);
            address(server) == newcomer.address.to_string()
                && roster.members().voters().any(|voter| voter == id)
        })
    }

    /// Asks who is at an address, and checks that it is who it is said to be.
    async fn who_is_at(&self, newcomer: &Newcomer) -> Result<ServerRow, EnlistError> {
        let refused = |text: String| Err(EnlistError::Refused(text));
        let Some(peers) = self.peers() else {
            return refused("this server has no port for other servers".to_owned());
        };
        // Without a name of ours: it is not to join before all is checked.
        let question = Hello {
            server: None,
            expect: 0,
        };
        let asked = newcomer.address.to_string();
        let answer: Result<HelloReply, _> = ask(peers, &asked, kind::HELLO, &question).await;
        let reply = match answer {
            Ok(reply) => reply,
            Err(CallError::NotSent(NotSent::Itself)) if newcomer.name == self.identity().node => {
                return Ok(self.identity().server(self.raft_id()));
            }
            Err(CallError::NotSent(NotSent::Itself)) => {
                return refused(format!("{asked} is the address of {}", self.identity().node));
            }
            Err(error) => return Err(EnlistError::Unreachable(error.to_string())),
        };
        let server = reply.server.unwrap_or_default();
        if server.name != newcomer.name {
            return refused(format!("the server at {asked} calls itself {:?}", server.name));
        }
        if reply.vow.is_some_and(|vow| !vow.formed) {
            return refused(format!("{} is about to form a cluster of its own", server.name));
        }
        let roster = self.roster();
        let mut others = roster.servers().filter(|other| other.name != server.name);
        match others.find(|other| address(other) == address(&server)) {
            Some(other) => refused(format!("{} is the address of {}", address(&server), other.name)),
            None => Ok(server),
        }
    }

    /// Makes it a member. A predecessor of its name is taken for alive until it has been silent for a moment.
    async fn make_room_for(&self, server: &ServerRow) -> Result<(), EnlistError> {
        let begun = Instant::now();
        loop {
            match keeper::take_in_here(self, server.clone()).await {
                Ok(()) => return Ok(()),
                Err(NotTakenIn::Refused(_) | NotTakenIn::Later(ProposeError::ChangePending))
                    if begun.elapsed() < MAKE_ROOM => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits for a member; greets it until it has been heard of.
    async fn until_it_votes(&self, id: RaftId, newcomer: &Newcomer) -> Result<(), EnlistError> {
        let begun = Instant::now();
        let mut greeted: Option<Instant> = None;
        loop {
            let roster = self.roster();
            if !self.shared().progress.is_serving() {
                return Err(EnlistError::NotLeader);
            }
            if roster.members().voters().any(|voter| voter == id) {
                return Ok(());
            }
            if !roster.members().names(id) {
                return Err(EnlistError::Refused("it was removed meanwhile".to_owned()));
            }
            if begun.elapsed() > CATCH_UP {
                return Err(EnlistError::Lags);
            }
            if !self.is_heard_of(id).await {
                if begun.elapsed() > REACH {
                    return Err(EnlistError::Unreachable("it is silent".to_owned()));
                }
                if greeted.is_none_or(|at| at.elapsed() >= GREET_AGAIN) {
                    greeted = Some(Instant::now());
                    self.greet(&newcomer.address.to_string()).await;
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn is_heard_of(&self, id: RaftId) -> bool {
        let Some(survey) = self.survey().await else {
            return false;
        };
        let peer = survey.peers.iter().find(|peer| peer.id == id);
        peer.and_then(|peer| keeper::silence(peer, &survey))
            .is_some_and(|silence| silence < REACH)
    }

    /// Says hello, so that the server there knows this one.
    async fn greet(&self, to: &str) {
        let Some(peers) = self.peers() else { return };
        let hello = Hello {
            server: Some(self.identity().server(self.raft_id())),
            expect: 0,
        };
        let answer: Result<HelloReply, _> = ask(peers, to, kind::HELLO, &hello).await;
        if let Err(error) = answer {
            tracing::debug!(to, %error, "a server was not greeted");
        }
    }

    /// Sees to it that all members know where this server's HTTP service is. Ends when they do.
    pub async fn make_http_address_known(&self) {
        let me = self.identity().server(self.raft_id());
        while !self.shared().progress.is_stopping() {
            let (roster, leader) = (self.roster(), self.leader());
            match roster.get(self.raft_id()) {
                Some(listed) if keeper::renewed(listed, &me).is_none() => return,
                // A leader's own keeper sees to it.
                Some(_) if leader != Some(self.raft_id()) => self.tell_leader(leader, me.clone()).await,
                // One that is no member must not become one by this.
                _ => {}
            }
            // Cut short by a change of the leader; that none came is looked at again.
            let _ = tokio::time::timeout(TELL_AGAIN, self.leader_changed(leader)).await;
        }
    }

    /// Tells a leader where this member is.
    async fn tell_leader(&self, leader: Option<RaftId>, me: ServerRow) {
        let (Some(leader), Some(peers)) = (leader, self.peers()) else {
            return;
        };
        let body = Join { server: Some(me) }.encode_to_vec();
        let deadline = Instant::now() + TELL_AGAIN;
        let answer = peers.call(leader, kind::JOIN, body.into(), deadline).await;
        let reply = answer.ok().and_then(|answer| JoinReply::decode(answer).ok());
        if let Some(reply) = reply.filter(|reply| !reply.text.is_empty()) {
            tracing::debug!(reply.text, "the leader does not take over where this server is");
        }
    }
}
