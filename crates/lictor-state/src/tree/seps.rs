//! Searching among the keys of a node without following a pointer for each.
//!
//! What all keys of a node have in common is skipped, and the next four bytes of each stand in the node itself
//! as a number, its *head*. The heads of sixteen keys share a cache line; only equal heads need the keys.

use std::cmp::Ordering;

use smallvec::SmallVec;
use triomphe::ThinArc;

use super::node::FAN_OUT;

/// The four bytes of `key` after the first `common`, big-endian, padded with zeros: keys that ascend and have
/// these first bytes in common have heads that do not descend.
pub(super) fn head(key: &[u8], common: usize) -> u32 {
    let rest = key.get(common..).unwrap_or_default();
    if let Some(four) = rest.first_chunk::<4>() {
        return u32::from_be_bytes(*four);
    }
    let mut padded = [0; 4];
    padded[..rest.len()].copy_from_slice(rest);
    u32::from_be_bytes(padded)
}

/// Finds `key` among ascending keys with these heads, or the place where it would stand. Right if `key` begins
/// with what the keys have in common, and never a wrong `Ok`.
pub(super) fn search<'a>(
    heads: &[u32],
    common: usize,
    key: &[u8],
    key_at: impl Fn(usize) -> &'a [u8],
) -> Result<usize, usize> {
    let wanted = head(key, common);
    // Counting has no branches to guess wrongly, and the heads are few.
    let mut at: usize = heads.iter().map(|&head| usize::from(head < wanted)).sum();
    while heads.get(at) == Some(&wanted) {
        match key_at(at).cmp(key) {
            Ordering::Less => at += 1,
            Ordering::Equal => return Ok(at),
            Ordering::Greater => return Err(at),
        }
    }
    Err(at)
}

/// The keys between the children of an inner node.
#[derive(Clone)]
pub(super) struct Seps {
    heads: SmallVec<[u32; FAN_OUT]>,
    common: usize,
    /// Where each separator ends, 4 bytes each, then the separators. Shared by all copies of the node.
    packed: ThinArc<(), u8>,
}

impl Seps {
    /// Packs separators, which must ascend.
    pub(super) fn pack<'a>(seps: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        let mut packed = Vec::new();
        let mut end = seps.clone().count() * size_of::<u32>();
        for sep in seps.clone() {
            end += sep.len();
            packed.extend_from_slice(&u32::try_from(end).unwrap_or(u32::MAX).to_ne_bytes());
        }
        seps.clone().for_each(|sep| packed.extend_from_slice(sep));
        let common = seps
            .clone()
            .next()
            .map_or(0, |first| shared_len(first, seps.clone().last().unwrap_or(first)));
        Self {
            heads: seps.map(|sep| head(sep, common)).collect(),
            common,
            packed: ThinArc::from_header_and_slice((), &packed),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.heads.len()
    }

    pub(super) fn get(&self, at: usize) -> &[u8] {
        let start = if at == 0 {
            self.len() * size_of::<u32>()
        } else {
            self.end(at - 1)
        };
        &self.packed.slice[start..self.end(at)]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> + Clone {
        (0..self.len()).map(|at| self.get(at))
    }

    /// How many separators are at or below `key`: the child that `key` belongs to.
    pub(super) fn find(&self, key: &[u8]) -> usize {
        if self.len() == 0 {
            return 0;
        }
        let start = self.len() * size_of::<u32>();
        let shared = &self.packed.slice[start..start + self.common];
        if !key.starts_with(shared) {
            return if key < shared { 0 } else { self.len() };
        }
        match search(&self.heads, self.common, key, |at| self.get(at)) {
            Ok(at) => at + 1,
            Err(at) => at,
        }
    }

    fn end(&self, at: usize) -> usize {
        let ends = &self.packed.slice[at * size_of::<u32>()..];
        ends.first_chunk()
            .map_or(0, |end| u32::from_ne_bytes(*end) as usize)
    }
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
