//! What the durable copy of the state costs: `cargo run --release -p lictor-store --example state_speed
//! [DIR]`.
//!
//! Loads a million keys with values of 100 bytes in batches of 64, as the checkpoint thread does, and opens
//! them again in a process of its own, whose resident memory is that of a server right after its start.

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::{Duration, Instant};

use lictor_node::{Checkpoint, WriteSet};
use lictor_proto::v1::KvSet;
use lictor_proto::{Command, LogIndex, Term};
use lictor_state::{Effects, State};
use lictor_store::StateStore;

const KEYS: u64 = 1_000_000;
const BATCH_KEYS: u64 = 64;
const VALUE_BYTES: usize = 100;
/// As the checkpoint thread does.
const FLUSH_BATCHES: u64 = 100_000 / BATCH_KEYS;

type Fallible = Result<(), Box<dyn Error>>;

fn main() -> Fallible {
    let args: Vec<_> = env::args().collect();
    if let [_, verb, dir] = &args[..]
        && verb == "open"
    {
        return open(Path::new(dir));
    }
    let scratch = tempfile::tempdir()?;
    let root = args
        .get(1)
        .map_or_else(|| scratch.path().to_owned(), PathBuf::from);
    let dir = root.join("state-speed");
    load(&dir)?;
    let opened = Process::new(env::current_exe()?).arg("open").arg(&dir).status()?;
    std::fs::remove_dir_all(&dir)?;
    if opened.success() {
        Ok(())
    } else {
        Err("opening failed".into())
    }
}

fn load(dir: &Path) -> Fallible {
    let began = Instant::now();
    let (mut store, opened) = StateStore::open(dir)?;
    say(&format!("created in {:.1?}", began.elapsed()));
    let mut state = opened.state;
    let (mut write_time, mut flush_time) = (Duration::ZERO, Duration::ZERO);
    let cpu_before = cpu_time()?;
    for batch in 0..KEYS / BATCH_KEYS {
        let set = apply(&mut state, batch * BATCH_KEYS..(batch + 1) * BATCH_KEYS);
        let began = Instant::now();
        store.write(&set)?;
        write_time += began.elapsed();
        if batch % FLUSH_BATCHES == 0 {
            let began = Instant::now();
            store.flush()?;
            flush_time += began.elapsed();
        }
    }
    let began = Instant::now();
    store.flush()?;
    drop(store);
    flush_time += began.elapsed();
    let cpu = cpu_time()?.saturating_sub(cpu_before);
    let per_key = |time: Duration| time.as_nanos() / u128::from(KEYS);
    say(&format!(
        "write {} ns, flush {} ns a key; with apply and compaction {} ns CPU",
        per_key(write_time),
        per_key(flush_time),
        per_key(cpu)
    ));
    say(&format!("on disk {} MB", folder_bytes(dir)? / 1_000_000));
    Ok(())
}

fn apply(state: &mut State, keys: std::ops::Range<u64>) -> WriteSet {
    let mut effects = Effects::default();
    for number in keys {
        // Spread over the table, as keys of many writers are; the values do not compress.
        let scattered = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut random = scattered | 1;
        let value: Vec<u8> = (0..VALUE_BYTES)
            .map(|_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random.to_le_bytes()[0]
            })
            .collect();
        let command = Command::KvSet(KvSet {
            key: format!("service/{scattered:016x}/config").into(),
            value: value.into(),
            flags: 0,
            cas: None,
        });
        state.apply(LogIndex(state.applied().0.0 + 1), Term(1), &command, &mut effects);
    }
    WriteSet {
        meta: state.meta(),
        members: None,
        writes: effects.writes,
    }
}

fn open(dir: &Path) -> Fallible {
    let (empty, began, cpu_before) = (resident_bytes()?, Instant::now(), cpu_time()?);
    let (store, opened) = StateStore::open(dir)?;
    let (took, cpu) = (began.elapsed(), cpu_time()?.saturating_sub(cpu_before));
    let resident = (resident_bytes()? - empty) / 1_000_000;
    say(&format!(
        "opened {} keys in {took:.2?}, {cpu:.2?} CPU, {resident} MB resident",
        opened.state.kv_len()
    ));
    drop(store);
    Ok(())
}

/// Of all threads, in steps of 10 ms.
fn cpu_time() -> Result<Duration, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no name")?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u64>)
        .sum::<Result<_, _>>()?;
    Ok(Duration::from_millis(10 * ticks))
}

fn resident_bytes() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .ok_or("no VmRSS")?;
    Ok(1024 * line.trim().trim_end_matches(" kB").parse::<u64>()?)
}

fn folder_bytes(dir: &Path) -> std::io::Result<u64> {
    std::fs::read_dir(dir)?
        .map(|entry| Ok(entry?.metadata()?.len()))
        .sum()
}

#[expect(clippy::print_stdout, reason = "this is what the example is for")]
fn say(line: &str) {
    println!("{line}");
}
