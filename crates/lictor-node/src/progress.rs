//! Where consensus stands, as the pipeline threads publish it for everybody else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lictor_proto::{LogIndex, MonoTime, RaftId, Term};
use lictor_raft::RoleChange;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

use crate::{ProposeError, ReadError};

/// Who decides, as this server sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// No leader is known, or the leader is this server and its first entry of its term is not applied yet.
    NoLeader,
    /// Another server leads.
    Follows(RaftId),
    /// This server leads and has applied an entry of its term.
    Leads,
    /// The pipeline has ended or is about to.
    Stopping,
}

/// A time that never comes, and an index that is never applied.
const NEVER: u64 = u64::MAX;
/// So many who wait for an index may have gone before anybody looks.
const GONE_MAX: usize = 1024;

/// Published by the raft, log and apply threads; read by anyone without a lock.
#[derive(Debug)]
pub(crate) struct Progress {
    role: watch::Sender<Role>,
    /// Whether the role is [`Role::Leads`], for the path of each request.
    is_serving: AtomicBool,
    disk_full: AtomicBool,
    /// The leader's no-op: once it is applied this server serves. [`NEVER`] while it does not lead. Changed with
    /// `turn` held, so that a leader that steps down while apply makes it serve never serves.
    lead_from: AtomicU64,
    turn: Mutex<()>,
    /// Nothing is served, since the state is wrong.
    barred: AtomicBool,
    unbarred: Notify,
    /// Milliseconds up to which reads need no round; 0 without a lease, [`NEVER`] for a sole voter.
    lease_until: AtomicU64,
    /// When this follower last heard from its leader, in milliseconds, plus 1; 0 if never.
    last_contact: AtomicU64,
    term: AtomicU64,
    commit: AtomicU64,
    applied: AtomicU64,
    last: AtomicU64,
    waits: Waits,
}

/// Those who wait until an index is applied.
#[derive(Debug)]
struct Waits {
    /// The lowest index that somebody waits for.
    lowest: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    by_index: BTreeMap<u64, Vec<oneshot::Sender<()>>>,
    count: usize,
    /// From so many on, those who have gone are looked for.
    room: usize,
}

impl Waiting {
    fn add(&mut self, index: LogIndex) -> oneshot::Receiver<()> {
        if self.count >= self.room {
            self.by_index.retain(|_, waiting| {
                waiting.retain(|done| !done.is_closed());
                !waiting.is_empty()
            });
            self.count = self.by_index.values().map(Vec::len).sum();
            self.room = (2 * self.count).max(GONE_MAX);
        }
        let (sender, receiver) = oneshot::channel();
        self.by_index.entry(index.0).or_default().push(sender);
        self.count += 1;
        receiver
    }

    /// Those who wait for an index up to this, and the lowest that somebody waits for then.
    fn take(&mut self, applied: LogIndex) -> (Vec<oneshot::Sender<()>>, u64) {
        let later = self.by_index.split_off(&(applied.0 + 1));
        let due: Vec<_> = std::mem::replace(&mut self.by_index, later)
            .into_values()
            .flatten()
            .collect();
        self.count -= due.len();
        (due, self.by_index.keys().next().copied().unwrap_or(NEVER))
    }
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            role: watch::Sender::new(Role::NoLeader),
            is_serving: AtomicBool::new(false),
            disk_full: AtomicBool::new(false),
            lead_from: AtomicU64::new(NEVER),
            turn: Mutex::new(()),
            barred: AtomicBool::new(false),
            unbarred: Notify::new(),
            lease_until: AtomicU64::new(0),
            last_contact: AtomicU64::new(0),
            term: AtomicU64::new(0),
            commit: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            last: AtomicU64::new(0),
            waits: Waits {
                lowest: AtomicU64::new(NEVER),
                waiting: Mutex::default(),
            },
        }
    }

    /// Whether this server leads and has applied an entry of its term.
    pub(crate) fn is_serving(&self) -> bool {
        self.is_serving.load(Ordering::Acquire)
    }

    /// The role now.
    pub(crate) fn role(&self) -> Role {
        *self.role.borrow()
    }

    /// To wait for another role with.
    pub(crate) fn roles(&self) -> watch::Receiver<Role> {
        self.role.subscribe()
    }

    /// Told by the raft thread.
    pub(crate) fn set_role(&self, role: &RoleChange) {
        let _turn = self.turn.lock();
        let no_op = if role.is_leader { role.no_op.0 } else { NEVER };
        if self.lead_from.swap(no_op, Ordering::AcqRel) == no_op && role.is_leader {
            return;
        }
        self.publish(match role.leader {
            Some(leader) if !role.is_leader => Role::Follows(leader),
            _ => Role::NoLeader,
        });
    }

    /// Told by the apply thread after each batch: if it made this server a leader that may serve, `arm` is run first.
    pub(crate) fn serve_from(&self, applied: LogIndex, arm: impl FnOnce()) {
        if self.is_serving() || applied.0 < self.lead_from.load(Ordering::Acquire) {
            return;
        }
        let _turn = self.turn.lock();
        if !self.is_barred() && applied.0 >= self.lead_from.load(Ordering::Acquire) {
            arm();
            self.publish(Role::Leads);
        }
    }

    /// Runs `arm` if this server leads and serves; it goes on doing so until that has ended.
    pub(crate) fn while_serving(&self, arm: impl FnOnce()) {
        let _turn = self.turn.lock();
        if self.is_serving() {
            arm();
        }
    }

    /// Serves nothing from now on, the leader's part included. Answers whether that is news.
    pub(crate) fn bar(&self) -> bool {
        let _turn = self.turn.lock();
        if self.role() == Role::Leads {
            self.publish(Role::NoLeader);
        }
        !self.barred.swap(true, Ordering::SeqCst)
    }

    /// Serves again; as a leader, if it is one, when apply says so next.
    pub(crate) fn unbar(&self) {
        self.barred.store(false, Ordering::SeqCst);
        self.unbarred.notify_waiters();
    }

    pub(crate) fn is_barred(&self) -> bool {
        self.barred.load(Ordering::SeqCst)
    }

    /// Waits while nothing is served. Cancel safe.
    pub(crate) async fn unbarred(&self) {
        loop {
            let unbarred = self.unbarred.notified();
            if !self.is_barred() {
                return;
            }
            unbarred.await;
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.role() == Role::Stopping
    }

    pub(crate) fn set_stopping(&self) {
        self.publish(Role::Stopping);
    }

    fn publish(&self, next: Role) {
        self.role.send_if_modified(|now| {
            let changes = *now != next && *now != Role::Stopping;
            if changes {
                *now = next;
                self.is_serving.store(next == Role::Leads, Ordering::Release);
            }
            changes
        });
    }

    /// Told by the raft thread, at once.
    pub(crate) fn set_lease(&self, until: Option<MonoTime>) {
        self.lease_until
            .store(until.map_or(0, |until| until.0), Ordering::SeqCst);
    }

    /// Whether nobody else can lead, now and as long as this server is alone.
    pub(crate) fn is_alone(&self) -> bool {
        self.lease_until.load(Ordering::SeqCst) == NEVER
    }

    /// Whether nobody else can lead at this time. `now` must have been read before.
    pub(crate) fn has_lease(&self, now: impl FnOnce() -> MonoTime) -> bool {
        match self.lease_until.load(Ordering::SeqCst) {
            NEVER => true,
            0 => false,
            until => now().0 < until,
        }
    }

    /// What was committed when the raft thread last said so. It says so before it tells any other server (rule R1).
    pub(crate) fn commit_index(&self) -> LogIndex {
        LogIndex(self.commit.load(Ordering::SeqCst))
    }

    /// What is applied and published.
    pub(crate) fn applied_index(&self) -> LogIndex {
        LogIndex(self.applied.load(Ordering::SeqCst))
    }

    /// Waits until an index is applied and published. Cancel safe.
    pub(crate) async fn applied(&self, index: LogIndex) -> Result<(), ReadError> {
        if self.applied_index() >= index {
            return Ok(());
        }
        let done = {
            let mut waiting = self.waits.waiting.lock();
            let receiver = waiting.add(index);
            self.waits.lowest.fetch_min(index.0, Ordering::SeqCst);
            // It may have been applied before apply could see that somebody waits.
            if self.applied_index() >= index {
                return Ok(());
            }
            receiver
        };
        done.await.map_err(|_| ReadError::Stopping)
    }

    /// Told by the apply thread once the view is published.
    pub(crate) fn set_applied(&self, applied: LogIndex) {
        self.applied.store(applied.0, Ordering::SeqCst);
        if self.waits.lowest.load(Ordering::SeqCst) > applied.0 {
            return;
        }
        let due = {
            let mut waiting = self.waits.waiting.lock();
            let (due, lowest) = waiting.take(applied);
            self.waits.lowest.store(lowest, Ordering::SeqCst);
            due
        };
        for done in due {
            // Whoever waited may have gone.
            let _ = done.send(());
        }
    }

    /// Answers everybody who still waits, when nothing more will be applied.
    pub(crate) fn end_waits(&self) {
        *self.waits.waiting.lock() = Waiting::default();
    }

    /// Milliseconds since this server heard from a leader, or led itself; 0 if neither ever was.
    pub(crate) fn silence_ms(&self, now: MonoTime) -> u64 {
        match self.last_contact.load(Ordering::Relaxed) {
            0 => 0,
            contact => now.0.saturating_sub(contact - 1),
        }
    }

    /// Refuses proposals while the disk is nearly full, before writes to it begin to fail.
    pub(crate) fn check_disk(&self) -> Result<(), ProposeError> {
        if self.is_disk_full() {
            return Err(ProposeError::Storage(
                "the disk of the data directory is nearly full: writes are refused until there is room"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    pub(crate) fn is_disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    /// Returns whether this is news.
    pub(crate) fn set_disk_full(&self, full: bool) -> bool {
        self.disk_full.swap(full, Ordering::Relaxed) != full
    }

    /// Told by the raft thread after each of its turns, before it carries out what the turn asks for.
    pub(crate) fn set_raft(&self, status: &lictor_raft::Status, now: MonoTime) {
        self.term.store(status.term.0, Ordering::Relaxed);
        self.last.store(status.last.0, Ordering::Relaxed);
        let contact = if status.is_leader {
            Some(now)
        } else {
            status.last_contact
        };
        // While there is no leader, the time since the last one is what counts.
        if let Some(at) = contact {
            self.last_contact.store(at.0 + 1, Ordering::Relaxed);
        }
        self.commit.store(status.commit.0, Ordering::SeqCst);
    }

    pub(crate) fn term(&self) -> Term {
        Term(self.term.load(Ordering::Relaxed))
    }

    pub(crate) fn last_index(&self) -> LogIndex {
        LogIndex(self.last.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn leads(no_op: u64) -> RoleChange {
        RoleChange {
            leader: Some(RaftId(1)),
            term: Term(2),
            is_leader: true,
            no_op: LogIndex(no_op),
        }
    }

    fn follows(leader: u64) -> RoleChange {
        RoleChange {
            leader: Some(RaftId(leader)),
            term: Term(3),
            is_leader: false,
            no_op: LogIndex(0),
        }
    }

    #[tokio::test]
    async fn a_leader_serves_once_its_no_op_is_applied_and_whoever_waits_learns_it() {
        let progress = Arc::new(Progress::new());
        let waiting = tokio::spawn({
            let mut roles = progress.roles();
            async move { roles.wait_for(|role| *role == Role::Leads).await.is_ok() }
        });
        progress.set_role(&leads(7));

        progress.serve_from(LogIndex(6), || panic!("too early"));
        assert!(!progress.is_serving());
        let mut armed = false;
        progress.serve_from(LogIndex(7), || armed = true);

        assert!(armed && progress.is_serving());
        assert!(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn a_leader_that_stepped_down_meanwhile_does_not_serve() {
        let progress = Progress::new();
        progress.set_role(&leads(7));
        progress.set_role(&follows(2));

        progress.serve_from(LogIndex(7), || panic!("it does not lead"));

        assert_eq!(progress.role(), Role::Follows(RaftId(2)));
    }

    #[tokio::test]
    async fn a_stopping_server_never_serves_again() {
        let progress = Progress::new();
        progress.set_role(&leads(1));
        progress.set_stopping();

        progress.serve_from(LogIndex(1), || {});

        assert!(!progress.is_serving());
        assert_eq!(progress.role(), Role::Stopping);
    }

    #[tokio::test]
    async fn those_who_have_gone_are_forgotten_although_nothing_is_applied() {
        let progress = Progress::new();
        let stays = progress.applied(LogIndex(9));
        tokio::pin!(stays);
        assert!(futures_util::poll!(&mut stays).is_pending());

        for _ in 0..20 * GONE_MAX {
            let goes = progress.applied(LogIndex(9));
            tokio::pin!(goes);
            assert!(futures_util::poll!(goes).is_pending());
        }

        assert!(progress.waits.waiting.lock().count <= GONE_MAX);
        progress.set_applied(LogIndex(9));
        assert!(stays.await.is_ok());
        assert_eq!(progress.waits.waiting.lock().count, 0);
    }

    #[tokio::test]
    async fn whoever_waits_for_an_index_is_told_when_it_is_applied() {
        let progress = Arc::new(Progress::new());
        let waits = [3, 5, 5, 9].map(|index| {
            let progress = Arc::clone(&progress);
            tokio::spawn(async move { progress.applied(LogIndex(index)).await })
        });
        while progress.waits.waiting.lock().count < 4 {
            tokio::task::yield_now().await;
        }

        progress.set_applied(LogIndex(5));
        let [three, five, five_too, nine] = waits;
        for done in [three, five, five_too] {
            assert!(done.await.unwrap().is_ok());
        }
        assert!(!nine.is_finished());
        progress.end_waits();

        assert!(matches!(nine.await.unwrap(), Err(ReadError::Stopping)));
    }

    #[test]
    fn a_lease_is_a_time() {
        let progress = Progress::new();
        assert!(!progress.has_lease(|| MonoTime(0)));

        progress.set_lease(Some(MonoTime(100)));
        assert!(progress.has_lease(|| MonoTime(99)));
        assert!(!progress.has_lease(|| MonoTime(100)));
        progress.set_lease(Some(MonoTime(u64::MAX)));
        assert!(progress.is_alone() && progress.has_lease(|| unreachable!("no clock is needed")));
    }
}
