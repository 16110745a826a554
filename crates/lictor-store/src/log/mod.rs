//! The raft log in a RocksDB of its own.
//!
//! | key | value |
//! |---|---|
//! | group (4, big-endian), index (8, big-endian) | entry: [`LogEntry::encode`] |
//! | group (4), `ff`, `m` | mark: [`Mark`]; hard state and synced-through index |
//! | group (4), `ff`, `t` | truncated: index and term of the last entry cut from the front (8 + 8, big-endian) |
//!
//! The group is 0; it is in the key from the first day so that several groups can share the database.
//!
//! # Why it is correct
//!
//! * One task list is one `WriteBatch`, and a batch is one WAL record: after a crash it is whole or gone.
//! * The WAL is replayed up to the first record that is not whole (`kPointInTimeRecovery`), so what is left is
//!   always a prefix of what was written; a synced batch is left unless the disk lost it.
//! * Records of their own need no checksum: RocksDB keeps a CRC-32C of every WAL fragment and every block of a
//!   table file, and reads check them.
//! * Replay cannot tell a torn tail from damage to what was synced: both end it. The marks can. A batch carries
//!   the index that was durable before it was written; so if a mark can be read anywhere behind the place where
//!   replay stopped (`wal`), and names an index the recovered log does not have, synced entries are lost
//!   ([`Recovered::synced_through`] is then beyond [`Recovered::last`], and opening the core refuses). Damage
//!   after the last mark is a tear, and cut (R7).
//!
//! # Settings that matter
//!
//! WAL files are recycled, and the first of them written ahead when the log is opened: `fdatasync` then need not
//! commit a new file size. RocksDB switches recycling off under the recovery modes that refuse a torn tail, and cuts
//! a retired file to what its last use wrote: a reused one grows again where it goes on for longer. While writes are
//! not too many, entries are compacted away before the memtable is flushed, and are written once, to the WAL.

mod wal;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use lictor_proto::{LogIndex, Term};
use lictor_raft::{
    DecodeError, LogEntry, LogError, LogPosition, LogReader, LogStore, LogTask, LogWriter, Mark, Recovered,
};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, ErrorKind, LogLevel, Options,
    ReadOptions, WriteBatch, WriteOptions,
};

use crate::MANIFEST_PIECE_BYTES;

const GROUP: u32 = 0;
/// WAL files kept for reuse.
const WAL_FILES_RECYCLED: usize = 4;
/// WAL files that are written ahead: the one in use, and the one that follows while the first is being flushed.
const WAL_FILES_AHEAD: usize = 2;
/// Bytes of an entry's key.
const ENTRY_KEY: usize = 12;
/// Behind all entry keys: no index begins with this byte.
const META: u8 = 0xff;

/// Memory of the log's database.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions {
    /// Entries kept in memory before they go to a table file; a WAL file is about as long.
    pub write_buffer_bytes: usize,
    /// Blocks of table files kept in memory. Entries are read once, when a server starts or a follower lags.
    pub block_cache_bytes: usize,
    /// Length of the first WAL files, written ahead: a sync of a file that grows has to commit its new length too,
    /// which costs the device twice as much. Later files are reused ones. Left out where the disk
    /// has not twice the room that they take.
    pub written_ahead_bytes: usize,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            write_buffer_bytes: 8 << 20,
            block_cache_bytes: 1 << 20,
            // A WAL file goes on until the entries fill the buffer.
            written_ahead_bytes: 9 << 20,
        }
    }
}

/// An opened log.
pub struct RocksLog {
    db: Arc<DB>,
    recovered: Recovered,
}

/// Reads a [`RocksLog`].
#[derive(Clone)]
pub struct RocksReader {
    db: Arc<DB>,
}

/// Writes a [`RocksLog`].
pub struct RocksWriter {
    db: Arc<DB>,
    mark: Mark,
    truncated: LogPosition,
    last: LogIndex,
    /// The last entry known to be durable.
    synced: LogIndex,
    synced_write: WriteOptions,
    plain_write: WriteOptions,
    /// One entry's bytes, reused.
    value: Vec<u8>,
}

impl RocksLog {
    /// Opens the log in directory `path`, or makes a new one there. `proven` is an index that something beside the
    /// log shows to have been reached, 0 if nothing does.
    ///
    /// # Errors
    /// [`LogError::Io`] when the directory cannot be used, [`LogError::Corrupt`] when what is in it makes no
    /// sense or has lost synced entries; nothing is changed then.
    pub fn open(path: &Path, options: LogOptions, proven: LogIndex) -> Result<Self, LogError> {
        let marks = wal::marks(path, &meta_key(b'm')).map_err(|source| LogError::Io {
            what: "cannot read its files",
            source: Box::new(source),
        })?;
        let database = database_options(options);
        if path.join("CURRENT").exists() {
            // Replay in an open for writing cuts what it could not read and removes the files it has replayed, so
            // what may be damage and not a torn tail is looked at first without touching it.
            let db = DB::open_for_read_only(&database, path, false)
                .map_err(|error| failed("cannot read it", error))?;
            refuse_loss(path, &recovered(&db, &marks)?, proven)?;
        }
        let db = DB::open(&database, path).map_err(|error| failed("cannot open it", error))?;
        let recovered = recovered(&db, &marks)?;
        if has_room(path, 2 * WAL_FILES_AHEAD * options.written_ahead_bytes)? {
            write_ahead(&db, options.written_ahead_bytes)?;
        } else {
            tracing::warn!(
                "hardly any room on the disk: the log's files grow while they are written, which is slower"
            );
        }
        Ok(Self {
            db: Arc::new(db),
            recovered,
        })
    }
}

fn has_room(path: &Path, bytes: usize) -> Result<bool, LogError> {
    let found = rustix::fs::statvfs(path).map_err(|error| LogError::Io {
        what: "cannot ask for the free space",
        source: Box::new(error),
    })?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize) >= bytes as u64)
}

/// Makes WAL files of that length and lets RocksDB reuse them: a flush retires a file, and the second one takes the first
/// from the list of retired files. What they are filled with is no row, and replay passes over it.
fn write_ahead(db: &DB, bytes: usize) -> Result<(), LogError> {
    /// What the file is written with decides how large the page cache's units are, and a sync takes the whole unit that a
    /// few bytes were written to: one page each.
    const PIECE: usize = 4 << 10;
    if bytes == 0 {
        return Ok(());
    }
    let failed = |error| failed("cannot write ahead", error);
    let key = meta_key(b'f');
    let filling = vec![0x5a; PIECE];
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    for _ in 0..WAL_FILES_AHEAD {
        for _ in 0..bytes.div_ceil(PIECE) {
            let mut batch = WriteBatch::default();
            batch.put_log_data(&filling);
            db.write(batch).map_err(failed)?;
        }
        // A flush of nothing would not retire the file.
        db.delete_opt(key, &synced).map_err(failed)?;
        db.flush().map_err(failed)?;
    }
    Ok(())
}

/// What the database holds, and what the marks behind the place where replay stopped prove that it once held.
fn recovered(db: &DB, marks: &[wal::Found]) -> Result<Recovered, LogError> {
    let mut recovered = recover(db)?;
    let replayed = db.latest_sequence_number();
    let behind = marks.iter().filter(|mark| mark.sequence > replayed);
    let proven = behind.map(|mark| mark.mark.synced_through).max();
    recovered.synced_through = recovered.synced_through.max(proven.unwrap_or_default());
    Ok(recovered)
}

fn refuse_loss(path: &Path, found: &Recovered, proven: LogIndex) -> Result<(), LogError> {
    let (last, reached) = (found.last.index, found.synced_through.max(proven));
    if last >= reached {
        return Ok(());
    }
    Err(LogError::Corrupt(format!(
        "{} can be read up to entry {last}, but entries up to {reached} were acknowledged. Nothing was changed; \
         restore the data directory from a backup, or move it away to start empty",
        path.display()
    )))
}

impl LogStore for RocksLog {
    type Reader = RocksReader;
    type Writer = RocksWriter;

    fn split(self) -> (Recovered, RocksReader, RocksWriter) {
        let Recovered {
            hard_state,
            truncated,
            last,
            synced_through,
        } = self.recovered;
        let mut synced_write = WriteOptions::default();
        synced_write.set_sync(true);
        let writer = RocksWriter {
            db: Arc::clone(&self.db),
            mark: Mark {
                hard_state,
                synced_through,
            },
            truncated,
            last: last.index,
            // Replay has flushed what it found.
            synced: last.index,
            synced_write,
            plain_write: WriteOptions::default(),
            value: Vec::new(),
        };
        (self.recovered, RocksReader { db: self.db }, writer)
    }
}

impl LogReader for RocksReader {
    fn entries(&self, low: LogIndex, high: LogIndex, max_bytes: u64) -> Result<Vec<LogEntry>, LogError> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(entry_key(high));
        let mut rows = self.db.raw_iterator_opt(options);
        rows.seek(entry_key(low));
        let mut left = max_bytes;
        let mut found = Vec::new();
        for index in low.0..high.0 {
            let index = LogIndex(index);
            let row = rows.item().filter(|(key, _)| *key == entry_key(index));
            let Some((_, value)) = row else {
                rows.status()
                    .map_err(|error| failed("cannot read entries", error))?;
                return Err(missing(index));
            };
            let entry = LogEntry::decode(index, value).map_err(|error| senseless(index, error))?;
            let size = entry.data.len() as u64;
            if !found.is_empty() && size > left {
                break;
            }
            left = left.saturating_sub(size);
            found.push(entry);
            rows.next();
        }
        Ok(found)
    }

    fn term(&self, index: LogIndex) -> Result<Term, LogError> {
        let value = self
            .db
            .get_pinned(entry_key(index))
            .map_err(|error| failed("cannot read an entry", error))?;
        let value = value.ok_or_else(|| missing(index))?;
        LogEntry::decode_term(&value).map_err(|error| senseless(index, error))
    }
}

impl LogWriter for RocksWriter {
    fn append(&mut self, tasks: &[LogTask]) -> Result<(), LogError> {
        let sync = tasks.iter().any(|task| task.must_sync);
        let hard_state = tasks.iter().rev().find_map(|task| task.hard_state);
        if let Some(first) = tasks
            .iter()
            .filter_map(|task| task.entries.first())
            .map(|entry| entry.index)
            .min()
        {
            self.synced = self.synced.min(LogIndex(first.0 - 1));
        }
        let mut batch = WriteBatch::default();
        if sync || hard_state.is_some() {
            let hard_state = hard_state.unwrap_or(self.mark.hard_state);
            self.mark = Mark {
                hard_state,
                synced_through: self.synced,
            };
            // First in the batch, so that it can be found in the WAL without reading the whole record.
            batch.put(meta_key(b'm'), self.mark.encode());
        }
        for entry in tasks.iter().flat_map(|task| &task.entries) {
            if entry.index <= self.last {
                batch.delete_range(entry_key(entry.index), entry_key(LogIndex(self.last.0 + 1)));
            }
            self.last = entry.index;
            self.value.clear();
            entry.encode(&mut self.value);
            batch.put(entry_key(entry.index), &self.value);
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.write(batch, sync, "cannot append")?;
        if sync {
            self.synced = self.last;
        }
        Ok(())
    }

    fn compact(&mut self, to: LogPosition) -> Result<(), LogError> {
        if to.index <= self.truncated.index {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        let after = |index: LogIndex| entry_key(LogIndex(index.0 + 1));
        batch.delete_range(after(self.truncated.index), after(to.index));
        batch.put(meta_key(b't'), encode_position(to));
        self.truncated = to;
        self.write(batch, false, "cannot compact")
    }

    fn reset(&mut self, to: LogPosition) -> Result<(), LogError> {
        let mut batch = WriteBatch::default();
        self.mark.synced_through = LogIndex(0);
        batch.put(meta_key(b'm'), self.mark.encode());
        batch.delete_range(entry_key(LogIndex(0)).as_slice(), meta_key(0).as_slice());
        batch.put(meta_key(b't'), encode_position(to));
        (self.truncated, self.last) = (to, to.index);
        self.write(batch, true, "cannot reset")?;
        self.synced = to.index;
        Ok(())
    }
}

impl RocksWriter {
    fn write(&self, batch: WriteBatch, sync: bool, what: &'static str) -> Result<(), LogError> {
        let options = if sync {
            &self.synced_write
        } else {
            &self.plain_write
        };
        self.db
            .write_opt(batch, options)
            .map_err(|error| failed(what, error))
    }
}

fn database_options(log: LogOptions) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_paranoid_checks(true);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_recycle_log_file_num(WAL_FILES_RECYCLED);
    // WAL files that are complete are listed with their synced size: a missing or short one is an error.
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_write_buffer_size(log.write_buffer_bytes);
    options.set_max_write_buffer_number(3);
    // One thread writes.
    options.set_allow_concurrent_memtable_write(false);
    options.set_enable_write_thread_adaptive_yield(false);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_max_background_jobs(2);
    options.set_max_open_files(64);
    options.set_stats_dump_period_sec(0);
    options.set_keep_log_file_num(2);
    // By default it takes the last 4 MiB of a disk at every start.
    options.set_manifest_preallocation_size(MANIFEST_PIECE_BYTES);
    options.set_log_level(LogLevel::Warn);
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(log.block_cache_bytes));
    // Filters would only cost memory: every key that is asked for exists.
    options.set_block_based_table_factory(&table);
    options
}

fn recover(db: &DB) -> Result<Recovered, LogError> {
    let read = |key| {
        db.get(key)
            .map_err(|error| failed("cannot read its state", error))
    };
    let mark = read(meta_key(b'm'))?;
    let mark = mark.map_or(Ok(Mark::default()), |bytes| Mark::decode(&bytes));
    let mark = mark.map_err(|error| LogError::Corrupt(format!("its mark: {error}")))?;
    let truncated = read(meta_key(b't'))?.map_or(Ok(LogPosition::ZERO), |bytes| decode_position(&bytes))?;

    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(entry_key(LogIndex(0)));
    options.set_iterate_upper_bound(meta_key(0));
    let mut rows = db.raw_iterator_opt(options);
    rows.seek_to_first();
    let first = rows.key().map(decode_index).transpose()?;
    rows.seek_to_last();
    let last = match rows.item() {
        Some((key, value)) => {
            let index = decode_index(key)?;
            let term = LogEntry::decode_term(value).map_err(|error| senseless(index, error))?;
            LogPosition { index, term }
        }
        None => truncated,
    };
    rows.status()
        .map_err(|error| failed("cannot read its ends", error))?;
    if first.is_some_and(|first| first.0 != truncated.index.0 + 1) {
        return Err(missing(LogIndex(truncated.index.0 + 1)));
    }
    Ok(Recovered {
        hard_state: mark.hard_state,
        truncated,
        last,
        synced_through: mark.synced_through,
    })
}

fn entry_key(index: LogIndex) -> [u8; ENTRY_KEY] {
    let mut key = [0; ENTRY_KEY];
    key[..4].copy_from_slice(&GROUP.to_be_bytes());
    key[4..].copy_from_slice(&index.0.to_be_bytes());
    key
}

fn meta_key(kind: u8) -> [u8; 6] {
    let [a, b, c, d] = GROUP.to_be_bytes();
    [a, b, c, d, META, kind]
}

fn decode_index(key: &[u8]) -> Result<LogIndex, LogError> {
    let index = key
        .get(4..)
        .and_then(|index| index.try_into().ok())
        .map(u64::from_be_bytes);
    index
        .map(LogIndex)
        .ok_or_else(|| LogError::Corrupt(format!("a key of {} bytes", key.len())))
}

fn encode_position(position: LogPosition) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&position.index.0.to_be_bytes());
    bytes[8..].copy_from_slice(&position.term.0.to_be_bytes());
    bytes
}

fn decode_position(bytes: &[u8]) -> Result<LogPosition, LogError> {
    let word = |range| {
        bytes
            .get(range)
            .and_then(|word: &[u8]| word.try_into().ok())
            .map(u64::from_be_bytes)
    };
    match (word(0..8), word(8..16), bytes.len()) {
        (Some(index), Some(term), 16) => Ok(LogPosition::new(index, term)),
        _ => Err(LogError::Corrupt(format!("its start has {} bytes", bytes.len()))),
    }
}

fn failed(what: &'static str, error: rocksdb::Error) -> LogError {
    if error.kind() == ErrorKind::Corruption {
        return LogError::Corrupt(format!("{what}: {error}"));
    }
    LogError::Io {
        what,
        source: Box::new(error),
    }
}

fn missing(index: LogIndex) -> LogError {
    LogError::Corrupt(format!("entry {index} is missing"))
}

fn senseless(index: LogIndex, error: DecodeError) -> LogError {
    LogError::Corrupt(format!("entry {index}: {error}"))
}
