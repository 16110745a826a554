//! Loading the state: every row is read once, in the order of the keys, with its checksum verified.
//!
//! KV rows are nearly all there is, and a restart waits for them; so their upper half is read by a second
//! thread.

use std::ops::Bound;
use std::path::Path;
use std::thread;

use lictor_proto::v1::MetaRow;
use lictor_state::{KvRow, Loader, State, Table, Write};
use prost::Message;
use rocksdb::ReadOptions;

use super::Db;
use super::open::refusal;
use crate::{FORMAT, StoreError};

const READAHEAD_BYTES: usize = 2 << 20;

/// Half of the keys in a range.
type Half<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);
const WHOLE: Half<'static> = (Bound::Unbounded, Bound::Unbounded);

/// A copy of which nothing was ever flushed is the empty state.
pub(super) fn load(db: &Db, path: &Path) -> Result<(MetaRow, State), StoreError> {
    let source = Source { db, path };
    let found = source.meta()?;
    let meta = found.clone().unwrap_or_default();
    let mut loader = Loader::new(&meta);
    let rows = source.push_all(&mut loader)?;
    if found.is_none() && rows > 0 {
        return Err(source.damaged(format!(
            "{rows} rows, but none that says which state they belong to"
        )));
    }
    Ok((meta, loader.finish()))
}

#[derive(Clone, Copy)]
struct Source<'a> {
    db: &'a Db,
    path: &'a Path,
}

impl Source<'_> {
    fn meta(self) -> Result<Option<MetaRow>, StoreError> {
        let mut meta = None;
        self.scan(Table::Meta, WHOLE, |_, value| {
            let row =
                MetaRow::decode(value).map_err(|error| self.damaged(format!("the meta row: {error}")))?;
            if row.format != FORMAT {
                let found = row.format.to_string();
                let path = self.path.to_owned();
                return Err(StoreError::OtherVersion {
                    path,
                    found,
                    expected: FORMAT,
                });
            }
            meta = Some(row);
            Ok(())
        })?;
        Ok(meta)
    }

    /// Answers the number of rows.
    fn push_all(self, loader: &mut Loader) -> Result<usize, StoreError> {
        let middle = self.middle_key()?;
        let (lower, upper) = match &middle {
            Some(middle) => (
                (Bound::Unbounded, Bound::Excluded(&middle[..])),
                Some((Bound::Included(&middle[..]), Bound::Unbounded)),
            ),
            None => (WHOLE, None),
        };
        thread::scope(|scope| {
            let upper = upper.map(|upper| scope.spawn(move || self.kv_rows(upper)));
            let mut rows = self.push(loader, Table::Kv, lower)?;
            for table in Table::ALL
                .into_iter()
                .filter(|table| !matches!(table, Table::Kv | Table::Meta))
            {
                rows += self.push(loader, table, WHOLE)?;
            }
            let Some(upper) = upper else { return Ok(rows) };
            let upper = upper
                .join()
                .map_err(|_| self.damaged("reading it failed".to_owned()))??;
            rows += upper.len();
            for row in upper {
                loader
                    .push(Write::Kv(row))
                    .map_err(|error| self.damaged(error.to_string()))?;
            }
            Ok(rows)
        })
    }

    fn push(self, loader: &mut Loader, table: Table, half: Half<'_>) -> Result<usize, StoreError> {
        let mut rows = 0;
        self.scan(table, half, |key, value| {
            rows += 1;
            loader
                .push_bytes(table, key, value)
                .map_err(|error| self.damaged(error.to_string()))
        })?;
        Ok(rows)
    }

    fn kv_rows(self, half: Half<'_>) -> Result<Vec<KvRow>, StoreError> {
        let mut rows = Vec::new();
        self.scan(Table::Kv, half, |key, value| {
            match Write::decode(Table::Kv, key, value) {
                Ok(Write::Kv(row)) => rows.push(row),
                Ok(_) => return Err(self.damaged("a row of another table among the keys".to_owned())),
                Err(error) => return Err(self.damaged(error.to_string())),
            }
            Ok(())
        })?;
        Ok(rows)
    }

    /// The last key of the file at the middle of the lowest level, where nearly all rows are and files do not
    /// overlap. Any key is right, the middle is fast.
    fn middle_key(self) -> Result<Option<Vec<u8>>, StoreError> {
        let files = self.db.live_files().map_err(|error| refusal(self.path, &error))?;
        let mut files: Vec<_> = files
            .into_iter()
            .filter(|file| file.column_family_name == Table::Kv.name())
            .collect();
        let lowest = files.iter().map(|file| file.level).max();
        files.retain(|file| file.level > 0 && Some(file.level) == lowest);
        files.sort_by(|a, b| a.end_key.cmp(&b.end_key));
        let at = (files.len() / 2).checked_sub(1);
        Ok(at.and_then(|at| files.swap_remove(at).end_key))
    }

    fn scan(
        self,
        table: Table,
        half: Half<'_>,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let Some(column) = self.db.cf_handle(table.name()) else {
            return Err(self.damaged(format!("the state has no table {}", table.name())));
        };
        let mut read = ReadOptions::default();
        read.set_verify_checksums(true);
        read.fill_cache(false);
        read.set_readahead_size(READAHEAD_BYTES);
        if let Bound::Excluded(end) = half.1 {
            read.set_iterate_upper_bound(end);
        }
        let mut rows = self.db.raw_iterator_cf_opt(&column, read);
        match half.0 {
            Bound::Included(start) => rows.seek(start),
            _ => rows.seek_to_first(),
        }
        while let Some((key, value)) = rows.item() {
            each(key, value)?;
            rows.next();
        }
        rows.status().map_err(|error| refusal(self.path, &error))
    }

    fn damaged(self, what: String) -> StoreError {
        StoreError::Damaged {
            path: self.path.to_owned(),
            what,
        }
    }
}
