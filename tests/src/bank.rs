//! Transfers between accounts, each a transaction, while whatever happens to the servers: no money comes or goes.
//!
//! A transfer reads two accounts and writes both by check-and-set in one transaction, at any server. Whether one without
//! an answer was made does not matter: it was made wholly or not at all. Readers add up all accounts at any server, in
//! every mode of reading, and must always find the same sum.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::client::Client;
use crate::load::PAUSE;
use crate::wait::until;

const ACCOUNTS: usize = 8;
const BALANCE: u64 = 100;
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
const PROGRESS_LIMIT: Duration = Duration::from_secs(60);
const MODES: [&str; 3] = ["stale", "default", "consistent"];

/// Clients that transfer and add up until they are stopped.
#[derive(Debug)]
pub struct Bank {
    stop: Arc<AtomicBool>,
    transfers: Arc<AtomicU64>,
    sums: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<()>>>,
}

/// An account as it was read.
struct Account {
    key: String,
    balance: u64,
    index: u64,
}

impl Bank {
    /// Opens the accounts at the first of these servers, and starts a client that transfers and one that adds up at
    /// each.
    ///
    /// # Errors
    /// When the accounts cannot be opened.
    pub fn open(servers: &[SocketAddr]) -> Result<Self> {
        let first = *servers.first().context("no server")?;
        let mut client = Client::new(first).with_timeout(ANSWER_LIMIT);
        let open = |n: usize| set(&format!("bank/{n}"), BALANCE, 0);
        let opened = client.put(
            "/v1/txn",
            Value::Array((0..ACCOUNTS).map(open).collect()).to_string(),
        )?;
        ensure!(opened.status == 200, "{} {}", opened.status, opened.text());
        let bank = Self {
            stop: Arc::default(),
            transfers: Arc::default(),
            sums: Arc::default(),
            clients: Vec::new(),
        };
        Ok(bank.with_clients(servers))
    }

    fn with_clients(mut self, servers: &[SocketAddr]) -> Self {
        for (number, &server) in servers.iter().enumerate() {
            let (stop, transfers) = (Arc::clone(&self.stop), Arc::clone(&self.transfers));
            self.clients.push(std::thread::spawn(move || {
                transfer_until(&stop, server, number, &transfers);
                Ok(())
            }));
            let (stop, sums) = (Arc::clone(&self.stop), Arc::clone(&self.sums));
            self.clients
                .push(std::thread::spawn(move || add_up_until(&stop, server, &sums)));
        }
        self
    }

    /// Waits for so many more acknowledged transfers.
    ///
    /// # Errors
    /// When they do not come, for instance because money came or went.
    pub fn await_more(&self, transfers: u64) -> Result<()> {
        let wanted = self.transfers.load(Ordering::Relaxed) + transfers;
        until("transfers", PROGRESS_LIMIT, || {
            let ended = self.clients.iter().any(JoinHandle::is_finished);
            Ok((ended || self.transfers.load(Ordering::Relaxed) >= wanted).then_some(()))
        })
    }

    /// Ends it; answers how many transfers were acknowledged, and how often the accounts were added up.
    ///
    /// # Errors
    /// What a client found wrong.
    pub fn close(mut self) -> Result<(u64, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            client.join().map_err(|_| anyhow!("a client panicked"))??;
        }
        Ok((
            self.transfers.load(Ordering::Relaxed),
            self.sums.load(Ordering::Relaxed),
        ))
    }
}

impl Drop for Bank {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn set(key: &str, balance: u64, index: u64) -> Value {
    let value = STANDARD.encode(balance.to_string());
    json!({"KV": {"Verb": "cas", "Key": key, "Value": value, "Index": index}})
}

fn transfer_until(stop: &AtomicBool, server: SocketAddr, seed: usize, made: &AtomicU64) {
    let mut client = Client::new(server).with_timeout(ANSWER_LIMIT);
    for step in seed.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (from, to) = (step % ACCOUNTS, (step * 3 + 1) % ACCOUNTS);
        // While there is no leader nothing can be read either.
        let Ok(accounts) = accounts(&mut client, "default") else {
            thread::sleep(PAUSE);
            continue;
        };
        if from == to {
            continue;
        }
        let (from, to) = (&accounts[from], &accounts[to]);
        let amount = (1 + step as u64 % 7).min(from.balance);
        let body = json!([
            set(&from.key, from.balance - amount, from.index),
            set(&to.key, to.balance + amount, to.index),
        ]);
        // What became of one without an answer shows when the accounts are read next.
        if client
            .put("/v1/txn", body.to_string())
            .is_ok_and(|answer| answer.status == 200)
        {
            made.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn add_up_until(stop: &AtomicBool, server: SocketAddr, sums: &AtomicU64) -> Result<()> {
    let mut client = Client::new(server).with_timeout(ANSWER_LIMIT);
    for mode in MODES.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let Ok(accounts) = accounts(&mut client, mode) else {
            thread::sleep(PAUSE);
            continue;
        };
        let sum: u64 = accounts.iter().map(|account| account.balance).sum();
        let wanted = ACCOUNTS as u64 * BALANCE;
        ensure!(
            sum == wanted,
            "{mode} at {server}: the accounts hold {sum}, not {wanted}"
        );
        sums.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// All accounts, at one moment.
fn accounts(client: &mut Client, mode: &str) -> Result<Vec<Account>> {
    let answer = client.get(&format!("/v1/kv/bank/?recurse&{mode}"))?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let rows = answer.json()?;
    let account = |row: &Value| {
        let value = STANDARD.decode(row["Value"].as_str().context("no value")?)?;
        Ok(Account {
            key: row["Key"].as_str().context("no key")?.to_owned(),
            balance: String::from_utf8(value)?.parse()?,
            index: row["ModifyIndex"].as_u64().context("no index")?,
        })
    };
    let accounts: Vec<_> = rows
        .as_array()
        .context("no list")?
        .iter()
        .map(account)
        .collect::<Result<_>>()?;
    ensure!(accounts.len() == ACCOUNTS, "{} accounts", accounts.len());
    Ok(accounts)
}
