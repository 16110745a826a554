//! A client that locks, at once or in line: a session, a lock, signs of life for a while, then release, an orderly
//! end, or silence.

use bytes::Bytes;
use lictor_proto::v1::{
    KvLock, KvLockEnter, KvUnlock, NodeRow, Register, SessionBehavior, SessionCreate, SessionDestroy,
    SessionRow,
};
use lictor_proto::{Command, SessionId};
use lictor_state::{ApplyError, Explained, Outcome};

use super::Surroundings;
use crate::check::Checked;
use crate::request::{Reply, Request};

const KEYS: u64 = 3;
const NODE: &str = "client";

/// A client that locks.
#[derive(Debug, Default)]
pub(crate) struct Locker {
    session: Option<Session>,
    asked: Option<(Asked, u64)>,
    registered: bool,
    /// It plays dead until then.
    silent_until: u64,
}

#[derive(Debug, Clone)]
struct Session {
    id: SessionId,
    ttl_ms: u64,
    /// When its last acknowledged sign of life was sent.
    sign: u64,
    holds: Option<Bytes>,
}

#[derive(Debug, Clone)]
enum Asked {
    Register,
    Create(Session),
    Renew,
    Lock(Bytes),
    Unlock,
    Destroy,
}

impl Locker {
    pub(super) fn ask(&mut self, around: &mut Surroundings<'_>) -> Option<Request> {
        if around.now_ms < self.silent_until {
            return None;
        }
        let (asked, request) = match &mut self.session {
            None if !self.registered => (Asked::Register, register()),
            None => create(around),
            Some(session) if around.now_ms >= session.sign + session.ttl_ms / 3 => {
                (Asked::Renew, Request::Renew(session.id))
            }
            Some(session) => match (&session.holds, around.random.below(100)) {
                (None, _) => lock(session, around),
                (Some(key), 0..30) => {
                    around.locks.released(key, session.id);
                    let request = unlock(key, session.id);
                    session.holds = None;
                    (Asked::Unlock, request)
                }
                (_, 30..35) => {
                    around.locks.given_up(session.id);
                    (Asked::Destroy, destroy(session.id))
                }
                (_, 35..42) => {
                    // No word any more: the session has to run out.
                    self.silent_until = around.now_ms + around.random.below(3 * session.ttl_ms);
                    self.session = None;
                    return None;
                }
                _ => (Asked::Renew, Request::Renew(session.id)),
            },
        };
        self.asked = Some((asked, around.now_ms));
        Some(request)
    }

    pub(super) fn hear(&mut self, reply: &Reply, around: &mut Surroundings<'_>) -> Checked {
        let Some((asked, sent)) = self.asked.take() else {
            return Ok(());
        };
        let done = match reply {
            Reply::Done(outcome) => match **outcome {
                Outcome::Bool(done) | Outcome::Explained(Explained { done, .. }) => Some(done),
                Outcome::Failed(ApplyError::MissingNode) => {
                    self.registered = false;
                    None
                }
                _ => None,
            },
            _ => None,
        };
        match asked {
            Asked::Register => self.registered = done == Some(true),
            Asked::Create(session) if done == Some(true) => {
                around.locks.created(session.id, session.ttl_ms, sent)?;
                self.session = Some(Session {
                    sign: sent,
                    ..session
                });
            }
            Asked::Renew => match (reply, &mut self.session) {
                (Reply::Renewed(true), Some(session)) => {
                    session.sign = session.sign.max(sent);
                    around.locks.renewed(session.id, sent)?;
                }
                (Reply::Renewed(false), _) => self.session = None,
                _ => {}
            },
            Asked::Lock(key) => match (&mut self.session, done, reply) {
                (Some(session), Some(true), _) => {
                    around.locks.locked(&key, session.id, around.now_ms)?;
                    session.holds = Some(key);
                }
                // It may hold the lock or not, or its session is gone: it begins anew.
                (_, None, Reply::Unknown | Reply::Done(_)) => self.session = None,
                _ => {}
            },
            Asked::Destroy => self.session = None,
            // It may be done yet, and would take away a lock that this session has by then.
            Asked::Unlock if matches!(reply, Reply::Unknown) => self.session = None,
            Asked::Create(_) | Asked::Unlock => {}
        }
        Ok(())
    }
}

fn write(command: Command) -> Request {
    Request::Write(Box::new(command))
}

fn register() -> Request {
    let node = NodeRow {
        node: NODE.to_owned(),
        address: "127.0.0.1".to_owned(),
        ..NodeRow::default()
    };
    write(Command::Register(Register {
        node: Some(node),
        ..Register::default()
    }))
}

fn create(around: &mut Surroundings<'_>) -> (Asked, Request) {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&around.random.draw().to_be_bytes());
    id[8..].copy_from_slice(&around.random.draw().to_be_bytes());
    let ttl_ms = 800 + around.random.below(2000);
    let delay_ms = around.random.below(1500);
    let behavior = if around.random.below(2) == 0 {
        SessionBehavior::Release
    } else {
        SessionBehavior::Delete
    };
    let row = SessionRow {
        id: id.to_vec().into(),
        node: NODE.to_owned(),
        lock_delay_ns: i64::try_from(delay_ms * 1_000_000).unwrap_or(0),
        behavior: behavior.into(),
        ttl_ms,
        ..SessionRow::default()
    };
    let session = Session {
        id: SessionId(id),
        ttl_ms,
        sign: around.now_ms,
        holds: None,
    };
    let create = SessionCreate { session: Some(row) };
    (Asked::Create(session), write(Command::SessionCreate(create)))
}

fn lock(session: &Session, around: &mut Surroundings<'_>) -> (Asked, Request) {
    let key = Bytes::from(format!("lock/{}", around.random.below(KEYS)));
    let lock = KvLock {
        key: key.clone(),
        session: session.id.to_string(),
        ..KvLock::default()
    };
    if around.random.below(2) == 0 {
        let enter = KvLockEnter {
            lock: Some(lock),
            request: Bytes::copy_from_slice(&around.random.draw().to_be_bytes()),
        };
        return (Asked::Lock(key), write(Command::KvLockEnter(enter)));
    }
    (Asked::Lock(key), write(Command::KvLock(lock)))
}

fn unlock(key: &Bytes, id: SessionId) -> Request {
    write(Command::KvUnlock(KvUnlock {
        key: key.clone(),
        session: id.to_string(),
        ..KvUnlock::default()
    }))
}

fn destroy(id: SessionId) -> Request {
    let id = id.0.to_vec().into();
    write(Command::SessionDestroy(SessionDestroy { id }))
}
