//! Settings of the durable copy, and how the state is loaded from it.

use std::fs;
use std::io;
use std::path::Path;

use lictor_proto::v1::MetaRow;
use lictor_state::{Loader, State, Table};
use prost::Message;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, ErrorKind, LogLevel, Options,
    ReadOptions,
};

use super::Db;
use crate::StoreError;

/// Memtables in all. The node flushes long before, so that RocksDB seldom does by itself.
const MEMTABLES_BYTES: usize = 64 << 20;
/// For index blocks at start; nothing else is read.
const BLOCK_CACHE_BYTES: usize = 4 << 20;
/// Large, since rows are only ever scanned: fewer index entries, longer reads.
const BLOCK_BYTES: usize = 32 << 10;
const READAHEAD_BYTES: usize = 2 << 20;

pub(super) fn open(path: &Path) -> Result<Db, StoreError> {
    check_current(path)?;
    let options = options();
    let columns = Table::ALL.map(|table| ColumnFamilyDescriptor::new(table.name(), options.clone()));
    Db::open_cf_descriptors(&options, path, columns).map_err(|error| refusal(path, &error))
}

/// RocksDB would start anew beside the rows of a directory that has lost its `CURRENT`.
fn check_current(path: &Path) -> Result<(), StoreError> {
    let unreadable = |source: io::Error| StoreError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut has_rows = false;
    for entry in entries {
        let name = entry.map_err(unreadable)?.file_name();
        let name = name.to_string_lossy();
        if name == "CURRENT" {
            return Ok(());
        }
        has_rows |= name.ends_with(".sst") || name.starts_with("MANIFEST");
    }
    if has_rows {
        return Err(StoreError::Damaged {
            path: path.to_owned(),
            what: "CURRENT is missing".to_owned(),
        });
    }
    Ok(())
}

fn options() -> Options {
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
    options.set_write_buffer_size(MEMTABLES_BYTES);
    options.set_db_write_buffer_size(MEMTABLES_BYTES);
    options.set_max_background_jobs(2);
    options.set_max_open_files(256);
    options.set_keep_log_file_num(2);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options
}

/// Everything is scanned once, checksums verified, in the order of the keys.
pub(super) fn load(db: &Db, path: &Path) -> Result<(MetaRow, State), StoreError> {
    let damaged = |what: String| StoreError::Damaged {
        path: path.to_owned(),
        what,
    };
    let mut meta = MetaRow::default();
    scan(db, path, Table::Meta, |_, value| {
        meta = MetaRow::decode(value).map_err(|error| damaged(format!("the meta row: {error}")))?;
        Ok(())
    })?;
    let mut loader = Loader::new(&meta);
    for table in Table::ALL.into_iter().filter(|table| *table != Table::Meta) {
        scan(db, path, table, |key, value| {
            loader
                .push_bytes(table, key, value)
                .map_err(|error| damaged(error.to_string()))
        })?;
    }
    Ok((meta, loader.finish()))
}

fn scan(
    db: &Db,
    path: &Path,
    table: Table,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let Some(column) = db.cf_handle(table.name()) else {
        let what = format!("the state has no table {}", table.name());
        return Err(StoreError::Damaged {
            path: path.to_owned(),
            what,
        });
    };
    let mut read = ReadOptions::default();
    read.set_verify_checksums(true);
    read.fill_cache(false);
    read.set_readahead_size(READAHEAD_BYTES);
    let mut rows = db.raw_iterator_cf_opt(&column, read);
    rows.seek_to_first();
    while let Some((key, value)) = rows.item() {
        each(key, value)?;
        rows.next();
    }
    rows.status().map_err(|error| refusal(path, &error))
}

fn refusal(path: &Path, error: &rocksdb::Error) -> StoreError {
    let what = error.to_string();
    match error.kind() {
        ErrorKind::IOError if !what.contains("No such file") => StoreError::Unreadable {
            path: path.to_owned(),
            source: io::Error::other(what),
        },
        _ => StoreError::Damaged {
            path: path.to_owned(),
            what,
        },
    }
}
