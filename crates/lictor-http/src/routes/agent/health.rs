//! `/v1/agent/health/service`: the health of local services as a status code.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use lictor_proto::v1::{CheckRow, ServiceRow};

use crate::acl::{Access, Resource};
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::reply::Reply;
use crate::wire::agent::{AgentService, HealthCheck, ServiceStatus};

const X_REASON: HeaderName = HeaderName::from_static("x-consul-reason");

/// Health in the order of gravity; maintenance outweighs everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Aggregate {
    Passing,
    Warning,
    Critical,
    Maintenance,
}

impl Aggregate {
    fn of<'a>(checks: impl Iterator<Item = &'a CheckRow>) -> Self {
        let health = |check: &CheckRow| match (check.r#type.as_str(), check.status.as_str()) {
            ("maintenance", _) => Self::Maintenance,
            (_, "passing") => Self::Passing,
            (_, "warning") => Self::Warning,
            _ => Self::Critical,
        };
        checks.map(health).max().unwrap_or(Self::Passing)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Maintenance => "maintenance",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Passing => StatusCode::OK,
            Self::Warning => StatusCode::TOO_MANY_REQUESTS,
            Self::Critical | Self::Maintenance => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// `GET /v1/agent/health/service/id/:id`.
pub(crate) async fn by_id(ctx: Ctx) -> Result<Reply, ApiError> {
    let id = ctx.param_text();
    if id.is_empty() {
        return Err(ApiError::internal("Missing serviceID"));
    }
    ctx.refuse_paid_features()?;
    let Some(service) = ctx.shared.agent.service(&id) else {
        let reason = format!("ServiceId {id} not found");
        let nobody = ServiceStatus {
            aggregated_status: "critical",
            service: None,
            checks: None,
        };
        let reply = if wants_text(&ctx) {
            plain(reason.clone())
        } else {
            Reply::json(&nobody)
        };
        return Ok(reasoned(reply, StatusCode::NOT_FOUND, &reason));
    };
    ctx.authorize(Resource::Service(&service.service), Access::Read)?;
    let all = ctx.shared.agent.checks();
    let checks: Vec<&CheckRow> = concerned(&all, &service).collect();
    let health = Aggregate::of(checks.iter().copied());
    let reply = if wants_text(&ctx) {
        plain(health.name())
    } else {
        Reply::json(&shown(&ctx, &service, health, &checks))
    };
    Ok(reasoned(reply, health.status(), health.name()))
}

/// `GET /v1/agent/health/service/name/:name`: the gravest of all instances here.
pub(crate) async fn by_name(ctx: Ctx) -> Result<Reply, ApiError> {
    let name = ctx.param_text();
    if name.is_empty() {
        return Err(ApiError::internal("Missing service Name"));
    }
    ctx.refuse_paid_features()?;
    ctx.authorize(Resource::Service(&name), Access::Read)?;
    let all = ctx.shared.agent.checks();
    let services: Vec<_> = ctx
        .shared
        .agent
        .services()
        .into_iter()
        .filter(|service| *service.service == *name)
        .collect();
    if services.is_empty() {
        let reason = format!("ServiceName {name} Not Found");
        let reply = if wants_text(&ctx) {
            plain(reason.clone())
        } else {
            Reply::json_bytes(&b"[]"[..])
        };
        return Ok(reasoned(reply, StatusCode::NOT_FOUND, &reason));
    }
    let mut gravest = Aggregate::Passing;
    let mut list = Vec::with_capacity(services.len());
    for service in &services {
        let checks: Vec<&CheckRow> = concerned(&all, service).collect();
        let health = Aggregate::of(checks.iter().copied());
        gravest = gravest.max(health);
        list.push(shown(&ctx, service, health, &checks));
    }
    let reply = if wants_text(&ctx) {
        plain(gravest.name())
    } else {
        Reply::json(&list)
    };
    Ok(reasoned(reply, gravest.status(), gravest.name()))
}

/// The checks of the node concern every service on it.
fn concerned<'a>(
    all: &'a [std::sync::Arc<CheckRow>],
    service: &'a ServiceRow,
) -> impl Iterator<Item = &'a CheckRow> {
    let concerns = |check: &&CheckRow| check.service_id.is_empty() || check.service_id == service.id;
    all.iter().map(|check| &**check).filter(concerns)
}

fn shown<'a>(
    ctx: &'a Ctx,
    service: &'a ServiceRow,
    health: Aggregate,
    checks: &[&'a CheckRow],
) -> ServiceStatus<'a> {
    ServiceStatus {
        aggregated_status: health.name(),
        service: Some(AgentService::of(service, &ctx.shared.node.identity().datacenter)),
        checks: Some(checks.iter().map(|check| HealthCheck::of(check)).collect()),
    }
}

/// A text as these endpoints answer it: without the encoding that Consul's errors name.
fn plain(text: impl Into<Bytes>) -> Reply {
    Reply::file(HeaderValue::from_static("text/plain"), text.into())
}

fn wants_text(ctx: &Ctx) -> bool {
    ctx.query().text("format").as_deref() == Some("text")
}

fn reasoned(reply: Reply, status: StatusCode, reason: &str) -> Reply {
    let reply = reply.with_status(status);
    match HeaderValue::from_str(reason) {
        Ok(reason) => reply.with_header(X_REASON, reason),
        // A name with control characters does not go into a header.
        Err(_) => reply,
    }
}
