//! Faults in a row, and faults of one server's disk: money neither comes nor goes, and nothing acknowledged is lost.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lictor_tests::{Bank, Cluster, Load, until};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{LONG, QUICK, settle, skip, trial};

/// Says how much happened.
fn close(bank: Bank) -> Result<()> {
    let (transfers, sums) = bank.close()?;
    writeln!(std::io::stderr(), "{transfers} transfers, added up {sums} times")?;
    Ok(())
}

/// Each fault comes while the cluster still recovers from the one before.
#[test]
fn money_neither_comes_nor_goes_while_one_fault_follows_the_other() -> Result<()> {
    trial(3, |cluster| {
        let bank = Bank::open(&cluster.http(&[0, 1, 2]))?;
        bank.await_more(50)?;
        for round in 0..3 {
            let first = cluster.leader(&[0, 1, 2])?;
            cluster.server_mut(first).kill()?;
            cluster.leader(&cluster.others(first))?;
            bank.await_more(5)?;
            cluster.server_mut(first).relaunch()?;

            // Back, but hardly: the next one falls asleep, is stopped in order, or dies.
            cluster.await_ready()?;
            let second = cluster.leader(&[0, 1, 2])?;
            match round {
                0 => {
                    cluster.server(second).pause()?;
                    cluster.leader(&cluster.others(second))?;
                    bank.await_more(5)?;
                    cluster.server(second).signal(Signal::CONT)?;
                }
                1 => {
                    cluster.server(second).signal(Signal::INT)?;
                    cluster.server_mut(second).await_exit()?;
                    cluster.server_mut(second).relaunch()?;
                }
                _ => {
                    cluster.server_mut(second).kill()?;
                    cluster.server_mut(second).relaunch()?;
                }
            }
            cluster.await_ready()?;
            cluster.leader(&[0, 1, 2])?;
            bank.await_more(20)?;
        }

        close(bank)?;
        cluster.same(&[0, 1, 2]).map(|_| ())
    })
}

/// What a crash leaves of the last record of a log.
#[derive(Debug, Clone, Copy)]
enum Torn {
    /// The file ends in it.
    Cut,
    /// Its last bytes never reached the disk.
    Blank,
    /// They are of something else.
    Foreign,
    /// It is whole, and behind it begins another.
    Begun,
}

/// How many bytes are missing. Fewer than any record has.
const TORN_BYTES: usize = 9;

impl Torn {
    fn tear(self, log: &Path) -> Result<()> {
        let whole = fs::read(log)?;
        // The file may have been made longer ahead of what is written.
        let end = whole
            .iter()
            .rposition(|byte| *byte != 0)
            .context("the log is empty")?
            + 1;
        let from = end.checked_sub(TORN_BYTES).context("the log is too short")?;
        let mut torn = whole;
        match self {
            Self::Cut => torn.truncate(from),
            Self::Blank => torn[from..end].fill(0),
            Self::Foreign => torn[from..end].fill(0x5a),
            Self::Begun => {
                let begun = b"\x12\x34\x56\x78\x20\x00\x01rest of a record";
                torn.resize(torn.len().max(end + begun.len()), 0);
                torn[end..end + begun.len()].copy_from_slice(begun);
            }
        }
        Ok(fs::write(log, torn)?)
    }
}

/// A follower's last record is torn while the others go on: it is not taken for one, and they have it.
#[test]
fn a_server_whose_last_record_is_torn_comes_back() -> Result<()> {
    trial(3, |cluster| {
        for torn in [Torn::Cut, Torn::Blank, Torn::Foreign, Torn::Begun] {
            let number = cluster.others(cluster.leader(&[0, 1, 2])?)[0];
            let load = Load::start(&format!("torn/{torn:?}"), &cluster.http(&cluster.others(number)));
            load.await_more(30)?;
            cluster.server_mut(number).kill()?;
            let newest = newest_log(&cluster.server(number).data_dir().join("raft"))?;
            // What was acknowledged with this one's help is on both others by then.
            load.await_more(10)?;
            torn.tear(&newest)?;

            cluster.server_mut(number).relaunch()?;
            cluster.await_ready()?;

            settle(cluster, &[0, 1, 2], &load.stop()?)?;
        }
        Ok(())
    })
}

fn newest_log(folder: &Path) -> Result<PathBuf> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "log") {
            logs.push((fs::metadata(&path)?.modified()?, path));
        }
    }
    let newest = logs.into_iter().max();
    Ok(newest
        .with_context(|| format!("no log in {}", folder.display()))?
        .1)
}

/// A small disk in memory.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` where mounting is not allowed.
    fn mount() -> Result<Option<Self>> {
        let dir = tempfile::tempdir()?;
        let mounted = mount(
            "tmpfs",
            dir.path(),
            "tmpfs",
            MountFlags::empty(),
            Some(c"size=384m"),
        );
        Ok(mounted.is_ok().then_some(Self(dir)))
    }

    /// Takes all room that is left.
    fn fill(&self) -> Result<()> {
        let mut file = File::create(self.0.path().join("ballast"))?;
        for size in [1 << 20, 4096, 1] {
            let block = vec![0; size];
            loop {
                match file.write_all(&block) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.0.path().join("ballast"))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The directory can only be removed once nothing is mounted there.
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

/// Servers of which the first is launched in a special way.
fn special(
    change: impl FnOnce(&mut lictor_tests::Options),
    test: impl FnOnce(&mut Cluster) -> Result<()>,
) -> Result<()> {
    Cluster::plan(3, 3)?.with_hcl(QUICK).trial(|cluster| {
        cluster.launch_with(0, change)?;
        cluster.start()?;
        test(cluster)
    })
}

/// Has the first server lead, or another.
fn lead(cluster: &Cluster, wanted: bool) -> Result<()> {
    until("the leadership to be where the test wants it", LONG, || {
        let leader = cluster.leader(&[0, 1, 2])?;
        if (leader == 0) == wanted {
            return Ok(Some(()));
        }
        let mut client = cluster.server(leader).client();
        // Left to choose, the two others might hand it to and fro.
        let to = if wanted {
            let wanted =
                cluster.server(0).client().get("/v1/agent/self")?.json()?["Config"]["NodeName"].clone();
            let members = client.get("/v1/operator/raft/configuration")?.json()?;
            let servers = members["Servers"].as_array().context("no list of servers")?;
            let server = servers.iter().find(|server| server["Node"] == wanted);
            let id = server
                .and_then(|server| server["ID"].as_str())
                .context("no such server")?;
            format!("?id={id}")
        } else {
            String::new()
        };
        let moved = client.call(
            "POST",
            &format!("/v1/operator/raft/transfer-leader{to}"),
            &[],
            b"",
        )?;
        ensure!(moved.status == 200, "{} {}", moved.status, moved.text());
        Ok(None)
    })
}

/// Whether it led or followed: the others go on, and once it has room it is one of them again.
#[test]
fn a_full_disk_on_one_server_stops_nobody_else() -> Result<()> {
    if lictor_tests::is_consul()? {
        return skip("these tests are about Lictor's servers");
    }
    for leads in [false, true] {
        let Some(disk) = SmallDisk::mount()? else {
            return skip("mounting a small disk needs root");
        };
        let folder = disk.0.path().join("data");
        special(
            |options| options.data_dir = Some(folder),
            |cluster| {
                lead(cluster, leads)?;
                let load = Load::start("full", &cluster.http(&[1, 2]));
                load.await_more(30)?;

                disk.fill()?;
                // Those of the others are acknowledged, whoever has to lead for that.
                load.await_more(100)?;

                disk.free()?;
                ensure!(!cluster.server_mut(0).has_ended()?, "it ended");
                cluster.await_ready()?;
                load.await_more(30)?;
                settle(cluster, &[0, 1, 2], &load.stop()?)
            },
        )?;
    }
    Ok(())
}

/// Syncs that take long, or fail, as a file says.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static int act(const char *name, int fd) {
    const char *slow = getenv("SYNC_SLOW"), *fails = getenv("SYNC_FAILS");
    if (slow && access(slow, F_OK) == 0) usleep(3 * 1000 * 1000);
    if (fails && access(fails, F_OK) == 0) { errno = EIO; return -1; }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return real(fd);
}

int fsync(int fd) { return act("fsync", fd); }
int fdatasync(int fd) { return act("fdatasync", fd); }
"#;

/// A disk whose syncs obey two files.
struct Disk(TempDir);

impl Disk {
    /// `None` without a C compiler.
    fn compile() -> Result<Option<Self>> {
        let dir = tempfile::tempdir()?;
        let compiler = Command::new("cc")
            .args(["-shared", "-fPIC", "-x", "c", "-", "-ldl", "-o"])
            .arg(dir.path().join("shim.so"))
            .stdin(Stdio::piped())
            .spawn();
        let Ok(mut compiler) = compiler else {
            return Ok(None);
        };
        compiler
            .stdin
            .take()
            .context("no pipe")?
            .write_all(SHIM.as_bytes())?;
        ensure!(compiler.wait()?.success(), "the shim does not compile");
        Ok(Some(Self(dir)))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn env(&self) -> Vec<(String, String)> {
        let file = |name: &str| self.file(name).display().to_string();
        [
            ("LD_PRELOAD", file("shim.so")),
            ("SYNC_SLOW", file("slow")),
            ("SYNC_FAILS", file("fails")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn set(&self, name: &str, on: bool) -> Result<()> {
        if on {
            fs::write(self.file(name), "")?;
        } else {
            fs::remove_file(self.file(name))?;
        }
        Ok(())
    }
}

fn with_disk(test: impl FnOnce(&Disk, &mut Cluster) -> Result<()>) -> Result<()> {
    if lictor_tests::is_consul()? {
        return skip("these tests are about Lictor's servers");
    }
    let Some(disk) = Disk::compile()? else {
        return skip("there is no C compiler for a disk that fails");
    };
    special(|options| options.env = disk.env(), |cluster| test(&disk, cluster))
}

/// A leader whose disk stalls hands over; a follower's is not waited for (rule R8).
#[test]
fn a_slow_disk_on_one_server_slows_nobody_else() -> Result<()> {
    with_disk(|disk, cluster| {
        for leads in [true, false] {
            lead(cluster, leads)?;
            let load = Load::start(&format!("slow/{leads}"), &cluster.http(&[1, 2]));
            load.await_more(30)?;

            disk.set("slow", true)?;
            // With a sync of seconds for each of them this would take minutes.
            load.await_more(200)?;
            disk.set("slow", false)?;

            load.await_more(30)?;
            settle(cluster, &[0, 1, 2], &load.stop()?)?;
        }
        Ok(())
    })
}

/// Nobody knows what such a disk holds: the process ends, and comes back from what was synced.
#[test]
fn a_server_whose_sync_fails_ends_and_comes_back() -> Result<()> {
    with_disk(|disk, cluster| {
        for leads in [true, false] {
            lead(cluster, leads)?;
            let load = Load::start(&format!("fails/{leads}"), &cluster.http(&[1, 2]));
            load.await_more(30)?;

            disk.set("fails", true)?;
            until("the server to give up", LONG, || {
                Ok(cluster.server_mut(0).has_ended()?.then_some(()))
            })?;
            load.await_more(30)?;
            disk.set("fails", false)?;
            cluster.server_mut(0).relaunch()?;
            cluster.await_ready()?;

            load.await_more(30)?;
            settle(cluster, &[0, 1, 2], &load.stop()?)?;
        }
        Ok(())
    })
}

/// A hundred thousand, by and by, over a socket file: what is gone costs nothing any more.
#[test]
fn queries_that_were_dropped_leave_nothing_behind() -> Result<()> {
    const QUERIES: usize = 100_000;
    const AT_ONCE: usize = 2000;
    if lictor_tests::is_consul()? {
        return skip("Consul keeps them until their wait is over");
    }
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("http.sock");
    let hcl = format!(
        "{QUICK}\naddresses {{ http = \"127.0.0.1 unix://{}\" }}\nlimits {{ http_max_conns_per_client = 0 }}",
        socket.display()
    );
    trial(3, |cluster| {
        let follower = cluster.others(cluster.leader(&[0, 1, 2])?)[0];
        cluster.server_mut(follower).kill()?;
        cluster.set_hcl(&hcl);
        let data_dir = cluster.server(follower).data_dir().to_owned();
        let kept = cluster.server_mut(follower).keep_files().to_owned();
        cluster.launch_with(follower, |options| options.data_dir = Some(data_dir))?;
        cluster.await_ready()?;
        ensure!(cluster.server(follower).put("/v1/kv/k", "v")?.is_true());
        let index = cluster.server(follower).get("/v1/kv/k")?.index()?;
        let server = cluster.server(follower);
        let before = server.descriptors()?;
        let mut resident = Vec::new();
        let mut longest = Duration::ZERO;
        for round in 0..QUERIES / AT_ONCE {
            let mut polls = Vec::with_capacity(AT_ONCE);
            for n in 0..AT_ONCE {
                let mut poll = UnixStream::connect(&socket)?;
                let query = ["k?", "?recurse&", "k?stale&", "other?"][n % 4];
                write!(
                    poll,
                    "GET /v1/kv/{query}index={index}&wait=10m HTTP/1.1\r\nHost: x\r\n\r\n"
                )?;
                polls.push(poll);
            }
            until("the queries to arrive", LONG, || {
                Ok((server.descriptors()? >= before + AT_ONCE).then_some(()))
            })?;
            let dropped = Instant::now();
            drop(polls);
            until("the descriptors to come back", LONG, || {
                Ok((server.descriptors()? <= before + 5).then_some(()))
            })?;
            longest = longest.max(dropped.elapsed());
            resident.push(server.resident_kib()?);
            ensure!(server.get("/v1/kv/k")?.value()? == b"v", "round {round}");
        }

        writeln!(
            std::io::stderr(),
            "descriptors back within {longest:?}; KiB after each round: {resident:?}"
        )?;
        // The allocator keeps some tens of megabytes more with time; a kilobyte for each query would be a hundred.
        let (early, late) = (resident[2], resident[resident.len() - 1]);
        ensure!(late < 2 * early, "memory goes on growing: {resident:?}");
        cluster.same(&[0, 1, 2])?;
        Ok(fs::remove_dir_all(kept)?)
    })
}
