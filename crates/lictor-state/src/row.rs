//! The rows of the tables, each a single allocation or a shared message.

use std::sync::Arc;

use smallvec::SmallVec;
use triomphe::ThinArc;

use crate::tree::Row;

/// A KV row. Cloning shares it.
///
/// One allocation holds the reference count, the indexes, the key, the session as its client wrote it
/// (rule R13), LockIndex and flags if one of them is not 0, and the value.
#[derive(Clone)]
pub struct KvRow(ThinArc<Head, u8>);

#[derive(Clone, Copy)]
struct Head {
    create_index: u64,
    modify_index: u64,
    key_len: u32,
    session_len: u8,
    /// Whether LockIndex and flags follow the session, 8 bytes each; else both are 0.
    marked: bool,
}

/// What [`KvRow::new`] makes a row of.
#[derive(Debug, Clone, Copy, Default)]
pub struct KvParts<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// The client's flags.
    pub flags: u64,
    /// The holder as its client wrote it; at most 255 bytes.
    pub session: Option<&'a str>,
    /// Index of the creation.
    pub create_index: u64,
    /// Index of the last change.
    pub modify_index: u64,
    /// How often the lock passed from nobody to somebody.
    pub lock_index: u64,
}

const MARKS: usize = 16;

impl KvRow {
    /// A row of these parts. A session of more than 255 bytes or a key of 4 GiB, neither of which is ever
    /// stored, counts as none.
    pub fn new(parts: &KvParts<'_>) -> Self {
        let session = parts.session.unwrap_or_default().as_bytes();
        let session_len = u8::try_from(session.len()).unwrap_or(0);
        let key_len = u32::try_from(parts.key.len()).unwrap_or(0);
        let marked = parts.lock_index != 0 || parts.flags != 0;
        // Rows of common size are put together on the stack.
        let mut bytes: SmallVec<[u8; 512]> =
            SmallVec::with_capacity(parts.key.len() + session.len() + MARKS + parts.value.len());
        bytes.extend_from_slice(&parts.key[..key_len as usize]);
        bytes.extend_from_slice(&session[..usize::from(session_len)]);
        if marked {
            bytes.extend_from_slice(&parts.lock_index.to_ne_bytes());
            bytes.extend_from_slice(&parts.flags.to_ne_bytes());
        }
        bytes.extend_from_slice(parts.value);
        let head = Head {
            create_index: parts.create_index,
            modify_index: parts.modify_index,
            key_len,
            session_len,
            marked,
        };
        Self(ThinArc::from_header_and_slice(head, &bytes))
    }

    /// The key's bytes.
    pub fn key(&self) -> &[u8] {
        &self.0.slice[..self.0.header.header.key_len as usize]
    }
    /// The value's bytes.
    pub fn value(&self) -> &[u8] {
        &self.0.slice[self.value_start()..]
    }
    /// The client's flags.
    pub fn flags(&self) -> u64 {
        self.mark(8)
    }
    /// Index of the creation.
    pub fn create_index(&self) -> u64 {
        self.head().create_index
    }
    /// Index of the last change.
    pub fn modify_index(&self) -> u64 {
        self.head().modify_index
    }
    /// How often the lock passed from nobody to somebody.
    pub fn lock_index(&self) -> u64 {
        self.mark(0)
    }
    /// The holder as its client wrote it (rule R13).
    pub fn session(&self) -> Option<&str> {
        let start = self.head().key_len as usize;
        let text = &self.0.slice[start..start + usize::from(self.head().session_len)];
        std::str::from_utf8(text).ok().filter(|text| !text.is_empty())
    }

    /// All parts, to make another row of.
    pub fn parts(&self) -> KvParts<'_> {
        KvParts {
            key: self.key(),
            value: self.value(),
            flags: self.flags(),
            session: self.session(),
            create_index: self.create_index(),
            modify_index: self.modify_index(),
            lock_index: self.lock_index(),
        }
    }

    fn head(&self) -> &Head {
        &self.0.header.header
    }

    fn marks_start(&self) -> usize {
        self.head().key_len as usize + usize::from(self.head().session_len)
    }

    fn value_start(&self) -> usize {
        self.marks_start() + if self.head().marked { MARKS } else { 0 }
    }

    fn mark(&self, offset: usize) -> u64 {
        if !self.head().marked {
            return 0;
        }
        self.0.slice[self.marks_start() + offset..]
            .first_chunk()
            .map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    }
}

impl std::fmt::Debug for KvRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.parts().fmt(f)
    }
}

impl Row for KvRow {
    fn key(&self) -> &[u8] {
        Self::key(self)
    }
    fn index(&self) -> u64 {
        self.modify_index()
    }
}

/// A key with an index: tombstones, tree-delete marks, and the rows of derived tables.
#[derive(Clone)]
pub(crate) struct Mark(ThinArc<u64, u8>);

impl Mark {
    pub(crate) fn new(key: &[u8], index: u64) -> Self {
        Self(ThinArc::from_header_and_slice(index, key))
    }
}

impl Row for Mark {
    fn key(&self) -> &[u8] {
        &self.0.slice
    }
    fn index(&self) -> u64 {
        self.0.header.header
    }
}

/// A shared message under the key that a table orders it by.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    key: Arc<[u8]>,
    pub(crate) row: Arc<T>,
}

impl<T> Entry<T> {
    pub(crate) fn new(key: &[u8], row: Arc<T>) -> Self {
        Self { key: key.into(), row }
    }
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self {
            key: Arc::clone(&self.key),
            row: Arc::clone(&self.row),
        }
    }
}

impl<T> Row for Entry<T> {
    fn key(&self) -> &[u8] {
        &self.key
    }
    fn index(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_gives_back_its_parts() {
        let full = KvParts {
            key: b"a/b",
            value: b"value",
            flags: 7,
            session: Some("8A3BDA11-bf72-ec79-f42e-244e89801e8c"),
            create_index: 3,
            modify_index: 9,
            lock_index: 2,
        };
        let plain = KvParts {
            key: b"k",
            create_index: 1,
            modify_index: 1,
            ..KvParts::default()
        };

        for parts in [
            full,
            plain,
            KvParts {
                lock_index: 1,
                ..plain
            },
            KvParts {
                flags: u64::MAX,
                ..plain
            },
        ] {
            let row = KvRow::new(&parts);

            assert_eq!(row.key(), parts.key);
            assert_eq!(row.value(), parts.value);
            assert_eq!(row.flags(), parts.flags);
            assert_eq!(row.session(), parts.session);
            assert_eq!(row.create_index(), parts.create_index);
            assert_eq!(row.modify_index(), parts.modify_index);
            assert_eq!(row.lock_index(), parts.lock_index);
        }
    }

    #[test]
    fn a_plain_row_costs_forty_bytes_beside_its_key_and_value() {
        // Reference count, length, and the fixed head: what the memory of a million keys depends on.
        assert_eq!(size_of::<usize>() + size_of::<usize>() + size_of::<Head>(), 40);
        assert_eq!(size_of::<KvRow>(), size_of::<usize>());
    }
}
