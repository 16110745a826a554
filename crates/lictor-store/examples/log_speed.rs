//! Measures the raft log: syncs per second and bytes written to the disk, next to a bare file.
//!
//! `cargo run --release -p lictor-store --example log_speed -- DIRECTORY [SECONDS]`; the directory must be on
//! the disk in question.
#![allow(clippy::print_stdout, reason = "it is a program that prints")]

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_proto::{LogIndex, RaftId, ReadyNo, Term};
use lictor_raft::{EntryKind, HardState, LogEntry, LogPosition, LogStore as _, LogTask, LogWriter as _};
use lictor_store::log::{LogOptions, RocksLog};

/// A put of 100 bytes with its key and the command's other fields.
const ENTRY_BYTES: usize = 140;
/// Entries written, unsynced, until RocksDB writes to used files.
const WARM_UP: u64 = 500_000;
/// Entries between two compactions, as a state that is flushed now and then allows.
const COMPACT_EVERY: u64 = 50_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("usage: log_speed DIRECTORY [SECONDS]")?;
    let seconds = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let directory = Path::new(&directory).join("log_speed");
    fs::create_dir_all(&directory)?;
    println!(
        "{:<31} {:>10} {:>12} {:>16}",
        "", "syncs/s", "records/s", "disk bytes/rec."
    );
    for batch in [1, 16, 64] {
        let duration = Duration::from_secs(seconds);
        measure("bare fdatasync, zeroed file", batch, duration, bare(&directory)?)?;
        measure("raft log, new files", batch, duration, log(&directory, 0)?)?;
        measure(
            "raft log, reused files",
            batch,
            duration,
            log(&directory, WARM_UP)?,
        )?;
    }
    fs::remove_dir_all(&directory)?;
    Ok(())
}

type Append = Box<dyn FnMut(u64) -> Result<(), Box<dyn Error>>>;

fn measure(name: &str, batch: u64, duration: Duration, mut append: Append) -> Result<(), Box<dyn Error>> {
    for _ in 0..200 {
        append(batch)?;
    }
    let (written, begin) = (disk_bytes()?, Instant::now());
    let mut syncs = 0u32;
    while begin.elapsed() < duration {
        append(batch)?;
        syncs += 1;
    }
    let per_second = f64::from(syncs) / begin.elapsed().as_secs_f64();
    let records = u64::from(syncs) * batch;
    let each = (disk_bytes()? - written) / records;
    let batch_size = u32::try_from(batch)?;
    println!(
        "{name:<27} x{batch:<3} {per_second:>9.0} {:>12.0} {each:>16}",
        per_second * f64::from(batch_size)
    );
    Ok(())
}

/// What this process made the kernel write, in all.
fn disk_bytes() -> Result<u64, Box<dyn Error>> {
    let io = fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.ok_or("no write_bytes")?.parse()?)
}

/// A file that is never extended: the least a log can cost.
fn bare(directory: &Path) -> Result<Append, Box<dyn Error>> {
    const SIZE: u64 = 64 << 20;
    let path = directory.join("bare");
    let mut zeroed = File::create(&path)?;
    // In small pieces: the page cache would write back whole large folios otherwise.
    for _ in 0..SIZE / 4096 {
        zeroed.write_all(&[0; 4096])?;
    }
    zeroed.sync_all()?;
    let mut file = OpenOptions::new().write(true).open(&path)?;
    Ok(Box::new(move |batch| {
        let record = vec![7; ENTRY_BYTES * usize::try_from(batch)?];
        if file.stream_position()? + record.len() as u64 > SIZE {
            file.seek(SeekFrom::Start(0))?;
        }
        file.write_all(&record)?;
        Ok(file.sync_data()?)
    }))
}

fn log(directory: &Path, warm_up: u64) -> Result<Append, Box<dyn Error>> {
    let path = directory.join("rocks");
    if path.exists() {
        fs::remove_dir_all(&path)?;
    }
    let (_, _, mut writer) = RocksLog::open(&path, LogOptions::default(), LogIndex(0))?.split();
    let mut last = 0;
    let mut append = move |batch, must_sync| -> Result<(), Box<dyn Error>> {
        let entries = (last + 1..=last + batch).map(entry).collect();
        let hard_state = HardState {
            term: Term(5),
            vote: RaftId(u64::MAX / 3),
            commit: LogIndex(last),
        };
        let (ready_no, messages) = (ReadyNo(last), Vec::new());
        writer.append(&[LogTask {
            ready_no,
            entries,
            hard_state: Some(hard_state),
            must_sync,
            messages,
        }])?;
        if last / COMPACT_EVERY < (last + batch) / COMPACT_EVERY {
            writer.compact(LogPosition::new(last, 5))?;
        }
        last += batch;
        Ok(())
    };
    for _ in 0..warm_up / 100 {
        append(100, false)?;
    }
    if warm_up > 0 {
        // RocksDB shall have finished what that began.
        std::thread::sleep(Duration::from_secs(2));
    }
    Ok(Box::new(move |batch| append(batch, true)))
}

fn entry(index: u64) -> LogEntry {
    LogEntry {
        index: LogIndex(index),
        term: Term(5),
        kind: EntryKind::Normal,
        data: noise(index),
    }
}

/// Bytes that do not compress.
fn noise(seed: u64) -> Bytes {
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(ENTRY_BYTES + 8);
    while bytes.len() < ENTRY_BYTES {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(ENTRY_BYTES);
    Bytes::from(bytes)
}
