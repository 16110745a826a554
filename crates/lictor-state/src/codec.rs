//! Rows as bytes: what the durable copy and snapshots hold.
//!
//! | table | key | value |
//! |---|---|---|
//! | `kv` | the key | see below |
//! | `kv_tomb` | the deleted key | index, 8 bytes |
//! | `kv_tree` | the prefix of a recursive delete | index, 8 bytes |
//! | `session` | the id, 16 bytes | `SessionRow` |
//! | `lock_delay` | the key | `LockDelayRow` |
//! | `node` | name | `NodeRow` |
//! | `service` | node name, service id | `ServiceRow` |
//! | `check` | node name, check id | `CheckRow` |
//! | `prepared_query` | the id, 16 bytes | `PreparedQueryRow` |
//! | `queue` | name of the fair lock, index | `QueueEntryRow` |
//! | `queue_free` | name of the fair lock | index, 8 bytes |
//! | `kv_ttl` | the key | `KvTtlRow` |
//! | `lock_wait` | the key, index | `LockWaitRow` |
//! | `meta` | none (empty) | `MetaRow` |
//!
//! Numbers are big-endian. A name of the catalog is lower-cased. Where more follows a name, a 00 within it is written
//! 00 FF, and it ends with 00 01, so that keys are ordered name by name. Messages are those of `command.proto`. A KV value:
//!
//! | offset | length | what |
//! |---|---|---|
//! | 0 | 8 | CreateIndex |
//! | 8 | 8 | ModifyIndex |
//! | 16 | 8 | LockIndex |
//! | 24 | 8 | flags |
//! | 32 | 1 | length S of the session, 0 without one |
//! | 33 | S | the session as its client wrote it |
//! | 33 + S | rest | the value |

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::key::Key;
use crate::queue::entry_key;
use crate::row::{KvParts, KvRow};
use crate::{State, Write};

const KV_HEAD: usize = 33;

/// The tables of the durable copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// KV rows.
    Kv,
    /// Tombstones of single keys.
    KvTomb,
    /// Marks of recursive deletes.
    KvTree,
    /// Sessions.
    Session,
    /// Lock-delays.
    LockDelay,
    /// Nodes.
    Node,
    /// Services.
    Service,
    /// Checks.
    Check,
    /// Entries of fair queues.
    Queue,
    /// Names of fair locks that nobody stands in line for.
    QueueFree,
    /// TTLs of keys.
    KvTtl,
    /// Prepared queries.
    PreparedQuery,
    /// Places in the lines for the locks of keys.
    LockWait,
    /// The single `MetaRow`, which the owner of the durable copy writes.
    Meta,
}

impl Table {
    /// All tables, in the order of [`State::dump`].
    pub const ALL: [Self; 14] = [
        Self::Kv,
        Self::KvTomb,
        Self::KvTree,
        Self::Session,
        Self::LockDelay,
        Self::Node,
        Self::Service,
        Self::Check,
        Self::Queue,
        Self::QueueFree,
        Self::KvTtl,
        Self::PreparedQuery,
        Self::LockWait,
        Self::Meta,
    ];

    /// The name on disk, which never changes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kv => "kv",
            Self::KvTomb => "kv_tomb",
            Self::KvTree => "kv_tree",
            Self::Session => "session",
            Self::LockDelay => "lock_delay",
            Self::Node => "node",
            Self::Service => "service",
            Self::Check => "check",
            Self::PreparedQuery => "prepared_query",
            Self::Queue => "queue",
            Self::QueueFree => "queue_free",
            Self::KvTtl => "kv_ttl",
            Self::LockWait => "lock_wait",
            Self::Meta => "meta",
        }
    }

    /// The number in snapshot streams, above 0, which never changes.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Kv => 1,
            Self::KvTomb => 2,
            Self::KvTree => 3,
            Self::Session => 4,
            Self::LockDelay => 5,
            Self::Node => 6,
            Self::Service => 7,
            Self::Check => 8,
            Self::Meta => 9,
            Self::PreparedQuery => 60,
            Self::LockWait => 61,
            Self::Queue => 10,
            Self::QueueFree => 11,
            Self::KvTtl => 12,
        }
    }
}

/// What a [`Write`] does to its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Puts [`Write::value_bytes`] under [`Write::key_bytes`].
    Put,
    /// Removes the row under [`Write::key_bytes`].
    Delete,
    /// Removes all rows whose keys begin with [`Write::key_bytes`]; see [`prefix_end`](crate::prefix_end).
    DeletePrefix,
}

/// Bytes that are no row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The value does not have the form that its table asks for.
    #[error("damaged row in table {}: {what}", table.name())]
    Damaged {
        /// The table.
        table: Table,
        /// What is wrong.
        what: String,
    },
    /// The row lies under a key that is not its own.
    #[error("row of table {} lies under a key that is not its own", table.name())]
    Misplaced {
        /// The table.
        table: Table,
    },
}

impl Write {
    /// The table that is written.
    pub fn table(&self) -> Table {
        match self {
            Self::Kv(_) | Self::KvGone(_) | Self::KvTreeGone(_) => Table::Kv,
            Self::Tombstone { .. } | Self::TombstoneGone(_) | Self::TombstoneTreeGone(_) => Table::KvTomb,
            Self::TreeMark { .. } | Self::TreeMarkGone(_) | Self::TreeMarkTreeGone(_) => Table::KvTree,
            Self::Session(_) | Self::SessionGone(_) => Table::Session,
            Self::LockDelay(_) | Self::LockDelayGone(_) => Table::LockDelay,
            Self::Node(_) | Self::NodeGone(_) => Table::Node,
            Self::Service(_) | Self::ServiceGone(..) => Table::Service,
            Self::Check(_) | Self::CheckGone(..) => Table::Check,
            Self::PreparedQuery(_) | Self::PreparedQueryGone(_) => Table::PreparedQuery,
            Self::Queue(_) | Self::QueueGone(..) => Table::Queue,
            Self::QueueFree { .. } | Self::QueueFreeGone(_) => Table::QueueFree,
            Self::KvTtl(_) | Self::KvTtlGone(_) | Self::KvTtlTreeGone(_) => Table::KvTtl,
            Self::LockWait(_) | Self::LockWaitGone(..) => Table::LockWait,
        }
    }

    /// What is done to the table.
    pub fn action(&self) -> Action {
        match self {
            Self::Kv(_)
            | Self::Tombstone { .. }
            | Self::TreeMark { .. }
            | Self::Session(_)
            | Self::LockDelay(_)
            | Self::Node(_)
            | Self::Service(_)
            | Self::Check(_)
            | Self::PreparedQuery(_)
            | Self::Queue(_)
            | Self::QueueFree { .. }
            | Self::KvTtl(_)
            | Self::LockWait(_) => Action::Put,
            Self::KvTreeGone(_)
            | Self::TombstoneTreeGone(_)
            | Self::TreeMarkTreeGone(_)
            | Self::KvTtlTreeGone(_) => Action::DeletePrefix,
            Self::KvGone(_)
            | Self::TombstoneGone(_)
            | Self::TreeMarkGone(_)
            | Self::SessionGone(_)
            | Self::LockDelayGone(_)
            | Self::NodeGone(_)
            | Self::ServiceGone(..)
            | Self::CheckGone(..)
            | Self::PreparedQueryGone(_)
            | Self::QueueGone(..)
            | Self::QueueFreeGone(_)
            | Self::KvTtlGone(_)
            | Self::LockWaitGone(..) => Action::Delete,
        }
    }

    /// The key in [`Self::table`], or the prefix for [`Action::DeletePrefix`].
    pub fn key_bytes(&self) -> Bytes {
        match self {
            Self::Kv(row) => Bytes::copy_from_slice(row.key()),
            Self::LockDelay(row) => row.key.clone(),
            Self::KvTtl(row) => row.key.clone(),
            Self::KvGone(key)
            | Self::KvTreeGone(key)
            | Self::Tombstone { key, .. }
            | Self::TombstoneGone(key)
            | Self::TombstoneTreeGone(key)
            | Self::TreeMark { prefix: key, .. }
            | Self::TreeMarkGone(key)
            | Self::TreeMarkTreeGone(key)
            | Self::LockDelayGone(key)
            | Self::PreparedQueryGone(key)
            | Self::QueueFree { name: key, .. }
            | Self::QueueFreeGone(key)
            | Self::KvTtlGone(key)
            | Self::KvTtlTreeGone(key) => key.clone(),
            Self::Session(row) => row.id.clone(),
            Self::PreparedQuery(row) => row.id.clone(),
            Self::SessionGone(id) => Bytes::copy_from_slice(&id.0),
            Self::Node(row) => Key::name(&row.node).into_bytes().into(),
            Self::NodeGone(node) => Key::name(node).into_bytes().into(),
            Self::Service(row) => Key::name(&row.node).and_name(&row.id).into_bytes().into(),
            Self::Check(row) => Key::name(&row.node).and_name(&row.check_id).into_bytes().into(),
            Self::Queue(row) => entry_key(&row.name, row.index).into_bytes().into(),
            Self::LockWait(row) => entry_key(&row.key, row.index).into_bytes().into(),
            Self::QueueGone(name, index) | Self::LockWaitGone(name, index) => {
                entry_key(name, *index).into_bytes().into()
            }
            Self::ServiceGone(node, id) | Self::CheckGone(node, id) => {
                Key::name(node).and_name(id).into_bytes().into()
            }
        }
    }

    /// The value to put; empty where nothing is put.
    pub fn value_bytes(&self) -> Vec<u8> {
        match self {
            Self::Kv(row) => encode_kv(row),
            Self::Tombstone { index, .. } | Self::TreeMark { index, .. } | Self::QueueFree { index, .. } => {
                index.to_be_bytes().to_vec()
            }
            Self::Session(row) => row.encode_to_vec(),
            Self::LockDelay(row) => row.encode_to_vec(),
            Self::Node(row) => row.encode_to_vec(),
            Self::Service(row) => row.encode_to_vec(),
            Self::Check(row) => row.encode_to_vec(),
            Self::PreparedQuery(row) => row.encode_to_vec(),
            Self::Queue(row) => row.encode_to_vec(),
            Self::KvTtl(row) => row.encode_to_vec(),
            Self::LockWait(row) => row.encode_to_vec(),
            _ => Vec::new(),
        }
    }

    /// Reads a row back.
    ///
    /// # Errors
    /// [`CodecError::Damaged`] for a value that is none of its table, [`CodecError::Misplaced`] for a row that
    /// lies under another row's key.
    pub fn decode(table: Table, key: &[u8], value: &[u8]) -> Result<Self, CodecError> {
        let owned = || Bytes::copy_from_slice(key);
        let write = match table {
            Table::Kv => return decode_kv(key, value),
            Table::KvTomb => {
                return Ok(Self::Tombstone {
                    key: owned(),
                    index: decode_index(table, value)?,
                });
            }
            Table::KvTree => {
                return Ok(Self::TreeMark {
                    prefix: owned(),
                    index: decode_index(table, value)?,
                });
            }
            Table::Session => Self::Session(decode_message(table, value)?),
            Table::LockDelay => Self::LockDelay(decode_plain(table, value)?),
            Table::Node => Self::Node(decode_message(table, value)?),
            Table::Service => Self::Service(decode_message(table, value)?),
            Table::Check => Self::Check(decode_message(table, value)?),
            Table::PreparedQuery => Self::PreparedQuery(decode_message(table, value)?),
            Table::Queue => Self::Queue(decode_message(table, value)?),
            Table::QueueFree => {
                return Ok(Self::QueueFree {
                    name: owned(),
                    index: decode_index(table, value)?,
                });
            }
            Table::KvTtl => Self::KvTtl(decode_plain(table, value)?),
            Table::LockWait => Self::LockWait(decode_message(table, value)?),
            Table::Meta => return Err(damaged(table, "the meta row is not part of the state's rows")),
        };
        let has_id = matches!(table, Table::Session | Table::PreparedQuery);
        if write.key_bytes() != key || (has_id && key.len() != 16) {
            return Err(CodecError::Misplaced { table });
        }
        Ok(write)
    }
}

impl State {
    /// All rows in the order of [`Table::ALL`] and of their keys. Equal states give equal rows.
    pub fn dump(&self) -> impl Iterator<Item = Write> + '_ {
        use crate::tree::Row;
        let bytes = Bytes::copy_from_slice;
        let kv = self.kv.rows.iter().cloned().map(Write::Kv);
        let tombstones = self.kv.tombstones.iter();
        let marks = self.kv.tree_marks.iter();
        kv.chain(tombstones.map(move |row| Write::Tombstone {
            key: bytes(row.key()),
            index: row.index(),
        }))
        .chain(marks.map(move |row| Write::TreeMark {
            prefix: bytes(row.key()),
            index: row.index(),
        }))
        .chain(
            self.sessions
                .rows
                .iter()
                .map(|entry| Write::Session(Arc::clone(&entry.row))),
        )
        .chain(
            self.kv
                .lock_delays
                .iter()
                .map(|entry| Write::LockDelay((*entry.row).clone())),
        )
        .chain(
            self.catalog
                .nodes
                .iter()
                .map(|entry| Write::Node(Arc::clone(&entry.row))),
        )
        .chain(
            self.catalog
                .services
                .iter()
                .map(|entry| Write::Service(Arc::clone(&entry.row))),
        )
        .chain(
            self.catalog
                .checks
                .iter()
                .map(|entry| Write::Check(Arc::clone(&entry.row))),
        )
        .chain(self.queue_entries().map(|row| Write::Queue(Arc::clone(row))))
        .chain(self.queues.free.iter().map(move |row| Write::QueueFree {
            name: bytes(row.key()),
            index: row.index(),
        }))
        .chain(
            self.kv
                .ttls
                .iter()
                .map(|entry| Write::KvTtl((*entry.row).clone())),
        )
        .chain(
            self.queries
                .rows
                .iter()
                .map(|entry| Write::PreparedQuery(Arc::clone(&entry.row))),
        )
        .chain(self.lock_waits().map(|row| Write::LockWait(Arc::clone(row))))
    }
}

fn encode_kv(row: &KvRow) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(kv_len(row));
    put_kv(row, &mut bytes);
    bytes
}

/// The length of a KV row's value as it is stored.
pub(crate) fn kv_len(row: &KvRow) -> usize {
    KV_HEAD + row.session().unwrap_or_default().len() + row.value().len()
}

/// Appends a KV row's value as it is stored.
pub(crate) fn put_kv(row: &KvRow, bytes: &mut Vec<u8>) {
    let session = row.session().unwrap_or_default().as_bytes();
    for number in [
        row.create_index(),
        row.modify_index(),
        row.lock_index(),
        row.flags(),
    ] {
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.push(u8::try_from(session.len()).unwrap_or(0));
    bytes.extend_from_slice(session);
    bytes.extend_from_slice(row.value());
}

fn decode_kv(key: &[u8], value: &[u8]) -> Result<Write, CodecError> {
    let damage = |what| damaged(Table::Kv, what);
    let (head, rest) = value
        .split_first_chunk::<KV_HEAD>()
        .ok_or_else(|| damage("shorter than its head"))?;
    let (numbers, _) = head.as_chunks::<8>();
    let number = |at: usize| u64::from_be_bytes(numbers[at]);
    let (session, value) = rest
        .split_at_checked(usize::from(head[KV_HEAD - 1]))
        .ok_or_else(|| damage("shorter than its session"))?;
    let session = std::str::from_utf8(session).map_err(|_| damage("its session is no text"))?;
    Ok(Write::Kv(KvRow::new(&KvParts {
        key,
        value,
        flags: number(3),
        session: Some(session),
        create_index: number(0),
        modify_index: number(1),
        lock_index: number(2),
    })))
}

fn decode_index(table: Table, value: &[u8]) -> Result<u64, CodecError> {
    value
        .try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| damaged(table, "not eight bytes"))
}

fn decode_plain<M: Message + Default>(table: Table, value: &[u8]) -> Result<M, CodecError> {
    M::decode(value).map_err(|error| damaged(table, &error.to_string()))
}

fn decode_message<M: Message + Default>(table: Table, value: &[u8]) -> Result<Arc<M>, CodecError> {
    decode_plain(table, value).map(Arc::new)
}

fn damaged(table: Table, what: &str) -> CodecError {
    CodecError::Damaged {
        table,
        what: what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both the durable copy and snapshots keep one thing for each table, by its place.
    #[test]
    fn every_table_stands_at_its_place_in_the_list_of_all() {
        let places: Vec<_> = Table::ALL.iter().map(|table| *table as usize).collect();
        assert!(places.iter().copied().eq(0..Table::ALL.len()), "{places:?}");
    }

    #[test]
    fn a_kv_row_has_the_documented_bytes() {
        let row = KvRow::new(&KvParts {
            key: b"a",
            value: b"xy",
            flags: 4,
            session: Some("S"),
            create_index: 1,
            modify_index: 0x0203,
            lock_index: 5,
        });

        let bytes = Write::Kv(row).value_bytes();

        let mut expected = vec![
            0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 3, 0, 0, 0, 0, 0, 0, 0, 5,
        ];
        expected.extend([0, 0, 0, 0, 0, 0, 0, 4, 1, b'S', b'x', b'y']);
        assert_eq!(bytes, expected);
        let back = Write::decode(Table::Kv, b"a", &bytes).unwrap();
        assert_eq!(
            (back.key_bytes(), back.value_bytes()),
            (Bytes::from_static(b"a"), expected)
        );
    }

    #[test]
    fn damaged_rows_are_refused() {
        for (table, key, value) in [
            (Table::Kv, &b"k"[..], &[0u8; 32][..]),
            (Table::Kv, b"k", &[1u8; 33]),
            (Table::KvTomb, b"k", &[0u8; 7]),
            (Table::Session, b"k", &[]),
            (Table::Node, b"n", &[0xff, 0xff]),
            (Table::Node, b"other", &[]),
            (Table::Queue, b"n\0\x01\0\0\0\0\0\0\0\x02", &[]),
            (Table::QueueFree, b"n", &[0; 9]),
            (Table::LockWait, b"k\0\x01\0\0\0\0\0\0\0\x02", &[]),
            (Table::Meta, b"", &[]),
        ] {
            assert!(Write::decode(table, key, value).is_err(), "{table:?}");
        }
    }
}
