//! Thousands of blocking queries: plain sockets without tasks or buffers, so that their cost is the server's alone.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::script::Keys;
use crate::wire::{Blocking, Buffer, request};

/// Longer than any measurement.
const WAIT: &str = "10m";
/// How often the next answer is looked for while all are awaited: a thread that slept for each of them would have the server
/// wake it ten thousand times.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Watchers `0..n`, each waiting on a key that exists.
pub(crate) struct Watchers {
    connections: Vec<Blocking>,
    keys: Keys,
    /// All watch key 0 instead of each its own.
    same_key: bool,
    writer: Blocking,
    /// Answers are taken one after the other, so one buffer serves all.
    buffer: Buffer,
    writes: u64,
}

impl Watchers {
    /// Connects them all, to the servers in turn, and sends their queries.
    pub(crate) fn open(addrs: &[SocketAddr], keys: Keys, same_key: bool) -> Result<Self> {
        let first = addrs.first().context("no servers")?;
        let mut watchers = Self {
            connections: Vec::new(),
            keys,
            same_key,
            writer: Blocking::open(*first)?,
            buffer: Buffer::default(),
            writes: 0,
        };
        let index = watchers.newest_index()?;
        for (n, addr) in (0..keys.count).zip(addrs.iter().cycle()) {
            let mut connection = Blocking::open(*addr).with_context(|| format!("watcher {n}"))?;
            connection.send(&watchers.query(n, index))?;
            watchers.connections.push(connection);
        }
        Ok(watchers)
    }

    pub(crate) fn count(&self) -> usize {
        self.connections.len()
    }

    /// An index that no key's last change is above: that of a write made now.
    fn newest_index(&mut self) -> Result<u64> {
        let target = format!("/v1/kv/{}-newest", self.keys.prefix);
        self.writes += 1;
        self.writer
            .call(&request("PUT", &target, self.writes.to_string().as_bytes()))?;
        let answer = self.writer.call(&request("GET", &target, b""))?;
        answer.index.context("a read without an index")
    }

    fn query(&self, n: usize, index: u64) -> Vec<u8> {
        let key = self.keys.name(if self.same_key { 0 } else { n });
        request("GET", &format!("/v1/kv/{key}?index={index}&wait={WAIT}"), b"")
    }

    /// Takes watcher `n`'s answer: woken by it, or by looking for it every so often.
    fn take_answer(&mut self, n: usize, look_every: Option<Duration>) -> Result<()> {
        let connection = &mut self.connections[n];
        let answer = match look_every {
            None => connection.receive_with(&mut self.buffer)?,
            Some(every) => connection.look_with(&mut self.buffer, every)?,
        };
        ensure!(
            answer.status == 200,
            "watcher {n} got {}: {}",
            answer.status,
            answer.excerpt()
        );
        Ok(())
    }

    fn wait_again(&mut self, n: usize, index: u64) -> Result<()> {
        let query = self.query(n, index);
        Ok(self.connections[n].send(&query)?)
    }

    /// Changes the key of watcher `n`; answers the time from sending the write to having the watcher's answer.
    pub(crate) fn wake_one(&mut self, n: usize) -> Result<Duration> {
        let bytes = self.change(n);
        let sent = Instant::now();
        self.writer.send(&bytes)?;
        self.take_answer(n, None)?;
        let took = sent.elapsed();
        self.take_written()?;
        let index = self.newest_index()?;
        self.wait_again(n, index)?;
        Ok(took)
    }

    /// Changes the key that all watch; answers the time from sending the write to having the last one's answer.
    pub(crate) fn wake_all(&mut self) -> Result<Duration> {
        let bytes = self.change(0);
        let sent = Instant::now();
        self.writer.send(&bytes)?;
        for n in 0..self.count() {
            self.take_answer(n, Some(LOOK_EVERY))?;
        }
        let took = sent.elapsed();
        self.take_written()?;
        let index = self.newest_index()?;
        for n in 0..self.count() {
            self.wait_again(n, index)?;
        }
        Ok(took)
    }

    fn change(&mut self, n: usize) -> Vec<u8> {
        self.writes += 1;
        request(
            "PUT",
            &format!("/v1/kv/{}", self.keys.name(n)),
            format!("change {}", self.writes).as_bytes(),
        )
    }

    fn take_written(&mut self) -> Result<()> {
        let answer = self.writer.receive()?;
        ensure!(
            answer.status == 200,
            "write got {}: {}",
            answer.status,
            answer.excerpt()
        );
        Ok(())
    }
}
