//! How long sessions, lock-delays and the leases of fair locks still last. The leader alone knows: what began when, and
//! who was renewed, is in its memory and in no log.

use std::time::Instant;

use bytes::Bytes;
use lictor_proto::v1::times_reply::Result as Told;
use lictor_proto::v1::{TimeLeft, TimesLeft, TimesOf, TimesReply};
use lictor_proto::{RaftId, SessionId};
use prost::Message as _;

use super::kind;
use crate::{Consistency, Node, ProposeError};

/// The most that one question may name, all together: the leader's timers are locked while they are looked up.
pub const TIMES_MAX: usize = 256;

impl Node {
    /// How long the named still last, whoever leads; of more than [`TIMES_MAX`] the rest is not told. `None` if the leader
    /// is of a release that does not tell.
    ///
    /// # Errors
    /// [`ProposeError::NoLeader`] when no leader can say it; [`ProposeError::Stopping`].
    pub async fn times_left(&self, of: TimesOf) -> Result<Option<TimesLeft>, ProposeError> {
        let mut seeking = self.seek_leader();
        loop {
            let reply = match seeking.next().await? {
                None => Some(self.times_here(&of).await),
                Some(leader) => self.ask_for_times(leader, &of, seeking.deadline).await,
            };
            match reply.map(|reply| reply.result) {
                Some(Some(Told::Left(left))) => return Ok(Some(left)),
                Some(None) => return Ok(None),
                Some(Some(Told::NotLeader(_))) | None => {}
            }
        }
    }

    /// Asks another server; `None` if it did not answer.
    async fn ask_for_times(&self, leader: RaftId, of: &TimesOf, deadline: Instant) -> Option<TimesReply> {
        let peers = self.peers()?;
        let call = peers.call(leader, kind::TIMES, of.encode_to_vec().into(), deadline);
        let answer = tokio::select! {
            biased;
            answer = call => answer.ok(),
            () = self.replaced(leader) => None,
        };
        TimesReply::decode(answer?).ok()
    }

    /// Answers [`Self::ask_for_times`] of another server.
    pub(super) async fn take_times_of(&self, body: Bytes) -> Bytes {
        match TimesOf::decode(body) {
            Ok(of) => self.times_here(&of).await.encode_to_vec().into(),
            Err(_) => Bytes::new(),
        }
    }

    /// As this server knows it, if it leads and nobody else can (rule R16).
    async fn times_here(&self, of: &TimesOf) -> TimesReply {
        let leads = self.shared().progress.is_serving() && self.read(Consistency::Default).await.is_ok();
        let left = leads.then(|| self.look_at_times(of)).flatten();
        TimesReply {
            result: Some(left.map_or(Told::NotLeader(true), Told::Left)),
        }
    }

    fn look_at_times(&self, of: &TimesOf) -> Option<TimesLeft> {
        let view = self.view();
        let mut room = TIMES_MAX;
        let mut within = |list: &[Bytes]| {
            let taken = list.len().min(room);
            room -= taken;
            taken
        };
        let sessions = &of.sessions[..within(&of.sessions)];
        let keys = &of.lock_delays[..within(&of.lock_delays)];
        let names = &of.fair_locks[..within(&of.fair_locks)];
        let holders = names
            .iter()
            .map(|name| view.queue_holder(name).map(|entry| entry.index));
        let holders: Vec<_> = holders.collect();
        self.shared().timers.times_left(|times| {
            let session = |id: &Bytes| TimeLeft {
                ms: SessionId::from_slice(id).and_then(|id| times.session_ms(id)),
            };
            let lock_delay = |key: &Bytes| TimeLeft {
                ms: times.lock_delay_ms(key),
            };
            let fair_lock = |index: &Option<u64>| TimeLeft {
                ms: index.and_then(|index| times.fair_lock_ms(index)),
            };
            TimesLeft {
                sessions: sessions.iter().map(session).collect(),
                lock_delays: keys.iter().map(lock_delay).collect(),
                fair_locks: holders.iter().map(fair_lock).collect(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;

    fn node() -> Node {
        Node::in_memory(Identity::of_a_test()).unwrap()
    }

    #[tokio::test]
    async fn no_question_holds_the_timers_up_for_long() {
        let node = node();
        node.read(Consistency::Default).await.unwrap();
        let most = TimesOf {
            sessions: vec![vec![7; 16].into(); TIMES_MAX - 1],
            lock_delays: vec!["k".into(); 2],
            fair_locks: vec!["f".into()],
        };

        let body = node.take_times_of(most.encode_to_vec().into()).await;

        let Some(Told::Left(left)) = TimesReply::decode(body).unwrap().result else {
            panic!("it leads");
        };
        let told = [left.sessions, left.lock_delays, left.fair_locks].map(|list| list.len());
        assert_eq!(told, [TIMES_MAX - 1, 1, 0]);
        tokio::task::spawn_blocking(move || node.stop()).await.unwrap();
    }

    /// Releases without the call answer it with an empty body, as all that they do not know.
    #[test]
    fn a_leader_that_does_not_know_the_call_is_told_from_one_that_does_not_lead() {
        let not_leader = TimesReply {
            result: Some(Told::NotLeader(true)),
        };

        let unknown = TimesReply::decode(Bytes::new()).unwrap();
        let known = TimesReply::decode(Bytes::from(not_leader.encode_to_vec())).unwrap();

        assert_eq!(unknown.result, None);
        assert_eq!(known, not_leader);
    }
}
