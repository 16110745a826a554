//! `/v1/agent/service`, `/v1/agent/services` and maintenance.

use std::collections::BTreeMap;

use hyper::header::{HeaderName, HeaderValue};
use lictor_agent::{LocalError, ServiceDefinition};

use super::{enable, json_body};
use crate::acl::{Access, Resource};
use crate::blocking::Patience;
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::filter::{Filter, Validate, fields};
use crate::reply::Reply;
use crate::wire::agent::AgentService;

const X_CONTENT_HASH: HeaderName = HeaderName::from_static("x-consul-contenthash");

/// `GET /v1/agent/services`: an object by service id.
pub(crate) async fn services(ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.refuse_paid_features()?;
    let text = ctx.query().text("filter").unwrap_or_default();
    let refused = |error: crate::filter::FilterError| ApiError::internal(error.to_string());
    let filter = Filter::new(&text, fields::SERVICE, Validate::Always).map_err(refused)?;
    let rows = ctx.shared.agent.services();
    let datacenter = &ctx.shared.node.identity().datacenter;
    let mut shown = BTreeMap::new();
    for row in &rows {
        let readable = ctx
            .authorize(Resource::Service(&row.service), Access::Read)
            .is_ok();
        if filter.keep(&**row).map_err(refused)? && readable {
            shown.insert(row.id.as_str(), AgentService::of(row, datacenter));
        }
    }
    Ok(Reply::json(&shown))
}

/// `GET /v1/agent/service/:id`: waits while the content is the one whose hash the client has.
pub(crate) async fn service(ctx: Ctx) -> Result<Reply, ApiError> {
    let options = ctx.wait_options()?;
    let id = ctx.param_text();
    let hash = ctx.query().non_empty("hash");
    let mut changed = ctx.shared.agent.watch_services();
    let mut patience = Patience::new(&ctx, options.wait);
    loop {
        changed.borrow_and_update();
        let row = ctx
            .shared
            .agent
            .service(&id)
            .ok_or_else(|| ApiError::not_found(format!("unknown service ID: {id}")))?;
        ctx.authorize(Resource::Service(&row.service), Access::Read)?;
        let content = lictor_agent::content_hash(&row);
        if hash.as_deref() != Some(content.as_str()) || patience.is_over() {
            let shown = AgentService::of(&row, &ctx.shared.node.identity().datacenter).with_hash(&content);
            let reply = Reply::json(&shown);
            return Ok(match HeaderValue::from_str(&content) {
                Ok(value) => reply.with_header(X_CONTENT_HASH, value),
                Err(_) => reply,
            });
        }
        tokio::select! {
            _ = changed.changed() => {}
            over = patience.run_out() => over?,
        }
    }
}

/// `PUT /v1/agent/service/register`.
pub(crate) async fn register(mut ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.refuse_paid_features()?;
    let service = ServiceDefinition::from_json(json_body(&mut ctx).await?)?;
    ctx.authorize(Resource::Service(&service.name), Access::Write)?;
    let replace_checks = ctx.query().has("replace-existing-checks");
    ctx.shared.agent.register_service(service, replace_checks).await?;
    Ok(Reply::empty_json())
}

/// `PUT /v1/agent/service/deregister/:id`.
pub(crate) async fn deregister(ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.refuse_paid_features()?;
    let id = ctx.param_text();
    may_change(&ctx, &id)?;
    ctx.shared.agent.deregister_service(&id).await?;
    Ok(Reply::empty_json())
}

/// `PUT /v1/agent/service/maintenance/:id`.
pub(crate) async fn maintenance(ctx: Ctx) -> Result<Reply, ApiError> {
    let id = ctx.param_text();
    if id.is_empty() {
        return Err(ApiError::bad_request("Missing service ID"));
    }
    let enable = enable(&ctx)?;
    ctx.refuse_paid_features()?;
    may_change(&ctx, &id)?;
    let reason = ctx.query().text("reason").unwrap_or_default();
    ctx.shared.agent.maintain(Some(&id), enable, &reason).await?;
    Ok(Reply::empty_json())
}

/// `PUT /v1/agent/maintenance`.
pub(crate) async fn node_maintenance(ctx: Ctx) -> Result<Reply, ApiError> {
    let enable = enable(&ctx)?;
    ctx.authorize(Resource::Node(&ctx.shared.node.identity().node), Access::Write)?;
    let reason = ctx.query().text("reason").unwrap_or_default();
    ctx.shared.agent.maintain(None, enable, &reason).await?;
    Ok(Reply::empty_json())
}

fn may_change(ctx: &Ctx, id: &str) -> Result<(), ApiError> {
    let row = ctx
        .shared
        .agent
        .service(id)
        .ok_or_else(|| LocalError::UnknownService(id.to_owned()))?;
    ctx.authorize(Resource::Service(&row.service), Access::Write)
}
