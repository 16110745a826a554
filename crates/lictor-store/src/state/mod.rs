//! The durable copy of the state: one column family a table, no WAL, atomic flush.
//!
//! The raft log already holds every command, so a second log would be waste. Rows and the applied index of a
//! batch go into RocksDB in one batch, and all column families are flushed together; so after a crash the
//! copy stands at exactly some applied index, and replay of the log goes on from there. Nothing is read from
//! it but at start, when the whole state is loaded into memory.
//!
//! Why it is correct: a batch is atomic in the memtables, an atomic flush is atomic over the column families,
//! and the applied index is part of both (`a_crash_leaves_the_state_of_one_applied_index`); rows that the log
//! would bring twice are not a danger, since replay begins right after that index.

mod load;
mod open;
mod place;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use bytes::Bytes;
use lictor_node::{Checkpoint, CheckpointError, WriteSet};
use lictor_proto::LogIndex;
use lictor_proto::v1::MetaRow;
use lictor_state::{Action, State, Table, Write, prefix_end};
use prost::Message;
use rocksdb::{BoundColumnFamily, DBWithThreadMode, FlushOptions, MultiThreaded, WriteBatch, WriteOptions};

use crate::StoreError;

type Db = DBWithThreadMode<MultiThreaded>;

/// Bytes of rows that go into a new copy at once.
const INSTALL_BATCH_BYTES: usize = 1 << 20;

/// The durable copy of the state. Owned by the checkpoint thread.
pub struct StateStore {
    db: Db,
    /// Where the first copy was; see [`place`].
    first: PathBuf,
    /// Where this one is.
    path: PathBuf,
    memtables_bytes: usize,
    meta: MetaRow,
    write_options: WriteOptions,
}

/// What [`StateStore::open`] found.
#[derive(Debug)]
pub struct OpenedState {
    /// The state as of the last flush; empty in a new directory.
    pub state: State,
    /// The encoded members as of the last flush; `None` before the first one.
    pub members: Option<Vec<u8>>,
    /// Whether the state was installed whole at its applied index, rather than reached by applying entries.
    pub is_installed: bool,
}

impl StateStore {
    /// Opens or creates the copy and loads the state.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`], [`StoreError::Damaged`] and [`StoreError::OtherVersion`].
    pub fn open(path: &Path) -> Result<(Self, OpenedState), StoreError> {
        Self::open_with(path, open::MEMTABLES_BYTES)
    }

    fn open_with(first: &Path, memtables_bytes: usize) -> Result<(Self, OpenedState), StoreError> {
        let path = &place::find(first)?;
        let (db, was_there) = open::open(path, memtables_bytes)?;
        let (meta, state) = load::load(&db, path)?;
        if was_there {
            open::start_compaction(&db, path)?;
        }
        let members = (!meta.conf_state.is_empty()).then(|| meta.conf_state.to_vec());
        let is_installed = meta.installed_index != 0 && meta.installed_index == meta.applied_index;
        let mut write_options = WriteOptions::default();
        write_options.disable_wal(true);
        let store = Self {
            db,
            first: first.to_owned(),
            path: path.clone(),
            memtables_bytes,
            meta,
            write_options,
        };
        let opened = OpenedState {
            state,
            members,
            is_installed,
        };
        Ok((store, opened))
    }

    /// Records the members of a cluster that begins, durably.
    ///
    /// # Errors
    /// As for [`Checkpoint::flush`].
    pub fn found(&mut self, state: &State, members: Vec<u8>) -> Result<(), CheckpointError> {
        self.write(&WriteSet {
            meta: state.meta(),
            members: Some(members),
            writes: Vec::new(),
        })?;
        self.flush().map(drop)
    }

    /// Makes a whole new copy beside this one; nothing of it is in force yet.
    fn make(&self, state: &State, members: Option<&[u8]>) -> Result<Self, CheckpointError> {
        let path = place::after(&self.first, &self.path);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_failure(&error)),
            _ => {}
        }
        let (db, _) =
            open::open(&path, self.memtables_bytes).map_err(|error| failure_of(&error.to_string()))?;
        let mut write_options = WriteOptions::default();
        write_options.disable_wal(true);
        let mut meta = MetaRow {
            cluster_id: self.meta.cluster_id.clone(),
            ..state.meta()
        };
        meta.format = crate::dir::FORMAT;
        meta.installed_index = meta.applied_index;
        meta.conf_state = match members {
            Some(members) => Bytes::copy_from_slice(members),
            None => self.meta.conf_state.clone(),
        };
        let mut copy = Self {
            db,
            first: self.first.clone(),
            path,
            memtables_bytes: self.memtables_bytes,
            meta,
            write_options,
        };
        copy.fill(state)?;
        copy.flush()?;
        Ok(copy)
    }

    /// Writes all rows, and then the meta row that says which state they belong to.
    fn fill(&mut self, state: &State) -> Result<(), CheckpointError> {
        let columns = self.columns()?;
        let mut batch = WriteBatch::default();
        for row in state.dump() {
            batch.put_cf(&columns[row.table() as usize], row.key_bytes(), row.value_bytes());
            if batch.size_in_bytes() >= INSTALL_BATCH_BYTES {
                self.db
                    .write_opt(std::mem::take(&mut batch), &self.write_options)
                    .map_err(failure)?;
            }
        }
        batch.put_cf(&columns[Table::Meta as usize], b"", self.meta.encode_to_vec());
        self.db.write_opt(batch, &self.write_options).map_err(failure)
    }

    fn column(&self, table: Table) -> Result<Arc<BoundColumnFamily<'_>>, CheckpointError> {
        self.db
            .cf_handle(table.name())
            .ok_or_else(|| CheckpointError::Failed(format!("the state has no table {}", table.name())))
    }

    fn columns(&self) -> Result<Vec<Arc<BoundColumnFamily<'_>>>, CheckpointError> {
        Table::ALL.into_iter().map(|table| self.column(table)).collect()
    }
}

impl Checkpoint for StateStore {
    fn write(&mut self, set: &WriteSet) -> Result<(), CheckpointError> {
        let mut meta = set.meta.clone();
        meta.format = crate::dir::FORMAT;
        meta.conf_state = match &set.members {
            Some(members) => members.clone().into(),
            None => self.meta.conf_state.clone(),
        };
        meta.cluster_id = self.meta.cluster_id.clone();
        meta.installed_index = self.meta.installed_index;
        let mut batch = WriteBatch::default();
        let columns = self.columns()?;
        for (at, write) in set.writes.iter().enumerate() {
            let column = &columns[write.table() as usize];
            let key = write.key_bytes();
            match write.action() {
                Action::Put => batch.put_cf(column, &key, write.value_bytes()),
                Action::Delete => batch.delete_cf(column, &key),
                Action::DeletePrefix => {
                    let end = prefix_end(&key).unwrap_or_else(|| {
                        let put_before = set.writes[..at].iter().filter(|put| put.table() == write.table());
                        behind_all(&self.db, column, put_before.map(Write::key_bytes).max())
                    });
                    if key < end {
                        batch.delete_range_cf(column, &key[..], &end[..]);
                    }
                }
            }
        }
        batch.put_cf(&columns[Table::Meta as usize], b"", meta.encode_to_vec());
        drop(columns);
        self.db.write_opt(batch, &self.write_options).map_err(failure)?;
        self.meta = meta;
        Ok(())
    }

    fn install(&mut self, state: &State, members: Option<&[u8]>) -> Result<LogIndex, CheckpointError> {
        let copy = self.make(state, members)?;
        place::switch(&self.first, &copy.path).map_err(|error| io_failure(&error))?;
        let replaced = std::mem::replace(self, copy);
        let old = replaced.path.clone();
        drop(replaced);
        if let Err(error) = fs::remove_dir_all(&old) {
            tracing::warn!(path = %old.display(), %error, "a copy of the state that was replaced is removed at the next start");
        }
        Ok(LogIndex(self.meta.applied_index))
    }

    fn flush(&mut self) -> Result<LogIndex, CheckpointError> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let columns = self.columns()?;
        let columns: Vec<_> = columns.iter().collect();
        self.db.flush_cfs_opt(&columns, &options).map_err(failure)?;
        Ok(LogIndex(self.meta.applied_index))
    }

    fn space(&self) -> Result<(u64, u64), String> {
        let found = rustix::fs::statvfs(&self.path).map_err(|error| error.to_string())?;
        Ok((found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize))
    }
}

/// An end for a range over a prefix of nothing but 0xff bytes, which has none of its own: right behind the
/// last row, be it in the database or, with `highest`, put by the very batch.
fn behind_all(db: &Db, column: &Arc<BoundColumnFamily<'_>>, highest: Option<Bytes>) -> Vec<u8> {
    let mut rows = db.raw_iterator_cf(column);
    rows.seek_to_last();
    let mut end = rows
        .key()
        .unwrap_or_default()
        .max(&highest.unwrap_or_default())
        .to_vec();
    end.push(0);
    end
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function for map_err")]
fn failure(error: rocksdb::Error) -> CheckpointError {
    failure_of(error.as_ref())
}

fn io_failure(error: &io::Error) -> CheckpointError {
    match error.kind() {
        io::ErrorKind::StorageFull => CheckpointError::Full(error.to_string()),
        _ => CheckpointError::Failed(error.to_string()),
    }
}

fn failure_of(text: &str) -> CheckpointError {
    let text = text.to_owned();
    // RocksDB reports a full disk as an IO error (or, while it recovers by itself, with the sub-code
    // NoSpace).
    if text.contains("No space left") || text.contains("NoSpace") || text.contains("Space limit") {
        return CheckpointError::Full(text);
    }
    CheckpointError::Failed(text)
}
