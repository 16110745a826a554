//! How a node of Raft-KV-Demo asks to be taken into a cluster: `GET /join` at any member, redirected to the leader.

use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use lictor_proto::HostPort;
use percent_encoding::utf8_percent_encode;
use tokio::net::TcpStream;

use super::{QUERY, os_error};

/// A follower redirects once; more happen while the leadership changes.
const REDIRECTS_MAX: usize = 5;

/// Asks a member, and whoever it redirects to, to take in the node `name` that other nodes reach at `raddr`. Returns when
/// it votes. How long that may take is for the caller to bound.
///
/// # Errors
/// Why it is none, in one line.
pub async fn ask_to_join(member: &HostPort, name: &str, raddr: &HostPort) -> Result<(), String> {
    let mut target = format!(
        "http://{member}/join?id={}&addr={}",
        utf8_percent_encode(name, QUERY),
        utf8_percent_encode(&raddr.to_string(), QUERY)
    );
    for _ in 0..=REDIRECTS_MAX {
        let uri: Uri = target.parse().map_err(|_| format!("{target} is no address"))?;
        let answer = get(&uri).await.map_err(|why| format!("{target}: {why}"))?;
        let text = |name: &str| {
            let value = answer.headers().get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        match answer.status() {
            StatusCode::OK => return Ok(()),
            StatusCode::TEMPORARY_REDIRECT => target = text("location").unwrap_or_default(),
            status => {
                let why = text("x-lictor-reason").unwrap_or_default();
                return Err(format!("{target} answered {status} {why}"));
            }
        }
    }
    Err(format!("too many redirects, the last to {target}"))
}

async fn get(uri: &Uri) -> Result<hyper::Response<hyper::body::Incoming>, String> {
    let authority = uri.authority().ok_or("no host")?;
    let address = authority.as_str();
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|error| os_error(&error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // Its errors come out of the request; it ends with it.
    tokio::spawn(connection);
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let request = Request::get(target).header(header::HOST, address);
    let request = request
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|error| error.to_string())?;
    sender
        .send_request(request)
        .await
        .map_err(|error| error.to_string())
}
