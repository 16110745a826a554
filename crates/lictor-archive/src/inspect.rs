//! Counts and sizes of what an archive holds.

use std::collections::BTreeMap;
use std::io::{BufRead, Read};

use lictor_state::Table;
use lictor_state::snapshot::{Decoder, Piece, Progress, SnapshotError};

use crate::consul::{self, KVS};
use crate::msgpack::{Source, Value};
use crate::read::{RECORD_MAX_BYTES, last_index};
use crate::{ArchiveError, LICTOR_RECORD, Meta, UNPACKED_MAX_BYTES};

/// How many rows there are of one kind, and their size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// The kind, or the beginning of the keys.
    pub name: String,
    /// Bytes in `state.bin`.
    pub sum_bytes: u64,
    /// How many.
    pub count: u64,
}

/// Which keys to count, and by what.
#[derive(Debug, Clone)]
pub struct KvSizes {
    /// Names of a key, divided by slashes, that are told apart.
    pub depth: usize,
    /// Only keys that begin so.
    pub filter: String,
}

/// What an archive holds. Both lists begin with the largest.
#[derive(Debug)]
pub struct Inspection {
    /// Where the state stood.
    pub meta: Meta,
    /// By kind.
    pub kinds: Vec<Stat>,
    /// By the beginning of the keys, if asked for.
    pub keys: Vec<Stat>,
}

/// Counts what an archive holds, and checks its digests.
///
/// # Errors
/// See [`ArchiveError`].
pub fn inspect(source: impl Read, keys: Option<&KvSizes>) -> Result<Inspection, ArchiveError> {
    let mut counts = Counts {
        wanted: keys,
        kinds: BTreeMap::new(),
        keys: BTreeMap::new(),
    };
    let (meta, ()) = crate::open::open(source, |state_bin| counts.content(state_bin))?;
    Ok(Inspection {
        meta,
        kinds: sorted(counts.kinds),
        keys: sorted(counts.keys),
    })
}

fn sorted(counts: BTreeMap<String, (u64, u64)>) -> Vec<Stat> {
    let stat = |(name, (count, sum_bytes))| Stat {
        name,
        sum_bytes,
        count,
    };
    let mut stats: Vec<_> = counts.into_iter().map(stat).collect();
    stats.sort_by(|a, b| b.sum_bytes.cmp(&a.sum_bytes).then_with(|| a.name.cmp(&b.name)));
    stats
}

struct Counts<'a> {
    wanted: Option<&'a KvSizes>,
    kinds: BTreeMap<String, (u64, u64)>,
    keys: BTreeMap<String, (u64, u64)>,
}

impl Counts<'_> {
    fn content(&mut self, state_bin: &mut dyn BufRead) -> Result<(), ArchiveError> {
        let mut source = Source::new(state_bin);
        last_index(&mut source)?;
        // As Consul counts: what comes before the first record belongs to it.
        let mut before = 0;
        let mut next = source.byte()?;
        if next == Some(LICTOR_RECORD) {
            return self.stream(&mut source);
        }
        while let Some(kind) = next {
            let value = source.value()?;
            let len = source.read_bytes - before;
            count(&mut self.kinds, &consul::name(kind), len);
            if kind == KVS {
                self.key(key_of(&value), len);
            }
            before = source.read_bytes;
            next = source.byte()?;
        }
        Ok(())
    }

    fn stream(&mut self, source: &mut Source<'_>) -> Result<(), ArchiveError> {
        let mut decoder = Decoder::new(UNPACKED_MAX_BYTES);
        let mut bytes = Vec::new();
        loop {
            source.bytes_into(RECORD_MAX_BYTES, &mut bytes)?;
            let progress = decoder.push(&bytes, &mut |piece| {
                if let Piece::Row(table, key, value) = piece {
                    let len = (key.len() + value.len()) as u64;
                    count(&mut self.kinds, table_name(table), len);
                    if table == Table::Kv {
                        self.key(&key, len);
                    }
                }
                Ok(())
            })?;
            match source.byte()? {
                Some(LICTOR_RECORD) if progress == Progress::More => {}
                None if progress != Progress::More => return Ok(()),
                None => return Err(SnapshotError::CutOff.into()),
                Some(_) => return Err(consul::damaged("something follows its end")),
            }
        }
    }

    fn key(&mut self, key: &[u8], len: u64) {
        let Some(KvSizes { depth, filter }) = self.wanted else {
            return;
        };
        if key.starts_with(filter.as_bytes()) {
            let key = String::from_utf8_lossy(key);
            let names: Vec<_> = key.split('/').take(*depth).collect();
            count(&mut self.keys, &names.join("/"), len);
        }
    }
}

fn key_of(value: &Value) -> &[u8] {
    value.field("Key").bytes().unwrap_or_default()
}

fn count(counts: &mut BTreeMap<String, (u64, u64)>, name: &str, len: u64) {
    // Looked up first: names repeat far more often than not.
    match counts.get_mut(name) {
        Some((count, sum)) => {
            *count += 1;
            *sum += len;
        }
        None => {
            counts.insert(name.to_owned(), (1, len));
        }
    }
}

fn table_name(table: Table) -> &'static str {
    match table {
        Table::Kv => "KVS",
        Table::KvTomb | Table::KvTree => "Tombstone",
        Table::Session => "Session",
        Table::LockDelay => "LockDelay",
        Table::Node => "Node",
        Table::Service => "Service",
        Table::Check => "Check",
        Table::PreparedQuery => "PreparedQuery",
        Table::Queue | Table::QueueFree => "FairLock",
        Table::KvTtl => "KVTTL",
        Table::LockWait => "LockWait",
        Table::Meta => "Meta",
    }
}
