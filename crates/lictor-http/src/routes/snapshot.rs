//! `/v1/snapshot`: archives of the whole state.

use hyper::StatusCode;

use crate::ctx::{Ctx, Verb};
use crate::error::ApiError;
use crate::reply::Reply;

/// `GET` and `PUT /v1/snapshot`. Neither is built yet; a restore is always an error, so nothing is lost by it.
pub(crate) async fn serve(ctx: Ctx) -> Result<Reply, ApiError> {
    ctx.check_datacenter()?;
    let text = match ctx.verb {
        Verb::Put => "restoring a snapshot is not supported by this release of Lictor\n",
        _ => "/v1/snapshot is not supported by this release of Lictor\n",
    };
    Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, text))
}
