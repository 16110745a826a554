//! A lock around work that must not overlap: several workers add to one counter, reading and writing it in two steps,
//! each under the lock. Without the lock additions would be lost.

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use anyhow::{Result, ensure};
use lictor_examples::{Client, recipe, unique};

const WORKERS: u64 = 4;
const ROUNDS: u64 = 5;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    recipe(run).await
}

async fn run(client: Client) -> Result<()> {
    let prefix = unique("lock");
    client.write(&format!("{prefix}/counter"), "", "0").await?;
    let workers = (0..WORKERS).map(|number| {
        let (client, prefix) = (client.clone(), prefix.clone());
        tokio::spawn(async move { worker(&client, &prefix, number).await })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await??;
    }

    let total = counter(&client, &prefix).await?;
    client.delete_tree(&prefix).await?;
    println!("{WORKERS} workers added {ROUNDS} times each: {total}");
    ensure!(total == WORKERS * ROUNDS, "an addition was lost");
    Ok(())
}

async fn worker(client: &Client, prefix: &str, number: u64) -> Result<()> {
    let session = client.create_session(&format!("worker-{number}")).await?;
    for _ in 0..ROUNDS {
        lock(client, prefix, &session).await?;
        let total = counter(client, prefix).await?;
        client
            .write(&format!("{prefix}/counter"), "", (total + 1).to_string())
            .await?;
        ensure!(
            client
                .write(&format!("{prefix}/lock"), &format!("release={session}"), "")
                .await?,
            "lost the lock"
        );
    }
    client.destroy_session(&session).await
}

/// Returns when the lock is held by `session`.
async fn lock(client: &Client, prefix: &str, session: &str) -> Result<()> {
    let key = format!("{prefix}/lock");
    while !client.write(&key, &format!("acquire={session}"), "").await? {
        let found = client.read(&key, "").await?;
        if found.entries.iter().any(|entry| entry.session.is_some()) {
            client
                .read(&key, &format!("index={}&wait=2s", found.index))
                .await?;
        }
        client.renew_session(session).await?;
    }
    Ok(())
}

async fn counter(client: &Client, prefix: &str) -> Result<u64> {
    let found = client.read(&format!("{prefix}/counter"), "consistent").await?;
    Ok(found.entries.first().map_or(Ok(0), |entry| entry.value.parse())?)
}
