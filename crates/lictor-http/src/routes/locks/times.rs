//! `GET /v1/locks/times`: how long sessions, lock-delays and the leases of fair locks still last, as the leader knows it.

use bytes::Bytes;
use hyper::StatusCode;
use lictor_node::TIMES_MAX;
use lictor_proto::SessionId;
use lictor_proto::v1::{TimeLeft, TimesLeft, TimesOf};

use crate::acl::{Access, Resource};
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::json;
use crate::reply::Reply;

/// `?session=`, `?key=` and `?fair-lock=`, each as often as wanted. What does not end by the clock is not in the answer.
pub(crate) async fn get(ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.read_options()?;
    let asked = Asked::read(&ctx)?;
    ctx.check_datacenter()?;
    let asked = asked.readable(&ctx);
    let left = ctx.shared.node.times_left(asked.to_message()).await?;
    let left = left.ok_or_else(|| {
        let text = "The leader's release of Lictor does not tell how long sessions and locks last\n";
        ApiError::new(StatusCode::NOT_IMPLEMENTED, text)
    })?;
    Ok(Reply::json_bytes(asked.answer(&left)))
}

/// What a client wants to know of, each once.
#[derive(Debug, Default)]
struct Asked {
    /// Ids as they were written.
    sessions: Vec<(Bytes, SessionId)>,
    keys: Vec<Bytes>,
    fair_locks: Vec<Bytes>,
}

impl Asked {
    fn read(ctx: &Ctx) -> Result<Self, ApiError> {
        let sessions = named(ctx, "session");
        let keys = named(ctx, "key");
        let fair_locks = named(ctx, "fair-lock");
        match sessions.len() + keys.len() + fair_locks.len() {
            0 => Err(ApiError::bad_request("Missing session, key or fair-lock\n")),
            1..=TIMES_MAX => Ok(Self {
                // What is no id is no session's.
                sessions: sessions.into_iter().filter_map(with_id).collect(),
                keys,
                fair_locks,
            }),
            _ => {
                let text = format!("Too many sessions, keys and fair locks: {TIMES_MAX} at most\n");
                Err(ApiError::bad_request(text))
            }
        }
    }

    /// Without what the client may not read.
    fn readable(mut self, ctx: &Ctx) -> Self {
        let view = ctx.shared.node.view();
        let may_read = |resource: Resource<'_>| ctx.authorize(resource, Access::Read).is_ok();
        self.sessions.retain(|(_, id)| {
            let row = view.session(*id);
            row.is_none_or(|row| may_read(Resource::Session(&row.node)))
        });
        self.keys.retain(|key| may_read(Resource::Key(key)));
        self.fair_locks.retain(|name| may_read(Resource::Key(name)));
        self
    }

    fn to_message(&self) -> TimesOf {
        let id = |(_, id): &(Bytes, SessionId)| Bytes::copy_from_slice(&id.0);
        TimesOf {
            sessions: self.sessions.iter().map(id).collect(),
            lock_delays: self.keys.clone(),
            fair_locks: self.fair_locks.clone(),
        }
    }

    fn answer(&self, left: &TimesLeft) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(b"{\"Sessions\":");
        push(
            &mut out,
            self.sessions.iter().map(|(text, _)| text),
            &left.sessions,
        );
        out.extend_from_slice(b",\"LockDelays\":");
        push(&mut out, self.keys.iter(), &left.lock_delays);
        out.extend_from_slice(b",\"FairLocks\":");
        push(&mut out, self.fair_locks.iter(), &left.fair_locks);
        out.push(b'}');
        out
    }
}

/// All values of a parameter in their order, one more than are allowed at most.
fn named(ctx: &Ctx, parameter: &str) -> Vec<Bytes> {
    let values = ctx.query().all(parameter).take(TIMES_MAX + 1);
    let mut names: Vec<_> = values.map(|name| Bytes::from(name.into_owned())).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn with_id(text: Bytes) -> Option<(Bytes, SessionId)> {
    let id = SessionId::parse(std::str::from_utf8(&text).ok()?)?;
    Some((text, id))
}

/// An object of what has a time, in milliseconds.
fn push<'a>(out: &mut Vec<u8>, names: impl Iterator<Item = &'a Bytes>, times: &[TimeLeft]) {
    out.push(b'{');
    let timed = names.zip(times).filter_map(|(name, time)| Some((name, time.ms?)));
    for (at, (name, ms)) in timed.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        json::push_str(out, name);
        out.push(b':');
        json::push_u64(out, ms);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_a_time_is_in_the_answer() {
        let asked = Asked {
            keys: ["a\"b", "free", "c"].map(Bytes::from).to_vec(),
            fair_locks: vec!["f".into()],
            ..Asked::default()
        };
        let time = |ms| TimeLeft { ms };
        let left = TimesLeft {
            lock_delays: vec![time(Some(7)), time(None), time(Some(0))],
            fair_locks: vec![time(Some(60_000))],
            ..TimesLeft::default()
        };

        let answer = String::from_utf8(asked.answer(&left)).unwrap();

        assert_eq!(
            answer,
            r#"{"Sessions":{},"LockDelays":{"a\"b":7,"c":0},"FairLocks":{"f":60000}}"#
        );
    }
}
