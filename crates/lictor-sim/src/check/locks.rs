//! Sessions and locks as their clients see them: one live holder, none inside a delay, none expired early.
//!
//! Times are the observer's, in milliseconds, while servers' clocks run up to [`DRIFT_PERCENT`] off.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use lictor_proto::SessionId;

use super::{Breach, Checked, ensure};

/// How far a server's clock may be off.
pub(super) const DRIFT_PERCENT: u64 = 5;

/// What is known of sessions, locks and delays.
#[derive(Debug, Default)]
pub struct Locks {
    sessions: BTreeMap<SessionId, Session>,
    holders: BTreeMap<Bytes, BTreeSet<SessionId>>,
    /// Until when no lock may be taken.
    delays: BTreeMap<Bytes, u64>,
}

#[derive(Debug)]
struct Session {
    ttl_ms: u64,
    /// When the last acknowledged sign of life was sent.
    sign: u64,
    /// Its client has asked for its end.
    given_up: bool,
    /// When it ended.
    ended: Option<u64>,
}

impl Session {
    /// Until when its client may rely on it.
    fn good_until(&self) -> u64 {
        self.sign + at_least(self.ttl_ms)
    }
}

/// A time on a server's clock, if that runs fast.
pub(super) fn at_least(ms: u64) -> u64 {
    ms * 100 / (100 + DRIFT_PERCENT)
}

impl Locks {
    /// A session's creation, sent at `sent`, was acknowledged.
    ///
    /// # Errors
    /// If it has ended too early already.
    pub fn created(&mut self, id: SessionId, ttl_ms: u64, sent: u64) -> Checked {
        self.sessions.entry(id).or_insert(Session {
            ttl_ms,
            sign: sent,
            given_up: false,
            ended: None,
        });
        self.renewed(id, sent)
    }

    /// A renewal, sent at `sent`, was acknowledged.
    ///
    /// # Errors
    /// If it has ended too early already.
    pub fn renewed(&mut self, id: SessionId, sent: u64) -> Checked {
        let Some(session) = self.sessions.get_mut(&id) else {
            return Ok(());
        };
        session.sign = session.sign.max(sent);
        no_early_end(id, session)
    }

    /// Its client asks for its end.
    pub fn given_up(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.given_up = true;
        }
    }

    /// It ended in the state.
    ///
    /// # Errors
    /// If it is too early.
    pub fn ended(&mut self, id: SessionId, now: u64) -> Checked {
        let Some(session) = self.sessions.get_mut(&id) else {
            return Ok(());
        };
        session.ended.get_or_insert(now);
        no_early_end(id, session)
    }

    /// A lock was acknowledged to its client.
    ///
    /// # Errors
    /// If both it and another holder may rely on it.
    pub fn locked(&mut self, key: &Bytes, id: SessionId, now: u64) -> Checked {
        let good = |id: &SessionId| {
            let session = self.sessions.get(id);
            session.is_some_and(|session| !session.given_up && now < session.good_until())
        };
        let holders = self.holders.entry(key.clone()).or_default();
        if !good(&id) {
            return Ok(());
        }
        holders.insert(id);
        let other = holders.iter().find(|&other| *other != id && good(other));
        ensure(other.is_none(), || {
            format!("{key:?} is held by {id} and by {other:?}, and both live")
        })
    }

    /// A client gives a lock back.
    pub fn released(&mut self, key: &Bytes, id: SessionId) {
        if let Some(holders) = self.holders.get_mut(key) {
            holders.remove(&id);
        }
    }

    /// A session that held the key ended in the state, with this delay.
    pub fn delayed(&mut self, key: &Bytes, delay_ms: u64, now: u64) {
        let end = self.delays.entry(key.clone()).or_default();
        *end = (*end).max(now + at_least(delay_ms));
    }

    /// The key was locked in the state by somebody who did not hold it.
    ///
    /// # Errors
    /// If a delay runs.
    pub fn taken(&self, key: &Bytes, now: u64) -> Checked {
        let end = self.delays.get(key).copied().unwrap_or(0);
        ensure(now >= end, || {
            format!("{key:?} was locked {} ms before its delay was over", end - now)
        })
    }
}

fn no_early_end(id: SessionId, session: &Session) -> Checked {
    match session.ended {
        Some(ended) if !session.given_up && ended < session.good_until() => Err(Breach(format!(
            "session {id} of {} ms ended {} ms after its last sign of life",
            session.ttl_ms,
            ended.saturating_sub(session.sign)
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: SessionId = SessionId([1; 16]);
    const TWO: SessionId = SessionId([2; 16]);

    fn two_sessions() -> Locks {
        let mut locks = Locks::default();
        locks.created(ONE, 1000, 0).unwrap();
        locks.created(TWO, 1000, 0).unwrap();
        locks
    }

    #[test]
    fn two_live_holders_are_seen() {
        let key = Bytes::from_static(b"k");
        let mut locks = two_sessions();
        assert_eq!(locks.locked(&key, ONE, 100), Ok(()));

        assert!(locks.locked(&key, TWO, 200).is_err());
    }

    #[test]
    fn a_lock_may_pass_on_when_it_was_given_back_or_its_session_is_over() {
        let key = Bytes::from_static(b"k");
        let mut back = two_sessions();
        back.locked(&key, ONE, 100).unwrap();
        back.released(&key, ONE);
        assert_eq!(back.locked(&key, TWO, 200), Ok(()));

        let mut over = two_sessions();
        over.locked(&key, ONE, 100).unwrap();
        over.renewed(TWO, 900).unwrap();
        assert_eq!(over.locked(&key, TWO, 1000), Ok(()));
    }

    #[test]
    fn an_early_end_is_seen_even_if_the_renewal_is_acknowledged_later() {
        assert!(two_sessions().ended(ONE, 900).is_err());
        assert_eq!(two_sessions().ended(ONE, 1000), Ok(()));

        let mut late = two_sessions();
        late.ended(ONE, 1000).unwrap();
        assert!(late.renewed(ONE, 500).is_err());
    }

    #[test]
    fn an_end_that_was_asked_for_is_never_early() {
        let mut locks = two_sessions();
        locks.given_up(ONE);

        assert_eq!(locks.ended(ONE, 1), Ok(()));
    }

    #[test]
    fn a_lock_inside_a_delay_is_seen() {
        let key = Bytes::from_static(b"k");
        let mut locks = Locks::default();
        locks.delayed(&key, 1050, 100);
        locks.delayed(&key, 10, 200);

        assert!(locks.taken(&key, 1099).is_err());
        assert_eq!(locks.taken(&key, 1100), Ok(()));
    }
}
