//! `?acquire=SESSION&queue`: sessions in line for the lock of a key.

use std::io::Write as _;
use std::net::TcpStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use lictor_tests::{Options, Response, Server, is_consul, until};
use serde_json::{Value, json};

use crate::skip;

const SOON: Duration = Duration::from_secs(60);
const NO_DELAY: &str = r#"{"LockDelay":"0s"}"#;

fn trial(test: impl FnOnce(&mut Server) -> Result<()>) -> Result<()> {
    if is_consul()? {
        return skip("lines for locks are Lictor's");
    }
    let options = Options {
        hcl: "limits { http_max_conns_per_client = 5000 }".to_owned(),
        ..Options::default()
    };
    test(&mut Server::with(options)?)
}

fn lock(server: &Server) -> Result<Value> {
    let locks = server.get("/v1/locks")?.json()?;
    let mut locks = locks.as_array().context("no list")?.iter();
    Ok(locks
        .rfind(|lock| lock["Key"] == "l")
        .cloned()
        .unwrap_or_default())
}

fn await_line(server: &Server, sessions: &[&str]) -> Result<()> {
    until(&format!("{sessions:?} to stand in line"), SOON, || {
        let found = lock(server)?;
        let line = found["Waiting"].as_array().cloned().unwrap_or_default();
        ensure!(line == sessions, "{found}");
        Ok(Some(()))
    })
}

/// A request that waits.
struct Waiting(JoinHandle<Result<Response>>);

impl Waiting {
    fn ask(server: &Server, session: &str, value: &str, more: &str) -> Self {
        let mut client = server.client().with_timeout(Duration::from_secs(300));
        let target = format!("/v1/kv/l?acquire={session}&queue&wait=120s{more}");
        let value = value.to_owned();
        Self(thread::spawn(move || client.put(&target, value)))
    }

    fn answer(self) -> Result<Response> {
        self.0.join().map_err(|_| anyhow!("the client panicked"))?
    }

    fn is_over(&self) -> bool {
        self.0.is_finished()
    }
}

/// Sessions that stand in line one after the other, each with its own name for a value.
fn line<'a>(server: &Server, sessions: &[&'a str]) -> Result<Vec<(&'a str, Waiting)>> {
    let mut waiting = Vec::new();
    for (at, session) in sessions.iter().enumerate() {
        waiting.push((*session, Waiting::ask(server, session, session, "")));
        await_line(server, &sessions[..=at])?;
    }
    Ok(waiting)
}

fn sessions<const N: usize>(server: &Server) -> Result<[String; N]> {
    let ids: Vec<_> = (0..N).map(|_| server.session(NO_DELAY)).collect::<Result<_>>()?;
    ids.try_into().map_err(|_| anyhow!("no sessions"))
}

fn half(server: &Server, session: &str) -> Result<TcpStream> {
    let mut stream = server.client().connect()?;
    let head =
        format!("PUT /v1/kv/l?acquire={session}&queue HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nv");
    stream.write_all(head.as_bytes())?;
    Ok(stream)
}

#[test]
fn those_in_line_get_the_lock_in_their_order_with_their_values() -> Result<()> {
    trial(|server| {
        let ids: [String; 4] = sessions(server)?;
        let [first, rest @ ..] = &ids;
        ensure!(
            server
                .put(&format!("/v1/kv/l?acquire={first}&queue"), "free")?
                .is_true()
        );
        let line = line(server, &rest.each_ref().map(String::as_str))?;
        let mut holder = first.as_str();

        for (at, (next, waits)) in line.into_iter().enumerate() {
            ensure!(!waits.is_over());
            let release = server.put(&format!("/v1/kv/l?release={holder}"), "gone")?;
            ensure!(release.is_true());
            let shown = server.get("/v1/kv/l")?;
            let entry = shown.entry()?;
            assert_eq!(
                (&entry["Session"], &entry["LockIndex"]),
                (&json!(next), &json!(at + 2))
            );
            assert_eq!(shown.value()?, next.as_bytes());
            assert!(waits.answer()?.is_true());
            holder = next;
        }
        assert!(server.put(&format!("/v1/kv/l?release={holder}"), "")?.is_true());
        Ok(())
    })
}

#[test]
fn a_plain_acquire_does_not_jump_the_line() -> Result<()> {
    trial(|server| {
        let first = server.session(r#"{"LockDelay":"3s"}"#)?;
        let [second, other] = &sessions(server)?;
        server.put(&format!("/v1/kv/l?acquire={first}"), "v")?;
        let waits = line(server, &[second])?.remove(0).1;

        server.put(&format!("/v1/session/destroy/{first}"), "")?;
        let ended = Instant::now();
        until("the line to move", SOON, || {
            let refused = server.put(&format!("/v1/kv/l?acquire={other}&explain"), "mine")?;
            ensure!(refused.is_false(), "it got past the line");
            let why = refused.header("X-Lictor-Refused").unwrap_or_default().to_owned();
            let is_known = ["lock-delay; ", "queued; waiting=1", "held; session="];
            ensure!(is_known.iter().any(|known| why.starts_with(known)), "{why}");
            Ok(why.starts_with("held").then_some(()))
        })?;

        assert!(waits.answer()?.is_true());
        assert!(
            ended.elapsed() >= Duration::from_secs(3),
            "the lock-delay is obeyed"
        );
        assert_eq!(lock(server)?["Session"], json!(second));
        Ok(())
    })
}

#[test]
fn whoever_was_refused_is_told_why_and_is_gone_from_the_line() -> Result<()> {
    trial(|server| {
        let [first, second] = &sessions(server)?;
        server.put(&format!("/v1/kv/l?acquire={first}"), "v")?;
        let begun = Instant::now();

        let refused = server.put(
            &format!("/v1/kv/l?acquire={second}&queue&wait=1s&explain"),
            "mine",
        )?;

        assert!(refused.is_false(), "{} {}", refused.status, refused.text());
        assert!(begun.elapsed() >= Duration::from_secs(1));
        assert_eq!(
            refused.header("X-Lictor-Refused"),
            Some(&format!("held; session={first}")[..])
        );
        await_line(server, &[])?;
        server.put(&format!("/v1/kv/l?release={first}"), "free")?;
        let left = server.get("/v1/kv/l")?;
        assert_eq!(
            (left.value()?, left.entry()?.get("Session")),
            (b"free".to_vec(), None)
        );
        Ok(())
    })
}

#[test]
fn a_client_that_goes_away_leaves_the_line() -> Result<()> {
    trial(|server| {
        let [first, gone, third] = &sessions(server)?;
        server.put(&format!("/v1/kv/l?acquire={first}"), "v")?;
        let stream = half(server, gone)?;
        await_line(server, &[gone])?;
        let waits = Waiting::ask(server, third, "third", "");
        await_line(server, &[gone, third])?;

        drop(stream);

        await_line(server, &[third])?;
        server.put(&format!("/v1/kv/l?release={first}"), "")?;
        assert!(waits.answer()?.is_true());
        Ok(())
    })
}

#[test]
fn a_session_that_ends_leaves_the_line_and_gives_its_locks_to_the_next() -> Result<()> {
    trial(|server| {
        let [first, ends, third] = &sessions(server)?;
        server.put(&format!("/v1/kv/l?acquire={first}"), "v")?;
        let mut waiting = line(server, &[ends, third])?.into_iter();

        server.put(&format!("/v1/session/destroy/{ends}"), "")?;
        let told = waiting.next().context("two wait")?.1.answer()?;
        assert_eq!(
            (told.status, told.text()),
            (500, format!("raft apply failed: invalid session \"{ends}\""))
        );
        server.put(&format!("/v1/session/destroy/{first}"), "")?;

        assert!(waiting.next().context("two wait")?.1.answer()?.is_true());
        assert_eq!(lock(server)?["Session"], json!(third));
        Ok(())
    })
}

#[test]
fn a_grant_has_a_fencing_token_and_deletes_pass_the_lock_on() -> Result<()> {
    trial(|server| {
        let [first, second, third] = &sessions(server)?;
        server.put(&format!("/v1/kv/l?acquire={first}"), "v")?;
        let waits = Waiting::ask(server, second, "second", "&explain");
        await_line(server, &[second])?;
        server.put(&format!("/v1/kv/l?release={first}"), "")?;
        let told = waits.answer()?;
        assert_eq!(told.header("X-Lictor-Lock-Index"), Some("2"));
        let shown = server.get("/v1/kv/l")?.entry()?["ModifyIndex"].to_string();
        assert_eq!(told.header("X-Lictor-Modify-Index"), Some(&shown[..]));
        let waits = line(server, &[third])?.remove(0).1;

        assert!(server.delete("/v1/kv/l?recurse")?.is_true());

        assert!(waits.answer()?.is_true());
        assert_eq!(server.get("/v1/kv/l")?.value()?, third.as_bytes());
        Ok(())
    })
}

#[test]
fn mistakes_are_told_and_leave_no_place() -> Result<()> {
    trial(|server| {
        for (query, status) in [
            ("queue", 400),
            ("queue&release=x", 400),
            ("queue&acquire=x&cas=1", 400),
            ("queue&acquire=x&ttl=5s", 400),
            ("queue&acquire=x&wait=junk", 400),
            ("queue&acquire=x", 500),
            ("queue&acquire=", 500),
        ] {
            let answer = server.put(&format!("/v1/kv/l?{query}"), "v")?;
            assert_eq!(answer.status, status, "{query}: {}", answer.text());
        }
        assert_eq!(server.get("/v1/kv/l")?.status, 404);
        Ok(())
    })
}

#[test]
fn a_line_survives_a_crash_for_sessions_that_ask_again() -> Result<()> {
    trial(|server| {
        let ids: [String; 3] = sessions(server)?;
        let [first, second, third] = ids.each_ref().map(String::as_str);
        server.put(&format!("/v1/kv/l?acquire={first}"), "v")?;
        let lost = line(server, &[second, third])?;

        server.crash_and_restart()?;

        for (_, lost) in lost {
            assert!(lost.answer().is_err(), "its server died");
        }
        let again = Waiting::ask(server, second, "again", "");
        until("it to stand in line again", SOON, || {
            let line = lock(server)?["Waiting"].clone();
            let last = line.as_array().and_then(|line| line.last().cloned());
            Ok((last == Some(json!(second))).then_some(()))
        })?;
        server.put(&format!("/v1/kv/l?release={first}"), "")?;
        assert!(again.answer()?.is_true());
        assert_eq!(server.get("/v1/kv/l")?.value()?, b"again");
        // The other's client does not come back: its place lapses.
        await_line(server, &[])?;
        Ok(())
    })
}

#[test]
fn of_many_in_line_a_release_wakes_one_for_one_log_entry() -> Result<()> {
    const CLIENTS: usize = 200;
    trial(|server| {
        let first = server.session(NO_DELAY)?;
        server.put(&format!("/v1/kv/l?acquire={first}"), "v")?;
        let mut streams = Vec::new();
        for _ in 0..CLIENTS {
            streams.push(half(server, &server.session(NO_DELAY)?)?);
        }
        let next = until("all to stand in line", SOON, || {
            let found = lock(server)?;
            let line = found["Waiting"].as_array().context("no line")?;
            Ok((line.len() == CLIENTS).then(|| line[0].clone()))
        })?;
        let applied = || -> Result<u64> {
            let stats = server.get("/v1/agent/self")?.json()?["Stats"]["raft"]["applied_index"].clone();
            stats
                .as_str()
                .and_then(|index| index.parse().ok())
                .context("no applied index")
        };
        let before = applied()?;

        server.put(&format!("/v1/kv/l?release={first}"), "")?;

        assert_eq!(lock(server)?["Session"], next);
        assert_eq!(applied()?, before + 1);
        // Exactly one of them has an answer to read.
        let answered = |stream: &TcpStream| -> Result<bool> {
            stream.set_nonblocking(true)?;
            let peeked = stream.peek(&mut [0; 1]);
            Ok(peeked.is_ok())
        };
        let count = || streams.iter().filter(|s| answered(s).unwrap_or(false)).count();
        until(
            "the next to be answered",
            SOON,
            || Ok((count() > 0).then_some(())),
        )?;
        assert_eq!(count(), 1);
        Ok(())
    })
}
