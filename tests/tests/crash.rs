//! Kill -9 in a loop under write load. After every restart all that was acknowledged is there, what was undecided is
//! there wholly or not at all, and no index went back.
//!
//! `CRASH_KILLS` says how often (20 by default), `CRASH_SEED` replays the choices of a run; timing stays the machine's.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lictor_tests::{Claim, Client, Effect, History, Row, Rows, Server, check_counter};

const WORKERS: usize = 6;
/// Keys of one worker; few, so that each sees every kind of change.
const KEYS: usize = 8;
/// And so many more, nearly, that come and go by the hundred.
const MANY: u64 = 400;
const SESSIONS_MAX: usize = 3;
const LOAD_MS: std::ops::Range<u64> = 20..300;
/// One kill in so many comes while the server is still starting.
const EARLY_KILL_IN: u64 = 6;
const COUNTER: &str = "/v1/kv/crash-shared/counter";
const LOCK: &str = "/v1/kv/crash-shared/lock";

/// A small generator (xorshift64*), so that a seed replays the choices.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

/// What all workers share.
#[derive(Default)]
struct Shared {
    /// Steps of the counter: acknowledged, and sent without an answer.
    counter: Mutex<(u64, u64)>,
    /// The highest index that any answer showed.
    index: Mutex<u64>,
}

impl Shared {
    fn saw(&self, index: u64) -> Result<()> {
        let mut highest = self.index.lock().map_err(|_| anyhow!("a worker panicked"))?;
        *highest = (*highest).max(index);
        Ok(())
    }
}

/// One client with its own keys below `crash/N/` and its own sessions named `crash-N`.
struct Worker {
    number: usize,
    dice: Dice,
    history: History,
    /// The session it asks for the shared lock with, and how that stands.
    claim: (String, Claim),
    sequence: u64,
    acknowledged: u64,
}

impl Worker {
    fn new(number: usize, seed: u64) -> Self {
        Self {
            number,
            dice: Dice::new(seed + number as u64),
            history: History::default(),
            claim: (String::new(), Claim::None),
            sequence: 0,
            acknowledged: 0,
        }
    }

    fn prefix(&self) -> String {
        format!("crash/{}/", self.number)
    }

    fn pick_key(&mut self) -> String {
        format!("{}{}", self.prefix(), self.dice.below(KEYS as u64))
    }

    fn pick_session(&mut self) -> Option<String> {
        let count = self.history.sessions().len() as u64;
        let n = (count > 0).then(|| self.dice.below(count))?;
        self.history
            .sessions()
            .iter()
            .nth(usize::try_from(n).ok()?)
            .cloned()
    }

    fn fresh_value(&mut self) -> String {
        self.sequence += 1;
        format!("{}-{}", self.number, self.sequence)
    }

    /// Sends requests until one gets no answer, which is what the kill looks like from here.
    fn run(&mut self, mut client: Client, shared: &Shared) -> Result<()> {
        loop {
            match self.step(&mut client, shared) {
                Ok(()) => self.acknowledged += 1,
                Err(error) if error.is::<io::Error>() => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn step(&mut self, client: &mut Client, shared: &Shared) -> Result<()> {
        match self.dice.below(12) {
            0..=3 => self.write(client),
            4 => self.delete(client),
            5 => self.write_several(client),
            6 => self.create_session(client),
            7 => self.destroy_session(client),
            8 => self.take_or_free_own_key(client),
            9 => Self::count(client, shared),
            10 => self.take_or_free_shared_lock(client),
            _ => self.look(client, shared),
        }
    }

    /// Sends a request whose answer is `true`, `false` or an error.
    fn attempt(&mut self, client: &mut Client, target: &str, body: &str, effect: Effect) -> Result<bool> {
        self.history.begin(effect);
        let response = client.put(target, body)?;
        ensure!(
            response.is_true() || response.is_false(),
            "{} {}",
            response.status,
            response.text()
        );
        if response.is_true() {
            self.history.acknowledged(None);
        } else {
            self.history.refused();
        }
        Ok(response.is_true())
    }

    fn write(&mut self, client: &mut Client) -> Result<()> {
        let (key, value) = (self.pick_key(), self.fresh_value());
        let session = self.history.rows().get(&key).and_then(|row| row.session.clone());
        let row = Row {
            value: value.clone(),
            session,
        };
        let effect = Effect {
            rows: vec![(key.clone(), Some(row))],
            ..Effect::default()
        };
        ensure!(
            self.attempt(client, &format!("/v1/kv/{key}"), &value, effect)?,
            "a plain write was refused"
        );
        Ok(())
    }

    /// One key, or a tree of them: all of the worker's, the many, or a part of those.
    fn delete(&mut self, client: &mut Client) -> Result<()> {
        let tree = match self.dice.below(12) {
            0..=1 => Some(self.prefix()),
            2 => Some(format!("{}many/", self.prefix())),
            3 => Some(format!("{}many/{}", self.prefix(), self.dice.below(MANY / 100))),
            _ => None,
        };
        let (target, gone) = if let Some(prefix) = tree {
            let below = self.history.rows().keys().filter(|key| key.starts_with(&prefix));
            (format!("/v1/kv/{prefix}?recurse"), below.cloned().collect())
        } else {
            let key = self.pick_key();
            (format!("/v1/kv/{key}"), vec![key])
        };
        let rows = gone.into_iter().map(|key| (key, None)).collect();
        self.history.begin(Effect {
            rows,
            ..Effect::default()
        });
        ensure!(client.delete(&target)?.is_true(), "a delete was refused");
        self.history.acknowledged(None);
        Ok(())
    }

    /// Two keys in one transaction, or as many as fill several leaves of a tree.
    fn write_several(&mut self, client: &mut Client) -> Result<()> {
        let value = self.fresh_value();
        let keys: Vec<String> = if self.dice.below(2) == 0 {
            vec![self.pick_key(), format!("{}pair", self.prefix())]
        } else {
            let first = self.dice.below(MANY);
            let key = |number| format!("{}many/{number:03}", self.prefix());
            (first..first + 100).map(key).collect()
        };
        let row = |key: &String| {
            let session = self.history.rows().get(key).and_then(|row| row.session.clone());
            (
                key.clone(),
                Some(Row {
                    value: value.clone(),
                    session,
                }),
            )
        };
        let rows = keys.iter().map(row).collect();
        let set = |key: &String| {
            format!(
                "{{\"KV\":{{\"Verb\":\"set\",\"Key\":\"{key}\",\"Value\":\"{}\"}}}}",
                STANDARD.encode(&value)
            )
        };
        let body = format!("[{}]", keys.iter().map(set).collect::<Vec<_>>().join(","));
        self.history.begin(Effect {
            rows,
            ..Effect::default()
        });
        let response = client.put("/v1/txn", body)?;
        ensure!(response.status == 200, "{} {}", response.status, response.text());
        self.history.acknowledged(None);
        Ok(())
    }

    fn create_session(&mut self, client: &mut Client) -> Result<()> {
        if self.history.sessions().len() >= SESSIONS_MAX {
            return self.write(client);
        }
        self.history.begin(Effect {
            creates_session: true,
            ..Effect::default()
        });
        let body = format!("{{\"Name\":\"crash-{}\",\"LockDelay\":\"0s\"}}", self.number);
        let response = client.put("/v1/session/create", body)?;
        ensure!(response.status == 200, "{} {}", response.status, response.text());
        let id = response.json()?["ID"].as_str().context("no ID")?.to_owned();
        self.history.acknowledged(Some(id));
        Ok(())
    }

    /// Ends a session: every key it holds is free at once.
    fn destroy_session(&mut self, client: &mut Client) -> Result<()> {
        let Some(id) = self.pick_session().filter(|id| *id != self.claim.0) else {
            return self.write(client);
        };
        let held = self
            .history
            .rows()
            .iter()
            .filter(|(_, row)| row.session.as_ref() == Some(&id));
        let rows = held
            .map(|(key, row)| {
                (
                    key.clone(),
                    Some(Row {
                        session: None,
                        ..row.clone()
                    }),
                )
            })
            .collect();
        let effect = Effect {
            rows,
            destroys_session: Some(id.clone()),
            ..Effect::default()
        };
        ensure!(
            self.attempt(client, &format!("/v1/session/destroy/{id}"), "", effect)?,
            "a destroy was refused"
        );
        Ok(())
    }

    fn take_or_free_own_key(&mut self, client: &mut Client) -> Result<()> {
        let (key, value) = (self.pick_key(), self.fresh_value());
        let holder = self.history.rows().get(&key).and_then(|row| row.session.clone());
        let (verb, session, after) = match (holder, self.pick_session()) {
            (Some(holder), _) => ("release", holder, None),
            (None, Some(session)) => ("acquire", session.clone(), Some(session)),
            (None, None) => return self.write(client),
        };
        let row = Row {
            value: value.clone(),
            session: after,
        };
        let effect = Effect {
            rows: vec![(key.clone(), Some(row))],
            ..Effect::default()
        };
        let done = self.attempt(client, &format!("/v1/kv/{key}?{verb}={session}"), &value, effect)?;
        ensure!(done, "{verb} of an own key was refused");
        Ok(())
    }

    /// One step of the shared counter by check-and-set.
    fn count(client: &mut Client, shared: &Shared) -> Result<()> {
        let seen = client.get(COUNTER)?;
        let (index, value) = if seen.status == 404 {
            (0, 0)
        } else {
            let index = seen.entry()?["ModifyIndex"].as_u64().context("no ModifyIndex")?;
            (index, String::from_utf8(seen.value()?)?.parse::<u64>()?)
        };
        let steps = || shared.counter.lock().map_err(|_| anyhow!("a worker panicked"));
        steps()?.1 += 1;
        let response = client.put(&format!("{COUNTER}?cas={index}"), (value + 1).to_string())?;
        ensure!(
            response.is_true() || response.is_false(),
            "{} {}",
            response.status,
            response.text()
        );
        let mut steps = steps()?;
        steps.1 -= 1;
        steps.0 += u64::from(response.is_true());
        Ok(())
    }

    fn take_or_free_shared_lock(&mut self, client: &mut Client) -> Result<()> {
        if self.claim.1 == Claim::None {
            let Some(id) = self.pick_session() else {
                return self.write(client);
            };
            self.claim = (id, Claim::None);
        }
        let (id, before) = self.claim.clone();
        let verb = if before == Claim::Held {
            "release"
        } else {
            "acquire"
        };
        self.claim.1 = Claim::Undecided;
        let response = client.put(&format!("{LOCK}?{verb}={id}"), &id)?;
        self.claim.1 = match (before, response.is_true(), response.is_false()) {
            (Claim::Held, true, _) | (Claim::None, _, true) => Claim::None,
            (Claim::None, true, _) => Claim::Held,
            _ => bail!("{verb}: {} {}", response.status, response.text()),
        };
        Ok(())
    }

    fn look(&mut self, client: &mut Client, shared: &Shared) -> Result<()> {
        let response = client.get(&format!("/v1/kv/{}?recurse", self.prefix()))?;
        ensure!(
            response.status == 200 || response.status == 404,
            "{}",
            response.status
        );
        shared.saw(response.index()?)
    }

    /// Compares what is stored with what this worker was told.
    fn settle(&mut self, client: &mut Client) -> Result<()> {
        let rows = stored(client, &self.prefix())?;
        let name = format!("crash-{}", self.number);
        let list = client.get("/v1/session/list?consistent")?.json()?;
        let sessions: BTreeSet<String> = list
            .as_array()
            .context("no list of sessions")?
            .iter()
            .filter(|session| session["Name"] == name.as_str())
            .filter_map(|session| Some(session["ID"].as_str()?.to_owned()))
            .collect();
        self.history
            .settle(&rows, &sessions)
            .with_context(|| format!("worker {}", self.number))
    }
}

fn stored(client: &mut Client, prefix: &str) -> Result<Rows> {
    let response = client.get(&format!("/v1/kv/{prefix}?recurse&consistent"))?;
    if response.status == 404 {
        return Ok(Rows::new());
    }
    let list = response.json()?;
    list.as_array()
        .context("no list of keys")?
        .iter()
        .map(row)
        .collect()
}

fn row(entry: &serde_json::Value) -> Result<(String, Row)> {
    let key = entry["Key"].as_str().context("no key")?.to_owned();
    let value = String::from_utf8(STANDARD.decode(entry["Value"].as_str().unwrap_or_default())?)?;
    let session = entry["Session"].as_str().map(str::to_owned);
    Ok((key, Row { value, session }))
}

/// All checks after a restart.
fn settle(server: &Server, workers: &mut [Worker], shared: &Shared) -> Result<()> {
    let mut client = server.client();
    for worker in workers.iter_mut() {
        worker.settle(&mut client)?;
    }
    let counter = client.get(&format!("{COUNTER}?consistent"))?;
    let value = if counter.status == 404 {
        0
    } else {
        String::from_utf8(counter.value()?)?.parse()?
    };
    let mut steps = shared.counter.lock().map_err(|_| anyhow!("a worker panicked"))?;
    check_counter(value, steps.0, steps.1)?;
    *steps = (value, 0);
    let lock = client.get(&format!("{LOCK}?consistent"))?;
    let holder = if lock.status == 404 {
        None
    } else {
        lock.entry()?["Session"].as_str().map(str::to_owned)
    };
    let claims: Vec<(String, Claim)> = workers.iter().map(|worker| worker.claim.clone()).collect();
    Claim::check(&claims, holder.as_deref())?;
    for worker in workers.iter_mut() {
        let holds = holder.as_ref() == Some(&worker.claim.0);
        worker.claim.1 = if holds { Claim::Held } else { Claim::None };
    }
    let highest = *shared.index.lock().map_err(|_| anyhow!("a worker panicked"))?;
    let after = client.get("/v1/kv/?keys&consistent")?.index()?;
    ensure!(after >= highest, "the index went back from {highest} to {after}");
    ensure!(
        client
            .put("/v1/kv/crash-shared/probe", after.to_string())?
            .is_true(),
        "no write after a restart"
    );
    let probe = client.get("/v1/kv/crash-shared/probe")?.entry()?["ModifyIndex"]
        .as_u64()
        .context("no index")?;
    ensure!(
        probe > highest,
        "a new write got index {probe}, but {highest} was seen before"
    );
    shared.saw(probe)
}

fn number(variable: &str, otherwise: u64) -> Result<u64> {
    std::env::var(variable).map_or(Ok(otherwise), |text| {
        text.parse().with_context(|| format!("{variable}={text}"))
    })
}

fn load_then_kill(
    server: &mut Server,
    workers: &mut [Worker],
    shared: &Shared,
    load: Duration,
) -> Result<()> {
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        for worker in workers {
            let client = server.client().with_timeout(Duration::from_secs(10));
            running.push(scope.spawn(move || worker.run(client, shared)));
        }
        // How long the load runs is what the seed decides; there is nothing to wait for.
        std::thread::sleep(load);
        server.kill()?;
        running
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
    })
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() -> Result<()> {
    let kills = number("CRASH_KILLS", 20)?;
    let seed = number("CRASH_SEED", u64::from(std::process::id()))?;
    let mut out = std::io::stderr();
    writeln!(out, "{kills} kills, CRASH_SEED={seed}")?;
    let mut dice = Dice::new(seed);
    let mut workers: Vec<Worker> = (0..WORKERS).map(|number| Worker::new(number, seed)).collect();
    let shared = Shared::default();
    let begun = Instant::now();

    let mut server = Server::start()?;
    for kill in 0..kills {
        let load = Duration::from_millis(LOAD_MS.start + dice.below(LOAD_MS.end - LOAD_MS.start));
        load_then_kill(&mut server, &mut workers, &shared, load)?;
        server.relaunch()?;
        if dice.below(EARLY_KILL_IN) == 0 {
            std::thread::sleep(Duration::from_millis(dice.below(60)));
            server.kill()?;
            server.relaunch()?;
        }
        server
            .await_ready()
            .with_context(|| format!("start after kill {kill} (CRASH_SEED={seed})"))?;
        settle(&server, &mut workers, &shared)
            .with_context(|| format!("after kill {kill} (CRASH_SEED={seed})"))?;
    }

    let acknowledged: u64 = workers.iter().map(|worker| worker.acknowledged).sum();
    let steps = shared.counter.lock().map_err(|_| anyhow!("a worker panicked"))?.0;
    writeln!(
        out,
        "{kills} kills in {:.1?}: {acknowledged} answers, {steps} counter steps, nothing lost",
        begun.elapsed()
    )?;
    ensure!(
        acknowledged > kills * 10 && steps > 0,
        "the load was too small to prove anything"
    );
    Ok(())
}
