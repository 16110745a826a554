//! An ordered, persistent map of rows: a copy-on-write B+tree that knows the highest index of each subtree.
//!
//! ```text
//!                 ┌ inner: separators | (max, child) (max, child) ... ┐
//!                 └───────┬───────────────────────┬───────────────────┘
//!          ┌ inner ... ┐                    ┌ inner ... ┐
//!          └──┬────────┘                    └──┬────────┘
//!   leaf: row row row ...               leaf: row row row ...          all leaves at one depth
//! ```
//!
//! Cloning a tree copies one pointer. A write changes nodes in place where nobody shares them and copies the
//! path to the row where a clone does, so a clone never changes. The maxima answer "the last change below this
//! prefix" in logarithmic time (rule R10), which neither a walk nor a per-key index could.
//!
//! Why it is correct: every node reaches its parent's maximum through [`Child::insert`], `remove` and
//! `remove_range` alone, and each of these ends by raising or recomputing it; `tests` checks order, depth,
//! separators, maxima and counts after random histories, and that clones stay as they were.

mod iter;
mod leaf;
mod node;
mod seps;
#[cfg(test)]
mod tests;

use smallvec::SmallVec;

use leaf::Leaf;
use node::{Child, FAN_OUT, Inner, LEAF_ROWS, Node, Split};
use seps::{Seps, between};

/// A row of a [`Tree`]. Cloning must be cheap and share.
pub(crate) trait Row: Clone {
    /// What rows are ordered and found by.
    fn key(&self) -> &[u8];
    /// What subtree maxima are about; 0 where nobody asks.
    fn index(&self) -> u64;
}

/// An ordered map of rows, see the module.
#[derive(Clone)]
pub(crate) struct Tree<R> {
    root: Option<Child<R>>,
    len: usize,
}

impl<R> Default for Tree<R> {
    fn default() -> Self {
        Self { root: None, len: 0 }
    }
}

impl<R> std::fmt::Debug for Tree<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tree")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl<R: Row> Tree<R> {
    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The row with this key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&R> {
        let mut node = &self.root.as_ref()?.node;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.get(key),
                Node::Inner(inner) => node = &inner.children[inner.seps.find(key)].node,
            }
        }
    }

    /// The last row at or below `key`.
    pub(crate) fn floor(&self, key: &[u8]) -> Option<&R> {
        self.root.as_ref()?.floor(key)
    }

    /// Puts a row in; answers the one that it replaced.
    pub(crate) fn insert(&mut self, row: R) -> Option<R> {
        let Some(root) = &mut self.root else {
            let mut rows = SmallVec::new();
            rows.push(row);
            self.root = Some(Child::leaf(Leaf::new(rows)));
            self.len = 1;
            return None;
        };
        let (old, split) = root.insert(row);
        if old.is_none() {
            self.len += 1;
        }
        if let Some(Split { sep, right }) = split
            && let Some(left) = self.root.take()
        {
            let seps = Seps::pack(std::iter::once(&*sep));
            let children = SmallVec::from_iter([left, right]);
            self.root = Some(Child::inner(Inner { seps, children }));
        }
        old
    }

    /// Takes a row out.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<R> {
        // A miss must not copy the path.
        self.get(key)?;
        let row = self.root.as_mut()?.remove(key);
        self.len -= usize::from(row.is_some());
        self.lower();
        row
    }

    /// Takes out all rows whose keys begin with `prefix`, showing each to `seen`; answers how many.
    pub(crate) fn remove_prefix(&mut self, prefix: &[u8], mut seen: impl FnMut(&R)) -> usize {
        let empty = self
            .range(prefix)
            .next()
            .is_none_or(|row| !row.key().starts_with(prefix));
        let Some(root) = self.root.as_mut().filter(|_| !empty) else {
            return 0;
        };
        let removed = root.remove_range(prefix, prefix_end(prefix).as_deref(), &mut seen);
        self.len -= removed;
        self.lower();
        removed
    }

    /// The highest index among the rows whose keys begin with `prefix`; 0 without any.
    pub(crate) fn max_in(&self, prefix: &[u8]) -> u64 {
        let Some(root) = &self.root else { return 0 };
        root.max_in(prefix, prefix_end(prefix).as_deref(), 0)
    }

    /// Drops roots that no longer branch.
    fn lower(&mut self) {
        while let Some(root) = &self.root {
            let only = match &root.node {
                node if node.len() == 0 => None,
                Node::Inner(inner) if inner.children.len() == 1 => Some(inner.children[0].clone()),
                _ => return,
            };
            self.root = only;
        }
    }

    fn root(&self) -> Option<&Child<R>> {
        self.root.as_ref()
    }
}

/// Builds a tree from rows that come in order, without searching.
pub(crate) struct Builder<R> {
    leaves: Vec<(Box<[u8]>, Child<R>)>,
    rows: SmallVec<[R; LEAF_ROWS]>,
    last: Option<R>,
    len: usize,
}

impl<R: Row> Default for Builder<R> {
    fn default() -> Self {
        Self {
            leaves: Vec::new(),
            rows: SmallVec::new(),
            last: None,
            len: 0,
        }
    }
}

impl<R: Row> Builder<R> {
    /// Takes the next row; refuses one that does not come after the last.
    pub(crate) fn push(&mut self, row: R) -> Result<(), R> {
        if self
            .rows
            .last()
            .or(self.last.as_ref())
            .is_some_and(|last| last.key() >= row.key())
        {
            return Err(row);
        }
        // A little room is left, so that the first writes after a start do not split every leaf.
        if self.rows.len() == LEAF_ROWS - 1 {
            self.close_leaf();
        }
        self.rows.push(row);
        self.len += 1;
        Ok(())
    }

    fn close_leaf(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        let (Some(first), Some(last)) = (rows.first(), rows.last().cloned()) else {
            return;
        };
        let sep = self
            .last
            .as_ref()
            .map(|last| between(last.key(), first.key()))
            .unwrap_or_default();
        self.last = Some(last);
        self.leaves.push((sep, Child::leaf(Leaf::new(rows))));
    }

    /// The finished tree.
    pub(crate) fn finish(mut self) -> Tree<R> {
        self.close_leaf();
        let mut level = self.leaves;
        while level.len() > 1 {
            let mut above = Vec::with_capacity(level.len() / (FAN_OUT - 1) + 1);
            let mut rest = level.into_iter();
            while let Some((low, first)) = rest.next() {
                let (seps, others): (Vec<_>, Vec<_>) = rest.by_ref().take(FAN_OUT - 2).unzip();
                let children = std::iter::once(first).chain(others).collect();
                let seps = Seps::pack(seps.iter().map(|sep| &**sep));
                above.push((low, Child::inner(Inner { seps, children })));
            }
            level = above;
        }
        Tree {
            root: level.pop().map(|(_, root)| root),
            len: self.len,
        }
    }
}

/// The lowest key above all keys that begin with `prefix`; `None` if there is no such key.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|&byte| byte < u8::MAX)?;
    let mut end = prefix[..=kept].to_vec();
    end[kept] += 1;
    Some(end)
}
