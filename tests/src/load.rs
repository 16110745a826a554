//! Write load on a cluster, and what must be true of its answers.
//!
//! Each worker speaks with one server and owns what it writes:
//!
//! * keys that are written once. Acknowledged: it is there in the end; without an answer: it may be.
//! * a register, a number that only grows, by check-and-set. Whatever reads it by `default` or `consistent` must see all
//!   that was acknowledged before and nothing that was not sent. So must a `stale` read at the server that took the
//!   write, on the same connection.
//!
//! A write without a clear answer may still come into force at any later time. So its key is never used again, and a
//! register goes on from what a consistent read shows; the check-and-set shuts out whatever comes later.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::client::{Client, Response};
use crate::wait::until;

const ANSWER_LIMIT: Duration = Duration::from_secs(20);
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);
/// A worker that is refused tries again after this time.
pub(crate) const PAUSE: Duration = Duration::from_millis(5);
/// Of two servers they are twice as many as a leader sends on at once.
const CROWD_OF_EACH: usize = 16;

/// Workers that write until they are stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    workers: Vec<JoinHandle<Result<Told>>>,
}

impl Load {
    /// Starts so many workers for each address that a leader gathers their writes.
    pub fn crowd(name: &str, addresses: &[SocketAddr]) -> Self {
        Self::start(name, &addresses.repeat(CROWD_OF_EACH))
    }

    /// Starts one worker for each address. `name` sets its keys apart from those of other loads.
    pub fn start(name: &str, addresses: &[SocketAddr]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let worker = |(number, &address): (usize, &SocketAddr)| {
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            let prefix = format!("{name}/{number}");
            std::thread::spawn(move || Worker::new(prefix, address).run(&stop, &acknowledged))
        };
        let workers = addresses.iter().enumerate().map(worker).collect();
        Self {
            stop,
            acknowledged,
            workers,
        }
    }

    /// Waits for so many more acknowledged writes.
    ///
    /// # Errors
    /// When they do not come, for instance because a worker found something wrong.
    pub fn await_more(&self, writes: u64) -> Result<()> {
        let wanted = self.acknowledged.load(Ordering::Relaxed) + writes;
        until("writes to be acknowledged", PROGRESS_LIMIT, || {
            let ended = self.workers.iter().any(JoinHandle::is_finished);
            let enough = self.acknowledged.load(Ordering::Relaxed) >= wanted;
            Ok((enough || ended).then_some(()))
        })
    }

    /// Ends the load and answers what its workers were told.
    ///
    /// # Errors
    /// What a worker found wrong.
    pub fn stop(mut self) -> Result<Vec<Told>> {
        self.stop.store(true, Ordering::Relaxed);
        self.workers
            .drain(..)
            .map(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
            .collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What one worker was told.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Keys written once: their value, and whether the write was acknowledged.
    pub once: BTreeMap<String, (String, bool)>,
    /// The key that grows.
    pub register: String,
    /// The highest number of the register that was acknowledged.
    pub acknowledged: u64,
    /// The highest number of the register that was sent.
    pub sent: u64,
    /// Writes that got no clear answer.
    pub unclear: u64,
    /// What was answered to the last of them.
    pub last_unclear: String,
    /// The longest time between two acknowledged writes.
    pub longest_pause: Duration,
}

impl Told {
    /// Compares with all keys that are stored.
    ///
    /// # Errors
    /// When something acknowledged is missing, or something is there that was never sent.
    pub fn check(&self, stored: &BTreeMap<String, String>) -> Result<()> {
        for (key, (value, acknowledged)) in &self.once {
            match stored.get(key) {
                Some(found) => ensure!(found == value, "{key} holds {found:?}, written was {value:?}"),
                None => ensure!(!acknowledged, "{key} was acknowledged and is lost"),
            }
        }
        let number = match stored.get(&self.register) {
            Some(text) => text
                .parse()
                .with_context(|| format!("{} holds {text:?}", self.register))?,
            None => 0,
        };
        self.check_register(number)
    }

    fn note_unclear(&mut self, answer: &Result<Response>) {
        self.unclear += 1;
        self.last_unclear = match answer {
            Ok(answer) => format!("{} {}", answer.status, answer.text()),
            Err(error) => format!("{error:#}"),
        };
    }

    fn check_register(&self, number: u64) -> Result<()> {
        ensure!(
            (self.acknowledged..=self.sent).contains(&number),
            "{} shows {number}; acknowledged {}, sent {}",
            self.register,
            self.acknowledged,
            self.sent
        );
        Ok(())
    }
}

struct Worker {
    client: Client,
    prefix: String,
    told: Told,
    /// `ModifyIndex` of the register, if the last answer told it.
    index: Option<u64>,
    sequence: u64,
}

impl Worker {
    fn new(prefix: String, address: SocketAddr) -> Self {
        let told = Told {
            register: format!("{prefix}/register"),
            ..Told::default()
        };
        Self {
            client: Client::new(address).with_timeout(ANSWER_LIMIT),
            prefix,
            told,
            index: None,
            sequence: 0,
        }
    }

    fn run(mut self, stop: &AtomicBool, acknowledged: &AtomicU64) -> Result<Told> {
        let mut last = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            let done = if self.sequence.is_multiple_of(2) {
                self.write_once()
            } else {
                self.step_register()?
            };
            self.sequence += 1;
            if done {
                acknowledged.fetch_add(1, Ordering::Relaxed);
                self.told.longest_pause = self.told.longest_pause.max(last.elapsed());
                last = Instant::now();
            } else {
                std::thread::sleep(PAUSE);
            }
        }
        Ok(self.told)
    }

    fn write_once(&mut self) -> bool {
        let key = format!("{}/{}", self.prefix, self.sequence);
        let value = format!("value of {key}");
        let answer = self.client.put(&format!("/v1/kv/{key}"), &value);
        let done = answer.as_ref().is_ok_and(Response::is_true);
        if !done {
            self.told.note_unclear(&answer);
        }
        self.told.once.insert(key, (value, done));
        done
    }

    fn step_register(&mut self) -> Result<bool> {
        let Some(index) = self.index.take() else {
            self.look("consistent")?;
            return Ok(false);
        };
        let next = self.told.acknowledged + 1;
        self.told.sent = next;
        let target = format!("/v1/kv/{}?cas={index}", self.told.register);
        match self.client.put(&target, next.to_string()) {
            Ok(answer) if answer.is_true() => {
                self.told.acknowledged = next;
                let mode = ["stale", "default", "consistent"][usize::try_from(self.sequence / 2 % 3)?];
                self.look(mode)?;
                Ok(true)
            }
            Ok(answer) if answer.is_false() => {
                // The register was read by a consistent read: only a write of which nothing was heard can be between.
                ensure!(
                    self.told.unclear > 0,
                    "{} changed, though nobody writes it",
                    self.told.register
                );
                Ok(false)
            }
            answer => {
                self.told.note_unclear(&answer);
                Ok(false)
            }
        }
    }

    /// Reads the register, which after an unclear answer stands anywhere between what was acknowledged and sent.
    fn look(&mut self, mode: &str) -> Result<()> {
        let target = format!("/v1/kv/{}?{mode}", self.told.register);
        let Ok(answer) = self.client.get(&target) else {
            return Ok(());
        };
        let (number, index) = match answer.status {
            404 => (0, 0),
            200 => entry(&answer)?,
            _ => return Ok(()),
        };
        self.told
            .check_register(number)
            .with_context(|| format!("a {mode} read"))?;
        self.told.acknowledged = number;
        self.index = Some(index);
        Ok(())
    }
}

fn entry(answer: &Response) -> Result<(u64, u64)> {
    let index = answer.entry()?["ModifyIndex"]
        .as_u64()
        .context("no ModifyIndex")?;
    Ok((String::from_utf8(answer.value()?)?.parse()?, index))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Told {
        let once = [("once/1", true), ("once/2", false)]
            .map(|(key, acknowledged)| (key.to_owned(), ("v".to_owned(), acknowledged)));
        Told {
            once: once.into(),
            register: "register".to_owned(),
            acknowledged: 5,
            sent: 6,
            ..Told::default()
        }
    }

    fn stored(rows: &[(&str, &str)]) -> BTreeMap<String, String> {
        rows.iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn what_was_unclear_may_be_there_or_not() {
        for number in ["5", "6"] {
            told()
                .check(&stored(&[("once/1", "v"), ("register", number)]))
                .unwrap();
        }
        told()
            .check(&stored(&[("once/1", "v"), ("once/2", "v"), ("register", "5")]))
            .unwrap();
    }

    #[test]
    fn a_bad_history_is_seen() {
        for rows in [
            &[("once/1", "v")][..],
            &[("register", "5")],
            &[("once/1", "other"), ("register", "5")],
            &[("once/1", "v"), ("register", "4")],
            &[("once/1", "v"), ("register", "7")],
        ] {
            assert!(told().check(&stored(rows)).is_err(), "{rows:?}");
        }
    }
}
