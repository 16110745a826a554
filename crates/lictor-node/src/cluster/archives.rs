//! Archives on their way between servers (rule R9).
//!
//! ```text
//! PUT /v1/snapshot ──at a follower──> RESTORE stream ──> leader: stages it ──STAGE streams──> the others stage it
//!                                                        a quorum has it: Restore{digest} goes through the log
//! a member that meets the entry and has no archive: its apply waits ──FETCH──> any member that has it
//!                                                                   ──STATE──> else any that has applied the entry
//! ```
//! Why a member that waits goes on: a quorum has the archive durably before the entry exists, and each server keeps the
//! last two that it staged. It stages no others before the leader, which brings them, has applied the entry, so that
//! where all have let the archive go there is a state to be fetched instead.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_peer::{BulkReader, BulkStream, BulkWriter, NotSent};
use lictor_proto::v1::archive_reply::Result as Done;
use lictor_proto::v1::{ArchiveHead, ArchiveReply};
use lictor_proto::{LogIndex, RaftId};
use lictor_state::State;
use prost::Message as _;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use super::stall::moving;
use super::{compare, kind};
use crate::node::Shared;
use crate::restore::{Digest, Staged};
use crate::{Node, ProposeError, RestoreError, Upload};

/// How long the answer to an archive may take that has arrived: it is synced.
const STAGED_WITHIN: Duration = Duration::from_secs(60);
/// The same for the leader, which checks it, sends it on and applies it.
const RESTORED_WITHIN: Duration = Duration::from_secs(600);
/// The pause before all members are asked anew for an archive.
const FETCH_AGAIN: Duration = Duration::from_secs(1);
/// Pieces between a connection and the disk.
const PIECES: usize = 4;
const PIECE_BYTES: usize = 256 * 1024;

/// What became of an archive that was sent.
pub(crate) enum Sent {
    Answered(ArchiveReply),
    /// It has not arrived, and had no effect.
    Lost,
    /// It has arrived, and nobody knows what became of it.
    Unknown,
}

/// Streams an archive to a server and waits for its answer.
pub(crate) async fn send(shared: &Shared, to: RaftId, kind: u16, digest: &Digest, path: &Path) -> Sent {
    let Some(net) = shared.net.get() else {
        return Sent::Lost;
    };
    let opened: Result<BulkStream, NotSent> = net.peers.bulk(to, kind, &head(digest)).await;
    let Ok(BulkStream {
        mut reader,
        mut writer,
    }) = opened
    else {
        return Sent::Lost;
    };
    if let Err(error) = pour(path, &mut writer).await {
        tracing::debug!(%to, %error, "an archive could not be sent");
        // Without its end it has no effect.
        return Sent::Lost;
    }
    let time = if kind == kind::ARCHIVE_RESTORE {
        RESTORED_WITHIN
    } else {
        STAGED_WITHIN
    };
    let answer = tokio::time::timeout(time, reader.read()).await;
    match answer {
        Ok(Ok(Some(answer))) => ArchiveReply::decode(answer).map_or(Sent::Unknown, Sent::Answered),
        _ => Sent::Unknown,
    }
}

fn head(digest: &Digest) -> Vec<u8> {
    let sha256 = Bytes::copy_from_slice(digest);
    ArchiveHead { sha256 }.encode_to_vec()
}

/// The file, and the end of the stream.
async fn pour(path: &Path, writer: &mut BulkWriter) -> io::Result<()> {
    let mut file = tokio::fs::File::open(path).await?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = file.read(&mut piece).await?;
        if count == 0 {
            return moving(writer.finish()).await;
        }
        moving(writer.write(&piece[..count])).await?;
    }
}

/// Reads an archive to the end of its stream. Nothing is left of one that breaks off, or is another.
async fn receive(node: &Node, digest: &Digest, reader: &mut BulkReader) -> io::Result<Upload> {
    let mut upload = node.upload()?;
    let (pieces, mut arrived) = mpsc::channel::<Bytes>(PIECES);
    let writing = tokio::task::spawn_blocking(move || {
        while let Some(piece) = arrived.blocking_recv() {
            upload.write(&piece)?;
        }
        io::Result::Ok(upload)
    });
    while let Some(piece) = moving(reader.read()).await? {
        if pieces.send(piece).await.is_err() {
            // The disk has refused it, and says so below.
            break;
        }
    }
    drop(pieces);
    let upload = writing.await.map_err(io::Error::other)??;
    if upload.digest() != *digest {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the archive is not what was announced",
        ));
    }
    Ok(upload)
}

/// Answers a stream of any of the kinds.
pub(super) async fn answer(node: Node, kind: u16, head: Bytes, mut stream: BulkStream) {
    let digest = ArchiveHead::decode(head).ok();
    let Some(digest) = digest.and_then(|head| Digest::try_from(&*head.sha256).ok()) else {
        return;
    };
    if kind == kind::ARCHIVE_FETCH {
        let path = node.shared().staging.path(&digest);
        // Closing the stream tells the other server that the archive is not here.
        if let Err(error) = pour(&path, &mut stream.writer).await {
            tracing::debug!(%error, "an archive was not given away");
        }
        return;
    }
    if kind == kind::ARCHIVE_RESTORE && !node.shared().progress.is_serving() {
        reply(&node, Done::NotLeader(true), &mut stream.writer).await;
        return;
    }
    let done = match receive(&node, &digest, &mut stream.reader).await {
        Ok(upload) if kind == kind::ARCHIVE_RESTORE => restored(node.restore_here(upload).await),
        Ok(upload) => match stage(&node, upload).await {
            Ok(()) => Done::Done(true),
            Err(error) => Done::Refused(error.to_string()),
        },
        Err(error) => Done::Refused(error.to_string()),
    };
    reply(&node, done, &mut stream.writer).await;
}

fn restored(result: Result<(), RestoreError>) -> Done {
    match result {
        Ok(()) => Done::Done(true),
        Err(RestoreError::Propose(ProposeError::NoLeader)) => Done::NotLeader(true),
        Err(RestoreError::Propose(ProposeError::OutcomeUnknown | ProposeError::Stopping)) => {
            Done::Unknown(true)
        }
        Err(error) => Done::Refused(error.to_string()),
    }
}

async fn reply(node: &Node, done: Done, writer: &mut BulkWriter) {
    let reply = ArchiveReply {
        applied: node.shared().progress.applied_index().0,
        result: Some(done),
    };
    let sent = async {
        writer.write(&reply.encode_to_vec()).await?;
        writer.finish().await
    };
    if let Err(error) = moving(sent).await {
        tracing::debug!(%error, "an answer could not be sent");
    }
}

/// Keeps an archive of which another server says that it is sound.
async fn stage(node: &Node, upload: Upload) -> io::Result<()> {
    let shared = Arc::clone(node.shared());
    let staged = tokio::task::spawn_blocking(move || shared.staging.keep(&upload)).await;
    staged.map_err(io::Error::other)?.map(|_| ())
}

/// Sends a staged archive to all other members; answers how many of the voters have it then, this one among them.
pub(crate) async fn spread(node: &Node, staged: &Staged) -> usize {
    let roster = node.roster();
    let others = roster.servers().map(|server| RaftId(server.raft_id));
    let others = others.filter(|id| *id != node.raft_id());
    let sent = others.map(|to| async move {
        let sent = send(
            node.shared(),
            to,
            kind::ARCHIVE_STAGE,
            &staged.digest,
            &staged.path,
        )
        .await;
        let has_it = matches!(
            &sent,
            Sent::Answered(ArchiveReply {
                result: Some(Done::Done(true)),
                ..
            })
        );
        if let Sent::Answered(ArchiveReply {
            result: Some(Done::Refused(why)),
            ..
        }) = sent
        {
            tracing::warn!(%to, why, "a server does not take an archive");
        }
        has_it.then_some(to)
    });
    let have_it = futures_util::future::join_all(sent).await;
    let is_voter = |id: &RaftId| roster.members().voters().any(|voter| voter == *id);
    1 + have_it.into_iter().flatten().filter(is_voter).count()
}

/// What was fetched for an apply thread that has met a restore and has no archive.
pub(crate) enum Fetched {
    /// The archive, which is staged now.
    Archive,
    /// The state of a server that has applied the restore, since none has the archive any more.
    State(Box<State>),
}

/// Fetches an archive, which is that of the restore at `index`, from whoever has it; `None` when the server stops.
pub(crate) async fn fetch(shared: Arc<Shared>, digest: Digest, index: LogIndex) -> Option<Fetched> {
    let node = Node::of(shared);
    while !node.shared().progress.is_stopping() {
        let roster = node.roster();
        for server in roster
            .servers()
            .filter(|server| server.raft_id != node.raft_id().0)
        {
            match fetch_from(&node, RaftId(server.raft_id), &digest).await {
                Ok(()) => {
                    tracing::info!(from = server.name, "fetched the archive of a restore");
                    return Some(Fetched::Archive);
                }
                Err(error) => tracing::debug!(from = server.name, %error, "no archive from there"),
            }
        }
        if let Some(state) = compare::fetch_from_any(node.shared(), index).await {
            return Some(Fetched::State(Box::new(state)));
        }
        tokio::time::sleep(FETCH_AGAIN).await;
    }
    None
}

async fn fetch_from(node: &Node, from: RaftId, digest: &Digest) -> io::Result<()> {
    let peers = node.peers().ok_or(io::ErrorKind::NotConnected)?;
    let stream = peers.bulk(from, kind::ARCHIVE_FETCH, &head(digest)).await;
    let mut stream = stream.map_err(io::Error::other)?;
    let upload = receive(node, digest, &mut stream.reader).await?;
    stage(node, upload).await
}

impl Node {
    /// Has the leader restore an archive that has come to this server.
    pub(crate) async fn restore_at(
        &self,
        leader: RaftId,
        upload: &Upload,
    ) -> Option<Result<(), RestoreError>> {
        let shared = self.shared();
        let sent = send(
            shared,
            leader,
            kind::ARCHIVE_RESTORE,
            &upload.digest(),
            upload.path(),
        )
        .await;
        let (done, applied) = match sent {
            Sent::Answered(ArchiveReply {
                result: Some(done),
                applied,
            }) => (done, applied),
            Sent::Answered(_) | Sent::Unknown => return Some(Err(ProposeError::OutcomeUnknown.into())),
            Sent::Lost => return None,
        };
        match done {
            Done::Done(_) => {
                // Where it cannot be waited for the restore stands all the same.
                let deadline = Instant::now() + RESTORED_WITHIN;
                let _ = self.caught_up(LogIndex(applied), deadline).await;
                Some(Ok(()))
            }
            Done::NotLeader(_) => None,
            Done::Refused(text) => Some(Err(RestoreError::Leader(text))),
            Done::Unknown(_) => Some(Err(ProposeError::OutcomeUnknown.into())),
        }
    }
}
