//! `/v1/agent`: this server's agent, its services and its checks.

mod checks;
mod health;
mod info;
mod members;
mod metrics;
mod monitor;
mod services;

pub(crate) use checks::{
    checks, deregister as deregister_check, fail, pass, register as register_check, update, warn,
};
pub(crate) use health::{by_id, by_name};
pub(crate) use info::{about, ca_roots, host, version};
pub(crate) use members::{force_leave, join, leave, members, reload};
pub(crate) use metrics::metrics;
pub(crate) use monitor::monitor;
pub(crate) use services::{
    deregister as deregister_service, maintenance as maintenance_service, node_maintenance,
    register as register_service, service, services,
};

use hyper::StatusCode;
use lictor_agent::{Error, LocalError, ReadError};

use crate::ctx::Ctx;
use crate::decode;
use crate::error::ApiError;

/// Largest body of a registration.
const BODY_MAX_BYTES: usize = 512 * 1024;

impl From<LocalError> for ApiError {
    fn from(error: LocalError) -> Self {
        let status = match error {
            LocalError::UnknownCheck(_) | LocalError::UnknownService(_) | LocalError::NoSuchService(_) => {
                StatusCode::NOT_FOUND
            }
            LocalError::Full => StatusCode::TOO_MANY_REQUESTS,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::Local(error) => error.into(),
            other => {
                tracing::error!(error = %other, "the agent could not keep a registration");
                Self::internal(other.to_string())
            }
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        Self::bad_request(error.to_string())
    }
}

/// The JSON of a body.
async fn json_body(ctx: &mut Ctx) -> Result<serde_json::Value, ApiError> {
    let body = ctx.body(BODY_MAX_BYTES).await?;
    decode::value(&decode::text(&body)).map_err(|why| ApiError::decode(&why))
}

/// `?enable=`, which maintenance calls must have.
fn enable(ctx: &Ctx) -> Result<bool, ApiError> {
    match ctx.query().text("enable").as_deref() {
        None => Err(ApiError::bad_request("Missing value for enable")),
        Some(text) => super::truth(text).ok_or_else(|| {
            ApiError::bad_request(format!(
                "Invalid value for enable: {}",
                lictor_proto::go::quote(text.as_bytes())
            ))
        }),
    }
}
