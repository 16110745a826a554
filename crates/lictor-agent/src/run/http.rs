//! HTTP checks: a connection of its own for each run, redirects followed, the end of the body kept.

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::{Finding, tls};
use crate::definition::{Health, HttpRequest};

/// How many redirects are followed (Go's limit).
const REDIRECTS_MAX: usize = 10;
/// How much of a body is read at all, in bytes.
const BODY_MAX_BYTES: usize = 1 << 20;

/// The end of an answer.
struct Answer {
    status: StatusCode,
    body: Vec<u8>,
}

/// One answer on the way.
enum Step {
    Answer(Answer),
    Redirect(Uri, StatusCode),
}

/// Asks once and judges the answer. Keeps at most `output_max_bytes` of the body.
pub(super) async fn get(request: &HttpRequest, output_max_bytes: usize) -> Finding {
    match follow(request, output_max_bytes).await {
        Err(why) => Finding::new(
            Health::Critical,
            format!("{} {:?}: {why}", verb(request), request.url),
        ),
        Ok(Answer { status, body }) => {
            let health = match status.as_u16() {
                200..=299 => Health::Passing,
                429 => Health::Warning,
                _ => Health::Critical,
            };
            let reason = status.canonical_reason().unwrap_or_default();
            let (method, url) = (method(request), &request.url);
            let body = String::from_utf8_lossy(&body);
            Finding::new(
                health,
                format!("HTTP {method} {url}: {} {reason} Output: {body}", status.as_u16()),
            )
        }
    }
}

fn method(request: &HttpRequest) -> &str {
    if request.method.is_empty() {
        "GET"
    } else {
        &request.method
    }
}

/// The method as Go's client writes it in front of an error.
pub(super) fn verb(request: &HttpRequest) -> String {
    let mut chars = method(request).chars();
    // Whoever registers a check may name anything.
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    let rest = chars.map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(rest).collect()
}

async fn follow(request: &HttpRequest, keep: usize) -> Result<Answer, String> {
    let mut uri: Uri = request
        .url
        .parse()
        .map_err(|error| format!("invalid URL: {error}"))?;
    let mut method =
        Method::from_bytes(method(request).as_bytes()).map_err(|_| "net/http: invalid method".to_owned())?;
    let mut body = Bytes::from(request.body.clone());
    for _ in 0..=REDIRECTS_MAX {
        match once(request, &uri, &method, body.clone(), keep).await? {
            Step::Answer(answer) => return Ok(answer),
            Step::Redirect(to, status) => {
                uri = to;
                // As browsers and Go do it: only 307 and 308 keep method and body.
                if !matches!(
                    status,
                    StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
                ) {
                    body = Bytes::new();
                    if method != Method::HEAD {
                        method = Method::GET;
                    }
                }
            }
        }
    }
    Err(format!("stopped after {REDIRECTS_MAX} redirects"))
}

async fn once(
    request: &HttpRequest,
    uri: &Uri,
    method: &Method,
    body: Bytes,
    keep: usize,
) -> Result<Step, String> {
    let host = uri.host().ok_or("no Host in request URL")?;
    let secure = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        other => {
            return Err(format!(
                "unsupported protocol scheme {:?}",
                other.unwrap_or_default()
            ));
        }
    };
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let address = format!("{host}:{port}");
    let stream = super::dial(&address).await?;
    let message = build(request, uri, method, body)?;
    let response = if secure {
        let name = if request.tls_server_name.is_empty() {
            host
        } else {
            &request.tls_server_name
        };
        let stream = tls::connect(stream, name, request.tls_skip_verify, tls::Protocol::Unnamed).await?;
        exchange(TokioIo::new(stream), message).await?
    } else {
        exchange(TokioIo::new(stream), message).await?
    };
    let (parts, body) = response.into_parts();
    let status = parts.status;
    if status.is_redirection()
        && !request.disable_redirects
        && let Some(to) = parts.headers.get(LOCATION)
    {
        let to = to
            .to_str()
            .ok()
            .and_then(|to| resolve(uri, to))
            .ok_or("invalid Location header")?;
        return Ok(Step::Redirect(to, status));
    }
    Ok(Step::Answer(Answer {
        status,
        body: read_end(body, keep).await?,
    }))
}

fn build(
    request: &HttpRequest,
    uri: &Uri,
    method: &Method,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, String> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let mut message = Request::builder()
        .method(method)
        .uri(path)
        .body(Full::new(body))
        .map_err(text)?;
    let headers = message.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(host).map_err(text)?);
    headers.insert(USER_AGENT, HeaderValue::from_static("Consul Health Check"));
    headers.insert(ACCEPT, HeaderValue::from_static("text/plain, text/*, */*"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    for (name, values) in &request.header {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(text)?;
        headers.remove(&name);
        for value in values {
            headers.append(&name, HeaderValue::from_str(value).map_err(text)?);
        }
    }
    Ok(message)
}

async fn exchange<S>(
    stream: TokioIo<S>,
    message: Request<Full<Bytes>>,
) -> Result<hyper::Response<Incoming>, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(stream).await.map_err(text)?;
    // The connection ends with the answer or with the sender; its errors show in the answer.
    tokio::spawn(async move { drop(connection.await) });
    sender.send_request(message).await.map_err(text)
}

/// The last bytes of a body.
async fn read_end(mut body: Incoming, keep: usize) -> Result<Vec<u8>, String> {
    let mut end = Vec::new();
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame.map_err(text)?.data_ref() {
            total += data.len();
            end.extend_from_slice(data);
            if end.len() > keep {
                end.drain(..end.len() - keep);
            }
            if total > BODY_MAX_BYTES {
                break;
            }
        }
    }
    Ok(end)
}

/// Where a `Location` leads that may be relative.
fn resolve(from: &Uri, to: &str) -> Option<Uri> {
    if to.contains("://") {
        return to.parse().ok();
    }
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    if let Some(rest) = to.strip_prefix("//") {
        return format!("{scheme}://{rest}").parse().ok();
    }
    let path = if to.starts_with('/') {
        to.to_owned()
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{folder}/{to}")
    };
    format!("{scheme}://{authority}{path}").parse().ok()
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
