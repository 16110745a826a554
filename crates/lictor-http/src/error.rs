//! What clients are told when a request fails: one place for statuses and Consul's texts.

use std::borrow::Cow;

use hyper::StatusCode;
use lictor_node::{ProposeError, ReadError, TooManyWaiters};
use lictor_state::ApplyError;

use crate::reply::{Meta, Reply};

/// A failed request: a status and a text for the client.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    text: Cow<'static, str>,
    /// Some reads carry index headers even when they fail.
    meta: Option<Meta>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            text: text.into(),
            meta: None,
        }
    }

    /// 400.
    pub(crate) fn bad_request(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// 400 for a body that is not what the endpoint takes.
    pub(crate) fn decode(why: &str) -> Self {
        Self::bad_request(format!("Request decode failed: {why}"))
    }

    /// 404.
    pub(crate) fn not_found(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    /// 413.
    pub(crate) fn too_large(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    }

    /// 500, which is Consul's status for most refusals.
    pub(crate) fn internal(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    }

    /// 500 for a datacenter that is not this one.
    pub(crate) fn no_path_to_datacenter() -> Self {
        Self::internal("No path to datacenter")
    }

    /// The same error with the index headers that a failed session, catalog or health read carries.
    pub(crate) fn with_failed_read_headers(mut self) -> Self {
        self.meta = Some(Meta::failed_read());
        self
    }

    /// The same error with more before its text.
    pub(crate) fn prefixed(mut self, before: std::fmt::Arguments<'_>) -> Self {
        self.text = format!("{before}{}", self.text).into();
        self
    }

    #[cfg(test)]
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn into_reply(self) -> Reply {
        let mut reply = Reply::text(self.status, self.text.into_owned());
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            reply = reply.with_header(
                hyper::header::RETRY_AFTER,
                hyper::header::HeaderValue::from_static("1"),
            );
        }
        match self.meta {
            Some(meta) => reply.with_meta(meta),
            None => reply,
        }
    }
}

impl From<ProposeError> for ApiError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::Overloaded => Self::new(StatusCode::TOO_MANY_REQUESTS, error.to_string()),
            ProposeError::Stopping => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            ProposeError::TooLarge(_) => Self::too_large(error.to_string()),
            _ => Self::internal(error.to_string()),
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Stopping => Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            _ => Self::internal(error.to_string()),
        }
    }
}

impl From<TooManyWaiters> for ApiError {
    fn from(error: TooManyWaiters) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, error.to_string())
    }
}

impl From<ApplyError> for ApiError {
    fn from(error: ApplyError) -> Self {
        Self::internal(error.to_string())
    }
}
