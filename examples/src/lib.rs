//! What the recipes share: a small HTTP client. Each recipe is a program of its own in `src/bin`, takes the address of a
//! server (default `http://127.0.0.1:8500`), does its work under keys of its own in bounded time, and cleans up. They
//! use Consul's HTTP API only, so they run against Consul as well.
//!
//! ```text
//! cargo run --release -p lictor-examples --bin leader_election -- http://127.0.0.1:8500
//! ```

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

/// No recipe needs longer, even on a busy machine.
const RECIPE_LIMIT: Duration = Duration::from_secs(60);

/// Runs a recipe with the server's address from the command line.
///
/// # Errors
/// What the recipe says, or that it took too long.
pub async fn recipe<F: Future<Output = Result<()>>>(run: impl FnOnce(Client) -> F) -> Result<()> {
    let base = std::env::args().nth(1);
    let client = Client::new(base.as_deref().unwrap_or("http://127.0.0.1:8500"))?;
    tokio::time::timeout(RECIPE_LIMIT, run(client))
        .await
        .context("took too long")?
}

/// A name that no other run uses.
pub fn unique(name: &str) -> String {
    format!("examples/{name}-{}", std::process::id())
}

/// An entry of the key-value store.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The session that holds the lock on it.
    pub session: Option<String>,
    /// The index of its last change, for `cas`.
    pub modify_index: u64,
}

/// What a read found, and the index to wait for changes from.
#[derive(Debug)]
pub struct Found {
    /// The entries; none if there is nothing.
    pub entries: Vec<Entry>,
    /// `X-Consul-Index`.
    pub index: u64,
}

/// Speaks to one server, a connection for each request: simple rather than fast. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Client {
    authority: String,
}

impl Client {
    /// A client of the server at `http://HOST:PORT`.
    ///
    /// # Errors
    /// When that is not the form of the address.
    pub fn new(base: &str) -> Result<Self> {
        let authority = base
            .strip_prefix("http://")
            .context("the address must begin with http://")?;
        Ok(Self {
            authority: authority.trim_end_matches('/').to_owned(),
        })
    }

    /// Reads a key, or with `recurse` in `query` all keys below it. With `index` in the query the server answers when
    /// something has changed since that index.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn read(&self, key: &str, query: &str) -> Result<Found> {
        let (status, index, body) = self
            .send(Method::GET, &format!("kv/{key}?{query}"), Bytes::new())
            .await?;
        let entries = match status {
            StatusCode::OK => entries(&body)?,
            StatusCode::NOT_FOUND => Vec::new(),
            _ => bail!("GET {key}: {status}: {}", String::from_utf8_lossy(&body)),
        };
        Ok(Found {
            entries,
            index: index.context("no X-Consul-Index")?,
        })
    }

    /// Writes a key; `query` may hold `cas`, `acquire` or `release`. Answers whether it was done.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn write(&self, key: &str, query: &str, value: impl Into<Bytes>) -> Result<bool> {
        Ok(self
            .call(Method::PUT, &format!("kv/{key}?{query}"), value.into())
            .await?
            == json!(true))
    }

    /// Deletes all keys that begin with `prefix`.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn delete_tree(&self, prefix: &str) -> Result<()> {
        self.call(Method::DELETE, &format!("kv/{prefix}?recurse"), Bytes::new())
            .await?;
        Ok(())
    }

    /// Creates a session that ends by itself when its owner dies, and whose locks are free at once then.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn create_session(&self, name: &str) -> Result<String> {
        let body = json!({ "Name": name, "TTL": "10s", "LockDelay": "0s", "Behavior": "release" });
        let created = self
            .call(Method::PUT, "session/create", Bytes::from(body.to_string()))
            .await?;
        Ok(created["ID"].as_str().context("no ID")?.to_owned())
    }

    /// Keeps a session alive for another TTL; to be called every few seconds by its owner.
    ///
    /// # Errors
    /// When the session has ended: its owner must stop acting as the holder of its locks.
    pub async fn renew_session(&self, id: &str) -> Result<()> {
        self.call(Method::PUT, &format!("session/renew/{id}"), Bytes::new())
            .await?;
        Ok(())
    }

    /// Ends a session.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn destroy_session(&self, id: &str) -> Result<()> {
        self.call(Method::PUT, &format!("session/destroy/{id}"), Bytes::new())
            .await?;
        Ok(())
    }

    async fn call(&self, method: Method, target: &str, body: Bytes) -> Result<Value> {
        let (status, _, answer) = self.send(method, target, body).await?;
        ensure!(
            status == StatusCode::OK,
            "{target}: {status}: {}",
            String::from_utf8_lossy(&answer)
        );
        Ok(serde_json::from_slice(&answer)?)
    }

    async fn send(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Option<u64>, Bytes)> {
        let stream = TcpStream::connect(&self.authority)
            .await
            .with_context(|| self.authority.clone())?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(format!("/v1/{target}"))
            .header("Host", &self.authority)
            .body(Full::new(body))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let index = response
            .headers()
            .get("X-Consul-Index")
            .and_then(|index| index.to_str().ok()?.parse().ok());
        let body = response.into_body().collect().await?.to_bytes();
        connection.abort();
        Ok((status, index, body))
    }
}

fn entries(body: &[u8]) -> Result<Vec<Entry>> {
    let list: Vec<Value> = serde_json::from_slice(body)?;
    list.iter()
        .map(|entry| {
            let value = STANDARD.decode(entry["Value"].as_str().unwrap_or_default())?;
            Ok(Entry {
                key: entry["Key"].as_str().context("no Key")?.to_owned(),
                value: String::from_utf8(value)?,
                session: entry["Session"].as_str().map(str::to_owned),
                modify_index: entry["ModifyIndex"].as_u64().context("no ModifyIndex")?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_decoded() {
        let body = br#"[{"Key":"a","Value":"YmFy","ModifyIndex":7},{"Key":"b","Value":null,"ModifyIndex":8,"Session":"s"}]"#;

        let entries = entries(body).expect("well-formed");

        assert_eq!((entries[0].value.as_str(), entries[0].modify_index), ("bar", 7));
        assert_eq!(
            (entries[1].value.as_str(), entries[1].session.as_deref()),
            ("", Some("s"))
        );
    }

    #[test]
    fn an_address_without_a_scheme_is_refused() {
        assert!(Client::new("127.0.0.1:8500").is_err());
    }
}
