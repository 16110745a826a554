//! Who takes part.

use lictor_proto::RaftId;
use prost_011::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState};

/// The members as of some entry.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Membership {
    conf: ConfState,
}

/// One step of a change of the members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberChange {
    /// Becomes a voter.
    AddVoter(RaftId),
    /// Receives the log without a vote.
    AddLearner(RaftId),
    /// Leaves.
    Remove(RaftId),
}

impl Membership {
    /// The founding members of a cluster.
    pub fn of_voters(voters: impl IntoIterator<Item = RaftId>) -> Self {
        let mut voters: Vec<u64> = voters.into_iter().map(|id| id.0).collect();
        voters.sort_unstable();
        voters.dedup();
        Self {
            conf: ConfState {
                voters,
                ..ConfState::default()
            },
        }
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        ConfState::decode(bytes).ok().map(|conf| Self { conf })
    }

    /// The bytes to store.
    pub fn encode(&self) -> Vec<u8> {
        self.conf.encode_to_vec()
    }

    /// Those who vote; during a joint step those who will.
    pub fn voters(&self) -> impl Iterator<Item = RaftId> + '_ {
        self.conf.voters.iter().map(|&id| RaftId(id))
    }

    /// Those who only receive the log.
    pub fn learners(&self) -> impl Iterator<Item = RaftId> + '_ {
        self.conf.learners.iter().map(|&id| RaftId(id))
    }

    /// Whether `id` receives the log, with a vote or without.
    pub fn names(&self, id: RaftId) -> bool {
        let conf = &self.conf;
        [&conf.voters, &conf.learners, &conf.voters_outgoing]
            .iter()
            .any(|list| list.contains(&id.0))
    }

    /// Whether a joint step is under way.
    pub fn is_joint(&self) -> bool {
        !self.conf.voters_outgoing.is_empty()
    }

    /// Whether `id` is the one and only voter and nobody receives the log beside it.
    pub fn is_sole_voter(&self, id: RaftId) -> bool {
        self.conf.voters == [id.0] && !self.is_joint()
    }

    pub(crate) fn from_raft(mut conf: ConfState) -> Self {
        // raft-rs keeps them in hash sets; what is stored must be the same on all members.
        let lists = [
            &mut conf.voters,
            &mut conf.learners,
            &mut conf.voters_outgoing,
            &mut conf.learners_next,
        ];
        for list in lists {
            list.sort_unstable();
        }
        Self { conf }
    }

    pub(crate) fn to_raft(&self) -> ConfState {
        self.conf.clone()
    }
}

/// Whether raft-rs can restore it; it panics over others.
pub(crate) fn is_sound(conf: &ConfState) -> bool {
    let unique = |list: &[u64]| {
        let set: std::collections::BTreeSet<_> = list.iter().collect();
        set.len() == list.len() && !set.contains(&0)
    };
    let lists = [
        &conf.voters,
        &conf.voters_outgoing,
        &conf.learners,
        &conf.learners_next,
    ];
    let votes = |id: &u64| conf.voters.contains(id) || conf.voters_outgoing.contains(id);
    !conf.voters.is_empty()
        && lists.into_iter().all(|list| unique(list))
        && !conf.learners.iter().any(votes)
        && conf
            .learners_next
            .iter()
            .all(|id| conf.voters_outgoing.contains(id) && !conf.voters.contains(id))
        && (!conf.voters_outgoing.is_empty() || !conf.auto_leave)
}

/// Several changes make a joint step; raft-rs leaves it by itself once it is applied.
pub(crate) fn to_conf_change(changes: &[MemberChange], context: Vec<u8>) -> ConfChangeV2 {
    let changes = changes.iter().map(|change| {
        let (kind, id) = match *change {
            MemberChange::AddVoter(id) => (ConfChangeType::AddNode, id),
            MemberChange::AddLearner(id) => (ConfChangeType::AddLearnerNode, id),
            MemberChange::Remove(id) => (ConfChangeType::RemoveNode, id),
        };
        let mut single = ConfChangeSingle {
            node_id: id.0,
            ..ConfChangeSingle::default()
        };
        single.set_change_type(kind);
        single
    });
    let mut change = ConfChangeV2 {
        changes: changes.collect(),
        context,
        ..ConfChangeV2::default()
    };
    change.set_transition(ConfChangeTransition::Auto);
    change
}
