//! The leader-election recipe: look, bind, watch.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use lictor_tests::{Client, Server, until};
use serde_json::{Value, json};

const KEY: &str = "/v1/kv/service/leader";
const SESSION: &str = r#"{"Name":"candidate","TTL":"30s","LockDelay":"1s","Behavior":"release"}"#;

/// What one round of the recipe came to.
#[derive(Debug, PartialEq, Eq)]
enum Round {
    Leads,
    /// Another leads; watch the key from this index on.
    Follows(u64),
}

struct Candidate {
    name: String,
    session: Option<String>,
    client: Client,
}

impl Candidate {
    fn new(server: &Server, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            session: None,
            client: server.client(),
        }
    }

    /// One round: who holds the key; if nobody, try to be it.
    fn round(&mut self) -> Result<Round> {
        let seen = self.client.get(KEY)?;
        let index = seen.index()?;
        let entry = if seen.status == 404 {
            Value::Null
        } else {
            seen.entry()?
        };
        match entry["Session"].as_str() {
            None => Ok(if self.bind()? {
                Round::Leads
            } else {
                Round::Follows(index)
            }),
            // After a restart without memory the session is taken from the key.
            Some(session) if seen.value()? == self.name.as_bytes() => {
                let renewed = self.client.put(&format!("/v1/session/renew/{session}"), "")?;
                ensure!(renewed.status == 200, "{}", renewed.text());
                self.session = Some(session.to_owned());
                Ok(Round::Leads)
            }
            Some(_) => Ok(Round::Follows(index)),
        }
    }

    fn bind(&mut self) -> Result<bool> {
        let session = if let Some(session) = self.session.take() {
            session
        } else {
            let created = self.client.put("/v1/session/create", SESSION)?;
            created.json()?["ID"]
                .as_str()
                .with_context(|| created.text())?
                .to_owned()
        };
        let bound = self.client.put(&format!("{KEY}?acquire={session}"), &self.name)?;
        self.session = Some(session);
        Ok(bound.is_true())
    }

    /// Waits until the key changes or a little time is over, as a lock-delay makes binding fail without a change.
    fn watch(&mut self, index: u64, wait: &str) -> Result<()> {
        let seen = self.client.get(&format!("{KEY}?index={index}&wait={wait}"))?;
        ensure!(seen.status == 200 || seen.status == 404, "{}", seen.text());
        Ok(())
    }

    fn resign(&mut self) -> Result<()> {
        let session = self.session.as_ref().context("leads without a session")?;
        let released = self.client.put(&format!("{KEY}?release={session}"), &self.name)?;
        ensure!(released.is_true(), "a leader could not release");
        Ok(())
    }
}

#[test]
fn the_first_candidate_leads_and_the_second_follows() -> Result<()> {
    let server = Server::start()?;
    let (mut a, mut b) = (Candidate::new(&server, "a"), Candidate::new(&server, "b"));

    assert_eq!(a.round()?, Round::Leads);
    assert!(matches!(b.round()?, Round::Follows(_)));
    assert_eq!(a.round()?, Round::Leads);

    assert_eq!(server.get(KEY)?.value()?, b"a");
    Ok(())
}

#[test]
fn a_leader_that_restarts_without_memory_leads_on_with_its_old_session() -> Result<()> {
    let server = Server::start()?;
    let mut first = Candidate::new(&server, "a");
    first.round()?;

    let mut reborn = Candidate::new(&server, "a");
    assert_eq!(reborn.round()?, Round::Leads);

    assert_eq!(reborn.session, first.session);
    Ok(())
}

#[test]
fn a_follower_takes_over_after_the_lock_delay_when_the_leaders_session_ends() -> Result<()> {
    let server = Server::start()?;
    let (mut a, mut b) = (Candidate::new(&server, "a"), Candidate::new(&server, "b"));
    a.round()?;
    let Round::Follows(index) = b.round()? else {
        bail!("two leaders")
    };

    let session = a.session.clone().context("no session")?;
    server.put(&format!("/v1/session/destroy/{session}"), "")?;
    b.watch(index, "30s")?;
    assert!(
        matches!(b.round()?, Round::Follows(_)),
        "the lock-delay holds it back"
    );
    until("the follower to lead", Duration::from_secs(10), || {
        Ok((b.round()? == Round::Leads).then_some(()))
    })?;

    assert_eq!(server.get(KEY)?.value()?, b"b");
    Ok(())
}

/// Twenty candidates elect each other until every one has led once; there are never two at a time.
#[test]
fn of_twenty_candidates_exactly_one_leads_at_any_time() -> Result<()> {
    const CANDIDATES: usize = 20;
    let server = Server::start()?;
    let leading = AtomicUsize::new(0);
    let elected = Mutex::new(BTreeSet::new());

    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let campaigns: Vec<_> = (0..CANDIDATES)
            .map(|n| {
                let (server, leading, elected) = (&server, &leading, &elected);
                scope.spawn(move || -> Result<()> {
                    let mut candidate = Candidate::new(server, &n.to_string());
                    loop {
                        match candidate.round()? {
                            Round::Leads => {
                                ensure!(leading.fetch_add(1, Ordering::SeqCst) == 0, "two leaders");
                                let holder = server.get(KEY)?.entry()?["Session"].clone();
                                ensure!(holder == json!(candidate.session), "the key names {holder}");
                                elected.lock().map_err(|_| anyhow!("panicked"))?.insert(n);
                                leading.fetch_sub(1, Ordering::SeqCst);
                                return candidate.resign();
                            }
                            Round::Follows(index) => candidate.watch(index, "1s")?,
                        }
                    }
                })
            })
            .collect();
        campaigns
            .into_iter()
            .map(|c| c.join().unwrap_or_else(|_| bail!("panicked")))
            .collect()
    });

    results.into_iter().collect::<Result<()>>()?;
    assert_eq!(elected.lock().map_err(|_| anyhow!("panicked"))?.len(), CANDIDATES);
    Ok(())
}
