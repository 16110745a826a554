//! Reads request bodies within a bound.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};

use crate::error::ApiError;

/// Reads a whole body. A body that came in one piece is not copied.
///
/// # Errors
/// 413 beyond `limit_bytes`, 400 when the client breaks off.
pub(crate) async fn read(mut body: Incoming, limit_bytes: usize) -> Result<Bytes, ApiError> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit_bytes {
        return Err(too_large(announced, limit_bytes));
    }
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame
            .map_err(|_| ApiError::bad_request("Request body could not be read"))?
            .into_data()
        else {
            continue;
        };
        let len = first.len() + rest.len() + data.len();
        if len > limit_bytes {
            return Err(too_large(len, limit_bytes));
        }
        if rest.is_empty() && first.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.reserve(announced.max(len));
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

fn too_large(len_bytes: usize, limit_bytes: usize) -> ApiError {
    ApiError::too_large(format!(
        "Request body({len_bytes} bytes) too large, max size: {limit_bytes} bytes."
    ))
}

/// The 413 of an endpoint whose limit is a setting, which the text links to as Consul's does.
pub(crate) fn over_setting(len_bytes: u64, limit_bytes: usize, setting: &str) -> ApiError {
    ApiError::too_large(format!(
        "Request body({len_bytes} bytes) too large, max size: {limit_bytes} bytes. \
         See https://developer.hashicorp.com/docs/agent/config/config-files#{setting}."
    ))
}
