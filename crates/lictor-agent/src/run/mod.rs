//! Runs checks: one short-lived task per run, nothing in between.

mod grpc;
mod h2ping;
mod http;
mod script;
mod tls;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};

use crate::definition::{CheckDefinition, CheckKind, Health, Target};

/// What a run found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) health: Health,
    pub(crate) output: String,
}

impl Finding {
    pub(crate) fn new(health: Health, output: impl Into<String>) -> Self {
        Self {
            health,
            output: output.into(),
        }
    }
}

/// Runs a check once, within its timeout, and keeps so much of its output unless it says otherwise. Dropping the future
/// ends the run.
pub(crate) async fn run(definition: &CheckDefinition, output_max_bytes: usize) -> Finding {
    let limit = definition.run_timeout();
    let keep = definition.output_max_bytes(output_max_bytes);
    match &definition.kind {
        CheckKind::Http(request) => {
            let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
            let late = || format!("{} {:?}: {late}", http::verb(request), request.url);
            within(limit, http::get(request, keep), late).await
        }
        CheckKind::Tcp(target) => {
            let late = || format!("dial tcp {}: i/o timeout", target.address);
            within(limit, tcp(target), late).await
        }
        CheckKind::Udp(address) => udp(address, limit).await,
        CheckKind::Grpc(target) => within(limit, Box::pin(grpc::check(target)), grpc::late).await,
        CheckKind::H2ping(target) => {
            let late = || "HTTP2 ping failed: context deadline exceeded".to_owned();
            within(limit, Box::pin(h2ping::ping(target)), late).await
        }
        CheckKind::Script(args) => script::run(args, limit, keep).await,
        CheckKind::Ttl(_) | CheckKind::Fixed | CheckKind::Alias(_) => {
            Finding::new(Health::Critical, "this check does not run")
        }
    }
}

async fn within(
    limit: Duration,
    run: impl Future<Output = Finding>,
    late: impl FnOnce() -> String,
) -> Finding {
    match tokio::time::timeout(limit, run).await {
        Ok(finding) => finding,
        Err(_) => Finding::new(Health::Critical, late()),
    }
}

async fn tcp(target: &Target) -> Finding {
    let address = &target.address;
    let connect = async {
        let stream = dial(address).await?;
        if !target.use_tls {
            return Ok("TCP");
        }
        let name = target.server_name(address);
        tls::connect(stream, name, target.tls_skip_verify, tls::Protocol::Unnamed).await?;
        Ok::<_, String>("TCP+TLS")
    };
    match connect.await {
        Ok(kind) => Finding::new(Health::Passing, format!("{kind} connect {address}: Success")),
        Err(why) => Finding::new(Health::Critical, why),
    }
}

/// An empty datagram: silence is well, and only a refusal is not.
async fn udp(address: &str, limit: Duration) -> Finding {
    let refused = async {
        let target = tokio::net::lookup_host(address).await?.next();
        let target = target.ok_or(std::io::ErrorKind::AddrNotAvailable)?;
        let own: IpAddr = match target {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((own, 0)).await?;
        socket.connect(target).await?;
        socket.send(b"").await?;
        socket.recv(&mut [0; 1]).await.map(drop)
    };
    match tokio::time::timeout(limit, refused).await {
        Ok(Err(error)) => {
            let what = go_words(&error).map_or_else(|| error.to_string(), |what| format!("read: {what}"));
            Finding::new(Health::Critical, format!("read udp {address}: {what}"))
        }
        Ok(Ok(())) | Err(_) => Finding::new(Health::Passing, format!("UDP connect {address}: Success")),
    }
}

/// Connects to `HOST:PORT`.
///
/// # Errors
/// In Go's words, as people know them from Consul.
async fn dial(address: &str) -> Result<TcpStream, String> {
    TcpStream::connect(address)
        .await
        .map_err(|error| match go_words(&error) {
            Some(what) => format!("dial tcp {address}: connect: {what}"),
            None => format!("dial tcp {address}: {error}"),
        })
}

/// What Go calls an error of the network.
fn go_words(error: &std::io::Error) -> Option<&'static str> {
    Some(match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused",
        std::io::ErrorKind::TimedOut => "connection timed out",
        std::io::ErrorKind::HostUnreachable => "no route to host",
        std::io::ErrorKind::NetworkUnreachable => "network is unreachable",
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
