//! Messages between members.

use lictor_proto::RaftId;

/// A message between members. Its bytes are raft-rs' own encoding and mean nothing outside this crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerMessage {
    /// Who sends it.
    pub from: RaftId,
    /// Who shall get it.
    pub to: RaftId,
    /// Whether it keeps elections away (heartbeats, votes) and so must never wait behind others.
    pub urgent: bool,
    /// The message.
    pub bytes: Vec<u8>,
}
