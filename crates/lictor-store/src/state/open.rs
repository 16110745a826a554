//! Settings of the durable copy, and what RocksDB's refusals mean.

use std::fs;
use std::io;
use std::path::Path;

use lictor_state::Table;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DEFAULT_COLUMN_FAMILY_NAME,
    ErrorKind, LogLevel, Options,
};

use super::Db;
use crate::{MANIFEST_PIECE_BYTES, StoreError};

/// Memtables in all. The node flushes before, so that RocksDB seldom does by itself. Also what must be free
/// on a disk that was full before RocksDB takes up work again.
pub(super) const MEMTABLES_BYTES: usize = 32 << 20;
/// For index blocks at start; nothing else is read.
const BLOCK_CACHE_BYTES: usize = 4 << 20;
/// Large, since rows are only ever scanned: fewer index entries, longer reads.
const BLOCK_BYTES: usize = 32 << 10;
/// Small enough that a middle of the keys can be told from the files' bounds.
const FILE_BYTES: u64 = 16 << 20;

/// Opens or creates the copy, and tells whether it was there. If so, the compaction of KV rows rests until
/// [`start_compaction`], since a restart waits for the rows to be read and nothing else.
pub(super) fn open(path: &Path, memtables_bytes: usize) -> Result<(Db, bool), StoreError> {
    let exists = has_current(path)?;
    let options = options(memtables_bytes);
    // RocksDB's own column family is unused, but its options count too.
    let names = Table::ALL
        .map(Table::name)
        .into_iter()
        .chain([DEFAULT_COLUMN_FAMILY_NAME]);
    let columns = names.map(|name| {
        let mut options = options.clone();
        options.set_disable_auto_compactions(exists && name == Table::Kv.name());
        ColumnFamilyDescriptor::new(name, options)
    });
    let db = Db::open_cf_descriptors(&options, path, columns).map_err(|error| refusal(path, &error))?;
    Ok((db, exists))
}

/// Lets RocksDB tidy up what it found. Costs some fsyncs, which a first start need not wait for.
pub(super) fn start_compaction(db: &Db, path: &Path) -> Result<(), StoreError> {
    let Some(column) = db.cf_handle(Table::Kv.name()) else {
        return Ok(());
    };
    db.set_options_cf(&column, &[("disable_auto_compactions", "false")])
        .map_err(|error| refusal(path, &error))
}

/// RocksDB would start anew beside the rows of a directory that has lost its `CURRENT`. The first manifest
/// alone is what is left of a creation that was cut short: RocksDB begins the next one as soon as the first
/// is in force.
fn has_current(path: &Path) -> Result<bool, StoreError> {
    let unreadable = |cause: io::Error| StoreError::Unreadable {
        path: path.to_owned(),
        cause,
    };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(unreadable(error)),
    };
    let mut has_rows = false;
    for entry in entries {
        let name = entry.map_err(unreadable)?.file_name();
        let name = name.to_string_lossy();
        if name == "CURRENT" {
            return Ok(true);
        }
        has_rows |= name.ends_with(".sst") || (name.starts_with("MANIFEST") && name != "MANIFEST-000001");
    }
    if has_rows {
        return Err(StoreError::Damaged {
            path: path.to_owned(),
            what: "CURRENT is missing".to_owned(),
        });
    }
    Ok(false)
}

fn options(memtables_bytes: usize) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_size(BLOCK_BYTES);
    table.set_block_cache(&Cache::new_lru_cache(BLOCK_CACHE_BYTES));
    table.set_cache_index_and_filter_blocks(true);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_atomic_flush(true);
    options.set_paranoid_checks(true);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(memtables_bytes);
    options.set_db_write_buffer_size(memtables_bytes);
    options.set_target_file_size_base(FILE_BYTES);
    options.set_skip_stats_update_on_db_open(true);
    options.set_max_background_jobs(2);
    options.set_max_open_files(256);
    options.set_keep_log_file_num(2);
    // By default it takes the last 4 MiB of a disk at every start.
    options.set_manifest_preallocation_size(MANIFEST_PIECE_BYTES);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options
}

pub(super) fn refusal(path: &Path, error: &rocksdb::Error) -> StoreError {
    let what = error.to_string();
    match error.kind() {
        ErrorKind::IOError if !what.contains("No such file") => StoreError::Unreadable {
            path: path.to_owned(),
            cause: io::Error::other(what),
        },
        _ => StoreError::Damaged {
            path: path.to_owned(),
            what,
        },
    }
}
