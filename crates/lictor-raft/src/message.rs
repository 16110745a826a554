//! Messages between members: encoding, and what may come in.

use lictor_proto::RaftId;
use prost_011::Message as _;
use raft::eraftpb::{Message, MessageType};

use crate::member::is_sound;

/// A message between members. Its bytes are raft-rs' own encoding and mean nothing outside this crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerMessage {
    /// Who sends it.
    pub from: RaftId,
    /// Who shall get it.
    pub to: RaftId,
    /// Whether it is short and keeps elections away (heartbeats, votes), so must never wait behind others.
    pub urgent: bool,
    /// The message.
    pub bytes: Vec<u8>,
}

impl PeerMessage {
    pub(crate) fn from_raft(message: &Message) -> Self {
        let urgent = matches!(
            message.get_msg_type(),
            MessageType::MsgHeartbeat
                | MessageType::MsgHeartbeatResponse
                | MessageType::MsgRequestVote
                | MessageType::MsgRequestVoteResponse
                | MessageType::MsgRequestPreVote
                | MessageType::MsgRequestPreVoteResponse
                | MessageType::MsgTimeoutNow
        );
        Self {
            from: RaftId(message.from),
            to: RaftId(message.to),
            urgent,
            bytes: message.encode_to_vec(),
        }
    }
}

/// Decodes what a peer sent, and lets nothing through that raft-rs would panic over or that must not come from
/// outside. Answers why not.
pub(crate) fn decode(message: &PeerMessage, me: RaftId, last_index: u64) -> Result<Message, &'static str> {
    let decoded = Message::decode(message.bytes.as_slice()).map_err(|_| "not a message")?;
    if decoded.from != message.from.0 || decoded.from == 0 || decoded.from == me.0 {
        return Err("wrong sender");
    }
    if decoded.to != me.0 {
        return Err("wrong receiver");
    }
    if MessageType::from_i32(decoded.msg_type).is_none() {
        return Err("unknown type");
    }
    match decoded.get_msg_type() {
        // Proposals are forwarded above raft, where their outcome can be answered.
        MessageType::MsgPropose => Err("a proposal"),
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum => Err("a local message"),
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp if decoded.entries.len() != 1 => {
            Err("a read round without context")
        }
        MessageType::MsgReadIndex | MessageType::MsgTransferLeader => Ok(decoded),
        _ if decoded.term == 0 => Err("no term"),
        MessageType::MsgSnapshot if !is_snapshot(&decoded) => Err("a snapshot without position or members"),
        MessageType::MsgAppend if !is_contiguous(&decoded) => Err("entries out of order"),
        // A leader tells what this member has acknowledged: its log has lost entries, or the leader is wrong.
        MessageType::MsgHeartbeat if decoded.commit > last_index => Err("a commit index past the log"),
        _ => Ok(decoded),
    }
}

fn is_snapshot(message: &Message) -> bool {
    let metadata = message.get_snapshot().get_metadata();
    metadata.index > 0 && (1..=message.term).contains(&metadata.term) && is_sound(metadata.get_conf_state())
}

fn is_contiguous(message: &Message) -> bool {
    let mut index = message.index;
    let mut term = message.log_term;
    message.entries.iter().all(|entry| {
        let follows = index.checked_add(1) == Some(entry.index) && term <= entry.term;
        (index, term) = (entry.index, entry.term);
        follows && entry.term <= message.term
    })
}

#[cfg(test)]
mod tests {
    use raft::eraftpb::Entry;

    use super::*;

    fn message(kind: MessageType) -> Message {
        let mut message = Message {
            from: 1,
            to: 2,
            term: 3,
            ..Message::default()
        };
        message.set_msg_type(kind);
        message
    }

    fn outcome(message: &Message) -> Result<(), &'static str> {
        decode(&PeerMessage::from_raft(message), RaftId(2), 10).map(|_| ())
    }

    #[test]
    fn what_raft_rs_would_panic_over_is_refused() {
        let mut gap = message(MessageType::MsgAppend);
        gap.index = 4;
        gap.entries = vec![Entry {
            index: 6,
            term: 3,
            ..Entry::default()
        }];
        let mut future = message(MessageType::MsgHeartbeat);
        future.commit = 11;

        assert_eq!(outcome(&gap), Err("entries out of order"));
        assert_eq!(outcome(&future), Err("a commit index past the log"));
        assert_eq!(
            outcome(&message(MessageType::MsgReadIndex)),
            Err("a read round without context")
        );
        assert_eq!(outcome(&message(MessageType::MsgPropose)), Err("a proposal"));
        assert_eq!(outcome(&message(MessageType::MsgHup)), Err("a local message"));
        let bytes = PeerMessage {
            from: RaftId(1),
            to: RaftId(2),
            urgent: false,
            bytes: vec![0xff; 9],
        };
        assert_eq!(decode(&bytes, RaftId(2), 10).map(|_| ()), Err("not a message"));
    }

    #[test]
    fn a_message_for_another_member_is_refused() {
        let mut other = message(MessageType::MsgHeartbeat);
        other.to = 5;

        assert_eq!(outcome(&other), Err("wrong receiver"));
    }

    #[test]
    fn a_snapshot_that_raft_rs_could_not_restore_is_refused() {
        let snapshot = |voters: &[u64], learners: &[u64], index| {
            let mut snapshot = message(MessageType::MsgSnapshot);
            let metadata = snapshot.mut_snapshot().mut_metadata();
            (metadata.index, metadata.term) = (index, 3);
            let conf = metadata.mut_conf_state();
            (conf.voters, conf.learners) = (voters.into(), learners.into());
            snapshot
        };
        let refused = Err("a snapshot without position or members");

        assert_eq!(outcome(&snapshot(&[1, 2], &[3], 7)), Ok(()));
        assert_eq!(outcome(&snapshot(&[1, 2], &[3], 0)), refused);
        assert_eq!(outcome(&snapshot(&[], &[2], 7)), refused);
        assert_eq!(outcome(&snapshot(&[1, 2], &[2], 7)), refused);
        assert_eq!(outcome(&snapshot(&[1, 1], &[], 7)), refused);
        assert_eq!(outcome(&message(MessageType::MsgSnapshot)), refused);
    }

    #[test]
    fn an_ordinary_append_passes() {
        let mut append = message(MessageType::MsgAppend);
        append.index = 4;
        append.entries = (5..8)
            .map(|index| Entry {
                index,
                term: 3,
                ..Entry::default()
            })
            .collect();

        assert_eq!(outcome(&append), Ok(()));
    }
}
