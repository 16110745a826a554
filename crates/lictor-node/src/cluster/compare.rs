//! Whether all servers hold the same, and what becomes of one that does not.
//!
//! ```text
//! leader: proposes CompareStates ──log──> every server: takes a digest of its state as of that entry, beside its work
//!         asks the others for theirs <──────┘
//!         most voters agree on one ──> whoever has another: told so
//! told:   serves nothing, stops applying ──> fetches the state from a server that agrees ──> goes on from there
//! ```
//! The digest is computed from a snapshot of the state (a clone shares all rows) by a thread that works a fifth of the
//! time, so that apply pays nothing for it and the machine little. The raft log is not touched: what a server has said
//! to have written it still has, only what it made of it was wrong.
//!
//! The majority decides, not the leader: else a leader with a damaged state would have all others take it over. Where
//! no majority agrees nothing is done but to say so.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_peer::BulkStream;
use lictor_proto::v1::{CompareStates, DigestOf, DigestReply};
use lictor_proto::{Command, LogIndex, RaftId};
use lictor_state::State;
use prost::Message as _;
use tokio::sync::{oneshot, watch};

use super::{kind, snapshots};
use crate::node::Shared;
use crate::pipeline::{ApplyWork, Event};
use crate::{Node, ProposeError};

/// How often servers are compared at most.
const EVERY: Duration = Duration::from_secs(60);
/// How often while nothing is written.
const EVERY_IDLE: Duration = Duration::from_secs(3600);
/// A comparison may take this part of the time between two.
const SHARE: u32 = 100;
/// How often a leader looks whether it is time.
const LOOK: Duration = Duration::from_secs(1);
/// How long digests may take to be computed and told.
const PATIENCE: Duration = Duration::from_secs(120);
/// For each second of work on a digest its thread sleeps so many.
const REST: u32 = 4;
/// The pause before a state is asked for again that no server gave.
const AGAIN: Duration = Duration::from_secs(1);

/// SHA-256 of a state.
type Digest = [u8; 32];

/// The digest of this server's state as of an entry.
#[derive(Debug, Clone, Copy)]
struct Taken {
    index: LogIndex,
    digest: Digest,
    took: Duration,
}

/// The digests of this server.
#[derive(Debug, Default)]
pub(crate) struct Digests(watch::Sender<Latest>);

#[derive(Debug, Default, Clone, Copy)]
struct Latest {
    last: Option<Taken>,
    /// Another is being computed.
    is_busy: bool,
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// The entry as of which states were compared.
    pub index: LogIndex,
    /// Servers whose state is not that of most voters; they rebuild it.
    pub differing: Vec<RaftId>,
    /// How long this server's digest took.
    pub took: Duration,
}

impl Digests {
    /// Computes the digest of a state on a thread of its own; told by the apply thread. An earlier one that is still
    /// under way goes on instead.
    pub(crate) fn take(shared: &Arc<Shared>, state: State) {
        let begin = |latest: &mut Latest| !std::mem::replace(&mut latest.is_busy, true);
        if !shared.digests.0.send_if_modified(begin) {
            return;
        }
        let of = Arc::downgrade(shared);
        let compute = move || {
            let index = state.applied().0;
            let started = Instant::now();
            let mut slice = Instant::now();
            let digest = state.digest(|| {
                if of.upgrade().is_none_or(|shared| shared.progress.is_stopping()) {
                    return ControlFlow::Break(());
                }
                std::thread::sleep(slice.elapsed() * REST);
                slice = Instant::now();
                ControlFlow::Continue(())
            });
            let took = started.elapsed();
            let taken = digest.map(|digest| Taken { index, digest, took });
            tracing::debug!(?taken, "took a digest of the state");
            if let Some(shared) = of.upgrade() {
                shared.digests.end(taken);
            }
        };
        let thread = std::thread::Builder::new().name("digest".to_owned());
        if let Err(error) = thread.spawn(compute) {
            tracing::warn!(%error, "no thread for the comparison of states");
            shared.digests.end(None);
        }
    }

    fn end(&self, taken: Option<Taken>) {
        self.0.send_modify(|latest| {
            latest.is_busy = false;
            latest.last = taken.or(latest.last);
        });
    }

    /// The last digest, once none is being computed. Apply begins one before it says that it has applied the entry.
    async fn settled(&self) -> Option<Taken> {
        let mut latest = self.0.subscribe();
        let settled = latest.wait_for(|latest| !latest.is_busy);
        tokio::time::timeout(PATIENCE, settled).await.ok()?.ok()?.last
    }

    fn last(&self) -> Option<Taken> {
        self.0.borrow().last
    }
}

/// Has the servers compared now and then while this one leads; ends with the node.
pub(crate) async fn watch_over(shared: Weak<Shared>) {
    let (mut last, mut compared) = (Instant::now(), LogIndex(0));
    let mut pause = EVERY;
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(node) = shared.upgrade().map(Node::of) else {
            return;
        };
        let progress = &node.shared().progress;
        if progress.is_stopping() {
            return;
        }
        let is_quiet = progress.applied_index() <= compared;
        let is_time = last.elapsed() >= if is_quiet { pause.max(EVERY_IDLE) } else { pause };
        if !is_time || !progress.is_serving() || !node.shared().has_others() {
            continue;
        }
        last = Instant::now();
        match node.compare_states().await {
            Ok(comparison) => {
                compared = comparison.index;
                pause = EVERY.max(comparison.took * SHARE);
            }
            Err(error) => tracing::debug!(%error, "the servers' states could not be compared"),
        }
    }
}

impl Node {
    /// Compares the states of all servers, if this one leads, and has those rebuild theirs that differ from most
    /// voters. Happens by itself every minute in which something was written.
    ///
    /// # Errors
    /// [`ProposeError::NoLeader`] if this server does not lead, [`ProposeError::Overloaded`] while it still computes an
    /// older digest; else as [`Node::propose`].
    pub async fn compare_states(&self) -> Result<Comparison, ProposeError> {
        let shared = self.shared();
        if !shared.progress.is_serving() {
            return Err(ProposeError::NoLeader);
        }
        let before = shared.digests.last().map(|taken| taken.index);
        let compare = Command::CompareStates(CompareStates {});
        self.propose_in(shared.progress.term(), compare).await?;
        let taken = shared.digests.settled().await;
        // Else an older one was still being computed.
        let taken = taken
            .filter(|taken| Some(taken.index) > before)
            .ok_or(ProposeError::Overloaded)?;
        let roster = self.roster();
        let others = roster
            .servers()
            .map(|server| RaftId(server.raft_id))
            .filter(|id| *id != self.raft_id());
        let asked = others.map(|id| async move { (id, self.digest_of(id, taken.index).await) });
        let mut found: BTreeMap<_, _> = futures_util::future::join_all(asked).await.into_iter().collect();
        found.insert(self.raft_id(), Some(taken.digest));
        let voters: Vec<RaftId> = roster.members().voters().collect();
        let differing = if let Ok((digest, differing)) = decide(&found, &voters) {
            self.tell(taken.index, digest, &differing).await;
            differing
        } else {
            tracing::error!(
                index = %taken.index,
                found = ?readable(&found),
                "the states of the servers differ, and no majority agrees on one: compare what they hold, and wipe \
                 the data directory of the wrong one"
            );
            Vec::new()
        };
        Ok(Comparison {
            index: taken.index,
            differing,
            took: taken.took,
        })
    }

    /// Asks a server for the digest of its state as of an entry.
    async fn digest_of(&self, server: RaftId, index: LogIndex) -> Option<Digest> {
        let question = DigestOf {
            index: index.0,
            ..DigestOf::default()
        };
        let body = question.encode_to_vec().into();
        let deadline = Instant::now() + PATIENCE;
        let answer = self
            .peers()?
            .call(server, kind::DIGEST, body, deadline)
            .await
            .ok()?;
        DigestReply::decode(answer).ok()?.digest[..].try_into().ok()
    }

    /// Tells servers that their states are wrong.
    async fn tell(&self, index: LogIndex, digest: Digest, differing: &[RaftId]) {
        for &server in differing {
            tracing::error!(%server, %index, "the state of a server is not that of the others: it has to rebuild it");
            let wrong = DigestOf {
                index: index.0,
                digest: digest.to_vec().into(),
                at_least: 0,
            };
            if server == self.raft_id() {
                self.rebuild_if_wrong(&wrong);
                continue;
            }
            let Some(peers) = self.peers() else { return };
            let body = wrong.encode_to_vec().into();
            let told = peers
                .call(server, kind::REBUILD, body, Instant::now() + PATIENCE)
                .await;
            if let Err(error) = told {
                // The next comparison finds the same.
                tracing::warn!(%server, %error, "it could not be told");
            }
        }
    }

    /// Answers [`Self::digest_of`] of another server.
    pub(super) async fn take_digest_of(&self, body: Bytes) -> Bytes {
        let index = LogIndex(DigestOf::decode(body).map_or(0, |question| question.index));
        let shared = self.shared();
        let applied = tokio::time::timeout(PATIENCE, shared.progress.applied(index)).await;
        let taken = match applied {
            Ok(Ok(())) => shared.digests.settled().await,
            _ => None,
        };
        let digest = taken
            .filter(|taken| taken.index == index)
            .map(|taken| taken.digest);
        DigestReply {
            digest: digest.map(|digest| digest.to_vec().into()).unwrap_or_default(),
        }
        .encode_to_vec()
        .into()
    }

    /// Answers [`Self::tell`] of another server.
    pub(super) fn take_rebuild(&self, body: Bytes) -> Bytes {
        if let Ok(wrong) = DigestOf::decode(body) {
            self.rebuild_if_wrong(&wrong);
        }
        Bytes::new()
    }

    /// Begins to rebuild the state, if its own digest is another than that of the others.
    fn rebuild_if_wrong(&self, wrong: &DigestOf) {
        let shared = self.shared();
        let last = shared.digests.last();
        let is_wrong =
            last.is_some_and(|own| own.index.0 == wrong.index && own.digest[..] != wrong.digest[..]);
        if !is_wrong || wrong.digest.is_empty() || !shared.progress.bar() {
            return;
        }
        tracing::error!(
            index = wrong.index,
            "the state of this server is not that of the others: it serves nothing until it has fetched it anew"
        );
        // Refused only while stopping.
        let _ = shared.raft.push(Event::Rebuild);
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Undecided;

/// What most voters have, and who has something else. Who has nothing to show is left alone.
fn decide(
    found: &BTreeMap<RaftId, Option<Digest>>,
    voters: &[RaftId],
) -> Result<(Digest, Vec<RaftId>), Undecided> {
    let mut votes: BTreeMap<Digest, usize> = BTreeMap::new();
    for digest in voters.iter().filter_map(|voter| *found.get(voter)?) {
        *votes.entry(digest).or_default() += 1;
    }
    let most = votes.iter().find(|(_, count)| **count * 2 > voters.len());
    let known = || found.iter().filter_map(|(id, digest)| Some((*id, (*digest)?)));
    match most {
        Some((&digest, _)) => {
            let others = known().filter(|(_, other)| *other != digest);
            Ok((digest, others.map(|(id, _)| id).collect()))
        }
        // Too few answered to say anything, but those who did agree.
        None if votes.len() <= 1 => {
            let digest = votes.into_keys().next().unwrap_or_default();
            Ok((digest, Vec::new()))
        }
        None => Err(Undecided),
    }
}

fn readable(found: &BTreeMap<RaftId, Option<Digest>>) -> BTreeMap<u64, String> {
    let text = |digest: &Option<Digest>| digest.map(hex::encode).unwrap_or_default();
    found.iter().map(|(id, digest)| (id.0, text(digest))).collect()
}

/// Fetches the state for an apply thread that stands at the entry which `held` tells, from any server that has it.
/// Runs on the transport's runtime.
pub(crate) async fn rebuild(
    shared: Arc<Shared>,
    held: oneshot::Receiver<LogIndex>,
    deliver: impl FnOnce(ApplyWork) -> bool + Send,
) {
    // Else the server stops.
    let Ok(at_least) = held.await else { return };
    while !shared.progress.is_stopping() {
        if let Some(state) = fetch_from_any(&shared, at_least).await {
            if !deliver(ApplyWork::Rebuilt(Box::new(state))) {
                tracing::debug!("a state came while the server was stopping");
            }
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Asks all servers in turn for a state that has this entry, once.
pub(super) async fn fetch_from_any(shared: &Arc<Shared>, at_least: LogIndex) -> Option<State> {
    for server in sources(shared) {
        match fetch(shared, server, at_least).await {
            Ok(state) => return Some(state),
            Err(why) => tracing::warn!(%server, why, "the state could not be fetched"),
        }
    }
    None
}

/// Who may have the state: the leader first.
fn sources(shared: &Arc<Shared>) -> Vec<RaftId> {
    let node = Node::of(Arc::clone(shared));
    let leader = node.leader();
    let roster = node.roster();
    let mut others: Vec<RaftId> = roster
        .servers()
        .map(|server| RaftId(server.raft_id))
        .filter(|id| *id != shared.me)
        .collect();
    others.sort_by_key(|id| Some(*id) != leader);
    others
}

async fn fetch(shared: &Shared, server: RaftId, at_least: LogIndex) -> Result<State, String> {
    let wanted = DigestOf {
        at_least: at_least.0,
        ..DigestOf::default()
    };
    let received = snapshots::fetch(shared, server, kind::STATE, &wanted.encode_to_vec()).await?;
    let index = received.state.applied().0;
    if index < at_least {
        return Err(format!(
            "it ends at {index}, before this server's own at {at_least}"
        ));
    }
    Ok(received.state)
}

/// Sends this server's state to one that rebuilds its own.
pub(super) async fn send(shared: Arc<Shared>, to: RaftId, head: Bytes, stream: BulkStream) {
    let Ok(wanted) = DigestOf::decode(head) else {
        return;
    };
    let at_least = LogIndex(wanted.at_least);
    let applied = tokio::time::timeout(PATIENCE, shared.progress.applied(at_least)).await;
    // Closing the stream tells the other side that there is none.
    if !matches!(applied, Ok(Ok(()))) || shared.progress.is_barred() {
        return;
    }
    let state = State::clone(&shared.view.load());
    match snapshots::send_rows(&shared.pace, state, Vec::new(), stream.writer).await {
        Ok(bytes) => tracing::info!(%to, bytes, "sent the state to a server that rebuilds its own"),
        Err(error) => tracing::warn!(%to, %error, "the state could not be sent"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(digests: &[u8]) -> BTreeMap<RaftId, Option<Digest>> {
        let digest = |byte: &u8| (*byte > 0).then_some([*byte; 32]);
        (1..).map(RaftId).zip(digests.iter().map(digest)).collect()
    }

    fn voters(count: u64) -> Vec<RaftId> {
        (1..=count).map(RaftId).collect()
    }

    #[test]
    fn the_majority_of_the_voters_decides_who_is_wrong() {
        for (digests, count, wrong) in [
            (&[1, 1, 1][..], 3, &[][..]),
            (&[1, 1, 2], 3, &[3]),
            // The leader, which is the first, may be it.
            (&[2, 1, 1], 3, &[1]),
            // Who could not tell is neither right nor wrong.
            (&[1, 0, 1], 3, &[]),
            (&[1, 1, 0, 2, 1], 5, &[4]),
            // A server without a vote may be wrong.
            (&[1, 1, 1, 2], 3, &[4]),
        ] {
            let (digest, differing) = decide(&found(digests), &voters(count)).unwrap();

            assert_eq!(digest, [1; 32], "{digests:?}");
            assert_eq!(
                differing,
                wrong.iter().map(|id| RaftId(*id)).collect::<Vec<_>>(),
                "{digests:?}"
            );
        }
    }

    #[test]
    fn without_a_majority_nobody_is_wrong() {
        for (digests, count) in [
            (&[1, 2][..], 2),
            (&[1, 2, 3], 3),
            (&[1, 2, 0], 3),
            (&[1, 1, 2, 2, 0], 5),
        ] {
            assert_eq!(
                decide(&found(digests), &voters(count)),
                Err(Undecided),
                "{digests:?}"
            );
        }
        // One alone differs from nobody.
        assert_eq!(decide(&found(&[1, 0, 0]), &voters(3)).unwrap().1, []);
        // Those without a vote do not make a majority.
        assert_eq!(decide(&found(&[1, 0, 0, 2, 2]), &voters(3)).unwrap().1, []);
    }
}
