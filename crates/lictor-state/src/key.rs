//! Composite keys, and names as the catalog compares them.

use bytes::Bytes;
use lictor_proto::SessionId;

/// A node, service or check name as it is compared: without regard to case, as Consul does. Rows keep the
/// spelling they came with; this form stands in keys and in [`Dirty`](crate::Dirty).
pub fn fold_name(name: &str) -> Bytes {
    Bytes::from(name.to_lowercase().into_bytes())
}

/// Writes the parts of a composite key one after the other.
///
/// A name of the catalog is lower-cased; a name ends with 00 01, and a 00 within it becomes 00 FF. So keys are ordered
/// part by part, and the key of the first parts is a prefix of those keys only that begin with the same parts.
#[derive(Default)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    /// A key that begins with a name.
    pub(crate) fn name(name: &str) -> Self {
        Self::default().and_name(name)
    }

    /// A key that begins with a name that is compared byte by byte.
    pub(crate) fn exact(name: &[u8]) -> Self {
        let mut key = Self(Vec::with_capacity(name.len() + 2));
        key.push_name(name);
        key
    }

    /// A key that begins with the 16 bytes of a session.
    pub(crate) fn session(id: SessionId) -> Self {
        Self(id.0.to_vec())
    }

    /// A key that begins with an index.
    pub(crate) fn index(index: u64) -> Self {
        Self(index.to_be_bytes().to_vec())
    }

    pub(crate) fn and_name(mut self, name: &str) -> Self {
        self.push_name(name.to_lowercase().as_bytes());
        self
    }

    /// A name that is compared byte by byte.
    pub(crate) fn and_name_bytes(mut self, name: &[u8]) -> Self {
        self.push_name(name);
        self
    }

    fn push_name(&mut self, name: &[u8]) {
        for &byte in name {
            self.0.push(byte);
            if byte == 0 {
                self.0.push(0xff);
            }
        }
        self.0.extend_from_slice(&[0, 1]);
    }

    pub(crate) fn and_bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl std::ops::Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// What a row of the reaping table stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tombstone = 0,
    TreeMark = 1,
}

/// Tombstones and marks by index, so that reaping takes a range.
pub(crate) fn reap_key(index: u64, kind: Kind, key: &[u8]) -> Key {
    Key::index(index).and_bytes(&[kind as u8]).and_bytes(key)
}

/// The kind and the key of a row of the reaping table.
pub(crate) fn split_reap_key(key: &[u8]) -> (Kind, &[u8]) {
    let (head, rest) = key.split_at(9);
    (
        if head[8] == 0 {
            Kind::Tombstone
        } else {
            Kind::TreeMark
        },
        rest,
    )
}

#[cfg(test)]
mod tests {
    use super::Key;

    fn pair(a: &str, b: &str) -> Vec<u8> {
        Key::name(a).and_name(b).into_bytes()
    }

    #[test]
    fn different_names_never_make_the_same_key() {
        assert_ne!(pair("a\0", "b"), pair("a", "\0b"));
        assert_ne!(pair("a\0\u{1}b", "c"), pair("a", "b\0\u{1}c"));
        assert!(!pair("ab", "c").starts_with(&Key::name("a")));
        assert!(!pair("a\0", "c").starts_with(&Key::name("a")));
    }

    #[test]
    fn keys_are_ordered_part_by_part_and_without_case() {
        assert!(pair("a", "z") < pair("ab", "a"));
        assert!(pair("a", "z") < pair("a\0", "a"));
        assert_eq!(pair("Node", "Web"), pair("node", "web"));
    }
}
