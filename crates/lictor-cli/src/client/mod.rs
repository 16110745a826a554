//! The HTTP client of the commands: one connection, kept between requests, over TCP, TLS or a Unix socket.

pub(crate) mod endpoint;
pub(crate) mod membership;
mod tls;
pub(crate) mod transfer;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use endpoint::{Address, Endpoint};
use transfer::Sent;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A server redirects once, to the cleaned path of a key.
const REDIRECTS_MAX: usize = 3;

/// What stands for itself in a path; a slash separates.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');
/// What stands for itself in a query's value.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Why there is no answer, or not the one that was asked for. Texts follow those of Consul's client, which scripts
/// look for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// A flag, variable or file is not usable.
    #[error("{0}")]
    Setup(String),
    /// The server could not be reached or broke off.
    #[error("{method} \"{url}\": {reason}")]
    Transport {
        /// The method as Go's client spells it.
        method: String,
        /// The whole address.
        url: String,
        /// Why.
        reason: String,
    },
    /// The server refused.
    #[error("Unexpected response code: {} ({body})", status.as_u16())]
    Refused {
        /// Its status.
        status: StatusCode,
        /// Its words.
        body: String,
    },
    /// The answer is not what the API promises.
    #[error("Unexpected answer: {0}")]
    Answer(String),
}

impl ClientError {
    fn refused(status: StatusCode, body: &[u8]) -> Self {
        Self::Refused {
            status,
            body: String::from_utf8_lossy(body).trim().to_owned(),
        }
    }

    /// Whether the same question may be answered in a moment: the server could not be reached, or is not able to.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Transport { .. } => true,
            Self::Refused { status, .. } => status.is_server_error(),
            Self::Setup(_) | Self::Answer(_) => false,
        }
    }
}

/// An answer with status 200, or 404 to a GET, which means "nothing there".
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// `X-Consul-Index`; what a blocking query waits beyond.
    pub(crate) index: Option<u64>,
    pub(crate) body: Bytes,
}

impl Answer {
    /// Whether a conditional write was done.
    pub(crate) fn is_true(&self) -> bool {
        self.body.trim_ascii() == b"true"
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is something else.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|error| ClientError::Answer(error.to_string()))
    }

    /// Nothing there is an error where something must be.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the server's words.
    pub(crate) fn found(self) -> Result<Self, ClientError> {
        if self.status == StatusCode::OK {
            return Ok(self);
        }
        Err(ClientError::refused(self.status, &self.body))
    }
}

/// One request in the making.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    /// Below `/v1/`; not escaped.
    pub(crate) path: &'a str,
    /// Names and values, not escaped; a value that is empty is left out.
    pub(crate) query: Vec<(&'a str, String)>,
    pub(crate) body: Sent,
}

impl<'a> Call<'a> {
    pub(crate) fn get(path: &'a str) -> Self {
        Self {
            method: Method::GET,
            path,
            query: Vec::new(),
            body: Sent::default(),
        }
    }

    pub(crate) fn put(path: &'a str, body: impl Into<Sent>) -> Self {
        Self {
            method: Method::PUT,
            path,
            query: Vec::new(),
            body: body.into(),
        }
    }

    pub(crate) fn post(path: &'a str) -> Self {
        Self {
            method: Method::POST,
            path,
            query: Vec::new(),
            body: Sent::default(),
        }
    }

    pub(crate) fn delete(path: &'a str) -> Self {
        Self {
            method: Method::DELETE,
            path,
            query: Vec::new(),
            body: Sent::default(),
        }
    }

    pub(crate) fn with_body(mut self, body: impl Into<Sent>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn with(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// With a value that may be absent.
    pub(crate) fn with_some(self, name: &'a str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// With a name that counts by being there.
    pub(crate) fn with_flag(self, name: &'a str, given: Option<bool>) -> Self {
        if given == Some(true) {
            self.with(name, "1")
        } else {
            self
        }
    }
}

type Opened = (Response<Incoming>, SendRequest<Sent>, String);

/// The body of an answer that comes in pieces.
#[derive(Debug)]
pub(crate) struct Stream {
    body: Incoming,
    /// Closes when dropped.
    _connection: SendRequest<Sent>,
}

impl Stream {
    /// The next piece; `None` at the end. May be dropped and called again.
    ///
    /// # Errors
    /// When the server breaks off.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| ClientError::Answer(error.to_string()))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// A client of one server. Requests go one after the other.
#[derive(Debug)]
pub(crate) struct Client {
    endpoint: Endpoint,
    tls: Option<Arc<rustls::ClientConfig>>,
    connection: Option<SendRequest<Sent>>,
}

impl Client {
    /// Prepares; nothing is sent yet.
    ///
    /// # Errors
    /// When a certificate or key is not usable.
    pub(crate) fn new(endpoint: Endpoint) -> Result<Self, ClientError> {
        let tls = match &endpoint.address {
            Address::Tcp { tls: true, .. } => Some(Arc::new(tls::config(&endpoint.tls)?)),
            // Not needed, but a wrong path shows at once rather than with the first server that has a certificate.
            _ if endpoint.tls.name_files() => tls::config(&endpoint.tls).map(|_| None)?,
            _ => None,
        };
        Ok(Self {
            endpoint,
            tls,
            connection: None,
        })
    }

    /// Another connection to the same server.
    pub(crate) fn another(&self) -> Self {
        Self {
            endpoint: self.endpoint.clone(),
            tls: self.tls.clone(),
            connection: None,
        }
    }

    /// GETs what must be there and reads it as JSON.
    ///
    /// # Errors
    /// As for [`Self::send`]; 404 is an error, too.
    pub(crate) async fn fetch<T: serde::de::DeserializeOwned>(
        &mut self,
        call: Call<'_>,
    ) -> Result<T, ClientError> {
        self.send(call).await?.found()?.json()
    }

    /// Sends, and reads the whole answer.
    ///
    /// # Errors
    /// All of [`ClientError`]; a status other than 200, and 404 to a GET, is [`ClientError::Refused`].
    pub(crate) async fn send(&mut self, call: Call<'_>) -> Result<Answer, ClientError> {
        let (response, connection, target) = self.open(&call).await?;
        let status = response.status();
        let index = response.headers().get("X-Consul-Index");
        let index = index.and_then(|index| index.to_str().ok()?.parse().ok());
        let body = response.into_body().collect().await;
        let body = body
            .map_err(|error| self.failed(&call, &target, &error))?
            .to_bytes();
        // Kept only now: a connection with an answer half read takes no other request.
        self.connection = Some(connection);
        match status {
            StatusCode::OK => Ok(Answer { status, index, body }),
            StatusCode::NOT_FOUND if call.method == Method::GET => Ok(Answer { status, index, body }),
            _ => Err(ClientError::refused(status, &body)),
        }
    }

    /// Sends, and answers the body piece by piece; for answers without an end.
    ///
    /// # Errors
    /// All of [`ClientError`]; a status other than 200 is [`ClientError::Refused`].
    pub(crate) async fn stream(&mut self, call: Call<'_>) -> Result<Stream, ClientError> {
        let (response, connection, target) = self.open(&call).await?;
        if response.status() == StatusCode::OK {
            return Ok(Stream {
                body: response.into_body(),
                _connection: connection,
            });
        }
        let status = response.status();
        let body = response.into_body().collect().await;
        let body = body
            .map_err(|error| self.failed(&call, &target, &error))?
            .to_bytes();
        Err(ClientError::refused(status, &body))
    }

    fn failed(&self, call: &Call<'_>, target: &str, reason: &dyn std::fmt::Display) -> ClientError {
        let method = call.method.as_str();
        let method = format!("{}{}", &method[..1], method[1..].to_ascii_lowercase());
        ClientError::Transport {
            method,
            url: format!("{}{target}", self.endpoint.address),
            reason: reason.to_string(),
        }
    }

    /// Sends, follows redirects, and answers the response with its body unread, the connection it comes over, and
    /// what was asked for in the end.
    async fn open(&mut self, call: &Call<'_>) -> Result<Opened, ClientError> {
        let mut target = self.target(call);
        for _ in 0..=REDIRECTS_MAX {
            let connection = match self
                .connection
                .take()
                .filter(|connection| !connection.is_closed())
            {
                Some(connection) => Ok(connection),
                None => self.connect().await,
            };
            let mut connection = connection.map_err(|error| self.failed(call, &target, &error))?;
            let request = self.request(call, &target)?;
            let response = connection
                .send_request(request)
                .await
                .map_err(|error| self.failed(call, &target, &error))?;
            match local_target(&response).filter(|_| response.status().is_redirection()) {
                Some(location) => target = location,
                None => return Ok((response, connection, target)),
            }
            // The redirect's own body is of no interest, but lies before the next answer.
            if response.into_body().collect().await.is_ok() {
                self.connection = Some(connection);
            }
        }
        Err(ClientError::Answer("too many redirects".to_owned()))
    }

    fn target(&self, call: &Call<'_>) -> String {
        let mut target = format!(
            "{}/v1/{}",
            self.endpoint.base_path,
            utf8_percent_encode(call.path, PATH)
        );
        let mut separator = '?';
        let datacenter = self.endpoint.datacenter.clone().map(|name| ("dc", name));
        let stale = self.endpoint.stale.then(|| ("stale", String::new()));
        let namespace = self.endpoint.namespace.clone().map(|name| ("ns", name));
        let partition = self.endpoint.partition.clone().map(|name| ("partition", name));
        let common = datacenter
            .into_iter()
            .chain(stale)
            .chain(namespace)
            .chain(partition);
        let own = call.query.iter().map(|(name, value)| (*name, value.clone()));
        for (name, value) in own.chain(common) {
            target.push(separator);
            target.push_str(name);
            if !value.is_empty() {
                // Writing to a String cannot fail.
                let _ = write!(target, "={}", utf8_percent_encode(&value, QUERY));
            }
            separator = '&';
        }
        target
    }

    fn request(&self, call: &Call<'_>, target: &str) -> Result<Request<Sent>, ClientError> {
        let host = match &self.endpoint.address {
            Address::Unix(_) => "localhost".to_owned(),
            address @ Address::Tcp { .. } => {
                let shown = address.to_string();
                shown
                    .split_once("://")
                    .map_or(shown.clone(), |(_, host)| host.to_owned())
            }
        };
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(target)
            .header(header::HOST, host)
            .header(header::USER_AGENT, concat!("lictor/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.endpoint.token {
            request = request.header("X-Consul-Token", token);
        }
        if let Some(auth) = &self.endpoint.basic_auth {
            // Without a password the name alone is sent, as Go's client does it.
            let auth = if auth.contains(':') {
                auth.clone()
            } else {
                format!("{auth}:")
            };
            request = request.header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(auth)));
        }
        request
            .body(call.body.clone())
            .map_err(|error| ClientError::Setup(error.to_string()))
    }

    async fn connect(&self) -> Result<SendRequest<Sent>, String> {
        let connecting = async {
            match &self.endpoint.address {
                Address::Unix(path) => {
                    let stream = UnixStream::connect(path).await;
                    handshake(stream.map_err(|error| {
                        format!("dial unix {}: connect: {}", path.display(), os_error(&error))
                    })?)
                    .await
                }
                Address::Tcp { host, port, .. } => {
                    let dial = |error| format!("dial tcp {host}:{port}: connect: {}", os_error(&error));
                    let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(dial)?;
                    stream.set_nodelay(true).map_err(dial)?;
                    match &self.tls {
                        None => handshake(stream).await,
                        Some(tls) => {
                            let name = self.endpoint.tls.server_name.as_deref().unwrap_or(host);
                            let name = rustls::pki_types::ServerName::try_from(name.to_owned())
                                .map_err(|error| format!("{name:?}: {error}"))?;
                            let connector = TlsConnector::from(Arc::clone(tls));
                            handshake(
                                connector
                                    .connect(name, stream)
                                    .await
                                    .map_err(|error| format!("tls: {error}"))?,
                            )
                            .await
                        }
                    }
                }
            }
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .unwrap_or_else(|_| Err("connect: timed out".to_owned()))
    }
}

/// The system's words for an error as Go prints them: in lower case and without the number.
pub(crate) fn os_error(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_ascii_lowercase())
        .into_iter()
        .chain(chars)
        .collect()
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Sent>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // Its errors come out of the request that meets them.
    tokio::spawn(connection);
    Ok(sender)
}

/// The path of a redirect to the same server; nothing else is followed, since a token goes with the request.
fn local_target(response: &Response<Incoming>) -> Option<String> {
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    (location.starts_with('/') && !location.starts_with("//")).then(|| location.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::client::ClientArgs;

    fn client(args: &ClientArgs) -> Client {
        Client::new(Endpoint::resolve(args, &|_| None).expect("valid")).expect("no TLS")
    }

    #[test]
    fn files_for_tls_must_be_there_though_the_address_is_plain() {
        let args = ClientArgs {
            ca_file: Some("/nowhere/ca.pem".into()),
            ..ClientArgs::default()
        };

        let refused = Client::new(Endpoint::resolve(&args, &|_| None).expect("valid"));

        let text = refused.map(|_| ()).expect_err("no file").to_string();
        assert!(text.contains("/nowhere/ca.pem"), "{text}");
    }

    #[test]
    fn keys_and_values_are_escaped() {
        let call = Call::get("kv/a b/ü?#%").with("separator", "&/").with("keys", "");

        assert_eq!(
            client(&ClientArgs::default()).target(&call),
            "/v1/kv/a%20b/%C3%BC%3F%23%25?separator=%26%2F&keys"
        );
    }

    #[test]
    fn datacenter_and_staleness_go_with_every_request() {
        let args = ClientArgs {
            datacenter: Some("dc2".to_owned()),
            stale: Some(true),
            ..ClientArgs::default()
        };

        assert_eq!(client(&args).target(&Call::get("kv/a")), "/v1/kv/a?dc=dc2&stale");
    }
}
