//! Start, stop, and what connections leave behind.

use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use lictor_tests::{Options, Server, until};
use rustix::process::Signal;

#[test]
fn a_stopping_server_answers_the_queries_that_wait() -> Result<()> {
    if lictor_tests::is_consul()? {
        return crate::skip("Consul drops them");
    }
    for signal in [Signal::INT, Signal::TERM] {
        let mut server = Server::start()?;
        server.put("/v1/kv/k", "v")?;
        let index = server.get("/v1/kv/k")?.index()?;
        let watches: Vec<_> = (0..10)
            .map(|_| server.watch(format!("/v1/kv/k?index={index}&wait=5m")))
            .collect();
        server.await_waiting_queries(10)?;
        let begun = Instant::now();

        server.signal(signal)?;
        let status = server.await_exit()?;

        assert!(status.success(), "{signal:?}: {status}");
        assert!(begun.elapsed() < Duration::from_secs(10));
        for watch in watches {
            let response = watch.join().map_err(|_| anyhow!("panicked"))??;
            assert!(
                response.status == 200 || response.status >= 500,
                "{}",
                response.status
            );
        }
    }
    Ok(())
}

/// A poll whose client went away costs nothing any more.
#[test]
fn abandoned_polls_vanish() -> Result<()> {
    if lictor_tests::is_consul()? {
        return crate::skip("Consul keeps them until their wait is over");
    }
    let server = Server::start()?;
    server.put("/v1/kv/k", "v")?;
    let index = server.get("/v1/kv/k")?.index()?;
    let before = server.descriptors()?;

    let mut polls = Vec::new();
    for n in 0..100 {
        let mut stream = server.client().connect()?;
        let path = if n % 2 == 0 { "k" } else { "?recurse" };
        let mark = if n % 2 == 0 { '?' } else { '&' };
        write!(
            stream,
            "GET /v1/kv/{path}{mark}index={index}&wait=10m HTTP/1.1\r\nHost: x\r\n\r\n"
        )?;
        polls.push(stream);
    }
    // Connections that were open before may close meanwhile.
    until("the polls", Duration::from_secs(10), || {
        Ok((server.descriptors()? >= before + 90).then_some(()))
    })?;
    drop(polls);

    until("the descriptors to come back", Duration::from_secs(10), || {
        Ok((server.descriptors()? <= before + 2).then_some(()))
    })
}

#[test]
fn the_pid_file_names_the_process_and_goes_with_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("pid");
    let args = vec!["-pid-file".to_owned(), file.display().to_string()];
    let mut server = Server::with(Options {
        args,
        ..Options::default()
    })?;

    assert_eq!(fs::read_to_string(&file)?.trim(), server.id().to_string());
    server.signal(Signal::INT)?;
    server.await_exit()?;

    assert!(!file.exists());
    Ok(())
}

#[test]
fn log_json_writes_one_object_a_line() -> Result<()> {
    let server = Server::with(Options {
        args: vec!["-log-json".to_owned()],
        ..Options::default()
    })?;

    let log = server.log();
    let objects = log
        .lines()
        .filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok_and(|v| v.is_object()));

    assert!(objects.count() > 0, "{log}");
    Ok(())
}

#[test]
fn http_answers_before_there_is_a_leader_or_soon_has_one() -> Result<()> {
    let server = Server::launch(Options::default())?;

    let response = until("any answer", Duration::from_secs(20), || {
        Ok(Some(server.get("/v1/status/leader")?))
    })?;

    assert_eq!(response.status, 200);
    Ok(())
}

#[test]
fn what_the_go_test_harness_polls_for_answers() -> Result<()> {
    let server = Server::start()?;

    let roots = until("a certificate authority", Duration::from_secs(20), || {
        let roots = server.get("/v1/agent/connect/ca/roots")?.json()?;
        Ok(roots["Roots"]
            .as_array()
            .is_some_and(|list| !list.is_empty())
            .then_some(roots))
    })?;
    assert!(roots["ActiveRootID"].as_str().is_some_and(|id| !id.is_empty()));
    let this = server.get("/v1/agent/self")?.json()?;
    assert_eq!(this["Config"]["NodeName"], serde_json::json!(server.node()));
    Ok(())
}

#[test]
fn dev_mode_says_where_it_is_and_leaves_nothing_behind() -> Result<()> {
    let mut server = Server::with(Options {
        dev: true,
        ..Options::default()
    })?;

    assert!(server.put("/v1/kv/k", "v")?.is_true());
    assert!(
        server.log().contains(&server.http().port().to_string()),
        "{}",
        server.log()
    );
    if !lictor_tests::is_consul()? {
        assert!(
            server.log().contains(&format!("curl http://{}", server.http())),
            "{}",
            server.log()
        );
    }
    server.signal(Signal::INT)?;
    server.await_exit()?;

    let left: Vec<_> = fs::read_dir(server.temp_dir())?
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .collect();
    assert_eq!(left, ["log"]);
    Ok(())
}
