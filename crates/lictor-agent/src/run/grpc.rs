//! gRPC checks: one call of the standard health service (`grpc.health.v1.Health/Check`), in the clear or over TLS.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Finding, tls};
use crate::definition::{Health, Target};

/// Largest answer that is read; a status takes seven bytes.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// What the health service is asked: how a service is, or the whole server if empty.
#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// What it answers.
#[derive(Clone, PartialEq, Message)]
struct CheckResponse {
    #[prost(enumeration = "Status", tag = "1")]
    status: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
enum Status {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

/// Asks once. The target is `HOST:PORT` or `HOST:PORT/SERVICE`.
pub(super) async fn check(target: &Target) -> Finding {
    match ask(target).await {
        Ok(Status::Serving) => {
            Finding::new(Health::Passing, format!("gRPC check {}: success", target.address))
        }
        Ok(status) => {
            let status = match status {
                Status::Unknown => "UNKNOWN",
                Status::Serving => "SERVING",
                Status::NotServing => "NOT_SERVING",
                Status::ServiceUnknown => "SERVICE_UNKNOWN",
            };
            let text = format!("gRPC {} serving status: {status}", target.address);
            Finding::new(Health::Critical, text)
        }
        Err(why) => Finding::new(Health::Critical, why),
    }
}

/// What a call says that took too long.
pub(super) fn late() -> String {
    failed(4, "context deadline exceeded")
}

async fn ask(target: &Target) -> Result<Status, String> {
    let (server, service) = target.address.split_once('/').unwrap_or((&target.address, ""));
    let unavailable = |why: String| failed(14, &format!("connection error: desc = {why:?}"));
    let dialing = |why: String| unavailable(format!("transport: Error while dialing: {why}"));
    let stream = super::dial(server).await.map_err(dialing)?;
    let message = build(target, server, service)?;
    let response = if target.use_tls {
        let name = target.server_name(server);
        let stream = tls::connect(stream, name, target.tls_skip_verify, tls::Protocol::Http2)
            .await
            .map_err(|why| unavailable(format!("transport: authentication handshake failed: {why}")))?;
        exchange(stream, message).await
    } else {
        exchange(stream, message).await
    };
    read(response.map_err(unavailable)?).await
}

fn build(target: &Target, server: &str, service: &str) -> Result<Request<Full<Bytes>>, String> {
    let scheme = if target.use_tls { "https" } else { "http" };
    let asked = CheckRequest {
        service: service.to_owned(),
    };
    // Not compressed, and a length.
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(asked.encoded_len()).unwrap_or(u32::MAX));
    body.extend_from_slice(&asked.encode_to_vec());
    Request::post(format!("{scheme}://{server}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header(TE, HeaderValue::from_static("trailers"))
        .header(USER_AGENT, HeaderValue::from_static("Consul Health Check"))
        .body(Full::new(body.freeze()))
        .map_err(|error| error.to_string())
}

async fn exchange<S>(stream: S, message: Request<Full<Bytes>>) -> Result<Response<Incoming>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(text)?;
    // The connection ends with the answer or with the sender; its errors show in the answer.
    tokio::spawn(async move { drop(connection.await) });
    sender.send_request(message).await.map_err(text)
}

/// The status in an answer. An error comes in the trailers, or among the headers when there is nothing else.
async fn read(response: Response<Incoming>) -> Result<Status, String> {
    if response.status() != http::StatusCode::OK {
        let what = format!(
            "unexpected HTTP status code received from server: {}",
            response.status()
        );
        return Err(failed(2, &what));
    }
    let (parts, body) = response.into_parts();
    error_in(&parts.headers)?;
    let body = Limited::new(body, ANSWER_MAX_BYTES).collect().await;
    let body = body.map_err(|error| failed(13, &error.to_string()))?;
    if let Some(trailers) = body.trailers() {
        error_in(trailers)?;
    }
    let bytes = body.to_bytes();
    let answer = bytes
        .get(5..)
        .and_then(|message| CheckResponse::decode(message).ok())
        .ok_or_else(|| failed(13, "the answer is no health status"))?;
    Ok(answer.status())
}

fn error_in(headers: &HeaderMap) -> Result<(), String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let code = text("grpc-status")
        .and_then(|code| code.parse().ok())
        .unwrap_or(0);
    if code == 0 {
        Ok(())
    } else {
        Err(failed(code, text("grpc-message").unwrap_or_default()))
    }
}

/// An error in the words of Go's client.
fn failed(code: usize, what: &str) -> String {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    let name = NAMES.get(code).copied().unwrap_or("Unknown");
    format!("rpc error: code = {name} desc = {what}")
}
