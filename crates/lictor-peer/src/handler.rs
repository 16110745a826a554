//! What the owner of the transport does with what arrives.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use lictor_proto::RaftId;

use crate::bulk::BulkStream;
use crate::config::Remote;

/// Takes what other servers send. Its methods run on the tasks of the connections: none may block, and work that
/// takes more than some microseconds of CPU belongs on a task of its own.
pub trait Handler: Send + Sync + 'static {
    /// Whether to accept a server whose key, version, datacenter and cluster fit. Asked for each connection.
    ///
    /// # Errors
    /// Why not, in one line that both sides log: a name that another member has, say.
    fn admit(&self, remote: &Remote) -> Result<(), String>;

    /// A raft message. Messages of one lane arrive in order; urgent ones overtake others. When the receiver is full the
    /// message is to be dropped.
    fn raft(&self, from: RaftId, message: Bytes);

    /// A call. The future is dropped, wherever it waits, when the caller has given up or is gone.
    fn call(&self, from: &Arc<Remote>, kind: u16, body: Bytes) -> BoxFuture<'static, Bytes>;

    /// A bulk stream, opened by `from` with `head`. It ends when the future does.
    fn bulk(&self, from: &Arc<Remote>, kind: u16, head: Bytes, stream: BulkStream) -> BoxFuture<'static, ()>;

    /// A raft lane to the peer has been opened, again or for the first time.
    fn connected(&self, peer: RaftId);

    /// Raft messages that had been taken were lost with the connection. A message that is not taken is reported by
    /// [`Peers::send_raft`](crate::Peers::send_raft) alone.
    fn unreachable(&self, peer: RaftId);
}
