use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow};
use lictor_tests::{Server, until};
use rustix::process::Signal;
use serde_json::json;

use super::{Program, SOON, await_file, with_each};

/// A shell script that says when it runs and ends when `release` is there.
fn until_released(folder: &std::path::Path, name: &str) -> String {
    let folder = folder.display();
    format!("echo held >>{folder}/{name}; while [ ! -e {folder}/release ]; do sleep 0.1; done")
}

fn holder(server: &Server, key: &str) -> Result<Option<String>> {
    let response = server.get(&format!("/v1/kv/{key}"))?;
    if response.status == 404 {
        return Ok(None);
    }
    Ok(response.entry()?["Session"].as_str().map(str::to_owned))
}

#[test]
fn a_command_runs_alone_and_leaves_nothing_behind() -> Result<()> {
    with_each(|server, program| {
        let folder = tempfile::tempdir()?;
        let first = program.start(&["lock", "job", &until_released(folder.path(), "a")])?;
        await_file(&folder.path().join("a"), "held")?;
        assert!(holder(server, "job/.lock")?.is_some());

        let (code, said) = program.failure(&["lock", "-timeout=1s", "job", "true"])?;
        assert_eq!(
            (code, said.as_str()),
            (1, "Shutdown triggered or timeout during lock acquisition\n")
        );
        let second = program.start(&["lock", "-verbose", "job", "echo $CONSUL_LOCK_HELD"])?;
        std::fs::write(folder.path().join("release"), "")?;

        assert_eq!(first.end()?.0, Some(0));
        let (code, said, errors) = second.end()?;
        let expected = "Setting up lock at path: job/.lock\nAttempting lock acquisition\nStarting handler\ntrue\n\
                        Child terminated, releasing lock\nCleanup succeeded\n";
        assert_eq!((code, said.as_str(), errors.as_str()), (Some(0), expected, ""));
        assert_eq!(server.get("/v1/kv/job/?recurse")?.status, 404);
        // Consul's may leave its session behind when it has waited in vain.
        if program.path == lictor_tests::binary()? {
            assert_eq!(server.get("/v1/session/list")?.json()?, json!([]));
        }
        Ok(())
    })
}

#[test]
fn the_end_of_the_session_ends_the_command() -> Result<()> {
    with_each(|server, program| {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("said");
        let script = format!(
            "trap 'echo term >>{0}; exit 0' TERM; echo held >>{0}; while :; do sleep 0.1; done",
            file.display()
        );
        let lock = program.start(&["lock", "-verbose", "lost", &script])?;
        await_file(&file, "held")?;
        let session = holder(server, "lost/.lock")?.context("nobody holds it")?;

        server.put(&format!("/v1/session/destroy/{session}"), "")?;

        let (code, said, _) = lock.end()?;
        assert_eq!(code, Some(0));
        assert!(
            said.contains("Lock lost, killing child\nTerminating child pid "),
            "{said}"
        );
        assert!(said.ends_with("Child terminated\nCleanup succeeded\n"), "{said}");
        await_file(&file, "term")
    })
}

#[test]
fn a_signal_reaches_the_command_and_the_lock_is_free_at_once() -> Result<()> {
    with_each(|server, program| {
        for (signal, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT")] {
            let got = format!("got {name}");
            let folder = tempfile::tempdir()?;
            let file = folder.path().join("said");
            let script = format!(
                "for s in TERM INT; do trap \"echo got $s >>{0}; exit 0\" $s; done; echo held >>{0}; while :; do sleep 0.1; done",
                file.display()
            );
            // Consul's may leave a lock-delay behind, so each has a lock of its own.
            let lock = program.start(&["lock", "-verbose", &format!("told/{name}"), &script])?;
            await_file(&file, "held")?;

            lock.signal(signal)?;

            let (code, said, _) = lock.end()?;
            assert_eq!(code, Some(0));
            assert!(said.contains("Shutdown triggered, killing child\n"), "{said}");
            // Consul's sends SIGTERM beside what it was sent itself; the command takes what comes first.
            let own = program.path == lictor_tests::binary()?;
            await_file(&file, if own { &got } else { "got " })?;
            assert_eq!(holder(server, &format!("told/{name}/.lock"))?, None);
            assert_eq!(server.get("/v1/session/list")?.json()?, json!([]));
        }
        Ok(())
    })
}

#[test]
fn a_command_that_does_not_listen_is_killed() -> Result<()> {
    with_each(|_, program| {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("said");
        let script = format!(
            "trap '' TERM; echo held >>{}; while :; do sleep 0.1; done",
            file.display()
        );
        let lock = program.start(&["lock", "-verbose", "-child-exit-code", "deaf", &script])?;
        await_file(&file, "held")?;

        lock.signal(Signal::TERM)?;

        let (code, said, errors) = lock.end()?;
        assert_eq!(
            (code, errors.as_str()),
            (Some(0), "Error running handler: signal: killed\n")
        );
        assert!(
            said.contains("Child did not exit after grace period of 5s\nKilling child pid "),
            "{said}"
        );
        Ok(())
    })
}

#[test]
fn waiting_ends_with_a_signal() -> Result<()> {
    with_each(|server, program| {
        let session = server.session(r#"{"LockDelay":"0s"}"#)?;
        let flags = 0x2ddc_cbc0_58a5_0c18_u64;
        server.put(&format!("/v1/kv/busy/.lock?acquire={session}&flags={flags}"), "")?;
        let lock = program.start(&["lock", "busy", "true"])?;
        until("the session of the one who waits", SOON, || {
            let sessions = server.get("/v1/session/list")?.json()?;
            Ok((sessions.as_array().map_or(0, Vec::len) == 2).then_some(()))
        })?;

        lock.signal(Signal::INT)?;

        // Consul has two ways to say so, which one is a matter of chance.
        let (_, _, errors) = lock.end()?;
        assert!(errors.starts_with("Shutdown triggered "), "{errors}");
        assert_eq!(holder(server, "busy/.lock")?, Some(session));
        Ok(())
    })
}

#[test]
fn how_the_command_ends_is_told() -> Result<()> {
    with_each(|_, program| {
        let ended = |args: &[&str]| -> Result<(Option<i32>, String)> {
            let output = program.run(args)?;
            Ok((output.status.code(), String::from_utf8(output.stderr)?))
        };
        let three = "Error running handler: exit status 3\n".to_owned();
        assert_eq!(ended(&["lock", "e", "exit 3"])?, (Some(0), three.clone()));
        assert_eq!(
            ended(&["lock", "-child-exit-code", "e", "exit 3"])?,
            (Some(2), three)
        );
        let missing =
            "Error starting handler: exec: \"no-such-program\": executable file not found in $PATH\n";
        assert_eq!(
            ended(&["lock", "-shell=false", "e", "no-such-program"])?,
            (Some(0), missing.to_owned())
        );
        assert_eq!(
            program.output(&["lock", "-shell=false", "e", "echo", "-n", "a  b"])?,
            "a  b"
        );
        let piped = program.run_with(&["lock", "-pass-stdin", "e", "cat"], "from a pipe")?;
        assert_eq!(piped.stdout, b"from a pipe");
        let closed = program.run_with(&["lock", "e", "cat"], "from a pipe")?;
        assert_eq!(closed.stdout, b"");
        Ok(())
    })
}

#[test]
fn keys_of_another_use_are_left_alone() -> Result<()> {
    with_each(|server, program| {
        server.put("/v1/kv/plain/.lock", "x")?;
        let refused = "Lock acquisition failed: Existing key does not match lock use\n".to_owned();
        assert_eq!(program.failure(&["lock", "plain", "true"])?, (1, refused));
        let flags = 0xe0f6_9a2b_aa41_4de0_u64;
        server.put(
            &format!("/v1/kv/other/.lock?flags={flags}"),
            r#"{"Limit":3,"Holders":{}}"#,
        )?;
        let refused = "Lock acquisition failed: semaphore limit conflict (lock: 3, local: 2)\n".to_owned();
        assert_eq!(program.failure(&["lock", "-n=2", "other", "true"])?, (1, refused));
        assert_eq!(server.get("/v1/kv/plain/.lock?raw")?.text(), "x");
        Ok(())
    })
}

#[test]
fn a_semaphore_has_as_many_holders_as_it_says() -> Result<()> {
    with_each(|server, program| {
        let folder = tempfile::tempdir()?;
        let script = until_released(folder.path(), "held");
        let args = ["lock", "-n=2", "sem", &script];
        let (one, two) = (program.start(&args)?, program.start(&args)?);
        await_file(&folder.path().join("held"), "held\nheld\n")?;

        let (code, _) = program.failure(&["lock", "-n=2", "-timeout=1s", "sem", "true"])?;
        assert_eq!(code, 1);
        let third = program.start(&["lock", "-n=2", "-verbose", "sem", "echo third"])?;
        std::fs::write(folder.path().join("release"), "")?;

        let (code, said, _) = third.end()?;
        assert_eq!(code, Some(0));
        assert!(
            said.starts_with("Setting up semaphore (limit 2) at prefix: sem\n") && said.contains("third\n"),
            "{said}"
        );
        assert_eq!((one.end()?.0, two.end()?.0), (Some(0), Some(0)));
        // Consul's leaves its session behind when it has waited in vain, and of several that end at once each may leave
        // the key to another.
        if program.path == lictor_tests::binary()? {
            assert_eq!(server.get("/v1/kv/sem/?recurse")?.status, 404);
            assert_eq!(server.get("/v1/session/list")?.json()?, json!([]));
        }
        Ok(())
    })
}

#[test]
fn holders_of_both_programs_exclude_each_other() -> Result<()> {
    let server = Server::start()?;
    let own = Program::own(&server)?;
    let Some(consul) = Program::consul(&server)? else {
        return crate::skip("no Consul binary as $CONSUL_BIN or on $PATH");
    };
    for n in ["-n=1", "-n=2"] {
        for (first, second) in [(&own, &consul), (&consul, &own)] {
            let folder = tempfile::tempdir()?;
            let script = until_released(folder.path(), "held");
            let one = first.start(&["lock", n, "both", &script])?;
            await_file(&folder.path().join("held"), "held\n")?;
            if n == "-n=2" {
                let ran = second.output(&["lock", n, "both", "echo ran"])?;
                assert_eq!(ran, "ran\n");
                let two = second.start(&["lock", n, "both", &script])?;
                await_file(&folder.path().join("held"), "held\nheld\n")?;
                assert_eq!(first.failure(&["lock", n, "-timeout=1s", "both", "true"])?.0, 1);
                std::fs::write(folder.path().join("release"), "")?;
                assert_eq!(two.end()?.0, Some(0));
            } else {
                assert_eq!(second.failure(&["lock", n, "-timeout=1s", "both", "true"])?.0, 1);
                std::fs::write(folder.path().join("release"), "")?;
            }
            assert_eq!(one.end()?.0, Some(0));
        }
    }
    Ok(())
}

#[test]
fn the_session_is_renewed_while_the_command_runs() -> Result<()> {
    let server = Server::start()?;
    let (address, seen) = relay(server.http())?;
    let folder = tempfile::tempdir()?;
    let program = Program {
        address: address.to_string(),
        ..Program::own(&server)?
    };
    let lock = program.start(&["lock", "renewed", &until_released(folder.path(), "held")])?;

    until("a renewal", SOON, || {
        let seen = seen.lock().map_err(|_| anyhow!("a thread has panicked"))?;
        Ok(seen.contains("PUT /v1/session/renew/").then_some(()))
    })?;

    std::fs::write(folder.path().join("release"), "")?;
    assert_eq!(lock.end()?.0, Some(0));
    Ok(())
}

/// Passes connections on and keeps what clients send.
fn relay(server: SocketAddr) -> Result<(SocketAddr, Arc<Mutex<String>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let seen = Arc::new(Mutex::new(String::new()));
    let keep = Arc::clone(&seen);
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(upstream) = TcpStream::connect(server) else {
                return;
            };
            let (Ok(from), Ok(to)) = (client.try_clone(), upstream.try_clone()) else {
                return;
            };
            let keep = Arc::clone(&keep);
            std::thread::spawn(move || pass(from, to, Some(&keep)));
            std::thread::spawn(move || pass(upstream, client, None));
        }
    });
    Ok((address, seen))
}

fn pass(mut from: TcpStream, mut to: TcpStream, keep: Option<&Mutex<String>>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if let Some(keep) = keep {
            let text = String::from_utf8_lossy(&buffer[..count]);
            match keep.lock() {
                Ok(mut keep) => keep.push_str(&text),
                Err(_) => return,
            }
        }
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
    // The other side may have gone first.
    let _ = to.shutdown(std::net::Shutdown::Write);
}
