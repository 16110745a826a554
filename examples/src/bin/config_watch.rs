//! Configuration that services follow: one side changes keys below a prefix, the other waits for changes with blocking
//! queries and applies each state it sees. A change that comes between two queries is not lost, since the second one
//! waits from the index of the first.

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use anyhow::{Result, ensure};
use lictor_examples::{Client, recipe, unique};

const CHANGES: u32 = 5;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    recipe(run).await
}

async fn run(client: Client) -> Result<()> {
    let prefix = unique("config");
    let watcher = {
        let (client, prefix) = (client.clone(), prefix.clone());
        tokio::spawn(async move { watch(&client, &prefix).await })
    };
    for change in 1..=CHANGES {
        client
            .write(&format!("{prefix}/pool_size"), "", change.to_string())
            .await?;
    }
    let seen = watcher.await??;

    client.delete_tree(&prefix).await?;
    ensure!(
        seen.last() == Some(&CHANGES),
        "the last change was missed: {seen:?}"
    );
    ensure!(seen.is_sorted(), "went back in time: {seen:?}");
    Ok(())
}

/// Follows the setting until its last value; answers the values seen. Values may be skipped, never repeated out of order.
async fn watch(client: &Client, prefix: &str) -> Result<Vec<u32>> {
    let (mut index, mut seen) = (0, Vec::new());
    loop {
        let found = client
            .read(&format!("{prefix}/"), &format!("recurse&index={index}&wait=10s"))
            .await?;
        // An index that goes back means that the server was restored from a snapshot: start afresh.
        index = if found.index < index { 0 } else { found.index };
        for entry in found.entries {
            println!("{} = {} (index {})", entry.key, entry.value, entry.modify_index);
            let value = entry.value.parse()?;
            seen.push(value);
            if value == CHANGES {
                return Ok(seen);
            }
        }
    }
}
