//! Configuration that is wrong is refused in one line, with exit code 1.

use std::fs;
use std::process::Output;

use anyhow::{Context, Result};
use lictor_tests::{Options, Server, free_port, run};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs an agent that must refuse to start; answers what it said.
fn refused(args: &[&str]) -> Result<String> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    let data = data.to_str().context("odd path")?;
    let port = free_port()?.to_string();
    let mut all = vec![
        "agent",
        "-server",
        "-bootstrap-expect=1",
        "-bind",
        "127.0.0.1",
        "-data-dir",
        data,
        "-http-port",
        &port,
    ];
    all.extend(args);
    let output = run(&all)?;
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    Ok(said)
}

#[test]
fn an_unknown_key_is_named() -> Result<()> {
    assert!(refused(&["-hcl", "no_such_key = 1"])?.contains("no_such_key"));
    assert!(refused(&["-hcl", "ports {\n htttp = 1\n}"])?.contains("htttp"));
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("c.json");
    fs::write(&file, r#"{"datacentre": "dc1"}"#)?;
    assert!(refused(&["-config-file", file.to_str().context("odd path")?])?.contains("datacentre"));
    Ok(())
}

#[test]
fn what_does_not_parse_names_the_file() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("broken.json");
    fs::write(&file, "{\"ports\": ")?;

    assert!(refused(&["-config-file", file.to_str().context("odd path")?])?.contains("broken.json"));
    assert!(refused(&["-config-file", "/nonexistent/here.json"])?.contains("/nonexistent/here.json"));
    Ok(())
}

#[test]
fn definitions_are_read_before_anything_is_touched() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (file, data) = (dir.path().join("web.json"), dir.path().join("data"));
    for (definition, wanted) in [
        (r#""prot": 1"#, "unknown field \"prot\""),
        (r#""port": "80""#, "cannot unmarshal string"),
        (r#""check": {"script": "x", "interval": "1s"}"#, "\"script\""),
        (r#""check": {"http": "http://a"}"#, "Interval must be > 0"),
        (
            r#""check": {"ttl": "1s", "interval": "1s"}"#,
            "Interval and TTL cannot both",
        ),
        (
            r#""kind": "connect-proxy""#,
            "Port or SocketPath must be set for a connect-proxy; ",
        ),
    ] {
        let text = format!(
            r#"{{"server": true, "bootstrap": true, "data_dir": {data:?}, "bind_addr": "127.0.0.1",
                "service": {{"name": "web", {definition}}}}}"#
        );
        fs::write(&file, text)?;
        let path = file.to_str().context("odd path")?;

        for args in [&["validate", path][..], &["agent", "-config-file", path]] {
            let output = run(args)?;

            let said = said(&output);
            assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
            assert!(
                said.contains("web.json: service \"web\": ") && said.contains(wanted),
                "{said}"
            );
        }
        assert!(!data.exists());
    }
    Ok(())
}

#[test]
fn values_of_the_wrong_kind_are_refused() -> Result<()> {
    for hcl in [
        "ports {\n http = \"many\"\n}",
        "limits {\n http_max_conns_per_client = \"x\"\n}",
        "server = 7",
    ] {
        refused(&["-hcl", hcl])?;
    }
    Ok(())
}

#[test]
fn an_unknown_flag_is_named() -> Result<()> {
    let output = run(&["agent", "-no-such-flag"])?;

    assert_ne!(output.status.code(), Some(0));
    assert!(said(&output).contains("no-such-flag"), "{}", said(&output));
    Ok(())
}

#[test]
fn an_agent_without_a_data_directory_is_refused() -> Result<()> {
    let output = run(&["agent", "-server", "-bootstrap-expect=1", "-bind", "127.0.0.1"])?;

    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("data"), "{}", said(&output));
    Ok(())
}

#[test]
fn a_port_in_use_is_named() -> Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();

    assert!(refused(&["-http-port", &port])?.contains(&port));
    Ok(())
}

#[test]
fn later_sources_win_and_directories_are_read_in_order() -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::write(
        dir.path().join("1.json"),
        r#"{"datacenter": "dc-one", "log_level": "warn"}"#,
    )?;
    fs::write(dir.path().join("2.hcl"), "datacenter = \"dc-two\"\n")?;
    fs::write(dir.path().join("ignored.txt"), "nonsense")?;

    let args = vec!["-config-dir".to_owned(), dir.path().display().to_string()];
    let server = Server::with(Options {
        args,
        ..Options::default()
    })?;

    let this = server.get("/v1/agent/self")?.json()?;
    assert_eq!(this["Config"]["Datacenter"], serde_json::json!("dc-two"));
    Ok(())
}

#[test]
fn flags_may_have_one_dash_or_two() -> Result<()> {
    let args = vec![
        "--datacenter".to_owned(),
        "dc7".to_owned(),
        "--log-level=info".to_owned(),
    ];
    let server = Server::with(Options {
        args,
        ..Options::default()
    })?;

    assert_eq!(
        server.get("/v1/agent/self")?.json()?["Config"]["Datacenter"],
        serde_json::json!("dc7")
    );
    Ok(())
}
