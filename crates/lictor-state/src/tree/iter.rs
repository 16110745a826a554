//! Walking the rows in order, with the means to leap ahead.

use smallvec::SmallVec;

use super::node::{Child, Inner, Node};
use super::{Row, Tree};

/// Rows in ascending order.
pub(crate) struct Iter<'a, R> {
    /// The inner nodes above the current leaf, each with the child that is being walked.
    path: SmallVec<[(&'a Inner<R>, usize); 8]>,
    rows: &'a [R],
}

impl<'a, R: Row> Iter<'a, R> {
    /// The rows from `low` on.
    pub(super) fn new(root: Option<&'a Child<R>>, low: &[u8]) -> Self {
        let mut iter = Self {
            path: SmallVec::new(),
            rows: &[],
        };
        if let Some(root) = root {
            iter.descend(&root.node, low);
        }
        iter
    }

    /// Leaps to the first row at or after `key`, which must not lie behind.
    pub(crate) fn seek(&mut self, key: &[u8]) {
        if self.rows.last().is_some_and(|last| last.key() >= key) {
            self.rows = &self.rows[self.rows.partition_point(|row| row.key() < key)..];
            return;
        }
        // Up to a node that certainly holds the place, down again to it.
        while let Some((inner, _)) = self.path.pop() {
            let at = inner.seps.find(key);
            if at + 1 < inner.children.len() || self.path.is_empty() {
                self.path.push((inner, at));
                self.descend(&inner.children[at].node, key);
                return;
            }
        }
        self.rows = &[];
    }

    fn descend(&mut self, mut node: &'a Node<R>, low: &[u8]) {
        loop {
            match node {
                Node::Leaf(leaf) => {
                    self.rows = &leaf.rows()[leaf.before(low)..];
                    return;
                }
                Node::Inner(inner) => {
                    let at = inner.seps.find(low);
                    self.path.push((inner, at));
                    node = &inner.children[at].node;
                }
            }
        }
    }

    /// The rows of the next leaf, if there is one.
    fn advance(&mut self) -> bool {
        while let Some((inner, at)) = self.path.last_mut() {
            *at += 1;
            if let Some(child) = inner.children.get(*at) {
                self.descend(&child.node, &[]);
                return true;
            }
            self.path.pop();
        }
        false
    }
}

impl<'a, R: Row> Iterator for Iter<'a, R> {
    type Item = &'a R;

    fn next(&mut self) -> Option<&'a R> {
        while self.rows.is_empty() {
            if !self.advance() {
                return None;
            }
        }
        let (first, rest) = self.rows.split_first()?;
        self.rows = rest;
        Some(first)
    }
}

/// Rows in descending order.
pub(crate) struct Back<'a, R> {
    /// As in [`Iter`].
    path: SmallVec<[(&'a Inner<R>, usize); 8]>,
    rows: &'a [R],
}

impl<'a, R: Row> Back<'a, R> {
    /// The rows below `high`.
    pub(super) fn new(root: Option<&'a Child<R>>, high: Option<&[u8]>) -> Self {
        let mut back = Self {
            path: SmallVec::new(),
            rows: &[],
        };
        if let Some(root) = root {
            back.descend(&root.node, high);
        }
        back
    }

    fn descend(&mut self, mut node: &'a Node<R>, high: Option<&[u8]>) {
        loop {
            match node {
                Node::Leaf(leaf) => {
                    let rows = leaf.rows();
                    self.rows = &rows[..high.map_or(rows.len(), |high| leaf.before(high))];
                    return;
                }
                Node::Inner(inner) => {
                    let at = high.map_or(inner.children.len() - 1, |high| inner.seps.find(high));
                    self.path.push((inner, at));
                    node = &inner.children[at].node;
                }
            }
        }
    }

    /// The rows of the leaf before, if there is one.
    fn retreat(&mut self) -> bool {
        while let Some((inner, at)) = self.path.last_mut() {
            if let Some(before) = at.checked_sub(1) {
                *at = before;
                let child = &inner.children[before];
                self.descend(&child.node, None);
                return true;
            }
            self.path.pop();
        }
        false
    }
}

impl<'a, R: Row> Iterator for Back<'a, R> {
    type Item = &'a R;

    fn next(&mut self) -> Option<&'a R> {
        while self.rows.is_empty() {
            if !self.retreat() {
                return None;
            }
        }
        let (last, rest) = self.rows.split_last()?;
        self.rows = rest;
        Some(last)
    }
}

impl<R: Row> Tree<R> {
    /// All rows.
    pub(crate) fn iter(&self) -> Iter<'_, R> {
        self.range(&[])
    }

    /// The rows from `low` on.
    pub(crate) fn range(&self, low: &[u8]) -> Iter<'_, R> {
        Iter::new(self.root(), low)
    }

    /// The rows below `high` in descending order; all of them without it.
    pub(crate) fn back(&self, high: Option<&[u8]>) -> Back<'_, R> {
        Back::new(self.root(), high)
    }

    /// The rows from `low` on and below `high` whose index is above `than`, in order. Looks only where there are some.
    pub(crate) fn newer(&self, low: &[u8], high: Option<&[u8]>, than: u64) -> Vec<&R> {
        let mut found = Vec::new();
        if let Some(root) = self.root() {
            root.newer(low, high, than, &mut found);
        }
        found
    }

    /// The rows whose keys begin with `prefix`.
    pub(crate) fn prefix<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = &'a R> + 'a {
        self.range(prefix)
            .take_while(move |row| row.key().starts_with(prefix))
    }
}
