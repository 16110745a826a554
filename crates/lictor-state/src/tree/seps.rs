//! The separators of an inner node: packed, immutable, and shared by all copies of the node.

use std::cmp::Ordering;

/// The keys between the children of an inner node, in one block.
///
/// A search compares eight bytes at a time: what all separators have in common is skipped, and the next
/// eight bytes of each stand beside its place as a number.
#[derive(Debug)]
pub(super) struct Seps {
    bytes: Box<[u8]>,
    slots: Box<[Slot]>,
    /// How many bytes all separators have in common.
    common: usize,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// The eight bytes after the common ones, big-endian, padded with zeros.
    head: u64,
    /// Where the separator ends in `bytes`; it starts where the one before ends.
    end: usize,
}

impl Seps {
    /// Packs separators, which must ascend.
    pub(super) fn pack<'a>(seps: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        let common = common_len(seps.clone());
        let mut bytes = Vec::new();
        let mut slots = Vec::new();
        for sep in seps {
            bytes.extend_from_slice(sep);
            slots.push(Slot {
                head: head(&sep[common..]),
                end: bytes.len(),
            });
        }
        Self {
            bytes: bytes.into(),
            slots: slots.into(),
            common,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn get(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.slots[at - 1].end };
        &self.bytes[start..self.slots[at].end]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        (0..self.len()).map(|at| self.get(at))
    }

    /// How many separators are at or below `key`: the child that `key` belongs to.
    pub(super) fn find(&self, key: &[u8]) -> usize {
        let Some(first) = self.slots.first() else { return 0 };
        let shared = &self.bytes[..self.common.min(first.end)];
        let rest = match key.get(..shared.len()) {
            Some(start) if start == shared => &key[shared.len()..],
            _ if key < shared => return 0,
            _ => return self.len(),
        };
        let wanted = head(rest);
        let mut at = self.slots.partition_point(|slot| slot.head < wanted);
        while at < self.len() && self.slots[at].head == wanted {
            if self.get(at).cmp(key) == Ordering::Greater {
                break;
            }
            at += 1;
        }
        at
    }
}

fn head(bytes: &[u8]) -> u64 {
    if let Some(eight) = bytes.first_chunk::<8>() {
        return u64::from_be_bytes(*eight);
    }
    let mut padded = [0; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    u64::from_be_bytes(padded)
}

/// Sorted texts have in common what the first and the last have in common.
fn common_len<'a>(mut seps: impl Iterator<Item = &'a [u8]>) -> usize {
    let Some(first) = seps.next() else { return 0 };
    let last = seps.last().unwrap_or(first);
    shared_len(first, last)
}

pub(super) fn shared_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The shortest key above `left` and not above `right`.
pub(super) fn between(left: &[u8], right: &[u8]) -> Box<[u8]> {
    right[..(shared_len(left, right) + 1).min(right.len())].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(seps: &[&'static str]) -> Seps {
        Seps::pack(seps.iter().map(|sep| sep.as_bytes()))
    }

    #[test]
    fn a_key_belongs_to_the_child_after_the_last_separator_at_or_below_it() {
        let seps = packed(&["app/a", "app/abcdefghi1", "app/abcdefghi2", "app/b"]);

        for (key, child) in [
            ("", 0),
            ("aaa", 0),
            ("app/", 0),
            ("app/a", 1),
            ("app/abcdefghi", 1),
            ("app/abcdefghi1", 2),
            ("app/abcdefghi11", 2),
            ("app/abcdefghi2", 3),
            ("app/az", 3),
            ("app/b", 4),
            ("b", 4),
        ] {
            assert_eq!(seps.find(key.as_bytes()), child, "{key}");
        }
    }

    #[test]
    fn zero_bytes_do_not_confuse_the_padded_heads() {
        let seps = packed(&["a", "a\0", "a\0\0"]);

        assert_eq!(seps.find(b"a"), 1);
        assert_eq!(seps.find(b"a\0"), 2);
        assert_eq!(seps.find(b"a\0\0\0"), 3);
    }

    #[test]
    fn one_separator_and_none() {
        assert_eq!(packed(&["m"]).find(b"l"), 0);
        assert_eq!(packed(&["m"]).find(b"m"), 1);
        assert_eq!(packed(&["m"]).find(b"mm"), 1);
        assert_eq!(packed(&["m"]).find(b""), 0);
        assert_eq!(packed(&[]).find(b"x"), 0);
    }

    #[test]
    fn a_separator_is_the_shortest_that_divides() {
        assert_eq!(&*between(b"app/1", b"app/2/long"), b"app/2");
        assert_eq!(&*between(b"a", b"ab"), b"ab");
    }
}
