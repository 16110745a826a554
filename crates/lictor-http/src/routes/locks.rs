//! `GET /v1/locks`: the keys that sessions hold, those that a lock-delay keeps from being taken, and who waits for them.

pub(crate) mod times;

use lictor_node::Topic;
use lictor_state::{Area, KvRow, State};

use crate::acl::{Access, Resource};
use crate::blocking::{self, ViewOf};
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::json;
use crate::list;
use crate::reply::Reply;

/// Keys in the order of their holders, then those in a lock-delay. A blocking query is woken by changes of any key.
pub(crate) async fn list(ctx: Ctx) -> Result<Reply, ApiError> {
    let options = ctx.read_options()?;
    ctx.check_datacenter()
        .map_err(ApiError::with_failed_read_headers)?;
    let may_read = |key: &[u8]| ctx.authorize(Resource::Key(key), Access::Read).is_ok();
    let view = ViewOf {
        index: |state: &State| {
            let waits = state.area_index(Area::LockWaits);
            state.kv_table_index().max(waits).0
        },
        render: |state: &State| {
            let held = state.kv_held().map(Shown::held);
            let delayed = state.lock_delays().map(|delay| {
                let row = state.kv_get(&delay.key);
                Shown {
                    delay_ms: delay.delay_ms,
                    modify_index: delay.set_index,
                    ..row.map_or_else(|| Shown::named(&delay.key), Shown::held)
                }
            });
            let shown = held.chain(delayed).filter(|lock| may_read(&lock.key));
            list::of(shown.map(|lock| lock.with_line(state)))
        },
    };
    let topics = [Topic::Prefix(b""), Topic::Row(Area::LockWaits, b"")];
    blocking::read(&ctx, options, &topics, &view).await
}

/// A lock in the list.
#[derive(Debug, Default)]
struct Shown {
    key: Vec<u8>,
    session: String,
    lock_index: u64,
    modify_index: u64,
    /// How long the lock-delay is as a whole; 0 for what is held.
    delay_ms: u64,
    /// The sessions that wait for it, the next first.
    waiting: Vec<String>,
}

impl Shown {
    fn named(key: &[u8]) -> Self {
        Self {
            key: key.to_vec(),
            ..Self::default()
        }
    }

    fn with_line(self, state: &State) -> Self {
        let line = state.lock_waits_of(&self.key);
        let waiting = line.map(|row| row.session.clone()).collect();
        Self { waiting, ..self }
    }

    fn held(row: &KvRow) -> Self {
        Self {
            session: row.session().unwrap_or_default().to_owned(),
            lock_index: row.lock_index(),
            modify_index: row.modify_index(),
            ..Self::named(row.key())
        }
    }
}

impl list::Entry for Shown {
    fn push(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"Key\":");
        json::push_str(out, &self.key);
        out.extend_from_slice(b",\"Session\":");
        json::push_str(out, self.session.as_bytes());
        out.extend_from_slice(b",\"LockDelay\":");
        json::push_u64(out, self.delay_ms.saturating_mul(1_000_000));
        out.extend_from_slice(b",\"LockIndex\":");
        json::push_u64(out, self.lock_index);
        out.extend_from_slice(b",\"ModifyIndex\":");
        json::push_u64(out, self.modify_index);
        out.extend_from_slice(b",\"Waiting\":[");
        for (at, session) in self.waiting.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            json::push_str(out, session.as_bytes());
        }
        out.extend_from_slice(b"]}");
    }
}
