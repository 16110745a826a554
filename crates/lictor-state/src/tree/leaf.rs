//! A leaf: rows in order, and their heads for the search.

use std::ops::Range;

use smallvec::SmallVec;

use super::Row;
use super::node::{Child, Inserted, LEAF_ROWS, Split};
use super::seps::{between, head, search, shared_len};

#[derive(Clone)]
pub(super) struct Leaf<R> {
    heads: SmallVec<[u32; LEAF_ROWS]>,
    /// How many first bytes are known to be the same in all keys.
    common: usize,
    rows: SmallVec<[R; LEAF_ROWS]>,
}

impl<R: Row> Leaf<R> {
    pub(super) fn new(rows: SmallVec<[R; LEAF_ROWS]>) -> Self {
        let mut leaf = Self {
            heads: SmallVec::new(),
            common: 0,
            rows,
        };
        leaf.index();
        leaf
    }

    pub(super) fn rows(&self) -> &[R] {
        &self.rows
    }

    pub(super) fn max(&self) -> u64 {
        self.rows.iter().map(Row::index).max().unwrap_or(0)
    }

    /// The row with this key; follows one pointer in all likelihood.
    pub(super) fn get(&self, key: &[u8]) -> Option<&R> {
        search(&self.heads, self.common, key, |at| self.rows[at].key())
            .ok()
            .map(|at| &self.rows[at])
    }

    /// How many rows are below `key`.
    pub(super) fn before(&self, key: &[u8]) -> usize {
        self.position(key).unwrap_or_else(|at| at)
    }

    /// How many rows are at or below `key`.
    pub(super) fn up_to(&self, key: &[u8]) -> usize {
        self.position(key).map_or_else(|at| at, |at| at + 1)
    }

    /// The rows from `low` on and below `high`.
    pub(super) fn bounds(&self, low: &[u8], high: Option<&[u8]>) -> Range<usize> {
        self.before(low)..high.map_or(self.rows.len(), |high| self.before(high))
    }

    pub(super) fn insert(&mut self, row: R) -> Inserted<R> {
        let at = match self.position(row.key()) {
            Ok(at) => return (Some(std::mem::replace(&mut self.rows[at], row)), None),
            Err(at) => at,
        };
        if self.rows.len() < LEAF_ROWS {
            self.place(at, row);
            return (None, None);
        }
        let (left, right) = self.split(at, row);
        let sep = between(left, right.rows[0].key());
        (
            None,
            Some(Split {
                sep,
                right: Child::leaf(right),
            }),
        )
    }

    /// Puts a row in beside the full leaf's rows: the upper half goes to a new leaf. Answers the last key that
    /// stays, and the new leaf.
    fn split(&mut self, at: usize, row: R) -> (&[u8], Self) {
        // Keys often arrive in order: then the left half stays full instead of half empty for ever.
        let mut right: SmallVec<[R; LEAF_ROWS]> = if at == LEAF_ROWS {
            SmallVec::new()
        } else {
            self.rows.drain(LEAF_ROWS / 2..).collect()
        };
        if at > self.rows.len() || right.is_empty() {
            right.insert(at - self.rows.len(), row);
        } else {
            self.rows.insert(at, row);
        }
        self.index();
        (self.rows[self.rows.len() - 1].key(), Self::new(right))
    }

    fn place(&mut self, at: usize, row: R) {
        let fits = self
            .rows
            .first()
            .is_some_and(|first| row.key().starts_with(&first.key()[..self.common]));
        if fits {
            self.heads.insert(at, head(row.key(), self.common));
            self.rows.insert(at, row);
        } else {
            self.rows.insert(at, row);
            self.index();
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<R> {
        let at = self.position(key).ok()?;
        self.heads.remove(at);
        Some(self.rows.remove(at))
    }

    pub(super) fn remove_rows(&mut self, range: Range<usize>, seen: &mut dyn FnMut(&R)) -> usize {
        self.heads.drain(range.clone());
        self.rows.drain(range).map(|row| seen(&row)).count()
    }

    pub(super) fn append(&mut self, other: Self) {
        self.rows.extend(other.rows);
        self.index();
    }

    fn position(&self, key: &[u8]) -> Result<usize, usize> {
        let found = search(&self.heads, self.common, key, |at| self.rows[at].key());
        match self
            .rows
            .first()
            .filter(|_| found.is_err())
            .map(|first| &first.key()[..self.common])
        {
            Some(shared) if !key.starts_with(shared) => Err(if key < shared { 0 } else { self.rows.len() }),
            _ => found,
        }
    }

    /// Works out anew what the keys have in common, and the heads after it.
    fn index(&mut self) {
        self.common = match (self.rows.first(), self.rows.last()) {
            (Some(first), Some(last)) => shared_len(first.key(), last.key()),
            _ => 0,
        };
        self.heads = self.rows.iter().map(|row| head(row.key(), self.common)).collect();
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        assert!(!self.rows.is_empty() && self.rows.len() <= LEAF_ROWS && !self.rows.spilled());
        assert!(
            self.rows
                .iter()
                .all(|row| row.key().starts_with(&self.rows[0].key()[..self.common]))
        );
        assert!(
            self.heads
                .iter()
                .copied()
                .eq(self.rows.iter().map(|row| head(row.key(), self.common)))
        );
    }
}
