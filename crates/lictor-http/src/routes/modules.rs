//! `/mod/v2`: the modules of etcd 0.4, fair locks and leader election, on Lictor's own fair queues.
//!
//! Their contract is etcd's: parameters in the query or in a form, plain texts, errors as JSON with a code. The list of
//! all locks is Lictor's own, and a read like those of `/v1`.

mod form;
pub(crate) mod leader;
pub(crate) mod list;
pub(crate) mod lock;

use std::borrow::Cow;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{self, HeaderName, HeaderValue};
use lictor_node::ProposeError;

use self::form::Form;
pub(crate) use self::form::Kind as FormKind;
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::query::Query;
use crate::reply::Reply;

/// Largest form. A value takes up to as much of the memory of every server.
const BODY_MAX_BYTES: usize = 64 * 1024;

const X_ETCD_INDEX: HeaderName = HeaderName::from_static("x-etcd-index");

/// The parameters of a request.
struct Params<'a> {
    query: Query<'a>,
    form: Form,
}

impl<'a> Params<'a> {
    /// Those of the query alone.
    fn of_query(ctx: &'a Ctx) -> Self {
        let form = Form::default();
        Self {
            query: ctx.query(),
            form,
        }
    }

    /// What the form says goes before the query. An empty value is none.
    fn get(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let value = self.form.get(name).or_else(|| self.query.get(name));
        value.filter(|value| !value.is_empty())
    }

    fn bytes(&self, name: &str) -> Option<Bytes> {
        self.get(name).map(|value| Bytes::from(value.into_owned()))
    }

    /// A decimal number as Go's `strconv.Atoi` reads it. `None` if it is absent.
    fn number(&self, name: &str) -> Option<Result<i64, NotANumber>> {
        let value = self.get(name)?;
        let text = std::str::from_utf8(&value).ok();
        Some(text.and_then(|text| text.parse().ok()).ok_or(NotANumber))
    }

    /// The TTL in milliseconds.
    fn ttl_ms(&self, cause: &'static str) -> Result<u64, Failed> {
        let seconds = match self.number("ttl") {
            Some(Ok(seconds)) => u64::try_from(seconds).ok(),
            _ => None,
        };
        let seconds = seconds.ok_or_else(|| Failed::new(Code::TtlIsNoNumber, cause))?;
        Ok(seconds.saturating_mul(1000))
    }
}

struct NotANumber;

/// Reads the form of a request, if it has one.
///
/// # Errors
/// As for [`Ctx::body`].
async fn form(ctx: &mut Ctx) -> Result<Form, ApiError> {
    match ctx.form() {
        None => Ok(Form::default()),
        Some(kind) => Ok(Form::new(kind, ctx.body(BODY_MAX_BYTES).await?)),
    }
}

/// etcd's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    KeyNotFound = 100,
    KeyExists = 105,
    TtlIsNoNumber = 202,
    TimeoutIsNoNumber = 205,
    NameIsRequired = 206,
    IndexOrValueIsRequired = 207,
    IndexAndValue = 208,
    InvalidField = 209,
    RaftInternal = 300,
    DuringElection = 301,
}

impl Code {
    fn message(self) -> &'static str {
        match self {
            Self::KeyNotFound => "Key not found",
            Self::KeyExists => "Key already exists",
            Self::TtlIsNoNumber => "The given TTL in POST form is not a number",
            Self::TimeoutIsNoNumber => "The given timeout in POST form is not a number",
            Self::NameIsRequired => "Name is required in POST form",
            Self::IndexOrValueIsRequired => "Index or value is required",
            Self::IndexAndValue => "Index and value cannot both be specified",
            Self::InvalidField => "Invalid field",
            Self::RaftInternal => "Raft Internal Error",
            Self::DuringElection => "During Leader Election",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::KeyNotFound => StatusCode::NOT_FOUND,
            Self::KeyExists => StatusCode::PRECONDITION_FAILED,
            Self::RaftInternal | Self::DuringElection => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// A request that failed in etcd's terms.
#[derive(Debug)]
struct Failed {
    code: Code,
    cause: Cow<'static, str>,
    /// The store's index where it was asked, else 0.
    index: u64,
}

impl Failed {
    fn new(code: Code, cause: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            cause: cause.into(),
            index: 0,
        }
    }

    fn into_reply(self) -> Reply {
        let body = crate::json::to_vec(&ErrorBody {
            code: self.code as u32,
            message: self.code.message(),
            cause: &self.cause,
            index: self.index,
        });
        let body = [&body[..], b"\n"].concat();
        Reply::json_as_it_is(body)
            .with_status(self.code.status())
            .with_header(X_ETCD_INDEX, HeaderValue::from(self.index))
    }
}

/// As it is sent.
#[derive(serde::Serialize)]
struct ErrorBody<'a> {
    #[serde(rename = "errorCode")]
    code: u32,
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    cause: &'a str,
    index: u64,
}

/// A request is answered in etcd's terms, or in those of the rest of the API where etcd has none: too large, too slow,
/// too many.
#[derive(Debug)]
enum Refused {
    Failed(Failed),
    Api(ApiError),
}

impl From<Failed> for Refused {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl From<ProposeError> for Refused {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::NoLeader | ProposeError::Stopping => {
                Self::Failed(Failed::new(Code::DuringElection, ""))
            }
            ProposeError::Overloaded | ProposeError::TooLarge(_) => Self::Api(error.into()),
            error => Self::Failed(Failed::new(Code::RaftInternal, error.to_string())),
        }
    }
}

/// What the service makes an answer of.
fn answer(result: Result<Reply, Refused>) -> Result<Reply, ApiError> {
    match result {
        Ok(reply) => Ok(reply),
        Err(Refused::Failed(failed)) => Ok(failed.into_reply()),
        Err(Refused::Api(error)) => Err(error),
    }
}

/// A text from a client that goes back to a browser.
fn plain(text: impl Into<Bytes>) -> Reply {
    Reply::text(StatusCode::OK, text).with_header(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &'static str, form: &'static str) -> Params<'static> {
        Params {
            query: Query::new(query.as_bytes()),
            form: Form::new(form::Kind::UrlEncoded, Bytes::from_static(form.as_bytes())),
        }
    }

    #[test]
    fn the_form_goes_before_the_query_and_empty_values_are_none() {
        let params = params("ttl=60&value=q&name=n", "value=b+c&name=");

        assert_eq!(params.get("value").as_deref(), Some(&b"b c"[..]));
        assert_eq!(params.get("ttl").as_deref(), Some(&b"60"[..]));
        assert_eq!(params.get("name"), None);
        assert_eq!(params.get("Ttl"), None);
    }

    #[test]
    fn a_ttl_is_a_whole_number_of_seconds_that_is_not_negative() {
        for (ttl, ms) in [
            ("0", 0),
            ("60", 60_000),
            ("%2B7", 7_000),
            ("9223372036854775807", u64::MAX),
        ] {
            let form: &'static str = Box::leak(format!("ttl={ttl}").into_boxed_str());
            let found = params(form, "").ttl_ms("Acquire").unwrap();
            assert_eq!(found, ms, "{ttl}");
        }
        for query in [
            "",
            "ttl=",
            "ttl=60s",
            "ttl=1.5",
            "ttl=abc",
            "ttl=-1",
            "ttl=9223372036854775808",
            "ttl=%ff",
        ] {
            let failed = params(query, "").ttl_ms("Acquire").unwrap_err();
            assert_eq!(
                (failed.code, &*failed.cause),
                (Code::TtlIsNoNumber, "Acquire"),
                "{query}"
            );
        }
    }

    #[test]
    fn an_error_has_etcds_fields() {
        let failed = Failed::new(Code::IndexOrValueIsRequired, "Release");

        assert_eq!(
            failed.into_reply().body_text(),
            "{\"errorCode\":207,\"message\":\"Index or value is required\",\"cause\":\"Release\",\"index\":0}\n"
        );
        assert!(
            !Failed::new(Code::DuringElection, "")
                .into_reply()
                .body_text()
                .contains("cause")
        );
    }
}
