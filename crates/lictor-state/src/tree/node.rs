//! The nodes of the tree: how rows and children are added, split, removed and merged.

use smallvec::SmallVec;
use triomphe::Arc;

use super::Row;
use super::leaf::Leaf;
use super::seps::Seps;

/// Most rows in a leaf. A copied leaf costs one reference count per row, each a cache miss, which is why
/// leaves are small.
pub(super) const LEAF_ROWS: usize = 16;
/// Most children of an inner node.
pub(super) const FAN_OUT: usize = 16;
/// A node below a quarter of its room is merged with a neighbour if both fit into three quarters.
const SPARSE: usize = 4;
const MERGED: usize = 12;

/// A node and the highest index below it.
#[derive(Clone)]
pub(super) struct Child<R> {
    pub(super) max: u64,
    pub(super) node: Node<R>,
}

#[derive(Clone)]
pub(super) enum Node<R> {
    Leaf(Arc<Leaf<R>>),
    Inner(Arc<Inner<R>>),
}

#[derive(Clone)]
pub(super) struct Inner<R> {
    /// One less than there are children.
    pub(super) seps: Seps,
    pub(super) children: SmallVec<[Child<R>; FAN_OUT]>,
}

/// The upper half of a node that was full, and the lowest key that belongs to it.
pub(super) struct Split<R> {
    pub(super) sep: Box<[u8]>,
    pub(super) right: Child<R>,
}

/// What an insertion did: the row that was replaced, and the half that was split off.
pub(super) type Inserted<R> = (Option<R>, Option<Split<R>>);

impl<R: Row> Child<R> {
    pub(super) fn leaf(leaf: Leaf<R>) -> Self {
        Self {
            max: leaf.max(),
            node: Node::Leaf(Arc::new(leaf)),
        }
    }

    pub(super) fn inner(inner: Inner<R>) -> Self {
        Self {
            max: inner.max(),
            node: Node::Inner(Arc::new(inner)),
        }
    }

    pub(super) fn insert(&mut self, row: R) -> Inserted<R> {
        let index = row.index();
        let (old, split) = match &mut self.node {
            Node::Leaf(leaf) => Arc::make_mut(leaf).insert(row),
            Node::Inner(inner) => Arc::make_mut(inner).insert(row),
        };
        // A lower index in place of the highest one is the only way for the maximum to sink.
        if split.is_some() || (index < self.max && old.as_ref().is_some_and(|old| old.index() == self.max)) {
            self.max = self.node.max();
        } else {
            self.max = self.max.max(index);
        }
        (old, split)
    }

    /// Removes a row that exists.
    pub(super) fn remove(&mut self, key: &[u8]) -> Option<R> {
        let row = match &mut self.node {
            Node::Leaf(leaf) => Arc::make_mut(leaf).remove(key),
            Node::Inner(inner) => Arc::make_mut(inner).remove(key),
        };
        if self.max > 0 && row.as_ref().is_some_and(|row| row.index() == self.max) {
            self.max = self.node.max();
        }
        row
    }

    /// Removes the rows from `low` on and below `high`, showing each to `seen`; answers how many.
    pub(super) fn remove_range(
        &mut self,
        low: &[u8],
        high: Option<&[u8]>,
        seen: &mut dyn FnMut(&R),
    ) -> usize {
        let removed = match &mut self.node {
            Node::Leaf(leaf) => {
                let range = leaf.bounds(low, high);
                if range.is_empty() {
                    0
                } else {
                    Arc::make_mut(leaf).remove_rows(range, seen)
                }
            }
            Node::Inner(inner) => Arc::make_mut(inner).remove_range(low, high, seen),
        };
        if removed > 0 {
            self.max = self.node.max();
        }
        removed
    }

    /// The highest index from `low` on and below `high`, if it is above `best`; else `best`.
    pub(super) fn max_in(&self, low: &[u8], high: Option<&[u8]>, best: u64) -> u64 {
        if self.max <= best {
            return best;
        }
        match &self.node {
            Node::Leaf(leaf) => leaf.rows()[leaf.bounds(low, high)]
                .iter()
                .map(Row::index)
                .fold(best, u64::max),
            Node::Inner(inner) => {
                let (first, last) = inner.bounds(low, high);
                let mut best = best;
                for (at, child) in inner.children.iter().enumerate().take(last + 1).skip(first) {
                    let inside = first < at && at < last;
                    best = if inside {
                        best.max(child.max)
                    } else {
                        child.max_in(low, high, best)
                    };
                }
                best
            }
        }
    }

    /// Adds the rows from `low` on and below `high` whose index is above `than`.
    pub(super) fn newer<'a>(&'a self, low: &[u8], high: Option<&[u8]>, than: u64, found: &mut Vec<&'a R>) {
        if self.max <= than {
            return;
        }
        match &self.node {
            Node::Leaf(leaf) => {
                let rows = leaf.rows()[leaf.bounds(low, high)].iter();
                found.extend(rows.filter(|row| row.index() > than));
            }
            Node::Inner(inner) => {
                let (first, last) = inner.bounds(low, high);
                for child in &inner.children[first..=last] {
                    child.newer(low, high, than, found);
                }
            }
        }
    }

    /// The last row at or below `key`.
    pub(super) fn floor(&self, key: &[u8]) -> Option<&R> {
        match &self.node {
            Node::Leaf(leaf) => leaf.rows()[..leaf.up_to(key)].last(),
            // No node is empty, so that this looks at two children at most.
            Node::Inner(inner) => inner.children[..=inner.seps.find(key)]
                .iter()
                .rev()
                .find_map(|child| child.floor(key)),
        }
    }
}

impl<R: Row> Node<R> {
    fn max(&self) -> u64 {
        match self {
            Self::Leaf(leaf) => leaf.max(),
            Self::Inner(inner) => inner.max(),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.rows().len(),
            Self::Inner(inner) => inner.children.len(),
        }
    }

    fn for_each(&self, seen: &mut dyn FnMut(&R)) -> usize {
        match self {
            Self::Leaf(leaf) => {
                leaf.rows().iter().for_each(seen);
                leaf.rows().len()
            }
            Self::Inner(inner) => inner.children.iter().map(|child| child.node.for_each(seen)).sum(),
        }
    }
}

impl<R: Row> Inner<R> {
    fn max(&self) -> u64 {
        self.children.iter().map(|child| child.max).max().unwrap_or(0)
    }

    /// The first and the last child that may hold rows from `low` on and below `high`.
    fn bounds(&self, low: &[u8], high: Option<&[u8]>) -> (usize, usize) {
        let last = high.map_or(self.children.len() - 1, |high| self.seps.find(high));
        (self.seps.find(low), last)
    }

    fn insert(&mut self, row: R) -> Inserted<R> {
        let at = self.seps.find(row.key());
        let (old, split) = self.children[at].insert(row);
        (old, split.and_then(|split| self.adopt(at, split)))
    }

    /// Takes in what was split off child `at`; splits itself if it is full.
    fn adopt(&mut self, at: usize, split: Split<R>) -> Option<Split<R>> {
        if self.children.len() < FAN_OUT {
            self.place(at, split);
            return None;
        }
        if at + 1 == FAN_OUT {
            let mut children = SmallVec::new();
            children.push(split.right);
            let right = Self {
                seps: Seps::pack(std::iter::empty()),
                children,
            };
            return Some(Split {
                sep: split.sep,
                right: Child::inner(right),
            });
        }
        let half = FAN_OUT / 2;
        let mut right = Self {
            seps: Seps::pack(self.seps.iter().skip(half)),
            children: self.children.drain(half..).collect(),
        };
        let sep = self.seps.get(half - 1).into();
        self.seps = Seps::pack(self.seps.iter().take(half - 1));
        if at < half {
            self.place(at, split);
        } else {
            right.place(at - half, split);
        }
        Some(Split {
            sep,
            right: Child::inner(right),
        })
    }

    fn place(&mut self, at: usize, split: Split<R>) {
        let low = self.seps.iter().take(at);
        let high = self.seps.iter().skip(at);
        let seps = Seps::pack(low.chain(std::iter::once(&*split.sep)).chain(high));
        self.seps = seps;
        self.children.insert(at + 1, split.right);
    }

    fn remove(&mut self, key: &[u8]) -> Option<R> {
        let at = self.seps.find(key);
        let row = self.children[at].remove(key);
        self.mend(at);
        row
    }

    fn remove_range(&mut self, low: &[u8], high: Option<&[u8]>, seen: &mut dyn FnMut(&R)) -> usize {
        let (first, last) = self.bounds(low, high);
        let mut removed = self.children[first].remove_range(low, high, seen);
        if first == last {
            self.mend(first);
            return removed;
        }
        for child in &self.children[first + 1..last] {
            removed += child.node.for_each(seen);
        }
        removed += self.children[last].remove_range(low, high, seen);
        if last > first + 1 {
            self.children.drain(first + 1..last);
            self.drop_seps(first, last - first - 1);
        }
        // The left end first if nothing is left of it: an empty node must never be merged.
        if self.children[first].node.len() > 0 {
            self.mend(first + 1);
        } else {
            self.mend(first);
        }
        self.mend(first);
        removed
    }

    /// Drops a child that is empty, and merges one that is nearly so with a neighbour, which must not be empty.
    fn mend(&mut self, at: usize) {
        let len = self.children[at].node.len();
        if len == 0 {
            self.children.remove(at);
            if self.seps.len() > 0 {
                self.drop_seps(at.saturating_sub(1), 1);
            }
        } else if len < SPARSE {
            let fits = |other: usize| {
                self.children
                    .get(other)
                    .is_some_and(|c| c.node.len() + len <= MERGED)
            };
            if fits(at + 1) {
                self.merge(at);
            } else if at > 0 && fits(at - 1) {
                self.merge(at - 1);
            }
        }
    }

    /// Moves the rows or children of child `at + 1` into child `at`. Neither is empty: a node without children has no
    /// place for the separator between the two.
    fn merge(&mut self, at: usize) {
        let right = self.children.remove(at + 1);
        let left = &mut self.children[at];
        left.max = left.max.max(right.max);
        match (&mut left.node, right.node) {
            (Node::Leaf(left), Node::Leaf(right)) => {
                Arc::make_mut(left).append(Arc::unwrap_or_clone(right));
            }
            (Node::Inner(left), Node::Inner(right)) => {
                let right = Arc::unwrap_or_clone(right);
                let left = Arc::make_mut(left);
                let middle = std::iter::once(self.seps.get(at));
                left.seps = Seps::pack(left.seps.iter().chain(middle).chain(right.seps.iter()));
                left.children.extend(right.children);
            }
            _ => unreachable!("all leaves are at one depth"),
        }
        self.drop_seps(at, 1);
    }

    fn drop_seps(&mut self, at: usize, count: usize) {
        let seps = Seps::pack(self.seps.iter().take(at).chain(self.seps.iter().skip(at + count)));
        self.seps = seps;
    }
}
