//! `/v1/agent/check` and `/v1/agent/checks`.

use std::collections::BTreeMap;

use lictor_agent::decode::Object;
use lictor_agent::{CheckDefinition, Health};

use super::json_body;
use crate::acl::{Access, Resource};
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::filter::{Filter, Validate, fields};
use crate::reply::Reply;
use crate::wire;

/// `GET /v1/agent/checks`: an object by check id.
pub(crate) async fn checks(ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.refuse_paid_features()?;
    let text = ctx.query().text("filter").unwrap_or_default();
    let refused = |error: crate::filter::FilterError| ApiError::internal(error.to_string());
    let filter = Filter::new(&text, fields::CHECK, Validate::PerRow).map_err(refused)?;
    let rows = ctx.shared.agent.checks();
    let mut shown = BTreeMap::new();
    for row in &rows {
        if filter.keep(&**row).map_err(refused)? && may(&ctx, &row.service_name, Access::Read).is_ok() {
            shown.insert(row.check_id.as_str(), wire::Check::listed(row));
        }
    }
    Ok(Reply::json(&shown))
}

/// `PUT /v1/agent/check/register`.
pub(crate) async fn register(mut ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.refuse_paid_features()?;
    let check = CheckDefinition::from_json(json_body(&mut ctx).await?)?;
    let service = ctx.shared.agent.service(&check.service_id);
    may(
        &ctx,
        service.as_ref().map_or("", |service| &service.service),
        Access::Write,
    )?;
    ctx.shared.agent.register_check(check).await?;
    Ok(Reply::empty_json())
}

/// `PUT /v1/agent/check/deregister/:id`.
pub(crate) async fn deregister(ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.refuse_paid_features()?;
    let id = ctx.param_text();
    may_change(&ctx, &id)?;
    ctx.shared.agent.deregister_check(&id).await?;
    Ok(Reply::empty_json())
}

/// `PUT /v1/agent/check/pass/:id`.
pub(crate) async fn pass(ctx: Ctx) -> Result<Reply, ApiError> {
    noted(&ctx, Health::Passing)
}

/// `PUT /v1/agent/check/warn/:id`.
pub(crate) async fn warn(ctx: Ctx) -> Result<Reply, ApiError> {
    noted(&ctx, Health::Warning)
}

/// `PUT /v1/agent/check/fail/:id`.
pub(crate) async fn fail(ctx: Ctx) -> Result<Reply, ApiError> {
    noted(&ctx, Health::Critical)
}

/// `PUT /v1/agent/check/update/:id`.
pub(crate) async fn update(mut ctx: Ctx) -> Result<Reply, ApiError> {
    let decoded = |error: lictor_agent::decode::DecodeError| ApiError::decode(&error.to_string());
    let mut body = Object::new(json_body(&mut ctx).await?, "update").map_err(decoded)?;
    let status = body.text("Status").map_err(decoded)?;
    let output = body.text("Output").map_err(decoded)?;
    body.finish().map_err(decoded)?;
    let health = Health::parse(&status)
        .ok_or_else(|| ApiError::bad_request(format!("Invalid check status: '{status}'")))?;
    ctx.refuse_paid_features()?;
    report(&ctx, health, &output)
}

fn noted(ctx: &Ctx, health: Health) -> Result<Reply, ApiError> {
    ctx.refuse_paid_features()?;
    report(ctx, health, &ctx.query().text("note").unwrap_or_default())
}

fn report(ctx: &Ctx, health: Health, output: &str) -> Result<Reply, ApiError> {
    let id = ctx.param_text();
    may_change(ctx, &id)?;
    ctx.shared.agent.report(&id, health, output)?;
    Ok(Reply::empty_json())
}

fn may_change(ctx: &Ctx, check: &str) -> Result<(), ApiError> {
    let row = ctx.shared.agent.check(check);
    may(
        ctx,
        row.as_ref().map_or("", |row| &row.service_name),
        Access::Write,
    )
}

/// A check of a service asks for rights on that service, another for rights on the node.
fn may(ctx: &Ctx, service: &str, access: Access) -> Result<(), ApiError> {
    let resource = if service.is_empty() {
        Resource::Node(&ctx.shared.node.identity().node)
    } else {
        Resource::Service(service)
    };
    ctx.authorize(resource, access)
}
