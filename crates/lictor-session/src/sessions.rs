//! TTLs and renewals.

use std::collections::{BTreeSet, HashMap};

use lictor_proto::limits::SESSION_TTL_MULTIPLIER;
use lictor_proto::{MonoTime, SessionId};

use crate::stall::Stall;
use crate::{PROPOSE_AGAIN_MS, slot};

/// Deadlines looked at in one turn, so that a million renewed sessions cannot hold the caller up.
const STEPS_PER_TURN_MAX: usize = 4_096;

/// The answer to a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// It lives for two more TTLs, or one if that is exact.
    Renewed,
    /// It has no timer here: it has no TTL, or does not exist. The state knows which.
    Untimed,
    /// It ran out and its end is being proposed: wait for that, then answer as for one that does not exist.
    Ending,
    /// This server does not lead, so it cannot vouch for any session.
    NotLeading,
}

/// The TTL of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl {
    /// In milliseconds; 0 for a session that does not expire.
    pub ms: u64,
    /// Whether the session ends one TTL after its last renewal, and not two as Consul's do.
    pub is_exact: bool,
}

impl From<u64> for Ttl {
    /// As Consul's.
    fn from(ms: u64) -> Self {
        Self { ms, is_exact: false }
    }
}

impl Ttl {
    /// The deadline of a session that is known to live (Consul: sessions expire after two TTLs).
    fn full(self, now: MonoTime) -> MonoTime {
        let ttls = if self.is_exact { 1 } else { SESSION_TTL_MULTIPLIER };
        now.plus_ms(self.ms.saturating_mul(u64::from(ttls)))
    }
}

/// The sessions that have a TTL.
#[derive(Debug)]
pub(crate) struct Sessions {
    by_id: HashMap<SessionId, Session>,
    due: BTreeSet<(MonoTime, SessionId)>,
    stall: Stall,
}

#[derive(Debug)]
struct Session {
    ttl: Ttl,
    /// When it ends unless it is renewed.
    deadline: MonoTime,
    /// Where it stands in `due`: at the deadline or earlier.
    armed: MonoTime,
    ending: bool,
}

impl Sessions {
    /// Arms sessions whose last renewal is not known with one TTL (rule R16).
    pub(crate) fn armed(now: MonoTime, sessions: impl IntoIterator<Item = (SessionId, Ttl)>) -> Self {
        let by_id: HashMap<_, _> = sessions
            .into_iter()
            .filter(|(_, ttl)| ttl.ms > 0)
            .map(|(id, ttl)| (id, Session::new(ttl, now.plus_ms(ttl.ms))))
            .collect();
        // Collected at once, which sorts and builds in bulk.
        let due = by_id.iter().map(|(id, session)| (session.armed, *id)).collect();
        Self {
            by_id,
            due,
            stall: Stall::new(now),
        }
    }

    pub(crate) fn created(&mut self, id: SessionId, ttl: Ttl, now: MonoTime) {
        if ttl.ms > 0 && !self.by_id.contains_key(&id) {
            let session = Session::new(ttl, ttl.full(now));
            self.due.insert((session.armed, id));
            self.by_id.insert(id, session);
        }
    }

    pub(crate) fn gone(&mut self, id: SessionId) {
        if let Some(session) = self.by_id.remove(&id) {
            self.due.remove(&(session.armed, id));
        }
    }

    pub(crate) fn renew(&mut self, id: SessionId, now: MonoTime) -> Renewal {
        match self.by_id.get_mut(&id) {
            None => Renewal::Untimed,
            Some(session) if session.ending => Renewal::Ending,
            Some(session) => {
                session.deadline = session.deadline.max(session.ttl.full(now));
                Renewal::Renewed
            }
        }
    }

    pub(crate) fn expired(&mut self, now: MonoTime, max: usize) -> Vec<SessionId> {
        let mut expired = Vec::new();
        self.stall.notice(self.due.first().map(|(at, _)| *at), now);
        for _ in 0..STEPS_PER_TURN_MAX {
            let Some(&(armed, id)) = self
                .due
                .first()
                .filter(|(at, _)| *at <= now && self.stall.held_until() <= now)
            else {
                break;
            };
            if expired.len() == max {
                break;
            }
            self.due.remove(&(armed, id));
            let Some(session) = self.by_id.get_mut(&id) else {
                continue;
            };
            session.armed = if session.deadline <= now {
                session.ending = true;
                expired.push(id);
                slot(now.plus_ms(PROPOSE_AGAIN_MS))
            } else {
                slot(session.deadline)
            };
            self.due.insert((session.armed, id));
        }
        expired
    }

    pub(crate) fn next_deadline(&self) -> Option<MonoTime> {
        self.due.first().map(|(at, _)| (*at).max(self.stall.held_until()))
    }

    /// For how many milliseconds a session still lives, 0 if its end is due; `None` for one without a timer.
    pub(crate) fn left_ms(&self, id: SessionId, now: MonoTime) -> Option<u64> {
        self.by_id.get(&id).map(|session| session.deadline.ms_since(now))
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }
}

impl Session {
    fn new(ttl: Ttl, deadline: MonoTime) -> Self {
        Self {
            ttl,
            deadline,
            armed: slot(deadline),
            ending: false,
        }
    }
}
