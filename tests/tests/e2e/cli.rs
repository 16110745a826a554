//! The command line against a running server.

use std::io::{Read as _, Write as _};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result};
use lictor_tests::{Server, binary, run};
use serde_json::json;

/// Runs a command with the server's address in the environment and `input` as standard input.
fn command(server: &Server, args: &[&str], input: &str) -> Result<Output> {
    let mut child = Command::new(binary()?)
        .args(args)
        .env("CONSUL_HTTP_ADDR", server.http().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child
        .stdin
        .take()
        .context("no input")?
        .write_all(input.as_bytes())?;
    Ok(child.wait_with_output()?)
}

/// Standard output of a command that must succeed.
fn output(server: &Server, args: &[&str]) -> Result<String> {
    let output = command(server, args, "")?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {errors}");
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn kv_put_get_delete() -> Result<()> {
    let server = Server::start()?;

    assert_eq!(
        output(&server, &["kv", "put", "cli/a", "value"])?,
        "Success! Data written to: cli/a\n"
    );
    assert_eq!(output(&server, &["kv", "get", "cli/a"])?, "value\n");
    assert_eq!(server.get("/v1/kv/cli/a?raw")?.text(), "value");
    output(&server, &["kv", "put", "-flags=42", "cli/b", "other"])?;
    assert_eq!(server.get("/v1/kv/cli/b")?.entry()?["Flags"], json!(42));
    assert_eq!(
        output(&server, &["kv", "get", "-recurse", "cli/"])?,
        "cli/a:value\ncli/b:other\n"
    );
    assert_eq!(
        output(&server, &["kv", "get", "-keys", "cli/"])?,
        "cli/a\ncli/b\n"
    );
    assert_eq!(
        output(&server, &["kv", "delete", "cli/a"])?,
        "Success! Deleted key: cli/a\n"
    );
    output(&server, &["kv", "delete", "-recurse", "cli/"])?;

    let missing = command(&server, &["kv", "get", "cli/a"], "")?;
    assert_eq!(missing.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(missing.stderr)?,
        "Error! No key exists at: cli/a\n"
    );
    Ok(())
}

#[test]
fn kv_put_reads_standard_input_and_obeys_cas() -> Result<()> {
    let server = Server::start()?;

    assert!(
        command(&server, &["kv", "put", "cli/in", "-"], "from input")?
            .status
            .success()
    );
    assert_eq!(server.get("/v1/kv/cli/in?raw")?.text(), "from input");
    let index = server.get("/v1/kv/cli/in")?.index()?;
    let stale = command(
        &server,
        &["kv", "put", "-cas", "-modify-index=1", "cli/in", "x"],
        "",
    )?;
    assert_eq!(stale.status.code(), Some(1));
    output(
        &server,
        &[
            "kv",
            "put",
            "-cas",
            &format!("-modify-index={index}"),
            "cli/in",
            "y",
        ],
    )?;

    assert_eq!(server.get("/v1/kv/cli/in?raw")?.text(), "y");
    Ok(())
}

#[test]
fn an_export_imported_elsewhere_is_the_same() -> Result<()> {
    let (from, to) = (Server::start()?, Server::start()?);
    for n in 0..5 {
        from.put(&format!("/v1/kv/tree/{n}?flags={n}"), format!("v{n}"))?;
    }

    let exported = output(&from, &["kv", "export", "tree/"])?;
    let imported = command(&to, &["kv", "import", "-"], &exported)?;

    assert!(
        imported.status.success(),
        "{}",
        String::from_utf8_lossy(&imported.stderr)
    );
    assert_eq!(output(&to, &["kv", "export", "tree/"])?, exported);
    assert_eq!(to.get("/v1/kv/tree/3")?.entry()?["Flags"], json!(3));
    Ok(())
}

#[test]
fn a_reader_that_leaves_early_is_no_error() -> Result<()> {
    let server = Server::start()?;
    // More than a pipe holds.
    server.put("/v1/kv/large", vec![b'x'; 300_000])?;
    let mut child = Command::new(binary()?)
        .args(["kv", "export", "large"])
        .env("CONSUL_HTTP_ADDR", server.http().to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut first = [0; 10];
    child.stdout.take().context("no output")?.read_exact(&mut first)?;

    let output = child.wait_with_output()?;

    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(141));
    Ok(())
}

#[test]
fn sessions_are_made_shown_and_ended() -> Result<()> {
    if lictor_tests::is_consul()? {
        return crate::skip("Consul has no session command");
    }
    let server = Server::start()?;

    let created = output(&server, &["session", "create", "-name=cli", "-ttl=30s"])?;
    let id = created
        .split(|c: char| !c.is_ascii_hexdigit() && c != '-')
        .find(|word| word.len() == 36);
    let id = id.with_context(|| created.clone())?;
    assert_eq!(
        server.get(&format!("/v1/session/info/{id}"))?.entry()?["Name"],
        json!("cli")
    );
    assert!(output(&server, &["session", "list"])?.contains(id));
    output(&server, &["session", "renew", id])?;
    output(&server, &["session", "destroy", id])?;

    assert_eq!(server.get("/v1/session/list")?.json()?, json!([]));
    Ok(())
}

#[test]
fn a_server_that_is_not_there_is_an_error_and_no_panic() -> Result<()> {
    let output = run(&["kv", "get", "-http-addr=127.0.0.1:1", "k"])?;

    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.is_empty() && !said.contains("panicked"), "{said}");
    Ok(())
}

#[test]
fn the_version_is_told_as_text_and_as_json() -> Result<()> {
    let text = run(&["version"])?;
    assert!(text.status.success() && !text.stdout.is_empty());

    let json = run(&["version", "-format=json"])?;
    let version: serde_json::Value = serde_json::from_slice(&json.stdout)?;
    let parts = version["Version"]
        .as_str()
        .context("no Version")?
        .split('.')
        .count();
    assert!(parts >= 3, "{version}");
    Ok(())
}
