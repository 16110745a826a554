//! The session that a lock is held by, and its renewal.

use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::{LockError, Watcher};
use crate::client::{Call, Client, ClientError};

/// Long enough for a change of the leader, short enough for others to follow a holder that died.
const TTL: Duration = Duration::from_secs(15);
const RENEW_PAUSE: Duration = TTL.checked_div(2).expect("two is not zero");
/// Pause after a renewal that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Deserialize)]
struct Created {
    #[serde(rename = "ID")]
    id: String,
}

/// A session that is renewed as long as this lives.
#[derive(Debug)]
pub(super) struct Session {
    id: String,
    renewal: Watcher,
}

impl Session {
    /// Creates a session; `delete` lets the keys that it holds go with it.
    ///
    /// # Errors
    /// When the server refuses.
    pub(super) async fn create(client: &mut Client, name: &str, delete: bool) -> Result<Self, LockError> {
        let mut body = json!({ "Name": name, "TTL": format!("{}s", TTL.as_secs()) });
        if delete {
            body["Behavior"] = json!("delete");
        }
        let call = Call::put("session/create", body.to_string());
        let begun = Instant::now();
        let created: Created = client
            .fetch(call)
            .await
            .map_err(LockError::when("create session"))?;
        let renewal = Watcher::new(renew(client.another(), created.id.clone(), begun));
        Ok(Self {
            id: created.id,
            renewal,
        })
    }

    pub(super) fn id(&self) -> String {
        self.id.clone()
    }

    /// Returns when the session has ended, or may have because it could not be renewed.
    pub(super) async fn lost(&self) {
        // An error says that the renewal has given up.
        let _ = self.renewal.alive.clone().changed().await;
    }

    /// Ends the session. If that fails it ends by itself.
    pub(super) async fn destroy(&self, client: &mut Client) {
        let path = format!("session/destroy/{}", self.id);
        let _ = client.send(Call::put(&path, "")).await;
    }
}

/// Renews until the server says that the session is gone, or it may be by the clock. The clock runs from before the
/// request, since the server may have counted from then.
async fn renew(mut client: Client, id: String, mut last: Instant) {
    let path = format!("session/renew/{id}");
    let mut pause = RENEW_PAUSE;
    loop {
        sleep(pause).await;
        let left = TTL.saturating_sub(last.elapsed());
        if left.is_zero() {
            return;
        }
        let begun = Instant::now();
        match timeout(left, client.send(Call::put(&path, ""))).await {
            Ok(Ok(_)) => (last, pause) = (begun, RENEW_PAUSE),
            Ok(Err(ClientError::Refused {
                status: StatusCode::NOT_FOUND,
                ..
            })) => return,
            Ok(Err(_)) | Err(_) => pause = RETRY_PAUSE,
        }
    }
}
