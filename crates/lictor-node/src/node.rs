//! The handle of a running server: proposals, renewals.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use lictor_peer::{Dropped, Peers};
use lictor_proto::limits::SESSION_TTL_MIN;
use lictor_proto::v1::{KvLock, MembersContext, ServerRow, SessionCreate, SessionRow, SessionTtlMinSet};
use lictor_proto::{Command, RaftId, SessionId, Term};
use lictor_raft::{LogPosition, LogStore, MemberChange, PeerMessage, Proposal, ProposalId, StateMark};
use lictor_session::Renewal;
use lictor_state::{Area, Explained, KvRow, Outcome, Refused, State};
use lictor_telemetry::journey;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::{broadcast, oneshot};

use crate::cluster::snapshots::{Pace, Pinned};
use crate::cluster::{
    Agents, Autopilot, Digests, Forming, Forwarded, Gate, Net, PeerHandler, Proof, Roster, Upstream, Wan,
    keep, kind, look_abroad, report, watch_over,
};
use crate::mailbox::Mailbox;
use crate::metrics::{Metrics, Stages};
use crate::pending::{Answer, Pending, Telling, Told};
use crate::pipeline::{
    ApplyWorker, BACKLOG_BYTES, CheckpointThread, Clock, Convoy, Event, LogWorker, RaftThread, Stage, Survey,
};
use crate::progress::{Progress, Role};
use crate::queues::Callers;
use crate::restore::Staging;
use crate::seeking::Seeking;
use crate::session_ttl;
use crate::timers::Timers;
use crate::{Checkpoint, Consistency, Identity, ProposeError, Registry, Status, Topic};

/// How long a proposal waits for room in the queue before it is refused.
pub(crate) const OVERLOAD_WAIT: Duration = Duration::from_millis(50);
/// How long reads and writes wait for a leader (Consul: `rpc_hold_timeout`).
pub(crate) const LEADER_WAIT: Duration = Duration::from_secs(7);
/// How long a server that could not reach the leader waits before it tries again, if it hears of no other before.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(25);

/// Broadcasts that a slow listener may be behind.
const HEARD_MAX: usize = 256;

/// A running server. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Node(Arc<Shared>);

/// What the handle and the pipeline threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    /// The state after the last applied batch. Written by the apply thread only.
    pub(crate) view: ArcSwap<State>,
    pub(crate) watches: Registry,
    pub(crate) pending: Pending,
    /// The raft thread's mailbox.
    pub(crate) raft: Mailbox<Event>,
    pub(crate) progress: Progress,
    pub(crate) metrics: Metrics,
    /// The stages of the pipeline, once it has begun.
    pub(crate) stages: OnceLock<Stages>,
    pub(crate) timers: Timers,
    pub(crate) callers: Callers,
    pub(crate) staging: Staging,
    pub(crate) clock: Clock,
    /// This server among the members.
    pub(crate) me: RaftId,
    /// The members as of the last applied change of them.
    pub(crate) roster: ArcSwap<Roster>,
    pub(crate) gate: Gate,
    /// Views that followers may fetch.
    pub(crate) pinned: Pinned,
    /// How fast they are sent.
    pub(crate) pace: Pace,
    pub(crate) digests: Digests,
    /// The way to other servers, where there is one.
    pub(crate) net: OnceLock<Net>,
    /// What is known of client agents.
    pub(crate) agents: Agents,
    /// The servers of other datacenters.
    pub(crate) wan: Wan,
    /// The way to the servers, of a client agent.
    pub(crate) upstream: OnceLock<Arc<Upstream>>,
    /// As configured here; what was set for all servers goes before it.
    pub(crate) autopilot: ArcSwap<Autopilot>,
    /// The shortest TTL of a session as configured here; all servers go by that of the leader, which is in the state.
    session_ttl_min: Mutex<Duration>,
    /// While this server leads: since when each server is healthy without a break.
    pub(crate) healthy_since: Mutex<BTreeMap<RaftId, Instant>>,
    /// What other servers have broadcast.
    pub(crate) heard: broadcast::Sender<Bytes>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Shared {
    /// Sends a raft message; one that cannot be sent is reported to raft.
    pub(crate) fn send(&self, message: PeerMessage) {
        let to = message.to;
        let sent = self
            .net
            .get()
            .map(|net| net.peers.send_raft(to, message.urgent, message.bytes.into()));
        if let Some(Err(Dropped::TooLarge)) = sent {
            // raft would try it for ever.
            tracing::error!(
                to = to.0,
                "a raft message is larger than any may be, and was not sent"
            );
        }
        if !matches!(sent, Some(Ok(()))) {
            // Refused only while stopping.
            let _ = self.raft.push(Event::Unreachable(to));
        }
    }

    /// Publishes the members, and keeps connections to them.
    pub(crate) fn set_roster(&self, roster: Arc<Roster>) {
        if let Some(net) = self.net.get() {
            net.follow(self, &roster);
        }
        self.roster.store(roster);
    }

    /// Whether there are other servers in the cluster.
    pub(crate) fn has_others(&self) -> bool {
        self.roster
            .load()
            .servers()
            .any(|server| server.raft_id != self.me.0)
    }

    /// Whether this server leads and nobody else can (rule R16): under a lease, or after a round with the voters. Blocks
    /// for that.
    pub(crate) fn confirm_leadership(&self) -> bool {
        if !self.progress.is_serving() {
            return false;
        }
        if self.progress.has_lease(|| self.clock.now()) {
            return true;
        }
        let (answer, begins) = self.gate.join(Proof::Quorum);
        if begins && self.raft.push(Event::Read).is_err() {
            return false;
        }
        matches!(answer.blocking_recv(), Ok(Ok(_))) && self.progress.is_serving()
    }

    /// Proposes a command that follows from what this leader knew in this term. Nobody waits for its outcome.
    pub(crate) fn propose_unheard(&self, term: Term, command: Command) -> Result<(), ProposeError> {
        self.progress.check_disk()?;
        let data = command.to_entry_bytes();
        let permit = self.pending.try_reserve(data.len())?;
        let (id, _) = self.pending.enter(permit, Telling::Whether);
        let proposal = Event::ProposeIn(term, Proposal { id, data });
        let refused = self.raft.push(proposal).is_err();
        if refused {
            self.pending.answer(id, Err(ProposeError::Stopping));
            return Err(ProposeError::Stopping);
        }
        Ok(())
    }
}

/// What a node is made of.
#[derive(Debug)]
pub struct Options {
    /// Who this server is.
    pub identity: Identity,
    /// Its id among the members; not 0.
    pub raft_id: RaftId,
    /// Blocking queries that may wait at a time.
    pub limit_watches: usize,
    /// The folder for archives that are saved or restored.
    pub staging: PathBuf,
}

/// Where a node begins.
#[derive(Debug)]
pub struct Begin {
    /// Settings of consensus.
    pub raft: lictor_raft::Config,
    /// The state, of which the checkpoint is the durable copy.
    pub state: State,
    /// The members as of the state.
    pub roster: Roster,
    /// Whether the state was installed whole (see [`StateMark::installed`]).
    pub installed: bool,
}

impl Begin {
    /// The first moment of a cluster of these servers.
    pub fn founding(raft: lictor_raft::Config, servers: impl IntoIterator<Item = ServerRow>) -> Self {
        let mut state = State::default();
        state.apply_empty(LogPosition::FOUNDING.index, LogPosition::FOUNDING.term);
        Self {
            raft,
            state,
            roster: Roster::founding(servers),
            installed: true,
        }
    }
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Log and state do not fit together, or the log cannot be used.
    #[error(transparent)]
    Log(#[from] lictor_raft::OpenError),
    /// The operating system refused a thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

impl Node {
    /// A server that belongs to no cluster yet: it knows no leader, and all that needs one waits. See
    /// [`Self::begin`].
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn new(options: Options) -> Result<Self, StartError> {
        let clock = Clock::start();
        Ok(Self(Arc::new(Shared {
            identity: options.identity,
            view: ArcSwap::default(),
            watches: Registry::new(options.limit_watches).map_err(StartError::Thread)?,
            pending: Pending::new(),
            raft: Mailbox::new(usize::MAX),
            progress: Progress::new(),
            metrics: Metrics::new(Instant::now()),
            stages: OnceLock::new(),
            timers: Timers::new(clock),
            callers: Callers::default(),
            staging: Staging::new(options.staging),
            clock,
            me: options.raft_id,
            roster: ArcSwap::default(),
            gate: Gate::default(),
            pinned: Pinned::default(),
            pace: Pace::default(),
            digests: Digests::default(),
            net: OnceLock::new(),
            agents: Agents::default(),
            wan: Wan::default(),
            upstream: OnceLock::new(),
            autopilot: ArcSwap::default(),
            session_ttl_min: Mutex::new(SESSION_TTL_MIN),
            healthy_since: Mutex::default(),
            heard: broadcast::Sender::new(HEARD_MAX),
            threads: Mutex::default(),
        })))
    }

    /// Sets the shortest TTL that a session may have. While this server leads it becomes that of all servers, before the
    /// next session is made.
    pub fn set_session_ttl_min(&self, least: Duration) {
        *self.0.session_ttl_min.lock() = least;
    }

    /// Connects the node with other servers, before [`Self::begin`]: `peers` makes the transport with what is to be done
    /// with what they send. From now on this server looks after the members while it leads.
    pub fn connect(&self, forming: Arc<Forming>, peers: impl FnOnce(Arc<PeerHandler>) -> Peers) -> Peers {
        let handler = PeerHandler {
            shared: Arc::downgrade(&self.0),
            forming,
        };
        let peers = peers(Arc::new(handler));
        // A second transport is never used.
        let _ = self.0.net.set(Net::new(peers.clone()));
        tokio::spawn(keep(Arc::downgrade(&self.0)));
        tokio::spawn(watch_over(Arc::downgrade(&self.0)));
        tokio::spawn(report(Arc::downgrade(&self.0)));
        tokio::spawn(look_abroad(Arc::downgrade(&self.0)));
        peers
    }

    /// Tells all other servers and the client agents something, whoever listens there by [`Self::heard`]. Does not wait
    /// for them.
    pub fn broadcast(&self, body: &Bytes) {
        self.0.agents.note_event(body.clone());
        self.tell_all(kind::BROADCAST, body);
    }

    /// What other servers, or to a client agent any server, broadcast from now on.
    pub fn heard(&self) -> broadcast::Receiver<Bytes> {
        self.0.heard.subscribe()
    }

    /// Starts the pipeline over an opened log and an opened state. A sole voter leads at once, without an
    /// election timeout; [`Self::read`] tells when.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn begin<S: LogStore, C: Checkpoint>(
        &self,
        begin: Begin,
        log: S,
        checkpoint: C,
    ) -> Result<(), StartError> {
        let Begin {
            raft,
            state,
            roster,
            installed,
        } = begin;
        let (index, term) = state.applied();
        let mark = StateMark {
            applied: LogPosition { index, term },
            installed,
            members: roster.members().clone(),
        };
        let tick = Duration::from_millis(raft.tick_ms);
        let (core, writer) = lictor_raft::open(log, raft, &mark)?;
        let shared = &self.0;
        let roster = Arc::new(roster);
        shared.set_roster(Arc::clone(&roster));
        shared.view.store(Arc::new(state.clone()));
        shared.progress.set_applied(index);
        let checkpoint_inbox = Arc::new(Mailbox::new(BACKLOG_BYTES));
        let copy = CheckpointThread::new(Arc::clone(shared), Arc::clone(&checkpoint_inbox), checkpoint);
        let apply = ApplyWorker::new(Arc::clone(shared), Arc::clone(&checkpoint_inbox), state, roster);
        let apply = Arc::new(Stage::new(apply));
        let log = Arc::new(Stage::new(LogWorker {
            shared: Arc::clone(shared),
            writer,
        }));
        let raft = RaftThread {
            shared: Arc::clone(shared),
            core,
            clock: shared.clock,
            tick,
            log: Arc::clone(&log),
            apply: Arc::clone(&apply),
            checkpoint: Arc::clone(&checkpoint_inbox),
            convoy: Convoy::default(),
            sync_here_from: Instant::now(),
            stopping: None,
            look_at_pinned: Instant::now(),
        };
        // The pipeline begins once.
        let _ = shared.stages.set(Stages {
            log: log.backlog(),
            apply: apply.backlog(),
            checkpoint: Arc::clone(&checkpoint_inbox),
        });
        let timers = Arc::clone(shared);
        let threads = [
            spawn("checkpoint", move || copy.run())?,
            spawn("apply", move || {
                apply.run();
                checkpoint_inbox.close();
            })?,
            spawn("log", move || log.run())?,
            spawn("timers", move || Timers::run(&timers))?,
            spawn("raft", move || raft.run())?,
        ];
        shared.threads.lock().extend(threads);
        Ok(())
    }

    pub(crate) fn of(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// The state as last published by apply: a consistent snapshot that later writes do not touch.
    pub fn view(&self) -> arc_swap::Guard<Arc<State>> {
        self.0.view.load()
    }

    /// Proposes a command and waits until it is committed, durable and applied here, whoever leads. Leader-only checks
    /// (lock-delays) happen on the way. The command stands even if the caller stops waiting.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        self.propose_telling(command, Telling::Whether).await
    }

    /// As [`Self::propose`]. Of a command on keys the outcome says what it did or why it did not
    /// ([`Outcome::Explained`]), a lock-delay included.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose_explained(&self, command: Command) -> Result<Outcome, ProposeError> {
        self.propose_telling(command, Telling::Why).await
    }

    async fn propose_telling(&self, command: Command, telling: Telling) -> Result<Outcome, ProposeError> {
        let progress = &self.0.progress;
        if progress.is_serving() && progress.is_alone() {
            return self.propose_here(command, telling).await;
        }
        if let Some(upstream) = self.0.upstream.get() {
            return upstream.propose(self, &command).await;
        }
        let mut seeking = self.seek_leader();
        let mut entry = None;
        loop {
            match seeking.next().await? {
                None => match self.propose_here(command.clone(), telling).await {
                    Err(ProposeError::NoLeader) => {}
                    done => return done,
                },
                Some(leader) => {
                    let entry = entry.get_or_insert_with(|| Bytes::from(command.clone().to_entry_bytes()));
                    if !Command::fits(entry.len()) {
                        return Err(ProposeError::TooLarge(entry.len()));
                    }
                    let sent = self.forward(leader, entry.clone(), telling, seeking.deadline);
                    if let Forwarded::Answered(answer) = sent.await {
                        return answer;
                    }
                }
            }
        }
    }

    pub(crate) fn seek_leader(&self) -> Seeking {
        // What a server sends that was removed would stand, and it would never hear of it.
        let removed = self.was_removed();
        let wait = if removed { Duration::ZERO } else { LEADER_WAIT };
        Seeking::new(self.0.progress.roles(), wait, removed)
    }

    /// Whether this server was a member and is none any more, as far as it knows. It hears of no leader then.
    pub fn was_removed(&self) -> bool {
        let roster = self.0.roster.load();
        let members = roster.members();
        // One that is only about to get the state knows no members yet.
        members.voters().next().is_some() && !members.names(self.0.me)
    }

    /// Proposes a command if this server leads.
    pub(crate) async fn propose_here(
        &self,
        mut command: Command,
        telling: Telling,
    ) -> Result<Outcome, ProposeError> {
        let shared = &self.0;
        if !shared.progress.is_serving() {
            return Err(ProposeError::NoLeader);
        }
        if let Command::KvLock(lock) = &command
            && self.is_fresh()
            && self.is_held_by_another(lock)
        {
            return Ok(match telling {
                Telling::Whether => Outcome::Bool(false),
                Telling::Why => Outcome::Explained(Explained::refused(self.view().why_refused(&command))),
            });
        }
        if let Command::SessionCreate(SessionCreate { session: Some(row) }) = &command {
            self.share_session_ttl_min().await?;
            session_ttl::check(row, self.view().session_ttl_min())?;
        }
        shared.progress.check_disk()?;
        if let Err(refused) = shared.timers.check_locks(&mut command) {
            if let (Command::KvLock(lock), Telling::Why) = (&command, telling)
                && let remaining_ms @ 1.. = shared.timers.lock_delay_left_ms(&lock.key)
            {
                let why = Refused::LockDelay { remaining_ms };
                return Ok(Outcome::Explained(Explained::refused(Some(why))));
            }
            // Who has just stepped down knows of no delays, and refuses all locks.
            return Err(if shared.progress.is_serving() {
                refused
            } else {
                ProposeError::NoLeader
            });
        }
        let data = command.to_entry_bytes();
        if !Command::fits(data.len()) {
            return Err(ProposeError::TooLarge(data.len()));
        }
        let permit = shared.pending.reserve(data.len()).await?;
        let (id, answer) = shared.pending.enter(permit, telling);
        self.ask_raft(Event::Propose(Proposal { id, data }), id, answer)
            .await
    }

    /// Sees to it that the limit that this leader was configured with is the one in the state.
    async fn share_session_ttl_min(&self) -> Result<(), ProposeError> {
        let mine = *self.0.session_ttl_min.lock();
        if self.view().session_ttl_min() == mine {
            return Ok(());
        }
        let ms = u64::try_from(mine.as_millis()).unwrap_or(u64::MAX);
        let set = Command::SessionTtlMinSet(SessionTtlMinSet { ms });
        self.propose_in(self.0.progress.term(), set).await.map(|_| ())
    }

    /// Proposes a command that follows from what this server knew as the leader of this term; in another it must not.
    pub(crate) async fn propose_in(&self, term: Term, command: Command) -> Result<Outcome, ProposeError> {
        let shared = &self.0;
        shared.progress.check_disk()?;
        let data = command.to_entry_bytes();
        let permit = shared.pending.reserve(data.len()).await?;
        let (id, answer) = shared.pending.enter(permit, Telling::Whether);
        self.ask_raft(Event::ProposeIn(term, Proposal { id, data }), id, answer)
            .await
    }

    /// Tells the raft thread, and waits for what becomes of it.
    async fn ask_raft(&self, event: Event, id: ProposalId, answer: oneshot::Receiver<Told>) -> Answer {
        let shared = &self.0;
        if shared.raft.push(event).is_err() {
            shared.pending.answer(id, Err(ProposeError::Stopping));
        }
        let (index, answer) = answer.await.map_err(|_| ProposeError::OutcomeUnknown)?;
        journey::wrote(index.0);
        answer
    }

    /// Whether applying this lock now would refuse it. Asked only where the published view is linearizable: of a
    /// hundred contenders for a lock that has just been taken, ninety-nine then cost no log entry and no sync.
    fn is_held_by_another(&self, lock: &KvLock) -> bool {
        let view = self.view();
        let holder = view.kv_get(&lock.key).and_then(KvRow::session);
        let lives = || SessionId::parse(&lock.session).is_some_and(|id| view.session(id).is_some());
        // An unknown session is an error and not a refusal: apply says so.
        holder.is_some_and(|holder| holder != lock.session) && lives()
    }

    /// Where blocking queries wait.
    pub fn watches(&self) -> &Registry {
        &self.0.watches
    }

    /// Renews a session, whoever leads; `None` for an unknown one. Not logged.
    ///
    /// # Errors
    /// [`ProposeError::NoLeader`] when no leader can vouch for it; for a session whose end is under way
    /// [`ProposeError::Storage`] when the disk is full, [`ProposeError::OutcomeUnknown`] when that takes too long.
    pub async fn renew_session(&self, id: SessionId) -> Result<Option<Arc<SessionRow>>, ProposeError> {
        let mut seeking = self.seek_leader();
        let renewed = loop {
            match seeking.next().await? {
                None => match self.renew_here(id).await {
                    Err(ProposeError::NoLeader) => {}
                    done => break done?,
                },
                Some(leader) => {
                    let sent = self.forward_renewal(leader, id, seeking.deadline);
                    if let Forwarded::Answered(answer) = sent.await {
                        break answer?;
                    }
                }
            }
        };
        Ok(self.view().session(id).filter(|_| renewed).cloned())
    }

    /// Renews a session if this server leads and nobody else can (rule R16): under a lease, or after a round with the
    /// voters. `false` for an unknown one.
    pub(crate) async fn renew_here(&self, id: SessionId) -> Result<bool, ProposeError> {
        if !self.0.progress.is_serving() {
            return Err(ProposeError::NoLeader);
        }
        self.read(Consistency::Default)
            .await
            .map_err(|_| ProposeError::NoLeader)?;
        if self.view().session(id).is_none() {
            return Ok(false);
        }
        match self.0.timers.renew(id) {
            Renewal::Renewed | Renewal::Untimed => {
                self.0.metrics.sessions_renewed.one();
                Ok(true)
            }
            Renewal::NotLeading => Err(ProposeError::NoLeader),
            Renewal::Ending => {
                // On a full disk the end cannot be recorded, and nobody knows how long that lasts.
                self.0.progress.check_disk()?;
                match tokio::time::timeout(LEADER_WAIT, self.wait_for_end(id)).await {
                    Ok(ended) => ended.map(|()| false),
                    Err(_) => Err(ProposeError::OutcomeUnknown),
                }
            }
        }
    }

    /// Waits until a session whose end is under way is gone.
    async fn wait_for_end(&self, id: SessionId) -> Result<(), ProposeError> {
        let topics = [Topic::Row(Area::Session, &id.0)];
        let registered = self.watches().register(&topics);
        let mut waiter = registered.map_err(|_| ProposeError::Overloaded)?;
        while self.view().session(id).is_some() {
            waiter.changed().await;
        }
        Ok(())
    }

    /// Changes the members, if this server leads, and waits until the change is applied here. `servers` says who is
    /// new.
    ///
    /// # Errors
    /// [`ProposeError::ChangePending`] while another change is under way; else as [`Self::propose`], but
    /// [`ProposeError::NoLeader`] whenever this server does not lead.
    pub async fn change_members(
        &self,
        changes: Vec<MemberChange>,
        servers: Vec<ServerRow>,
    ) -> Result<(), ProposeError> {
        let context = MembersContext {
            servers,
            autopilot: None,
        };
        self.change_members_with(None, changes, &context)
            .await
            .map(|_| ())
    }

    /// See [`Self::change_members`]. With a term only in that. The outcome is whether all of the context took effect.
    pub(crate) async fn change_members_with(
        &self,
        term: Option<Term>,
        changes: Vec<MemberChange>,
        context: &MembersContext,
    ) -> Result<Outcome, ProposeError> {
        if !self.0.progress.is_serving() {
            return Err(ProposeError::NoLeader);
        }
        let context = context.encode_to_vec();
        let permit = self.0.pending.reserve(context.len()).await?;
        let (id, answer) = self.0.pending.enter(permit, Telling::Whether);
        let event = Event::ChangeMembers {
            id,
            term,
            changes,
            context,
        };
        self.ask_raft(event, id, answer).await
    }

    /// Hands the leadership over, if this server leads: to `to`, or to the most caught-up voter. Does not wait.
    pub fn transfer_leadership(&self, to: Option<RaftId>) {
        // Refused only while stopping.
        let _ = self.0.raft.push(Event::Transfer(to));
    }

    /// What this server knows of the other members now; `None` while it belongs to no cluster.
    pub async fn survey(&self) -> Option<Survey> {
        if self.0.threads.lock().is_empty() {
            return None;
        }
        let (asked, answer) = oneshot::channel();
        self.0.raft.push(Event::Survey(asked)).ok()?;
        answer.await.ok()
    }

    /// The members as of the last change that was applied here; empty while this server belongs to no cluster.
    pub fn roster(&self) -> Arc<Roster> {
        self.0.roster.load_full()
    }

    /// The leader, as far as this server knows.
    pub fn leader(&self) -> Option<RaftId> {
        match self.0.progress.role() {
            Role::Leads => Some(self.0.me),
            Role::Follows(leader) => Some(leader),
            Role::NoLeader | Role::Stopping => None,
        }
    }

    /// Resolves when the leader or the role of this server may have changed.
    pub async fn leader_changed(&self, known: Option<RaftId>) {
        let mut roles = self.0.progress.roles();
        // Ends with an error only when the node is dropped.
        let _ = roles.wait_for(|_| self.leader() != known).await;
    }

    /// This server's id among the members.
    pub fn raft_id(&self) -> RaftId {
        self.0.me
    }

    /// The way to the other servers, if there is one.
    pub fn peers(&self) -> Option<&Peers> {
        self.0.net.get().map(|net| &net.peers)
    }

    /// Who this server is.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// Where consensus stands.
    pub fn status(&self) -> Status {
        let shared = &self.0;
        let roster = shared.roster.load();
        let address = |id: RaftId| roster.address(id);
        Status {
            leader: self.leader().and_then(address).unwrap_or_default(),
            is_leader: shared.progress.is_serving(),
            peers: roster.members().voters().filter_map(address).collect(),
            term: shared.progress.term(),
            commit: shared.progress.commit_index(),
            applied: shared.progress.applied_index(),
            last: shared.progress.last_index(),
        }
    }

    /// Ends the pipeline: a leader hands over to another voter, what was proposed is carried through, the state is
    /// flushed, all threads are joined. Blocks; proposals made from now on are refused.
    pub fn stop(&self) {
        let shared = &self.0;
        shared.progress.set_stopping();
        shared.timers.stop();
        // Refused when the pipeline has ended already.
        let _ = shared.raft.push(Event::Stop);
        let threads = std::mem::take(&mut *shared.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a pipeline thread ended by a panic");
            }
        }
        shared.progress.end_waits();
        shared.pending.answer_rest(&ProposeError::OutcomeUnknown);
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(StartError::Thread)
}
