//! `/v1/query`: prepared queries, which answer for a name with the healthy instances of a service.
//!
//! There is one datacenter, so that nothing is ever asked elsewhere: what a query says of failover is kept and shown.

mod definition;
mod execute;
mod template;

use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use lictor_node::Topic;
use lictor_proto::v1::{PreparedQueryDelete, PreparedQueryRow, PreparedQuerySet};
use lictor_proto::{Command, go};
use lictor_state::{Area, Outcome, State};
use serde_json::json;
use uuid::Uuid;

use crate::acl::{Access, Resource};
use crate::blocking::{self, ViewOf};
use crate::ctx::{Ctx, ReadOptions, Verb};
use crate::decode;
use crate::error::ApiError;
use crate::reply::Reply;

use definition::{Definition, Request, Shown};

/// Largest body of a query.
const BODY_MAX_BYTES: usize = 512 * 1024;

/// `GET` and `POST /v1/query`.
pub(crate) async fn all(ctx: Ctx) -> Result<Reply, ApiError> {
    match ctx.verb {
        Verb::Post => create(ctx).await,
        _ => list(ctx).await,
    }
}

/// `GET`, `PUT` and `DELETE /v1/query/:id`, and what hangs below it.
pub(crate) async fn one(ctx: Ctx) -> Result<Reply, ApiError> {
    let below = ctx.param_text().into_owned();
    if let Some(name) = below.strip_suffix("/execute") {
        only_get(&ctx)?;
        return execute::execute(ctx, name).await;
    }
    if let Some(name) = below.strip_suffix("/explain") {
        only_get(&ctx)?;
        return execute::explain(ctx, name).await;
    }
    match ctx.verb {
        Verb::Put => update(ctx, below).await,
        Verb::Delete => delete(ctx, below).await,
        _ => get(ctx, below).await,
    }
}

/// What hangs below a query is read only, other than the query itself.
fn only_get(ctx: &Ctx) -> Result<(), ApiError> {
    if ctx.verb == Verb::Get {
        return Ok(());
    }
    let text = format!("method {} not allowed", ctx.verb.name());
    Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, text))
}

async fn create(mut ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.read_options()?;
    let request = read_body(&mut ctx).await?;
    ctx.check_datacenter()?;
    if !request.id.is_empty() {
        let text = "ID must be empty when creating a new prepared query";
        return Err(ApiError::internal(text));
    }
    let id = Uuid::new_v4();
    set(&ctx, id, request).await?;
    Ok(Reply::json(&json!({"ID": id.to_string()})))
}

async fn update(mut ctx: Ctx, id: String) -> Result<Reply, ApiError> {
    ctx.read_options()?;
    let request = read_body(&mut ctx).await?;
    ctx.check_datacenter()?;
    let id = known(&ctx, &id).await?;
    set(&ctx, id, request).await?;
    Ok(Reply::empty_json())
}

async fn delete(ctx: Ctx, id: String) -> Result<Reply, ApiError> {
    ctx.read_options()?;
    ctx.check_datacenter()?;
    let id = known(&ctx, &id).await?;
    propose(
        &ctx,
        Command::PreparedQueryDelete(PreparedQueryDelete { id: bytes(id) }),
    )
    .await?;
    Ok(Reply::empty_json())
}

async fn read_body(ctx: &mut Ctx) -> Result<Request, ApiError> {
    let body = ctx.body(BODY_MAX_BYTES).await?;
    let value = decode::value(&decode::text(&body)).map_err(|why| ApiError::decode(&why))?;
    Request::read(value).map_err(|error| ApiError::decode(&error.to_string()))
}

async fn set(ctx: &Ctx, id: Uuid, request: Request) -> Result<(), ApiError> {
    ctx.authorize(Resource::Query(&request.name), Access::Write)?;
    request
        .check()
        .map_err(|why| ApiError::internal(format!("Invalid prepared query: {why}")))?;
    let Request {
        name,
        session,
        definition,
        ..
    } = request;
    if definition.is_template() {
        template::check(&definition).map_err(|why| {
            ApiError::internal(format!("raft apply failed: failed compiling template: {why}"))
        })?;
    }
    let query = PreparedQueryRow {
        id: bytes(id),
        name,
        session,
        is_template: definition.is_template(),
        definition_json: definition.to_json(),
        ..PreparedQueryRow::default()
    };
    propose(
        ctx,
        Command::PreparedQuerySet(PreparedQuerySet { query: Some(query) }),
    )
    .await
}

async fn propose(ctx: &Ctx, command: Command) -> Result<(), ApiError> {
    match ctx.shared.node.propose(command).await? {
        Outcome::Failed(error) => Err(ApiError::internal(format!("raft apply failed: {error}"))),
        _ => Ok(()),
    }
}

/// The id of a query that is there, to be changed.
async fn known(ctx: &Ctx, id: &str) -> Result<Uuid, ApiError> {
    let parsed =
        parse_id(id).map_err(|why| ApiError::internal(format!("Prepared Query lookup failed: {why}")))?;
    blocking::gate(&ctx.shared.node, lictor_node::Consistency::Default).await?;
    let view = ctx.shared.node.view();
    let Some(row) = view.prepared_query(parsed.as_bytes()) else {
        let text = format!("Cannot modify non-existent prepared query: '{id}'");
        return Err(ApiError::internal(text));
    };
    ctx.authorize(Resource::Query(&row.name), Access::Write)?;
    Ok(parsed)
}

fn bytes(id: Uuid) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

/// An id of the usual 36 characters.
fn parse_id(id: &str) -> Result<Uuid, String> {
    let uuid = Some(id).filter(|id| id.len() == 36).map(Uuid::try_parse);
    match uuid {
        Some(Ok(uuid)) => Ok(uuid),
        Some(Err(_)) => Err(format!(
            "failed prepared query lookup: index error: Invalid UUID: {}",
            go::quote(id.as_bytes())
        )),
        None => Err("failed prepared query lookup: index error: UUID must be 36 characters".to_owned()),
    }
}

fn not_found() -> ApiError {
    ApiError::not_found("Query not found").with_failed_read_headers()
}

async fn list(ctx: Ctx) -> Result<Reply, ApiError> {
    let options = ctx.read_options()?;
    ctx.check_datacenter()
        .map_err(ApiError::with_failed_read_headers)?;
    read(&ctx, options, |state| {
        let readable = state
            .prepared_queries()
            .filter(|row| ctx.authorize(Resource::Query(&row.name), Access::Read).is_ok());
        shown(readable)
    })
    .await
}

async fn get(ctx: Ctx, id: String) -> Result<Reply, ApiError> {
    let options = ctx.read_options()?;
    ctx.check_datacenter()
        .map_err(ApiError::with_failed_read_headers)?;
    let id = parse_id(&id).map_err(|why| ApiError::internal(why).with_failed_read_headers())?;
    blocking::gate(&ctx.shared.node, options.consistency).await?;
    let find = |state: &State| state.prepared_query(id.as_bytes()).cloned();
    let row = find(&ctx.shared.node.view()).ok_or_else(not_found)?;
    ctx.authorize(Resource::Query(&row.name), Access::Read)?;
    read(&ctx, options, |state| match find(state) {
        Some(row) => shown([&row].into_iter()),
        None => Reply::text(StatusCode::NOT_FOUND, "Query not found"),
    })
    .await
}

/// A read that waits for a change of any query.
async fn read(ctx: &Ctx, options: ReadOptions, render: impl Fn(&State) -> Reply) -> Result<Reply, ApiError> {
    let view = ViewOf {
        index: |state: &State| state.area_index(Area::PreparedQueries).0,
        render,
    };
    let reply = blocking::read(ctx, options, &[Topic::Row(Area::PreparedQueries, b"")], &view).await?;
    Ok(reply.with_effective_consistency(options.effective_consistency()))
}

fn shown<'a>(rows: impl Iterator<Item = &'a Arc<PreparedQueryRow>>) -> Reply {
    let rows: Vec<_> = rows.map(|row| (row, Definition::of(row))).collect();
    let shown: Vec<_> = rows
        .iter()
        .map(|(row, definition)| Shown::of(row, definition))
        .collect();
    Reply::json(&shown)
}
