//! What clients ask of servers, and servers of each other.

use bytes::Bytes;
use lictor_proto::{Command, SessionId};
use lictor_raft::{LogPosition, PeerMessage};
use lictor_state::Outcome;

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Stale,
    Default,
    Consistent,
}

/// What a read asks for.
#[derive(Debug, Clone)]
pub(crate) enum Query {
    Key(Bytes),
    Below(Bytes),
}

/// What a query found: keys and their ModifyIndex.
pub(crate) type Version = Vec<(Bytes, u64)>;

/// What a client asks for.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    Read(Query, Mode),
    /// To be answered when it finds something else than this, or after a while.
    Watch(Query, Version),
    Write(Box<Command>),
    Renew(SessionId),
}

/// A row as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) modify_index: u64,
}

/// What a client is told.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Rows(Vec<Row>),
    /// The rows a query waited for, and what they are in short.
    Changed(Vec<Row>, Version),
    Done(Box<Outcome>),
    Renewed(bool),
    /// Nothing was done, and nothing will be.
    Refused,
    /// It may have been done, or may be yet.
    Unknown,
}

/// Who waits for a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    Client { client: usize, call: u64 },
    Server { server: u64, life: u64, call: u64 },
    Nobody,
}

/// What travels between servers.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Raft(PeerMessage),
    Call {
        life: u64,
        call: u64,
        request: Request,
    },
    /// `applied`: what the caller must have applied before it passes the reply on.
    Answer {
        life: u64,
        call: u64,
        reply: Reply,
        applied: LogPosition,
    },
    /// Asks for a snapshot's rows.
    Fetch {
        life: u64,
        pin: u64,
    },
    /// The rows; `None` if the view is gone.
    Rows {
        life: u64,
        pin: u64,
        rows: Option<Bytes>,
    },
    /// Who waits in queues at a server, and how many came to those that all have left.
    Report {
        waiting: Vec<u64>,
        left: Vec<(u64, u64)>,
    },
    /// All rows are in place.
    Fetched {
        pin: u64,
    },
}
