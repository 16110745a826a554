//! Runs checks: one short-lived task per run, nothing in between.

mod http;
mod tls;

use std::time::Duration;

use tokio::net::TcpStream;

use crate::definition::{CheckDefinition, CheckKind, Health};

/// What a run found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) health: Health,
    pub(crate) output: String,
}

impl Finding {
    fn new(health: Health, output: impl Into<String>) -> Self {
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
    let output_max_bytes = definition.output_max_bytes(output_max_bytes);
    match &definition.kind {
        CheckKind::Http(request) => {
            let ran = tokio::time::timeout(limit, http::get(request, output_max_bytes)).await;
            ran.unwrap_or_else(|_| {
                let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
                Finding::new(
                    Health::Critical,
                    format!("{} {:?}: {late}", http::verb(request), request.url),
                )
            })
        }
        CheckKind::Tcp(address) => tcp(address, limit).await,
        CheckKind::Ttl(_) | CheckKind::Fixed => Finding::new(Health::Critical, "this check does not run"),
    }
}

async fn tcp(address: &str, limit: Duration) -> Finding {
    match tokio::time::timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Finding::new(Health::Passing, format!("TCP connect {address}: Success")),
        Ok(Err(error)) => Finding::new(Health::Critical, dial_error(address, &error)),
        Err(_) => Finding::new(Health::Critical, format!("dial tcp {address}: i/o timeout")),
    }
}

/// A failed connection in Go's words, as people know them from Consul.
fn dial_error(address: &str, error: &std::io::Error) -> String {
    let what = match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        std::io::ErrorKind::TimedOut => "connection timed out".to_owned(),
        std::io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        _ => return format!("dial tcp {address}: {error}"),
    };
    format!("dial tcp {address}: connect: {what}")
}

#[cfg(test)]
mod tests;
