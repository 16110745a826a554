//! H2PING checks: an HTTP/2 connection and one ping on it.

use h2::{Ping, client};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Finding, tls};
use crate::definition::{Health, Target};

/// Pings once.
pub(super) async fn ping(target: &Target) -> Finding {
    match connect_and_ping(target).await {
        Ok(()) => Finding::new(Health::Passing, "HTTP2 ping was successful"),
        Err(why) => Finding::new(Health::Critical, why),
    }
}

async fn connect_and_ping(target: &Target) -> Result<(), String> {
    let address = &target.address;
    let dialing = |why: String| format!("Failed to dial to {address}: {why}");
    let stream = super::dial(address).await.map_err(dialing)?;
    let pinged = if target.use_tls {
        let name = target.server_name(address);
        let stream = tls::connect(stream, name, target.tls_skip_verify, tls::Protocol::Http2)
            .await
            .map_err(dialing)?;
        ping_over(stream).await
    } else {
        ping_over(stream).await
    };
    pinged.map_err(|error| format!("HTTP2 ping failed: {error}"))
}

async fn ping_over<S>(stream: S) -> Result<(), h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (sender, mut connection) = client::handshake(stream).await?;
    let mut pings = connection.ping_pong();
    let pong = async {
        match &mut pings {
            Some(pings) => pings.ping(Ping::opaque()).await.map(drop),
            None => Ok(()),
        }
    };
    let result = tokio::select! {
        pong = pong => pong,
        // It only ends before the answer when it fails.
        ended = &mut connection => ended.and(Err(h2::Reason::INTERNAL_ERROR.into())),
    };
    drop(sender);
    result
}
