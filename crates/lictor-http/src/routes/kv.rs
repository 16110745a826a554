//! `/v1/kv`: reads, locks and writes of keys.

use std::borrow::Cow;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::HeaderMap;
use lictor_node::{ProposeError, Topic};
use lictor_proto::{Command, v1};
use lictor_state::{ApplyError, KvRow, Outcome, Span, State};

use crate::acl::{Access, Resource};
use crate::blocking::{self, View};
use crate::body;
use crate::ctx::{self, Ctx, HeaderFacts, Verb};
use crate::error::ApiError;
use crate::extras::{self, Extras};
use crate::json;
use crate::list;
use crate::query::Query;
use crate::reply::{Meta, Reply};
use crate::route::Answer;
use crate::server::Shared;
use lictor_proto::go;

pub(crate) mod changes;
mod explain;
mod export;
mod import;
mod line;
mod page;

/// The route of the family.
pub(crate) const PATH: &str = "/v1/kv/";

/// What a chunked value may exceed the limit by: the limit proper is checked on Content-Length, as in Consul.
const CHUNKED_SLACK_BYTES: usize = 64 * 1024;

/// Answers a read that need not wait for anything: no change, no leader. The hot path of the whole server.
pub(crate) fn read_now(shared: &Shared, key: &[u8], query: Query<'_>, headers: &HeaderMap) -> Option<Reply> {
    let facts = HeaderFacts::read(headers);
    let planned = ctx::read_options(query, facts, &shared.limits).and_then(|options| {
        let view = plan(key, query, options.min_index)?;
        ctx::check_datacenter(query, shared)?;
        shared.acl.authorize(
            ctx::token(shared, query, headers).as_deref(),
            view.resource(),
            Access::Read,
        )?;
        Ok((options, view))
    });
    let (options, view) = match planned {
        Ok(planned) => planned,
        Err(error) => return Some(error.into_reply()),
    };
    if options.min_index != 0 {
        return None;
    }
    let freshness = shared.node.try_read(options.consistency)?;
    let state = shared.node.view();
    let reply = view
        .render(&state)
        .with_meta(Meta::new(view.index(&state), freshness));
    Some(reply.prepared(ctx::layout(query, facts, shared)))
}

/// Every method of the family, each in a box of its own size: many reads wait, and no write does for long.
pub(crate) fn serve(ctx: Ctx) -> Answer {
    match ctx.verb {
        Verb::Put => Box::pin(put(ctx)),
        Verb::Delete => Box::pin(delete(ctx)),
        _ => Box::pin(get(ctx)),
    }
}

/// Reads only get here if they wait for something.
pub(crate) async fn get(ctx: Ctx) -> Result<Reply, ApiError> {
    let options = ctx.read_options()?;
    let view = plan(ctx.param(), ctx.query(), ctx.since(options))?;
    ctx.check_datacenter()?;
    ctx.authorize(view.resource(), Access::Read)?;
    blocking::read(&ctx, options, &[view.topic()], &view).await
}

/// Which rows a read asks for, and how it shows them.
struct KvView<'a> {
    key: &'a [u8],
    form: Form<'a>,
    /// What Consul does not know; rare.
    extras: Option<Box<Extras<'a>>>,
    /// The index of what the client knows.
    since: u64,
}

enum Form<'a> {
    Single { raw: bool },
    Recurse,
    Keys { separator: Cow<'a, [u8]> },
}

fn plan<'a>(key: &'a [u8], query: Query<'a>, since: u64) -> Result<KvView<'a>, ApiError> {
    let extras = Extras::read(query)?;
    let form = if query.has("keys") {
        let separator = query.get("separator").filter(|s| !s.is_empty());
        // The old spelling still works; the right one wins.
        let separator = separator.or_else(|| query.get("seperator")).unwrap_or_default();
        Form::Keys { separator }
    } else if query.has("recurse") || extras.as_ref().is_some_and(|extras| extras.is_export) {
        Form::Recurse
    } else if key.is_empty() {
        return Err(ApiError::bad_request("Missing key name"));
    } else {
        Form::Single {
            raw: query.has("raw"),
        }
    };
    if let Some(extras) = &extras {
        extras.check_form(&form)?;
    }
    Ok(KvView {
        key,
        form,
        extras,
        since,
    })
}

impl Extras<'_> {
    fn check_form(&self, form: &Form<'_>) -> Result<(), ApiError> {
        let needs = match form {
            Form::Single { .. } if !self.is_of_one_key() => "?recurse or ?keys",
            Form::Keys { .. } if self.is_changed || self.is_export => "?recurse without ?keys",
            _ => return Ok(()),
        };
        let text = format!("Conflicting parameters: this is for lists and needs {needs}\n");
        Err(ApiError::bad_request(text))
    }
}

impl KvView<'_> {
    fn resource(&self) -> Resource<'_> {
        match self.form {
            Form::Single { .. } => Resource::Key(self.key),
            _ => Resource::KeyPrefix(self.key),
        }
    }

    fn topic(&self) -> Topic<'_> {
        match self.form {
            Form::Single { .. } => Topic::Key(self.key),
            _ => Topic::Prefix(self.key),
        }
    }
}

impl View for KvView<'_> {
    fn index(&self, state: &State) -> u64 {
        match self.form {
            Form::Single { .. } => match state.kv_get(self.key) {
                Some(row) => row.modify_index(),
                None => state.kv_table_index().0,
            },
            _ => state.kv_list_index(self.key).0,
        }
    }

    fn changed_at(&self, state: &State) -> u64 {
        match self.form {
            Form::Single { .. } => state.kv_key_changed(self.key).0,
            _ => state.kv_prefix_changed(self.key).0,
        }
    }

    fn is_missing(&self, state: &State) -> bool {
        matches!(self.form, Form::Single { .. }) && state.kv_get(self.key).is_none()
    }

    fn render(&self, state: &State) -> Reply {
        if let Some(extras) = &self.extras {
            return self.render_extras(state, extras);
        }
        match &self.form {
            Form::Single { raw } => match state.kv_get(self.key) {
                None => Reply::empty(StatusCode::NOT_FOUND),
                Some(row) if *raw => Reply::raw(Bytes::copy_from_slice(row.value())),
                Some(row) => {
                    let mut out = Vec::with_capacity(2 + row_len_bound(row));
                    out.push(b'[');
                    push_row(&mut out, row);
                    out.push(b']');
                    Reply::json_bytes(out)
                }
            },
            Form::Recurse => list::of_keys(state, self.key, list::Form::Rows)
                .unwrap_or_else(|| Reply::empty(StatusCode::NOT_FOUND)),
            Form::Keys { separator } => {
                match list::of_keys(state, self.key, list::Form::Keys { separator }) {
                    Some(reply) => reply,
                    // Only the whole store is shown as an empty list (a recorded answer).
                    None if self.key.is_empty() => Reply::json_bytes(Bytes::from_static(b"[]")),
                    None => Reply::empty(StatusCode::NOT_FOUND),
                }
            }
        }
    }
}

impl KvView<'_> {
    fn render_extras(&self, state: &State, extras: &Extras<'_>) -> Reply {
        match &self.form {
            Form::Single { .. } => match state.kv_get(self.key) {
                None => Reply::empty(StatusCode::NOT_FOUND),
                Some(row) => {
                    let mut out = vec![b'['];
                    push_row_with(&mut out, row, false);
                    out.push(b']');
                    Reply::json_bytes(out)
                }
            },
            Form::Recurse if extras.is_changed => {
                changes::reply(state, &[Span::Prefix(self.key)], self.since, !extras.no_value)
            }
            Form::Recurse if extras.is_export => export::reply(state, self.key),
            Form::Recurse => page::reply(state, self.key, None, extras),
            Form::Keys { separator } => page::reply(state, self.key, Some(separator), extras),
        }
    }
}

/// Field names, punctuation and four numbers of up to 20 digits.
const ROW_FIXED_BYTES: usize = 200;

/// The most bytes that [`push_row`] writes.
pub(crate) fn row_len_bound(row: &KvRow) -> usize {
    let session = row
        .session()
        .map_or(0, |id| json::str_len_bound(id.as_bytes()) + 16);
    ROW_FIXED_BYTES + json::str_len_bound(row.key()) + row.value().len().div_ceil(3) * 4 + session
}

/// Writes a row as Consul does, in its field order; `Session` only while locked, an empty value as `null`.
pub(crate) fn push_row(out: &mut Vec<u8>, row: &KvRow) {
    push_row_with(out, row, true);
}

/// As [`push_row`]; transactions hide the value for most verbs.
pub(crate) fn push_row_with(out: &mut Vec<u8>, row: &KvRow, with_value: bool) {
    out.extend_from_slice(b"{\"LockIndex\":");
    json::push_u64(out, row.lock_index());
    out.extend_from_slice(b",\"Key\":");
    json::push_str(out, row.key());
    out.extend_from_slice(b",\"Flags\":");
    json::push_u64(out, row.flags());
    if !with_value || row.value().is_empty() {
        out.extend_from_slice(b",\"Value\":null");
    } else {
        out.extend_from_slice(b",\"Value\":\"");
        base64_simd::STANDARD.encode_append(row.value(), out);
        out.push(b'"');
    }
    if let Some(session) = row.session().filter(|id| !id.is_empty()) {
        out.extend_from_slice(b",\"Session\":");
        json::push_str(out, session.as_bytes());
    }
    out.extend_from_slice(b",\"CreateIndex\":");
    json::push_u64(out, row.create_index());
    out.extend_from_slice(b",\"ModifyIndex\":");
    json::push_u64(out, row.modify_index());
    out.push(b'}');
}

/// Of these a write has one at most.
const EXCLUSIVE: [&str; 3] = ["cas", "acquire", "release"];

async fn put(mut ctx: Ctx) -> Result<Reply, ApiError> {
    let query = ctx.query();
    let wait = ctx.read_options()?.wait;
    let given = EXCLUSIVE.iter().filter(|name| query.has(name)).count();
    if query.has("import") {
        if given > 0 || query.has("flags") || query.has("ttl") {
            return Err(conflicting_flags(query));
        }
        return import::put(ctx).await;
    }
    if ctx.param().is_empty() {
        return Err(ApiError::bad_request("Missing key name"));
    }
    if given > 1 {
        return Err(conflicting_flags(query));
    }
    let limit_bytes = ctx.shared.limits.kv_value_max_bytes;
    if let Some(len) = ctx.content_length().filter(|len| *len > limit_bytes as u64) {
        ctx.discard_body().await;
        return Err(body::over_setting(len, limit_bytes, "kv_max_value_size"));
    }
    let options = PutOptions::read(query)?;
    ctx.check_datacenter()?;
    ctx.authorize(Resource::Key(ctx.param()), Access::Write)?;
    let value = ctx.body(limit_bytes + CHUNKED_SLACK_BYTES).await?;
    let key = Bytes::copy_from_slice(ctx.param());
    let is_queued = options.is_queued;
    match options.command(key, value) {
        // Boxed, so that no other write is as large as one that waits.
        Command::KvLock(lock) if is_queued => Box::pin(line::acquire(&ctx, lock, wait)).await,
        command => write(&ctx, command).await,
    }
}

/// How a key is written.
struct PutOptions {
    flags: u64,
    cas: Option<u64>,
    acquire: Option<String>,
    release: Option<String>,
    ttl_ms: Option<u64>,
    /// Whether an acquisition stands in line.
    is_queued: bool,
}

impl PutOptions {
    fn read(query: Query<'_>) -> Result<Self, ApiError> {
        let options = Self {
            flags: number(query, "flags")?.unwrap_or(0),
            cas: number(query, "cas")?,
            acquire: query.text("acquire").map(Cow::into_owned),
            release: query.text("release").map(Cow::into_owned),
            ttl_ms: extras::ttl_ms(query)?,
            is_queued: query.has("queue"),
        };
        if options.is_queued && options.acquire.is_none() {
            return Err(ApiError::bad_request(
                "Conflicting parameters: queue is for acquire\n",
            ));
        }
        if options.ttl_ms.is_some() && (options.acquire.is_some() || options.release.is_some()) {
            return Err(conflicting_flags(query));
        }
        Ok(options)
    }

    fn command(self, key: Bytes, value: Bytes) -> Command {
        let Self { flags, cas, .. } = self;
        match (self.acquire, self.release) {
            (Some(session), _) => Command::KvLock(v1::KvLock {
                key,
                value,
                flags,
                session,
                checked_at: 0,
            }),
            (_, Some(session)) => Command::KvUnlock(v1::KvUnlock {
                key,
                value,
                flags,
                session,
            }),
            _ => {
                let set = v1::KvSet {
                    key,
                    value,
                    flags,
                    cas,
                };
                match self.ttl_ms {
                    None => Command::KvSet(set),
                    Some(ttl_ms) => Command::KvSetTtl(v1::KvSetTtl {
                        set: Some(set),
                        ttl_ms,
                    }),
                }
            }
        }
    }
}

async fn delete(ctx: Ctx) -> Result<Reply, ApiError> {
    let query = ctx.query();
    ctx.read_options()?;
    let recurse = query.has("recurse");
    if ctx.param().is_empty() && !recurse {
        return Err(ApiError::bad_request("Missing key name"));
    }
    if recurse && query.has("cas") {
        return Err(conflicting_flags(query));
    }
    let cas = number(query, "cas")?;
    ctx.check_datacenter()?;
    let key = Bytes::copy_from_slice(ctx.param());
    let command = if recurse {
        ctx.authorize(Resource::KeyPrefix(&key), Access::Write)?;
        Command::KvDeleteTree(v1::KvDeleteTree { prefix: key })
    } else {
        ctx.authorize(Resource::Key(&key), Access::Write)?;
        Command::KvDelete(v1::KvDelete { key, cas })
    };
    write(&ctx, command).await
}

async fn write(ctx: &Ctx, command: Command) -> Result<Reply, ApiError> {
    let proposed = if ctx.explains {
        ctx.shared.node.propose_explained(command).await
    } else {
        ctx.shared.node.propose(command).await
    };
    match proposed {
        Ok(Outcome::Bool(done)) => Ok(Reply::bool(done)),
        Ok(Outcome::Explained(explained)) => Ok(explain::reply(&explained)),
        Ok(Outcome::Failed(error)) => Err(apply_failed(&error)),
        Ok(outcome) => {
            tracing::error!(?outcome, "a KV command was answered in another's terms");
            Err(ApiError::internal("unexpected outcome"))
        }
        // While a lock-delay runs an acquisition is merely refused.
        Err(ProposeError::LockDelay(_)) => Ok(Reply::bool(false)),
        Err(error) => Err(error.into()),
    }
}

fn apply_failed(error: &ApplyError) -> ApiError {
    ApiError::internal(format!("raft apply failed: {error}"))
}

/// A numeric parameter; an empty one is as wrong as any other.
fn number(query: Query<'_>, name: &str) -> Result<Option<u64>, ApiError> {
    query
        .get(name)
        .map(|text| go::parse_uint(&text).map_err(ApiError::internal))
        .transpose()
}

/// 400 with the whole query sorted by name, encoded as Go's `url.Values` does.
fn conflicting_flags(query: Query<'_>) -> ApiError {
    let mut pairs: Vec<_> = query.pairs().collect();
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    let encoded: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", query_escape(name), query_escape(value)))
        .collect();
    ApiError::bad_request(format!("Conflicting flags: {}\n", encoded.join("&")))
}

fn query_escape(text: &[u8]) -> String {
    const KEPT: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~')
        .remove(b' ');
    percent_encoding::percent_encode(text, KEPT)
        .to_string()
        .replace(' ', "+")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicting_flags_are_shown_sorted_and_encoded() {
        let query = Query::new(b"release=y&cas=0&acquire=a%20b/c&flags=3");

        let error = conflicting_flags(query);

        assert_eq!(
            error.text(),
            "Conflicting flags: acquire=a+b%2Fc&cas=0&flags=3&release=y\n"
        );
    }

    #[test]
    fn keys_wins_over_recurse_and_the_right_spelling_over_the_old_one() {
        let separator = |raw: &'static str| match plan(b"p", Query::new(raw.as_bytes()), 0) {
            Ok(KvView {
                form: Form::Keys { separator },
                ..
            }) => separator.into_owned(),
            _ => panic!("not a list of keys: {raw}"),
        };

        assert_eq!(separator("recurse&keys&raw"), b"");
        assert_eq!(separator("keys&seperator=/&separator=b"), b"b");
        assert_eq!(separator("keys&seperator=%2F"), b"/");
    }

    #[test]
    fn only_lists_do_without_a_key() {
        assert!(plan(b"", Query::new(b"keys"), 0).is_ok());
        assert!(plan(b"", Query::new(b"recurse"), 0).is_ok());
        let error = plan(b"", Query::new(b"raw"), 0).err().unwrap();
        assert_eq!(error.text(), "Missing key name");
    }

    #[test]
    fn what_is_for_lists_is_refused_elsewhere() {
        let is_refused = |raw: &'static str| plan(b"k", Query::new(raw.as_bytes()), 0).is_err();

        for raw in [
            "limit=1",
            "count",
            "changed&index=5",
            "keys&changed",
            "keys&export",
        ] {
            assert!(is_refused(raw), "{raw}");
        }
        for raw in ["novalue", "recurse&changed&novalue", "keys&limit=1", "export"] {
            assert!(!is_refused(raw), "{raw}");
        }
    }
}
