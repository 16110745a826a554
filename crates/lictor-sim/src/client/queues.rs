//! A client of fair locks: it stands in line, renews what it has, gives it back or falls silent. In between it writes keys
//! that go by themselves.

use bytes::Bytes;
use lictor_proto::Command;
use lictor_proto::v1::{KvSet, KvSetTtl, QueueEnter, QueueRelease, QueueRenew};
use lictor_state::{Outcome, QueueAnswer};

use super::Surroundings;
use crate::check::Checked;
use crate::request::{Reply, Request};

const NAMES: u64 = 2;
const KEYS: u64 = 3;

/// A client of fair locks.
#[derive(Debug, Default)]
pub(crate) struct Queuer {
    /// By which it is found again; 0 before it has one.
    number: u64,
    has: Option<Had>,
    asked: Option<(Asked, u64)>,
    /// It plays dead until then.
    silent_until: u64,
}

/// A lock that it has, as far as it knows.
#[derive(Debug, Clone)]
struct Had {
    name: Bytes,
    place: u64,
    ttl_ms: u64,
}

#[derive(Debug)]
enum Asked {
    Enter(Bytes, u64),
    Renew,
    Other,
}

impl Queuer {
    pub(super) fn ask(&mut self, around: &mut Surroundings<'_>) -> Option<Request> {
        if around.now_ms < self.silent_until {
            return None;
        }
        if self.number == 0 {
            self.number = around.random.draw() | 1;
        }
        let (asked, command) = match (&self.has, around.random.below(100)) {
            (None, 0..30) => (Asked::Other, write_for_a_while(around)),
            (None, _) => self.enter(around),
            (Some(had), 0..35) => {
                around.queues.given_up(had.place);
                let release = QueueRelease {
                    name: had.name.clone(),
                    index: Some(had.place),
                    value: None,
                };
                self.has = None;
                (Asked::Other, Command::QueueRelease(release))
            }
            (Some(had), 35..45) => {
                // No word any more: the lock has to lapse, or it comes back, and may ask for less time.
                around.queues.forgotten(had.place);
                self.silent_until = around.now_ms + around.random.below(2 * had.ttl_ms);
                self.has = None;
                return None;
            }
            (Some(had), _) => {
                let renew = QueueRenew {
                    name: had.name.clone(),
                    index: Some(had.place),
                    value: None,
                    ttl_ms: had.ttl_ms,
                };
                (Asked::Renew, Command::QueueRenew(renew))
            }
        };
        self.asked = Some((asked, around.now_ms));
        Some(Request::Write(Box::new(command)))
    }

    fn enter(&self, around: &mut Surroundings<'_>) -> (Asked, Command) {
        let name = Bytes::from(format!("fair/{}", around.random.below(NAMES)));
        let ttl_ms = 500 + around.random.below(1500);
        let value = (around.random.below(2) == 0).then(|| Bytes::copy_from_slice(&self.number.to_be_bytes()));
        let enter = QueueEnter {
            name: name.clone(),
            value,
            ttl_ms,
            request: Bytes::copy_from_slice(&around.random.draw().to_be_bytes()),
            at_once: around.random.below(8) == 0,
        };
        (Asked::Enter(name, ttl_ms), Command::QueueEnter(enter))
    }

    pub(super) fn hear(&mut self, reply: &Reply, around: &mut Surroundings<'_>) -> Checked {
        let Some((asked, sent)) = self.asked.take() else {
            return Ok(());
        };
        let answer = match reply {
            Reply::Done(outcome) => match **outcome {
                Outcome::Queue(answer) => Some(answer),
                _ => None,
            },
            _ => None,
        };
        match (asked, answer) {
            (
                Asked::Enter(name, ttl_ms),
                Some(QueueAnswer::Granted { index } | QueueAnswer::Held { index }),
            ) => {
                self.has = Some(Had {
                    name,
                    place: index,
                    ttl_ms,
                });
            }
            (Asked::Renew, Some(QueueAnswer::Done)) => {
                if let Some(had) = &self.has {
                    around.queues.renewed(had.place, had.ttl_ms, sent)?;
                }
            }
            (Asked::Renew, Some(_)) => self.has = None,
            _ => {}
        }
        Ok(())
    }
}

/// A key with a TTL, or a plain write that ends it.
fn write_for_a_while(around: &mut Surroundings<'_>) -> Command {
    let set = KvSet {
        key: Bytes::from(format!("ttl/{}", around.random.below(KEYS))),
        value: Bytes::copy_from_slice(&around.random.draw().to_be_bytes()),
        ..KvSet::default()
    };
    if around.random.below(4) == 0 {
        return Command::KvSet(set);
    }
    Command::KvSetTtl(KvSetTtl {
        set: Some(set),
        ttl_ms: 300 + around.random.below(1500),
    })
}
