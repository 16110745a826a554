//! A data directory that cannot be used: one clear line, exit code 1, nothing touched.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lictor_tests::{Options, Server, until};

/// The files below `dir` with their bytes, without those that hold no data.
fn files(dir: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            if path.is_dir() {
                dirs.push(path);
            } else if !name.starts_with("LOG") && !name.starts_with("LOCK") {
                found.insert(path.clone(), fs::read(&path)?);
            }
        }
    }
    Ok(found)
}

/// Starts a server on this directory, which must end with code 1; answers what it said.
fn refused(data_dir: &Path) -> Result<String> {
    let mut server = Server::launch(Options {
        data_dir: Some(data_dir.to_owned()),
        ..Options::default()
    })?;
    let status = server.await_exit()?;
    let said = server.log();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    Ok(said)
}

/// A directory with some data in it that no process uses.
fn filled() -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    let options = Options {
        data_dir: Some(dir.path().join("data")),
        ..Options::default()
    };
    let mut server = Server::with(options)?;
    for n in 0..200 {
        server.put(&format!("/v1/kv/k/{n}"), "x".repeat(1000))?;
    }
    server.kill()?;
    Ok(dir)
}

#[test]
fn a_directory_in_use_is_refused_and_its_owner_serves_on() -> Result<()> {
    if lictor_tests::is_consul()? {
        return crate::skip("Consul waits for the lock");
    }
    let server = Server::start()?;
    server.put("/v1/kv/k", "v")?;

    let said = refused(server.data_dir())?;

    assert!(
        said.contains("in use") && said.contains(server.data_dir().to_str().context("odd path")?),
        "{said}"
    );
    assert_eq!(server.get("/v1/kv/k?raw")?.text(), "v");
    assert!(server.put("/v1/kv/k", "w")?.is_true());
    Ok(())
}

#[test]
fn a_file_in_the_directorys_place_is_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("data");
    fs::write(&file, "not a directory")?;

    let said = refused(&file)?;

    assert!(said.contains(file.to_str().context("odd path")?), "{said}");
    assert_eq!(fs::read(&file)?, b"not a directory");
    Ok(())
}

#[test]
fn a_directory_that_may_not_be_written_is_refused() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if rustix::process::geteuid().is_root() {
        return crate::skip("root may write everywhere");
    }
    let dir = filled()?;
    let data = dir.path().join("data");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o000))?;

    let said = refused(&data);

    fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
    assert!(said?.contains(data.to_str().context("odd path")?));
    Ok(())
}

#[test]
fn a_directory_of_another_version_is_refused_and_left_alone() -> Result<()> {
    if lictor_tests::is_consul()? {
        return crate::skip("Consul's directories have no version");
    }
    let dir = filled()?;
    let data = dir.path().join("data");
    let format = data.join("FORMAT");
    let text = fs::read_to_string(&format)?;
    assert!(text.contains("format=1\n"), "{text}");
    fs::write(&format, text.replace("format=1\n", "format=99\n"))?;
    let before = files(&data)?;

    let said = refused(&data)?;

    assert!(
        said.contains("99") && said.contains(data.to_str().context("odd path")?),
        "{said}"
    );
    assert_eq!(files(&data)?, before);
    fs::write(&format, text)?;
    let server = Server::with(Options {
        data_dir: Some(data),
        ..Options::default()
    })?;
    assert_eq!(
        server.get("/v1/kv/k/0?raw")?.body.len(),
        1000,
        "with its own version it opens again"
    );
    Ok(())
}

#[test]
fn a_directory_with_something_else_in_it_is_refused_and_left_alone() -> Result<()> {
    if lictor_tests::is_consul()? {
        return crate::skip("Consul moves in beside it");
    }
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("thesis.tex"), "years of work")?;

    let said = refused(dir.path())?;

    assert!(said.contains("thesis.tex"), "{said}");
    assert_eq!(fs::read_dir(dir.path())?.count(), 1);
    Ok(())
}

/// R7: what a crash leaves behind the last whole record is no corruption.
#[test]
fn r7_a_torn_write_at_the_end_of_the_log_is_cut_off() -> Result<()> {
    if lictor_tests::is_consul()? {
        return crate::skip("its log lies elsewhere");
    }
    let dir = filled()?;
    let data = dir.path().join("data");
    let mut logs: Vec<PathBuf> = files(&data.join("raft"))?.into_keys().collect();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.sort();
    let newest = logs.last().context("no log")?;
    let mut bytes = fs::read(newest)?;
    bytes.extend((0..777_u16).map(|n| n.wrapping_mul(37).to_le_bytes()[0]));
    fs::write(newest, bytes)?;

    let server = Server::with(Options {
        data_dir: Some(data),
        ..Options::default()
    })?;

    for n in 0..200 {
        assert_eq!(
            server.get(&format!("/v1/kv/k/{n}?raw"))?.body.len(),
            1000,
            "key {n}"
        );
    }
    assert!(server.put("/v1/kv/after", "x")?.is_true());
    Ok(())
}

/// What a server on this directory serves must be what was written.
fn serves_all(server: &Server) -> Result<()> {
    for n in 0..200 {
        let value = server.get(&format!("/v1/kv/k/{n}?raw"))?.body;
        ensure!(value == vec![b'x'; 1000], "key {n} is wrong or lost");
    }
    Ok(())
}

/// Damages one file. Either the server does not need the damaged part and serves what was written, or it refuses in
/// one line and leaves the file alone: with its bytes put back everything is there. Answers whether it refused.
fn damage(data: &Path, path: &Path, bytes: &[u8]) -> Result<bool> {
    let options = Options {
        data_dir: Some(data.to_owned()),
        ..Options::default()
    };
    let mut damaged = bytes.to_vec();
    let middle = damaged.len() / 3;
    damaged[middle..middle + 32]
        .iter_mut()
        .for_each(|byte| *byte ^= 0x5a);
    fs::write(path, &damaged)?;
    let mut server = Server::launch(options.clone())?;
    if server.await_ready().is_ok() {
        serves_all(&server)?;
        return Ok(false);
    }
    let status = server.await_exit()?;
    let said = server.log();
    ensure!(
        status.code() == Some(1) && !said.contains("panicked"),
        "ended with {status}: {said}"
    );
    ensure!(
        said.contains(data.to_str().context("odd path")?),
        "it does not say which directory: {said}"
    );
    let left = fs::read(path).with_context(|| format!("the file was removed: {said}"))?;
    ensure!(left == damaged, "the file was changed: {said}");
    fs::write(path, bytes)?;
    serves_all(&Server::with(options)?)?;
    Ok(true)
}

#[test]
fn damage_is_reported_and_never_served() -> Result<()> {
    if lictor_tests::is_consul()? {
        return crate::skip("what Consul does with a damaged file is its own affair");
    }
    let dir = filled()?;
    let data = dir.path().join("data");
    let original = files(&data)?;
    let mut refusals = 0;
    let mut complaints = Vec::new();
    for (path, bytes) in original.iter().filter(|(_, bytes)| bytes.len() > 64) {
        match damage(&data, path, bytes) {
            Ok(refused) => refusals += usize::from(refused),
            Err(error) => complaints.push(format!("{}: {error:#}", path.display())),
        }
        restore(&data, &original)?;
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(refusals > 0, "no damage was noticed");
    Ok(())
}

fn restore(dir: &Path, original: &BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    for path in files(dir)?
        .into_keys()
        .filter(|path| !original.contains_key(path))
    {
        fs::remove_file(path)?;
    }
    for (path, bytes) in original {
        fs::write(path, bytes)?;
    }
    Ok(())
}

#[test]
fn a_directory_freed_by_a_kill_is_taken_at_once() -> Result<()> {
    let mut server = Server::start()?;
    server.put("/v1/kv/k", "v")?;
    server.kill()?;

    let options = Options {
        data_dir: Some(server.data_dir().to_owned()),
        ..Options::default()
    };
    let next = Server::with(options)?;

    until("the value", Duration::from_secs(10), || {
        Ok((next.get("/v1/kv/k?raw")?.text() == "v").then_some(()))
    })
}
