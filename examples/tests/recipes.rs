//! Every recipe runs to its end against a real server, and so do the lines of README and of pages in `docs`.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use lictor_tests::Server;

fn run(recipe: &str) -> Result<()> {
    let server = Server::start()?;

    let output = Command::new(recipe)
        .arg(format!("http://{}", server.http()))
        .output()?;

    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(output.status.success(), "{recipe}: {out}{err}");
    let left = server.get("/v1/kv/examples/?keys")?;
    ensure!(left.status == 404, "keys were left behind: {}", left.text());
    Ok(())
}

#[test]
fn leader_election() -> Result<()> {
    run(env!("CARGO_BIN_EXE_leader_election"))
}

#[test]
fn distributed_lock() -> Result<()> {
    run(env!("CARGO_BIN_EXE_distributed_lock"))
}

#[test]
fn config_watch() -> Result<()> {
    run(env!("CARGO_BIN_EXE_config_watch"))
}

#[test]
fn the_lines_of_readme_print_what_readme_says() -> Result<()> {
    runs_as_written(include_str!("../../README.md"), 12)
}

#[test]
fn the_curl_lines_on_fair_locks_print_what_they_say() -> Result<()> {
    runs_as_written(include_str!("../../docs/modules.md"), 5)
}

/// The lines of a page that ask a server, in order and in one shell; what stands behind `# ` is what must be printed,
/// `least` times or more.
fn runs_as_written(page: &str, least: usize) -> Result<()> {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("left out: there is no curl here");
        return Ok(());
    }
    let server = Server::start()?;
    let lines: Vec<_> = page
        .lines()
        .filter(|line| {
            let begins = |word| line.starts_with(word);
            // Those of other programs on a page ask other ports.
            (begins("curl") && line.contains(":8500"))
                || begins("SESSION=")
                || (begins("lictor ") && !begins("lictor agent"))
        })
        .collect();
    let expected: Vec<_> = lines
        .iter()
        .map(|line| line.split_once("  #").map(|(_, text)| text.trim()))
        .collect();
    ensure!(
        expected.iter().flatten().count() >= least,
        "the page lost its lines"
    );

    // Each line's output ends with a mark, so that they can be told apart.
    let script = lines
        .iter()
        .fold(String::new(), |script, line| script + line + "\nprintf '\\036'\n");
    let script = script
        .replace("127.0.0.1:8500", &server.http().to_string())
        .replace("curl ", "curl -sS ");
    // A folder of its own, with the program under its name.
    let folder = server.temp_dir().join("readme");
    std::fs::create_dir(&folder)?;
    std::os::unix::fs::symlink(lictor_tests::binary()?, folder.join("lictor"))?;
    let path = format!(
        "{}:{}",
        folder.display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let output = Command::new("sh")
        .args(["-c", &script])
        .current_dir(&folder)
        .env("PATH", path)
        .env("CONSUL_HTTP_ADDR", server.http().to_string())
        .output()?;
    let printed = String::from_utf8(output.stdout)?;

    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(errors.is_empty(), "{errors}");
    for ((line, expected), printed) in lines.iter().zip(expected).zip(printed.split('\u{1e}')) {
        ensure!(
            expected.is_none_or(|expected| printed.trim() == expected),
            "{line} printed {printed}"
        );
        ensure!(
            !line.starts_with("curl") || !printed.contains("rror"),
            "{line} printed {printed}"
        );
    }
    let count = printed.matches('\u{1e}').count();
    ensure!(count == lines.len(), "{count} of {} lines ran", lines.len());
    server
        .get("/v1/status/leader")
        .map(drop)
        .context("the server did not outlive them")
}
