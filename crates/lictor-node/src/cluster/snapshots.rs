//! The rows of a snapshot on their way to a follower that is too far behind for the log.
//!
//! ```text
//! leader                                            follower
//! raft: WantSnapshot ─> apply pins its state
//!                       SnapshotReady{id} ─ raft ─> Install{id} ─> opens a stream, names the id
//! pinned state ─> frames ─────────── bulk ────────> rows, checked ─> apply puts them in place of its state
//! SnapshotSent ─> raft                              Installed ─> raft
//! ```
//! A view is pinned by cloning the state, which shares all rows; writes go on. It is let go when it was fetched, when it
//! was not fetched for [`FETCH_WITHIN`] or its stream stands still, and when this server leads no more. A follower gives
//! up a stream that stands still too: while it installs it takes no entries, and with it the cluster may stand.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_peer::{BulkReader, BulkStream, BulkWriter};
use lictor_proto::RaftId;
use lictor_proto::v1::SnapshotDescriptor;
use lictor_raft::LogPosition;
use lictor_state::State;
use lictor_state::snapshot::{self, Received, Receiver};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::mpsc;

use super::stall::moving;
use super::{Roster, kind};
use crate::node::Shared;
use crate::pipeline::{ApplyWork, Event};

/// A follower that was told of a snapshot and does not come for it has gone, or another leads.
const FETCH_WITHIN: Duration = Duration::from_secs(60);
/// What a server sends of snapshots in a second, at most, so that writes keep their share of network and disk.
const BYTES_PER_SECOND: u64 = 64 << 20;
/// Pieces of a stream between the thread that packs or unpacks and the one that sends or receives.
const PIECES: usize = 4;
/// The most that a snapshot may hold, unpacked.
const SNAPSHOT_MAX_BYTES: u64 = 64 << 30;

/// Views that followers may fetch.
#[derive(Debug, Default)]
pub(crate) struct Pinned(Mutex<Views>);

#[derive(Debug, Default)]
struct Views {
    views: Vec<View>,
    last: u64,
}

/// How fast rows are sent: all streams share it.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<Option<Instant>>);

impl Pace {
    /// When a piece of this length may be sent. What was not used in the past is not saved up.
    fn turn(&self, len_bytes: usize, now: Instant) -> Instant {
        let mut next = self.0.lock();
        let turn = next.map_or(now, |next| next.max(now));
        let nanos = (len_bytes as u64).saturating_mul(1_000_000_000) / BYTES_PER_SECOND;
        *next = Some(turn + Duration::from_nanos(nanos));
        turn
    }
}

#[derive(Debug)]
struct View {
    id: u64,
    to: RaftId,
    state: State,
    members: Vec<u8>,
    since: Instant,
    is_fetched: bool,
}

impl Pinned {
    /// Pins a view for a follower, in the place of an earlier one. Answers what the follower names it by.
    pub(crate) fn pin(&self, to: RaftId, state: State, members: Vec<u8>) -> Vec<u8> {
        let mut views = self.0.lock();
        views.views.retain(|view| view.to != to);
        views.last += 1;
        let id = views.last;
        views.views.push(View {
            id,
            to,
            state,
            members,
            since: Instant::now(),
            is_fetched: false,
        });
        SnapshotDescriptor { id }.encode_to_vec()
    }

    /// Those who were not fetched in time; they are let go.
    pub(crate) fn expire(&self, now: Instant) -> Vec<RaftId> {
        let mut views = self.0.lock();
        let is_late = |view: &View| !view.is_fetched && now.duration_since(view.since) > FETCH_WITHIN;
        let late = views
            .views
            .iter()
            .filter(|view| is_late(view))
            .map(|view| view.to)
            .collect();
        views.views.retain(|view| !is_late(view));
        late
    }

    /// Lets all go.
    pub(crate) fn clear(&self) {
        self.0.lock().views.clear();
    }

    fn take(&self, id: u64, to: RaftId) -> Option<(State, Vec<u8>)> {
        let mut views = self.0.lock();
        let view = views
            .views
            .iter_mut()
            .find(|view| view.id == id && view.to == to)?;
        view.is_fetched = true;
        Some((view.state.clone(), view.members.clone()))
    }

    fn let_go(&self, id: u64) {
        self.0.lock().views.retain(|view| view.id != id);
    }
}

/// Sends a pinned view to the follower that asks for it.
pub(super) async fn send(shared: Arc<Shared>, to: RaftId, head: Bytes, stream: BulkStream) {
    let Ok(SnapshotDescriptor { id }) = SnapshotDescriptor::decode(head) else {
        return;
    };
    // Closing the stream tells the follower that there is none.
    let Some((state, members)) = shared.pinned.take(id, to) else {
        return;
    };
    let started = Instant::now();
    let sent = send_rows(&shared.pace, state, members, stream.writer).await;
    match &sent {
        Ok(bytes) => tracing::info!(%to, bytes, took = ?started.elapsed(), "sent a snapshot"),
        Err(error) => tracing::warn!(%to, %error, "a snapshot could not be sent"),
    }
    shared.metrics.snapshots_sent.one(sent.is_ok());
    shared.pinned.let_go(id);
    // Refused only while stopping.
    let _ = shared.raft.push(Event::SnapshotSent { to, ok: sent.is_ok() });
}

/// Sends all rows, no faster than [`BYTES_PER_SECOND`] with all other snapshots that are sent.
pub(super) async fn send_rows(
    pace: &Pace,
    state: State,
    members: Vec<u8>,
    mut writer: BulkWriter,
) -> io::Result<u64> {
    let (pieces, mut packed) = mpsc::channel::<Bytes>(PIECES);
    let pack = tokio::task::spawn_blocking(move || {
        let mut meta = state.meta();
        meta.conf_state = members.into();
        let mut out = io::BufWriter::with_capacity(1 << 20, ToChannel(pieces));
        snapshot::write(&state, &meta, &mut out)?;
        io::Write::flush(&mut out)
    });
    let mut bytes = 0;
    while let Some(piece) = packed.recv().await {
        bytes += piece.len() as u64;
        let turn = pace.turn(piece.len(), Instant::now());
        tokio::time::sleep_until(turn.into()).await;
        moving(writer.write(&piece)).await?;
    }
    pack.await.map_err(io::Error::other)??;
    moving(writer.finish()).await?;
    Ok(bytes)
}

/// Writes into a channel, waiting while it is full.
struct ToChannel(mpsc::Sender<Bytes>);

impl io::Write for ToChannel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Bytes::copy_from_slice(bytes);
        self.0
            .blocking_send(piece)
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Fetches a snapshot and hands it to apply by `deliver`, which says whether apply takes work still. Runs on the
/// transport's runtime.
pub(crate) async fn install(
    shared: Arc<Shared>,
    from: RaftId,
    position: LogPosition,
    descriptor: Vec<u8>,
    deliver: impl FnOnce(ApplyWork) -> bool + Send,
) {
    let started = Instant::now();
    let fetched = fetch(&shared, from, kind::SNAPSHOT, &descriptor).await;
    let fetched = fetched.and_then(|received| {
        let members = Roster::decode(&received.meta.conf_state);
        let (index, term) = received.state.applied();
        match members {
            Some(members) if (LogPosition { index, term }) == position => Ok((received.state, members)),
            Some(_) => Err("it ends at another entry than the leader said".to_owned()),
            None => Err("its list of members is damaged".to_owned()),
        }
    });
    shared.metrics.snapshots_received.one(fetched.is_ok());
    let delivered = match fetched {
        Ok((state, roster)) => {
            tracing::info!(%from, %position, took = ?started.elapsed(), "fetched a snapshot");
            let work = ApplyWork::Install {
                state: Box::new(state),
                roster: Box::new(roster),
                position,
            };
            deliver(work)
        }
        Err(why) => {
            tracing::warn!(%from, %position, why, "a snapshot could not be fetched");
            shared.raft.push(Event::Installed { position, ok: false }).is_ok()
        }
    };
    if !delivered {
        tracing::debug!("a snapshot came while the server was stopping");
    }
}

/// Fetches rows by a stream of this kind.
pub(super) async fn fetch(shared: &Shared, from: RaftId, kind: u16, head: &[u8]) -> Result<Received, String> {
    let net = shared.net.get().ok_or("there is no transport")?;
    let stream = net.peers.bulk(from, kind, head).await;
    receive(stream.map_err(|error| error.to_string())?.reader).await
}

async fn receive(mut reader: BulkReader) -> Result<Received, String> {
    let (pieces, mut packed) = mpsc::channel::<Bytes>(PIECES);
    let unpack = tokio::task::spawn_blocking(move || {
        let mut receiver = Receiver::new(SNAPSHOT_MAX_BYTES);
        while let Some(piece) = packed.blocking_recv() {
            receiver.push(&piece)?;
        }
        receiver.finish()
    });
    while let Some(piece) = moving(reader.read()).await.map_err(|error| error.to_string())? {
        if pieces.send(piece).await.is_err() {
            // It has stopped at damage, and says so below.
            break;
        }
    }
    drop(pieces);
    let unpacked = unpack.await.map_err(|error| error.to_string())?;
    unpacked.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use futures_util::future::{self, BoxFuture};
    use lictor_peer::{ClusterId, Config, Handler, Identity, Limits, Peers, Remote, Security};
    use lictor_proto::v1::KvSet;
    use lictor_proto::{Command, LogIndex, Term};
    use lictor_state::Effects;
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;
    use uuid::Uuid;

    use super::*;

    /// Hands out the streams that are opened to it.
    struct Streams(mpsc::Sender<BulkStream>);

    impl Handler for Streams {
        fn admit(&self, _: &Remote) -> Result<(), String> {
            Ok(())
        }

        fn raft(&self, _: RaftId, _: Bytes) {}

        fn call(&self, _: &Arc<Remote>, _: u16, _: Bytes) -> BoxFuture<'static, Bytes> {
            Box::pin(future::ready(Bytes::new()))
        }

        fn bulk(&self, _: &Arc<Remote>, _: u16, _: Bytes, stream: BulkStream) -> BoxFuture<'static, ()> {
            self.0.try_send(stream).unwrap();
            Box::pin(future::pending())
        }

        fn connected(&self, _: RaftId) {}

        fn unreachable(&self, _: RaftId) {}
    }

    fn peers(id: u64, streams: mpsc::Sender<BulkStream>) -> Peers {
        let config = Config {
            identity: Identity {
                node_id: Uuid::from_u128(id.into()),
                raft_id: RaftId(id),
                name: format!("n{id}"),
                address: String::new(),
                datacenter: "dc1".to_owned(),
                version: String::new(),
            },
            cluster: Some(ClusterId(Uuid::from_u128(7))),
            security: Security::open(),
            limits: Limits::default(),
        };
        Peers::new(config, Arc::new(Streams(streams)))
    }

    /// A stream between two servers, both its ends, and what keeps it.
    async fn stream() -> (BulkStream, BulkStream, [Peers; 2]) {
        let (streams, mut opened) = mpsc::channel(1);
        let (here, there) = (peers(1, streams.clone()), peers(2, streams));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        there.serve(listener);
        here.set_address(RaftId(2), &address);
        let ours = here.bulk(RaftId(2), kind::SNAPSHOT, b"").await.unwrap();
        let theirs = opened.recv().await.unwrap();
        (ours, theirs, [here, there])
    }

    /// Has the time that it waits for pass at once, until it is done.
    async fn given_up<T>(task: JoinHandle<T>) -> T {
        let began = std::time::Instant::now();
        while !task.is_finished() {
            assert!(began.elapsed() < Duration::from_secs(60), "it waits for ever");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        task.await.unwrap()
    }

    #[tokio::test]
    async fn a_sender_that_stands_still_is_given_up() {
        let (ours, mut theirs, _peers) = stream().await;
        let mut rows = Vec::new();
        let state = State::default();
        snapshot::write(&state, &state.meta(), &mut rows).unwrap();
        theirs.writer.write(&rows[..rows.len() / 2]).await.unwrap();
        tokio::time::pause();

        let received = given_up(tokio::spawn(receive(ours.reader))).await;

        assert_eq!(received.err().as_deref(), Some("timed out"));
    }

    #[tokio::test]
    async fn a_receiver_that_stands_still_is_given_up() {
        let mut state = State::default();
        let mut noise = 1_u64;
        // More than any connection holds.
        for n in 1..=100_u64 {
            let value: Vec<u8> = std::iter::repeat_with(|| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise.to_le_bytes()
            })
            .take(64 << 10)
            .flatten()
            .collect();
            let set = Command::KvSet(KvSet {
                key: n.to_string().into(),
                value: value.into(),
                ..KvSet::default()
            });
            state.apply(LogIndex(n), Term(1), &set, &mut Effects::default());
        }
        let (_ours, theirs, _peers) = stream().await;
        tokio::time::pause();

        let sending = async move { send_rows(&Pace::default(), state, Vec::new(), theirs.writer).await };
        let sent = given_up(tokio::spawn(sending)).await;

        assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn all_streams_together_keep_to_the_pace() {
        let (pace, now) = (Pace::default(), Instant::now());
        let second = usize::try_from(BYTES_PER_SECOND).unwrap();

        assert_eq!(pace.turn(second, now), now);
        assert_eq!(pace.turn(second / 2, now), now + Duration::from_secs(1));
        assert_eq!(pace.turn(0, now), now + Duration::from_millis(1500));

        // A pause gives no right to catch up.
        let later = now + Duration::from_secs(9);
        assert_eq!(pace.turn(second, later), later);
        assert_eq!(pace.turn(1, later), later + Duration::from_secs(1));
    }
}
