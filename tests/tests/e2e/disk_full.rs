//! A full disk: writes fail with an error, reads go on, service resumes when there is room, nothing is lost.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use lictor_tests::{Client, Options, Server, until};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

const DISK_BYTES: usize = 768 << 20;
const VALUE_BYTES: usize = 100_000;

/// A small disk in memory.
struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// `None` where mounting is not allowed.
    fn mount() -> Result<Option<Self>> {
        let dir = tempfile::tempdir()?;
        let options = std::ffi::CString::new(format!("size={DISK_BYTES}"))?;
        let mounted = mount(
            "tmpfs",
            dir.path(),
            "tmpfs",
            MountFlags::empty(),
            Some(options.as_c_str()),
        );
        Ok(mounted.is_ok().then_some(Self { dir }))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The directory can only be removed once nothing is mounted there.
        let _ = unmount(self.dir.path(), UnmountFlags::DETACH);
    }
}

/// Takes all room that is left but for so many bytes.
fn fill(path: &Path, but_for: u64) -> Result<()> {
    let mut file = File::create(path)?;
    let block = vec![0; 1 << 20];
    for size in [block.len(), 4096, 1] {
        loop {
            match file.write_all(&block[..size]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    let all = file.metadata()?.len();
    file.set_len(all.saturating_sub(but_for))?;
    Ok(())
}

fn value(n: usize) -> String {
    format!("{n:0>10}").repeat(VALUE_BYTES / 10)
}

/// Writes key `n`; whether it was acknowledged.
fn write(client: &mut Client, n: usize) -> Result<bool> {
    let response = client.put(&format!("/v1/kv/full/{n}"), value(n))?;
    ensure!(
        response.is_true() || response.status >= 429,
        "{} {}",
        response.status,
        response.text()
    );
    Ok(response.is_true())
}

fn all_there(server: &Server, acknowledged: &BTreeSet<usize>) -> Result<()> {
    for &n in acknowledged {
        let stored = server.get(&format!("/v1/kv/full/{n}?raw&consistent"))?.body;
        ensure!(
            stored == value(n).as_bytes(),
            "key {n} was acknowledged and is lost"
        );
    }
    Ok(())
}

#[test]
fn a_full_disk_stops_writes_alone_and_only_while_it_is_full() -> Result<()> {
    if lictor_tests::is_consul()? {
        return crate::skip("Consul does not survive it");
    }
    let Some(disk) = SmallDisk::mount()? else {
        return crate::skip("a small disk can only be mounted by root");
    };
    let mut server = Server::with(Options {
        data_dir: Some(disk.path("data")),
        ..Options::default()
    })?;
    let mut client = server.client();
    let mut acknowledged = BTreeSet::new();
    for n in 0..20 {
        ensure!(write(&mut client, n)?, "a write failed with room left");
        acknowledged.insert(n);
    }

    fill(&disk.path("ballast"), 0)?;
    let mut next = 20;
    until("writes to fail", Duration::from_secs(60), || {
        next += 1;
        let done = write(&mut client, next)?;
        if done {
            acknowledged.insert(next);
        }
        Ok((!done).then_some(()))
    })?;
    for _ in 0..5 {
        next += 1;
        ensure!(
            !write(&mut client, next)?,
            "a write was acknowledged on a full disk"
        );
        all_there(&server, &acknowledged)?;
    }

    fs::remove_file(disk.path("ballast"))?;
    until("writes to resume", Duration::from_secs(60), || {
        next += 1;
        let done = write(&mut client, next)?;
        if done {
            acknowledged.insert(next);
        }
        Ok(done.then_some(()))
    })?;
    all_there(&server, &acknowledged)?;
    server.crash_and_restart()?;
    all_there(&server, &acknowledged)
}

#[test]
fn a_server_starts_where_hardly_any_room_is_left() -> Result<()> {
    if lictor_tests::is_consul()? {
        return crate::skip("Consul does not survive it");
    }
    let Some(disk) = SmallDisk::mount()? else {
        return crate::skip("a small disk can only be mounted by root");
    };
    let mut server = Server::with(Options {
        data_dir: Some(disk.path("data")),
        ..Options::default()
    })?;
    let acknowledged = BTreeSet::from([0, 1, 2]);
    for &n in &acknowledged {
        ensure!(write(&mut server.client(), n)?, "a write failed with room left");
    }

    server.kill()?;
    // Room for the manifests and little else.
    fill(&disk.path("ballast"), 4 << 20)?;
    server.relaunch()?;
    server.await_ready()?;

    all_there(&server, &acknowledged)?;
    fs::remove_file(disk.path("ballast"))?;
    until("writes to resume", Duration::from_secs(60), || {
        Ok(write(&mut server.client(), 3)?.then_some(()))
    })
}
