//! `/v1/session`: creating, ending, renewing and showing sessions.

use std::sync::Arc;

use lictor_node::Topic;
use lictor_proto::v1::{SessionBehavior, SessionRow, StringList};
use lictor_proto::{Command, SessionId, v1};
use lictor_state::{Area, Outcome, State};

use crate::acl::{Access, Resource};
use crate::blocking::{self, View, ViewOf};
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::json;
use crate::list;
use crate::reply::Reply;

mod request;

/// Largest body of a create request; a session with a hundred checks takes a few KiB.
const BODY_MAX_BYTES: usize = 512 * 1024;

/// `PUT /v1/session/create`.
pub(crate) async fn create(mut ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.refuse_paid_features()?;
    // Only a body with a length is read; a chunked one counts as none (a recorded answer).
    let body = match ctx.content_length() {
        Some(1..) => ctx.body(BODY_MAX_BYTES).await?,
        _ => bytes::Bytes::new(),
    };
    let asked = request::decode(&body, ctx.agent_node()).map_err(|why| ApiError::decode(&why))?;
    ctx.check_datacenter()?;
    let row = asked.into_row().map_err(ApiError::internal)?;
    ctx.authorize(Resource::Session(&row.node), Access::Write)?;
    let id = SessionId::from_slice(&row.id).unwrap_or_default();
    let command = Command::SessionCreate(v1::SessionCreate { session: Some(row) });
    apply(&ctx, command).await?;
    Ok(Reply::json(&serde_json::json!({ "ID": id.to_string() })))
}

/// `PUT /v1/session/destroy/:id`: true for whatever is not there, too.
pub(crate) async fn destroy(ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.refuse_paid_features()?;
    let id = wanted_session(&ctx)?;
    ctx.check_datacenter()?;
    let Some(id) = SessionId::parse(&id) else {
        return Ok(Reply::bool(true));
    };
    if let Some(row) = ctx.shared.node.view().session(id) {
        ctx.authorize(Resource::Session(&row.node), Access::Write)?;
    }
    let command = Command::SessionDestroy(v1::SessionDestroy {
        id: bytes::Bytes::copy_from_slice(&id.0),
    });
    apply(&ctx, command).await?;
    Ok(Reply::bool(true))
}

/// `PUT /v1/session/renew/:id`.
pub(crate) async fn renew(ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.read_options()?;
    let text = wanted_session(&ctx)?;
    ctx.check_datacenter()?;
    let missing = || ApiError::not_found(format!("Session id '{text}' not found"));
    let id = SessionId::parse(&text).ok_or_else(missing)?;
    if let Some(row) = ctx.shared.node.view().session(id) {
        ctx.authorize(Resource::Session(&row.node), Access::Write)?;
    }
    let row = ctx.shared.node.renew_session(id).await?.ok_or_else(missing)?;
    Ok(list::of(std::iter::once(Shown(row))))
}

/// `GET /v1/session/info/:id`: a list of one, or none.
pub(crate) async fn info(ctx: Ctx) -> Result<Reply, ApiError> {
    let options = ctx.read_options()?;
    let id = SessionId::parse(&wanted_session(&ctx)?);
    ctx.check_datacenter()
        .map_err(ApiError::with_failed_read_headers)?;
    // What is no id never appears; such a query waits for nothing.
    let topic = id.as_ref().map_or(&[][..], |id| &id.0[..]);
    let view = OneSession { ctx: &ctx, id };
    blocking::read(&ctx, options, &[Topic::Row(Area::Session, topic)], &view).await
}

struct OneSession<'a> {
    ctx: &'a Ctx,
    id: Option<SessionId>,
}

impl OneSession<'_> {
    fn row<'s>(&self, state: &'s State) -> Option<&'s Arc<SessionRow>> {
        self.id.and_then(|id| state.session(id))
    }
}

impl View for OneSession<'_> {
    fn index(&self, state: &State) -> u64 {
        state.sessions_index().0
    }

    /// A session never changes while it lives. Of one that is gone nobody knows since when.
    fn changed_at(&self, state: &State) -> u64 {
        self.row(state)
            .map_or_else(|| self.index(state), |row| row.modify_index)
    }

    fn render(&self, state: &State) -> Reply {
        let readable = |row: &&Arc<SessionRow>| {
            let resource = Resource::Session(&row.node);
            self.ctx.authorize(resource, Access::Read).is_ok()
        };
        let row = self.row(state).filter(readable);
        list::of(row.into_iter().cloned().map(Shown))
    }
}

/// `GET /v1/session/node/:node`.
pub(crate) async fn of_node(ctx: Ctx) -> Result<Reply, ApiError> {
    let options = ctx.read_options()?;
    let node = ctx.param_text();
    if node.is_empty() {
        return Err(ApiError::bad_request("Missing node name"));
    }
    ctx.check_datacenter()
        .map_err(ApiError::with_failed_read_headers)?;
    let topic = node.to_lowercase();
    let view = ViewOf {
        index: |state: &State| state.sessions_index().0,
        render: |state: &State| list::of(readable(&ctx, state.sessions_of_node(&node))),
    };
    blocking::read(
        &ctx,
        options,
        &[Topic::Row(Area::SessionsOfNode, topic.as_bytes())],
        &view,
    )
    .await
}

/// `GET /v1/session/list`.
pub(crate) async fn list(ctx: Ctx) -> Result<Reply, ApiError> {
    let options = ctx.read_options()?;
    ctx.check_datacenter()
        .map_err(ApiError::with_failed_read_headers)?;
    let view = ViewOf {
        index: |state: &State| state.sessions_index().0,
        render: |state: &State| list::of(readable(&ctx, state.sessions())),
    };
    blocking::read(&ctx, options, &[Topic::Row(Area::Sessions, b"")], &view).await
}

fn readable<'a>(ctx: &Ctx, rows: impl Iterator<Item = &'a Arc<SessionRow>>) -> impl Iterator<Item = Shown> {
    rows.filter(|row| ctx.authorize(Resource::Session(&row.node), Access::Read).is_ok())
        .map(|row| Shown(Arc::clone(row)))
}

fn wanted_session(ctx: &Ctx) -> Result<String, ApiError> {
    match ctx.param_text() {
        id if id.is_empty() => Err(ApiError::bad_request("Missing session")),
        id => Ok(id.into_owned()),
    }
}

async fn apply(ctx: &Ctx, command: Command) -> Result<(), ApiError> {
    match ctx.shared.node.propose(command).await? {
        Outcome::Failed(error) => Err(ApiError::internal(format!("apply failed: {error}"))),
        _ => Ok(()),
    }
}

/// A session in a list.
#[derive(Debug)]
struct Shown(Arc<SessionRow>);

impl list::Entry for Shown {
    fn push(&self, out: &mut Vec<u8>) {
        push_row(out, &self.0);
    }
}

fn push_row(out: &mut Vec<u8>, row: &SessionRow) {
    let id = SessionId::from_slice(&row.id).unwrap_or_default();
    out.extend_from_slice(b"{\"ID\":");
    json::push_str(out, &id.to_text());
    out.extend_from_slice(b",\"Name\":");
    json::push_str(out, row.name.as_bytes());
    out.extend_from_slice(b",\"Node\":");
    json::push_str(out, row.node.as_bytes());
    out.extend_from_slice(b",\"LockDelay\":");
    out.extend_from_slice(itoa::Buffer::new().format(row.lock_delay_ns).as_bytes());
    out.extend_from_slice(match row.behavior() {
        SessionBehavior::Release => b",\"Behavior\":\"release\"",
        SessionBehavior::Delete => &b",\"Behavior\":\"delete\""[..],
    });
    out.extend_from_slice(b",\"TTL\":");
    json::push_str(out, row.ttl.as_bytes());
    if row.ttl_exact {
        out.extend_from_slice(b",\"TTLExact\":true");
    }
    out.extend_from_slice(b",\"NodeChecks\":");
    push_list(out, row.node_checks.as_ref());
    out.extend_from_slice(b",\"ServiceChecks\":");
    push_service_checks(out, row);
    if let Some(checks) = &row.checks {
        out.extend_from_slice(b",\"Checks\":");
        push_list(out, Some(checks));
    }
    out.extend_from_slice(b",\"CreateIndex\":");
    json::push_u64(out, row.create_index);
    out.extend_from_slice(b",\"ModifyIndex\":");
    json::push_u64(out, row.modify_index);
    out.push(b'}');
}

fn push_list(out: &mut Vec<u8>, list: Option<&StringList>) {
    let Some(list) = list else {
        return out.extend_from_slice(b"null");
    };
    out.push(b'[');
    for (at, item) in list.items.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        json::push_str(out, item.as_bytes());
    }
    out.push(b']');
}

/// `null` unless the request named some, or an empty list of them.
fn push_service_checks(out: &mut Vec<u8>, row: &SessionRow) {
    if row.service_checks.is_empty() && row.service_checks_legacy.is_none() {
        return out.extend_from_slice(b"null");
    }
    out.push(b'[');
    for (at, check) in row.service_checks.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"{\"ID\":" } else { b",{\"ID\":" });
        json::push_str(out, check.id.as_bytes());
        out.extend_from_slice(b",\"Namespace\":");
        json::push_str(out, check.namespace.as_bytes());
        out.push(b'}');
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_shown_in_consuls_field_order() {
        let mut row = request::decode(br#"{"Name":"n<","TTL":"10s"}"#, "node")
            .unwrap()
            .into_row()
            .unwrap();
        row.id = bytes::Bytes::from_static(&[0x8a; 16]);
        row.create_index = 7;
        row.modify_index = 9;

        let shown = list::of(std::iter::once(Shown(Arc::new(row)))).body_text();

        let expected = concat!(
            r#"[{"ID":"8a8a8a8a-8a8a-8a8a-8a8a-8a8a8a8a8a8a","Name":"n\u003c","Node":"node","LockDelay":15000000000,"#,
            r#""Behavior":"release","TTL":"10s","NodeChecks":["serfHealth"],"ServiceChecks":null,"#,
            r#""CreateIndex":7,"ModifyIndex":9}]"#
        );
        assert_eq!(shown, expected);
    }

    #[test]
    fn check_lists_keep_null_apart_from_empty() {
        let shown = |body: &str| {
            let row = request::decode(body.as_bytes(), "node")
                .unwrap()
                .into_row()
                .unwrap();
            list::of(std::iter::once(Shown(Arc::new(row)))).body_text()
        };
        for (body, part) in [
            (
                r#"{"NodeChecks":null}"#,
                r#""NodeChecks":null,"ServiceChecks":null,"CreateIndex""#,
            ),
            (
                r#"{"NodeChecks":[]}"#,
                r#""NodeChecks":[],"ServiceChecks":null,"CreateIndex""#,
            ),
            (
                r#"{"Checks":null}"#,
                r#""NodeChecks":[],"ServiceChecks":null,"CreateIndex""#,
            ),
            (
                r#"{"ServiceChecks":[]}"#,
                r#""NodeChecks":["serfHealth"],"ServiceChecks":[],"CreateIndex""#,
            ),
            (
                r#"{"Checks":["x"]}"#,
                r#""NodeChecks":["serfHealth"],"ServiceChecks":null,"Checks":["x"]"#,
            ),
            (
                r#"{"ServiceChecks":[{"Id":"c"}]}"#,
                r#""ServiceChecks":[{"ID":"c","Namespace":""}]"#,
            ),
        ] {
            assert!(shown(body).contains(part), "{body}: {}", shown(body));
        }
    }
}
