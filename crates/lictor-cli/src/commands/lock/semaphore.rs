//! A lock of several holders. Each contender has a key of its own, acquired by its session; the lock's key lists those
//! who hold, and is changed by check-and-set.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::LockError;
use super::holder::{Cleanup, Retries, WAIT};
use crate::client::{Answer, Call, Client};
use crate::commands::kv::Entry;

/// Marks the keys of such a lock. Consul's clients set and look for this number.
const FLAGS: u64 = 0xe0f6_9a2b_aa41_4de0;

/// The value of the lock's key.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Holders {
    limit: u64,
    holders: BTreeMap<String, bool>,
}

/// What the keys say at one moment.
#[derive(Debug)]
struct View {
    /// Without those whose sessions have ended.
    holders: Holders,
    /// Index of the lock's key; 0 if there is none.
    modify_index: u64,
    /// To wait beyond.
    index: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Semaphore {
    client: Client,
    /// Path of the keys, with a slash at the end.
    folder: String,
    session: String,
    limit: u64,
}

impl Semaphore {
    pub(super) fn new(client: Client, folder: &str, session: String, limit: u64) -> Self {
        Self {
            client,
            folder: format!("kv/{folder}"),
            session,
            limit,
        }
    }

    pub(super) fn clone_for(&self, client: Client) -> Self {
        Self {
            client,
            folder: self.folder.clone(),
            session: self.session.clone(),
            limit: self.limit,
        }
    }

    fn contender(&self) -> String {
        format!("{}{}", self.folder, self.session)
    }

    fn lock(&self) -> String {
        format!("{}.lock", self.folder)
    }

    pub(super) async fn acquire(&mut self) -> Result<(), LockError> {
        let path = self.contender();
        let call = Call::put(&path, "")
            .with("acquire", &self.session)
            .with("flags", FLAGS.to_string());
        let made = self.client.send(call).await;
        if !made.map_err(LockError::when("make contender entry"))?.is_true() {
            return Err(LockError::NoContender);
        }
        let mut index = None;
        loop {
            let call = Call::get(&self.folder)
                .with("recurse", "")
                .with("wait", WAIT)
                .with_some("index", index.map(|index: u64| index.to_string()));
            let answer = self.client.send(call).await;
            let mut view = self.view(&answer.map_err(LockError::when("read lock"))?)?;
            let held = u64::try_from(view.holders.holders.len()).unwrap_or(u64::MAX);
            if held >= self.limit {
                index = view.index;
                continue;
            }
            view.holders.holders.insert(self.session.clone(), true);
            if self.write(&view).await? {
                return Ok(());
            }
            index = None;
        }
    }

    /// Returns when the lock is no longer ours, or nobody can tell.
    pub(super) async fn watch(mut self, retries: u32) {
        let mut retries = Retries::new(retries);
        let mut index = None;
        loop {
            let call = Call::get(&self.folder)
                .with("recurse", "")
                .with("consistent", "")
                .with_some("index", index.map(|index: u64| index.to_string()));
            match self.client.send(call).await {
                Ok(answer) => {
                    let view = self.view(&answer);
                    if !view.is_ok_and(|view| view.holders.holders.contains_key(&self.session)) {
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
        loop {
            let mut view = self.read().await?;
            if view.holders.holders.remove(&self.session).is_none() || self.write(&view).await? {
                break;
            }
        }
        let path = self.contender();
        let removed = self.client.send(Call::delete(&path)).await;
        removed.map_err(LockError::when("remove contender entry"))?;
        Ok(())
    }

    pub(super) async fn clean_up(&mut self) -> Result<Cleanup, LockError> {
        let view = self.read().await?;
        if view.modify_index == 0 {
            return Ok(Cleanup::Done);
        }
        if !view.holders.holders.is_empty() {
            return Ok(Cleanup::InUse);
        }
        let path = self.lock();
        let call = Call::delete(&path).with("cas", view.modify_index.to_string());
        let removed = self.client.send(call).await;
        let removed = removed.map_err(LockError::when("remove lock"))?;
        Ok(if removed.is_true() {
            Cleanup::Done
        } else {
            Cleanup::InUse
        })
    }

    async fn read(&mut self) -> Result<View, LockError> {
        let call = Call::get(&self.folder).with("recurse", "");
        let answer = self.client.send(call).await;
        self.view(&answer.map_err(LockError::when("read lock"))?)
    }

    /// Writes the holders unless somebody else has in between.
    async fn write(&mut self, view: &View) -> Result<bool, LockError> {
        let body = serde_json::to_vec(&view.holders);
        let body = body.map_err(|error| LockError::Unreadable(error.to_string()))?;
        let path = self.lock();
        let call = Call::put(&path, body)
            .with("cas", view.modify_index.to_string())
            .with("flags", FLAGS.to_string());
        let written = self.client.send(call).await;
        Ok(written.map_err(LockError::when("update lock"))?.is_true())
    }

    fn view(&self, answer: &Answer) -> Result<View, LockError> {
        let entries: Vec<Entry> = if answer.status.is_success() {
            answer.json().map_err(LockError::when("read lock"))?
        } else {
            Vec::new()
        };
        let (holders, modify_index) = holders(&entries, &self.lock()["kv/".len()..], self.limit)?;
        Ok(View {
            holders,
            modify_index,
            index: answer.index,
        })
    }
}

/// Those who hold and are alive, and the index of the lock's key.
fn holders(entries: &[Entry], lock: &str, limit: u64) -> Result<(Holders, u64), LockError> {
    let Some(entry) = entries.iter().find(|entry| entry.key == lock) else {
        let none = Holders {
            limit,
            holders: BTreeMap::new(),
        };
        return Ok((none, 0));
    };
    if entry.flags != FLAGS {
        return Err(LockError::OtherUse);
    }
    let value = entry
        .bytes()
        .map_err(|failure| LockError::Unreadable(failure.0))?;
    let mut holders: Holders =
        serde_json::from_slice(&value).map_err(|error| LockError::Unreadable(error.to_string()))?;
    if holders.limit != limit {
        return Err(LockError::OtherLimit {
            theirs: holders.limit,
            ours: limit,
        });
    }
    let alive: BTreeSet<&str> = entries.iter().map(|entry| entry.session.as_str()).collect();
    holders
        .holders
        .retain(|id, holds| *holds && alive.contains(id.as_str()));
    Ok((holders, entry.modify_index))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(json: &str) -> Vec<Entry> {
        serde_json::from_str(json).expect("entries")
    }

    /// A lock with limit 2, held by s-1 and s-2; only s-1 is alive.
    const TWO: &str = r#"[{"Key":"p/.lock","Flags":16210313421097356768,"LockIndex":0,"CreateIndex":5,"ModifyIndex":7,
        "Value":"eyJMaW1pdCI6MiwiSG9sZGVycyI6eyJzLTEiOnRydWUsInMtMiI6dHJ1ZX19"},
        {"Key":"p/s-1","Flags":16210313421097356768,"LockIndex":1,"CreateIndex":4,"ModifyIndex":4,"Value":null,"Session":"s-1"}]"#;

    #[test]
    fn holders_without_a_session_do_not_count() {
        let (holders, index) = holders(&entries(TWO), "p/.lock", 2).expect("a lock");

        assert_eq!(holders.holders.into_keys().collect::<Vec<_>>(), ["s-1"]);
        assert_eq!(index, 7);
    }

    #[test]
    fn another_limit_and_another_use_are_refused() {
        let error = holders(&entries(TWO), "p/.lock", 3).expect_err("another limit");
        assert_eq!(error.to_string(), "semaphore limit conflict (lock: 2, local: 3)");

        let plain = TWO.replace("16210313421097356768", "0");
        let error = holders(&entries(&plain), "p/.lock", 2).expect_err("a plain key");
        assert_eq!(error.to_string(), "Existing key does not match lock use");
    }

    #[test]
    fn no_lock_yet_has_no_holders() {
        let (holders, index) = holders(&[], "p/.lock", 2).expect("nothing");

        assert_eq!((holders.holders.len(), holders.limit, index), (0, 2, 0));
    }

    #[test]
    fn the_value_is_what_consuls_clients_write() {
        let holders = Holders {
            limit: 2,
            holders: BTreeMap::from([("s-1".to_owned(), true)]),
        };

        let value = serde_json::to_string(&holders).expect("JSON");
        assert_eq!(value, r#"{"Limit":2,"Holders":{"s-1":true}}"#);
    }
}
