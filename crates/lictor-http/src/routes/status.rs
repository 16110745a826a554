//! `/v1/status`: who leads and who votes. Needs no token.

use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::reply::Reply;

/// `GET /v1/status/leader`: `address:port` of the leader, "" when there is none.
pub(crate) async fn leader(ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.read_options()?;
    ctx.check_datacenter()?;
    Ok(Reply::json(&ctx.shared.node.status().leader))
}

/// `GET /v1/status/peers`: `address:port` of all voters.
pub(crate) async fn peers(ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.read_options()?;
    ctx.check_datacenter()?;
    Ok(Reply::json(&ctx.shared.node.status().peers))
}
