//! A log in memory on a simulated disk, for tests and simulation; it recovers from the disk's bytes as a real
//! one does.
//!
//! The file is a sequence of records. Each: magic (4), payload length (4), CRC-32C of the payload (4), payload.
//! The payload: mark (length-prefixed), flags (1: forget all entries first), truncated index and term
//! (varints), then per entry its index and its length-prefixed bytes. All numbers but the header's are
//! varints; the header is little-endian.
//!
//! Reading ends at the first record that is not whole: a torn tail. Sync marks in whole records *behind* that
//! place tell damage from a tear: a mark proves that all before its index was once durable.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lictor_proto::{LogIndex, Term};

use super::codec::{put_varint, take_varint};
use super::{
    DecodeError, LogEntry, LogError, LogPosition, LogReader, LogStore, LogTask, LogWriter, Mark, Recovered,
    SimDisk,
};

const MAGIC: [u8; 4] = *b"lrec";
const HEADER: usize = 12;
const FORGET: u64 = 1;
/// The file is rewritten when it has grown to this many times its size after the last rewrite.
const REWRITE_FACTOR: usize = 4;
const REWRITE_MIN_BYTES: usize = 256 << 10;

/// A log in memory. [`MemLog::default`] has a new disk of its own.
#[derive(Debug, Default)]
pub struct MemLog {
    disk: SimDisk,
    contents: Contents,
}

/// Reads a [`MemLog`].
#[derive(Debug, Clone)]
pub struct MemReader {
    shared: Arc<Mutex<Contents>>,
}

/// Writes a [`MemLog`].
#[derive(Debug)]
pub struct MemWriter {
    shared: Arc<Mutex<Contents>>,
    disk: SimDisk,
    rewritten_bytes: usize,
}

#[derive(Debug, Default, Clone)]
struct Contents {
    entries: VecDeque<LogEntry>,
    truncated: LogPosition,
    mark: Mark,
    /// The last entry of the last synced batch.
    synced: LogIndex,
}

/// A batch on its way to the disk or from it.
#[derive(Debug, Default)]
struct Record {
    mark: Mark,
    forget: bool,
    truncated: LogPosition,
    entries: Vec<LogEntry>,
}

impl MemLog {
    /// Opens what is on the disk; cuts a torn tail off it.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] when a whole record makes no sense.
    pub fn open(disk: &SimDisk) -> Result<Self, LogError> {
        let bytes = disk.read();
        let mut contents = Contents::default();
        let mut at = 0;
        while let Some((payload, next)) = record_at(&bytes, at) {
            let record = Record::decode(payload)
                .map_err(|DecodeError| LogError::Corrupt(format!("record at byte {at} has no meaning")))?;
            contents.take_in(record);
            at = next;
        }
        // Marks behind the damage; the length field may be damaged too, so every place is tried.
        let behind = (at..bytes.len()).filter_map(|place| record_at(&bytes, place));
        let proven = behind.filter_map(|(payload, _)| Record::decode(payload).ok());
        let proven = proven
            .map(|record| record.mark.synced_through)
            .max()
            .unwrap_or_default();
        contents.mark.synced_through = contents.mark.synced_through.max(proven);
        if proven <= contents.last().index {
            disk.replace(bytes[..at].to_vec());
        }
        contents.synced = contents.last().index;
        Ok(Self {
            disk: disk.clone(),
            contents,
        })
    }

    /// The disk it is on.
    pub fn disk(&self) -> SimDisk {
        self.disk.clone()
    }
}

impl LogStore for MemLog {
    type Reader = MemReader;
    type Writer = MemWriter;

    fn split(self) -> (Recovered, MemReader, MemWriter) {
        let recovered = Recovered {
            hard_state: self.contents.mark.hard_state,
            truncated: self.contents.truncated,
            last: self.contents.last(),
            synced_through: self.contents.mark.synced_through,
        };
        let shared = Arc::new(Mutex::new(self.contents));
        let rewritten_bytes = self.disk.len_bytes();
        let reader = MemReader {
            shared: Arc::clone(&shared),
        };
        (
            recovered,
            reader,
            MemWriter {
                shared,
                disk: self.disk,
                rewritten_bytes,
            },
        )
    }
}

impl LogReader for MemReader {
    fn entries(&self, low: LogIndex, high: LogIndex, max_bytes: u64) -> Result<Vec<LogEntry>, LogError> {
        let contents = lock(&self.shared);
        let mut left = max_bytes;
        let mut found = Vec::new();
        for index in low.0..high.0 {
            let entry = contents.get(LogIndex(index))?;
            let size = entry.data.len() as u64;
            if !found.is_empty() && size > left {
                break;
            }
            left = left.saturating_sub(size);
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: LogIndex) -> Result<Term, LogError> {
        lock(&self.shared).get(index).map(|entry| entry.term)
    }
}

impl LogWriter for MemWriter {
    fn append(&mut self, tasks: &[LogTask]) -> Result<(), LogError> {
        let mut synced = None;
        for task in tasks {
            let record = lock(&self.shared).record_of(task);
            self.disk.append(&record.encode());
            let mut contents = lock(&self.shared);
            contents.take_in(record);
            if task.must_sync {
                synced = Some(());
            }
        }
        if synced.is_some() {
            self.sync()?;
        }
        Ok(())
    }

    fn compact(&mut self, to: LogPosition) -> Result<(), LogError> {
        let record = {
            let contents = lock(&self.shared);
            Record {
                mark: contents.mark,
                truncated: to,
                ..Record::default()
            }
        };
        self.disk.append(&record.encode());
        lock(&self.shared).take_in(record);
        if self.disk.len_bytes() > REWRITE_MIN_BYTES.max(self.rewritten_bytes * REWRITE_FACTOR) {
            self.rewrite();
        }
        Ok(())
    }

    fn reset(&mut self, to: LogPosition) -> Result<(), LogError> {
        let record = {
            let contents = lock(&self.shared);
            let mark = Mark {
                synced_through: LogIndex(0),
                ..contents.mark
            };
            Record {
                mark,
                forget: true,
                truncated: to,
                entries: Vec::new(),
            }
        };
        self.disk.append(&record.encode());
        lock(&self.shared).take_in(record);
        self.sync()
    }
}

impl MemWriter {
    fn sync(&mut self) -> Result<(), LogError> {
        let last = lock(&self.shared).last().index;
        self.disk.sync().map_err(|text| LogError::Io {
            what: "sync failed",
            source: text.into(),
        })?;
        lock(&self.shared).synced = last;
        Ok(())
    }

    fn rewrite(&mut self) {
        let mut contents = lock(&self.shared);
        let record = Record {
            mark: contents.mark,
            forget: true,
            truncated: contents.truncated,
            entries: contents.entries.iter().cloned().collect(),
        };
        let bytes = record.encode();
        self.rewritten_bytes = bytes.len();
        self.disk.replace(bytes);
        contents.synced = contents.last().index;
    }
}

impl Contents {
    fn last(&self) -> LogPosition {
        let last = self.entries.back();
        last.map_or(self.truncated, |entry| LogPosition {
            index: entry.index,
            term: entry.term,
        })
    }

    fn get(&self, index: LogIndex) -> Result<&LogEntry, LogError> {
        let at = index.0.checked_sub(self.truncated.index.0 + 1);
        at.and_then(|at| self.entries.get(usize::try_from(at).ok()?))
            .ok_or_else(|| LogError::Corrupt(format!("entry {index} is missing")))
    }

    /// The record that carries a task out.
    fn record_of(&self, task: &LogTask) -> Record {
        let kept = task.entries.first().map_or(u64::MAX, |entry| entry.index.0 - 1);
        Record {
            mark: Mark {
                hard_state: task.hard_state.unwrap_or(self.mark.hard_state),
                synced_through: LogIndex(self.synced.0.min(kept)),
            },
            forget: false,
            truncated: self.truncated,
            entries: task.entries.clone(),
        }
    }

    fn take_in(&mut self, record: Record) {
        self.mark = record.mark;
        if record.forget {
            self.entries.clear();
        }
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.index <= record.truncated.index)
        {
            self.entries.pop_front();
        }
        self.truncated = record.truncated;
        if let Some(first) = record.entries.first() {
            while self
                .entries
                .back()
                .is_some_and(|entry| entry.index >= first.index)
            {
                self.entries.pop_back();
            }
            self.synced = LogIndex(self.synced.0.min(first.index.0 - 1));
        }
        self.entries.extend(record.entries);
    }
}

impl Record {
    fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        put_bytes(&mut payload, &self.mark.encode());
        put_varint(&mut payload, if self.forget { FORGET } else { 0 });
        put_varint(&mut payload, self.truncated.index.0);
        put_varint(&mut payload, self.truncated.term.0);
        let mut value = Vec::new();
        for entry in &self.entries {
            put_varint(&mut payload, entry.index.0);
            value.clear();
            entry.encode(&mut value);
            put_bytes(&mut payload, &value);
        }
        let mut bytes = MAGIC.to_vec();
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
        bytes.extend_from_slice(&payload);
        bytes
    }

    fn decode(mut bytes: &[u8]) -> Result<Self, DecodeError> {
        let bytes = &mut bytes;
        let mark = Mark::decode(take_bytes(bytes)?)?;
        let forget = take_varint(bytes)? == FORGET;
        let truncated = LogPosition::new(take_varint(bytes)?, take_varint(bytes)?);
        let mut entries = Vec::new();
        while !bytes.is_empty() {
            let index = LogIndex(take_varint(bytes)?);
            entries.push(LogEntry::decode(index, take_bytes(bytes)?)?);
        }
        Ok(Self {
            mark,
            forget,
            truncated,
            entries,
        })
    }
}

/// The payload of a whole record at `at`, and where the next begins.
fn record_at(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (header, rest) = bytes.get(at..)?.split_first_chunk::<HEADER>()?;
    let word = |from: usize| {
        u32::from_le_bytes([header[from], header[from + 1], header[from + 2], header[from + 3]])
    };
    if header[..4] != MAGIC {
        return None;
    }
    let payload = rest.get(..usize::try_from(word(4)).ok()?)?;
    // A header torn after its magic reads as an empty payload, whose checksum is 0: no record is empty.
    (!payload.is_empty() && crc32c::crc32c(payload) == word(8))
        .then_some((payload, at + HEADER + payload.len()))
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let len = usize::try_from(take_varint(bytes)?).map_err(|_| DecodeError)?;
    let (taken, rest) = bytes.split_at_checked(len).ok_or(DecodeError)?;
    *bytes = rest;
    Ok(taken)
}

fn lock(shared: &Mutex<Contents>) -> MutexGuard<'_, Contents> {
    // No step under this lock leaves the contents half changed.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
