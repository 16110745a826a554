//! A lock of one holder: a key that is acquired by the holder's session.

use tokio::time::sleep;

use super::LockError;
use super::holder::{Cleanup, DELAYED_PAUSE, Retries, WAIT};
use crate::client::{Answer, Call, Client, ClientError};
use crate::commands::kv::Entry;

/// Marks a key as such a lock. Consul's clients set and look for this number.
const FLAGS: u64 = 0x2ddc_cbc0_58a5_0c18;

#[derive(Debug)]
pub(super) struct Mutex {
    client: Client,
    path: String,
    session: String,
}

impl Mutex {
    pub(super) fn new(client: Client, key: &str, session: String) -> Self {
        Self {
            client,
            path: format!("kv/{key}"),
            session,
        }
    }

    pub(super) fn clone_for(&self, client: Client) -> Self {
        Self {
            client,
            path: self.path.clone(),
            session: self.session.clone(),
        }
    }

    pub(super) async fn acquire(&mut self) -> Result<(), LockError> {
        let mut index = None;
        loop {
            let call = Call::get(&self.path)
                .with("wait", WAIT)
                .with_some("index", index.map(|index: u64| index.to_string()));
            let answer = self.client.send(call).await;
            let answer = answer.map_err(LockError::when("read lock"))?;
            let held = match entry(&answer)? {
                Some(entry) if entry.flags != FLAGS => return Err(LockError::OtherUse),
                Some(entry) if entry.session == self.session => return Ok(()),
                entry => entry.is_some_and(|entry| !entry.session.is_empty()),
            };
            if held {
                index = answer.index;
                continue;
            }
            let call = Call::put(&self.path, "")
                .with("acquire", &self.session)
                .with("flags", FLAGS.to_string());
            let answer = self.client.send(call).await;
            if answer.map_err(LockError::when("acquire lock"))?.is_true() {
                return Ok(());
            }
            // Somebody was faster, or the lock is in its delay.
            index = None;
            let answer = self.client.send(Call::get(&self.path)).await;
            let entry = entry(&answer.map_err(LockError::when("read lock"))?)?;
            if entry.is_none_or(|entry| entry.session.is_empty()) {
                sleep(DELAYED_PAUSE).await;
            }
        }
    }

    /// Returns when the lock is no longer ours, or nobody can tell.
    pub(super) async fn watch(mut self, retries: u32) {
        let mut retries = Retries::new(retries);
        let mut index = None;
        loop {
            let call = Call::get(&self.path)
                .with("consistent", "")
                .with_some("index", index.map(|index: u64| index.to_string()));
            match self.client.send(call).await {
                Ok(answer) => {
                    let ours = matches!(entry(&answer), Ok(Some(entry)) if entry.session == self.session);
                    if !ours {
                        return;
                    }
                    retries.reset();
                    index = answer.index;
                }
                Err(error) if retries.again(&error).await => index = None,
                Err(_) => return,
            }
        }
    }

    pub(super) async fn release(&mut self) -> Result<(), LockError> {
        let call = Call::put(&self.path, "")
            .with("flags", FLAGS.to_string())
            .with("release", &self.session);
        // It answers false if the lock was not ours.
        self.client
            .send(call)
            .await
            .map_err(LockError::when("release lock"))?;
        Ok(())
    }

    pub(super) async fn clean_up(&mut self) -> Result<Cleanup, LockError> {
        let answer = self.client.send(Call::get(&self.path)).await;
        let Some(entry) = entry(&answer.map_err(LockError::when("read lock"))?)? else {
            return Ok(Cleanup::Done);
        };
        if !entry.session.is_empty() || entry.flags != FLAGS {
            return Ok(Cleanup::InUse);
        }
        let call = Call::delete(&self.path).with("cas", entry.modify_index.to_string());
        let removed = self.client.send(call).await;
        let removed = removed.map_err(LockError::when("remove lock"))?;
        Ok(if removed.is_true() {
            Cleanup::Done
        } else {
            Cleanup::InUse
        })
    }
}

/// The only entry of an answer, if there is one.
fn entry(answer: &Answer) -> Result<Option<Entry>, LockError> {
    if !answer.status.is_success() {
        return Ok(None);
    }
    let entries: Result<Vec<Entry>, ClientError> = answer.json();
    let mut entries = entries.map_err(LockError::when("read lock"))?;
    Ok(entries.pop())
}
