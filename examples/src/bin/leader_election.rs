//! Leader election, the recipe that Consul's users know: candidates try to acquire one key with their session. Who has it
//! leads; the others wait with a blocking query until the key has no session, and try again. When a leader dies its
//! session ends with its TTL, and the key is free.

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::time::Duration;

use anyhow::{Result, ensure};
use lictor_examples::{Client, recipe, unique};

const CANDIDATES: usize = 3;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    recipe(run).await
}

async fn run(client: Client) -> Result<()> {
    let key = unique("leader");
    let candidates = (0..CANDIDATES).map(|number| {
        let (client, key) = (client.clone(), key.clone());
        tokio::spawn(async move { candidate(&client, &key, &format!("candidate-{number}")).await })
    });
    for candidate in candidates.collect::<Vec<_>>() {
        candidate.await??;
    }
    client.delete_tree(&key).await?;
    println!("every candidate has led once");
    Ok(())
}

/// Waits to lead, leads for a moment, steps down.
async fn candidate(client: &Client, key: &str, name: &str) -> Result<()> {
    let session = client.create_session(name).await?;
    while !client
        .write(key, &format!("acquire={session}"), name.to_owned())
        .await?
    {
        wait_until_free(client, key, &session).await?;
    }

    println!("{name} leads");
    // A real leader renews while it works, and stops leading when that fails.
    client.renew_session(&session).await?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let leader = client.read(key, "consistent").await?.entries.pop();
    ensure!(
        leader.is_some_and(|entry| entry.session.as_deref() == Some(&*session)),
        "{name} lost the lead"
    );

    ensure!(
        client
            .write(key, &format!("release={session}"), name.to_owned())
            .await?,
        "{name} could not step down"
    );
    client.destroy_session(&session).await
}

/// Returns when nobody leads. Read first, then wait for the index that the read told: no change in between is lost.
async fn wait_until_free(client: &Client, key: &str, session: &str) -> Result<()> {
    let mut query = String::new();
    loop {
        let found = client.read(key, &query).await?;
        if found.entries.iter().all(|entry| entry.session.is_none()) {
            return Ok(());
        }
        // A query that waits for long would outlive the session's TTL.
        client.renew_session(session).await?;
        query = format!("index={}&wait=5s", found.index);
    }
}
