//! `/v1/acl`: answers as Consul does while access control lists are off.

use hyper::StatusCode;

use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::reply::Reply;

/// Every endpoint of the family.
pub(crate) async fn disabled(_ctx: Ctx) -> Result<Reply, ApiError> {
    Err(ApiError::new(StatusCode::UNAUTHORIZED, "ACL support disabled"))
}
