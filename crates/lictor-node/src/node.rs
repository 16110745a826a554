//! The handle of a running server: proposals, the read gate, renewals.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use lictor_proto::v1::{KvLock, SessionRow};
use lictor_proto::{Command, SessionId};
use lictor_raft::{LogStore, Proposal, StateMark};
use lictor_session::Renewal;
use lictor_state::{Area, KvRow, Outcome, State};
use parking_lot::Mutex;

use crate::mailbox::Mailbox;
use crate::pending::Pending;
use crate::pipeline::{
    ApplyWorker, BACKLOG_BYTES, CheckpointThread, Clock, Event, LogWorker, RaftThread, Stage,
};
use crate::progress::Progress;
use crate::restore::Staging;
use crate::timers::Timers;
use crate::{Checkpoint, Consistency, Identity, ProposeError, ReadError, ReadMeta, Registry, Status, Topic};

/// How long a proposal waits for room in the queue before it is refused.
pub(crate) const OVERLOAD_WAIT: Duration = Duration::from_millis(50);
/// How long reads and writes wait for a leader (Consul: `rpc_hold_timeout`).
const LEADER_WAIT: Duration = Duration::from_secs(7);

/// A running server. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Node {
    shared: Arc<Shared>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

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
    pub(crate) timers: Timers,
    pub(crate) staging: Staging,
}

impl Shared {
    /// Proposes a command whose outcome nobody waits for.
    pub(crate) fn propose_unheard(&self, command: Command) -> Result<(), ProposeError> {
        self.progress.check_disk()?;
        let data = command.to_entry_bytes();
        let permit = self.pending.try_reserve(data.len())?;
        let (id, _) = self.pending.enter(permit);
        let refused = self.raft.push(Event::Propose(Proposal { id, data })).is_err();
        if refused {
            self.pending.answer(id, Err(ProposeError::Stopping));
            return Err(ProposeError::Stopping);
        }
        Ok(())
    }
}

/// What a node is started with.
#[derive(Debug)]
pub struct Options {
    /// Who this server is.
    pub identity: Identity,
    /// Settings of consensus.
    pub raft: lictor_raft::Config,
    /// Blocking queries that may wait at a time.
    pub limit_watches: usize,
    /// The folder for archives that are saved or restored.
    pub staging: PathBuf,
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
    /// Starts the pipeline over an opened log and an opened state. A sole voter leads at once, without an
    /// election timeout; [`Self::read`] tells when.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start<S: LogStore, C: Checkpoint>(
        options: Options,
        log: S,
        checkpoint: C,
        mut state: State,
        mark: &StateMark,
    ) -> Result<Self, StartError> {
        let tick = Duration::from_millis(options.raft.tick_ms);
        let (core, writer) = lictor_raft::open(log, options.raft, mark)?;
        if state.applied().0 < mark.applied.index {
            // The founding position of a new cluster, which no entry of the log stands for.
            state.apply_empty(mark.applied.index, mark.applied.term);
        }
        let clock = Clock::start();
        let shared = Arc::new(Shared {
            identity: options.identity,
            view: ArcSwap::from_pointee(state.clone()),
            watches: Registry::new(options.limit_watches).map_err(StartError::Thread)?,
            pending: Pending::new(),
            raft: Mailbox::new(usize::MAX),
            progress: Progress::new(),
            timers: Timers::new(clock),
            staging: Staging::new(options.staging),
        });
        let checkpoint_inbox = Arc::new(Mailbox::new(BACKLOG_BYTES));
        let copy = CheckpointThread::new(Arc::clone(&shared), Arc::clone(&checkpoint_inbox), checkpoint);
        let apply = ApplyWorker::new(Arc::clone(&shared), Arc::clone(&checkpoint_inbox), state);
        let apply = Arc::new(Stage::new(apply));
        let log = Arc::new(Stage::new(LogWorker {
            shared: Arc::clone(&shared),
            writer,
        }));
        let raft = RaftThread {
            shared: Arc::clone(&shared),
            core,
            clock,
            tick,
            log: Arc::clone(&log),
            apply: Arc::clone(&apply),
            stop_by: None,
        };
        let timers = Arc::clone(&shared);
        let threads = vec![
            spawn("checkpoint", move || copy.run())?,
            spawn("apply", move || {
                apply.run();
                checkpoint_inbox.close();
            })?,
            spawn("log", move || log.run())?,
            spawn("timers", move || Timers::run(&timers))?,
            spawn("raft", move || raft.run())?,
        ];
        Ok(Self {
            shared,
            threads: Arc::new(Mutex::new(threads)),
        })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The state as last published by apply: a consistent snapshot that later writes do not touch.
    pub fn view(&self) -> arc_swap::Guard<Arc<State>> {
        self.shared.view.load()
    }

    /// Proposes a command and waits until it is committed, durable and applied here. Leader-only checks
    /// (lock-delays) happen on the way. The command stands even if the caller stops waiting.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, mut command: Command) -> Result<Outcome, ProposeError> {
        let shared = &self.shared;
        if !shared.progress.is_serving() {
            self.wait_for_leader().await.map_err(|error| match error {
                ReadError::NoLeader => ProposeError::NoLeader,
                ReadError::Stopping => ProposeError::Stopping,
            })?;
        }
        if let Command::KvLock(lock) = &command
            && self.is_held_by_another(lock)
        {
            return Ok(Outcome::Bool(false));
        }
        shared.progress.check_disk()?;
        shared.timers.check_locks(&mut command)?;
        let data = command.to_entry_bytes();
        if !Command::fits(data.len()) {
            return Err(ProposeError::TooLarge(data.len()));
        }
        let permit = shared.pending.reserve(data.len()).await?;
        let (id, answer) = shared.pending.enter(permit);
        if shared.raft.push(Event::Propose(Proposal { id, data })).is_err() {
            shared.pending.answer(id, Err(ProposeError::Stopping));
        }
        answer.await.unwrap_or(Err(ProposeError::OutcomeUnknown))
    }

    /// Whether applying this lock now would refuse it. The published view is linearizable here (see
    /// [`Self::try_read`]), so the refusal may be answered from it: of a hundred contenders for a lock that has just
    /// been taken, ninety-nine then cost no log entry and no sync.
    fn is_held_by_another(&self, lock: &KvLock) -> bool {
        let view = self.view();
        let holder = view.kv_get(&lock.key).and_then(KvRow::session);
        let lives = || SessionId::parse(&lock.session).is_some_and(|id| view.session(id).is_some());
        // An unknown session is an error and not a refusal: apply says so.
        holder.is_some_and(|holder| holder != lock.session) && lives()
    }

    /// Answers at once where no waiting is needed, which is the usual case.
    ///
    /// The published view is linearizable on a sole voter that leads: a write is acknowledged only after the
    /// view that shows it was published, and nobody else can acknowledge writes.
    pub fn try_read(&self, consistency: Consistency) -> Option<ReadMeta> {
        let serving = self.shared.progress.is_serving();
        let meta = ReadMeta {
            known_leader: serving,
            last_contact_ms: 0,
        };
        (serving || consistency == Consistency::Stale).then_some(meta)
    }

    /// Waits until a [`Self::view`] taken afterwards is fresh enough.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read(&self, consistency: Consistency) -> Result<ReadMeta, ReadError> {
        if let Some(meta) = self.try_read(consistency) {
            return Ok(meta);
        }
        self.wait_for_leader().await?;
        Ok(ReadMeta {
            known_leader: true,
            last_contact_ms: 0,
        })
    }

    /// Where blocking queries wait.
    pub fn watches(&self) -> &Registry {
        &self.shared.watches
    }

    /// Renews a session; `None` for an unknown one. Not logged.
    ///
    /// # Errors
    /// [`ProposeError::NoLeader`] when no leader can vouch for it; for a session whose end is under way
    /// [`ProposeError::Storage`] when the disk is full, [`ProposeError::OutcomeUnknown`] when that takes too long.
    pub async fn renew_session(&self, id: SessionId) -> Result<Option<Arc<SessionRow>>, ProposeError> {
        if !self.shared.progress.is_serving() {
            self.wait_for_leader().await.map_err(|_| ProposeError::NoLeader)?;
        }
        let Some(session) = self.view().session(id).cloned() else {
            return Ok(None);
        };
        match self.shared.timers.renew(id) {
            Renewal::Renewed | Renewal::Untimed => Ok(Some(session)),
            Renewal::NotLeading => Err(ProposeError::NoLeader),
            Renewal::Ending => {
                // On a full disk the end cannot be recorded, and nobody knows how long that lasts.
                self.shared.progress.check_disk()?;
                match tokio::time::timeout(LEADER_WAIT, self.wait_for_end(id)).await {
                    Ok(ended) => ended.map(|()| None),
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

    /// Who this server is.
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// Where consensus stands.
    pub fn status(&self) -> Status {
        self.shared.progress.status(&self.shared.identity)
    }

    /// Ends the pipeline: what was proposed is carried through, the state is flushed, all threads are joined.
    /// Blocks; proposals made from now on are refused.
    pub fn stop(&self) {
        self.shared.progress.set_stopping();
        self.shared.timers.stop();
        // Refused when the pipeline has ended already.
        let _ = self.shared.raft.push(Event::Stop);
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a pipeline thread ended by a panic");
            }
        }
        self.shared.pending.answer_rest(&ProposeError::Stopping);
    }

    async fn wait_for_leader(&self) -> Result<(), ReadError> {
        match tokio::time::timeout(LEADER_WAIT, self.shared.progress.serving()).await {
            Ok(result) => result,
            Err(_) => Err(ReadError::NoLeader),
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StartError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(StartError::Thread)
}
