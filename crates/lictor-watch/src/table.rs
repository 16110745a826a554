//! An ordered table of waiters. One of many; see the parent for which is which and for the lock around it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use slab::Slab;
use smallvec::SmallVec;

use super::slot::{Signal, Slot};

/// Waiters by what they wait for: a key, a prefix, or a row with its area before it.
#[derive(Debug, Default)]
pub(super) struct Table {
    lists: BTreeMap<Arc<[u8]>, List>,
}

/// Where a waiter stands.
#[derive(Debug)]
pub(super) struct Place {
    /// Shared with the table and with all who wait for the same.
    key: Arc<[u8]>,
    at: usize,
}

/// A set of entries of one table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Span {
    /// One entry.
    One(Bytes),
    /// All entries that begin with this.
    Below(Bytes),
}

/// How far a walk over a span has come: what was done of the entry at `key`.
#[derive(Debug)]
pub(super) struct Cursor {
    key: Arc<[u8]>,
    at: usize,
}

/// Signalled waiters that are still to be woken.
#[derive(Debug, Default)]
pub(super) struct Wakers {
    wakers: SmallVec<[Waker; 16]>,
    signalled: u64,
}

/// All who wait for the same thing. Most often that is one.
#[derive(Debug)]
enum List {
    /// At position 0.
    One(Arc<Slot>),
    Many(Box<Slab<Arc<Slot>>>),
}

impl Table {
    pub(super) fn insert(&mut self, key: &[u8], slot: Arc<Slot>) -> Place {
        let found = self
            .lists
            .range_mut::<[u8], _>((Bound::Included(key), Bound::Included(key)))
            .next();
        if let Some((key, list)) = found {
            return Place {
                key: Arc::clone(key),
                at: list.insert(slot),
            };
        }
        let key: Arc<[u8]> = key.into();
        self.lists.insert(Arc::clone(&key), List::One(slot));
        Place { key, at: 0 }
    }

    pub(super) fn remove(&mut self, place: &Place) {
        let empty = match self.lists.get_mut(&place.key) {
            None | Some(List::One(_)) => true,
            Some(List::Many(slots)) => {
                slots.try_remove(place.at);
                slots.is_empty()
            }
        };
        if empty {
            self.lists.remove(&place.key);
        }
    }

    /// The number of waiters in a span, or `enough` if there are at least that many. Looks at no more than
    /// that many entries, since none is empty.
    pub(super) fn count(&self, span: &Span, enough: usize) -> usize {
        let mut waiters = 0;
        for (_, list) in self.lists_in(span, None) {
            waiters += list.len();
            if waiters >= enough {
                return enough;
            }
        }
        waiters
    }

    /// Signals a span that [`Self::count`] found to be small.
    pub(super) fn signal_all(&mut self, span: &Span) -> Wakers {
        let mut wakers = Wakers::default();
        for (_, list) in self.lists_in(span, None) {
            list.signal(0, usize::MAX, &mut wakers);
        }
        wakers
    }

    /// Signals a slice of a span, behind the cursor of the last one, and answers where to go on. Looks at
    /// about `steps` places.
    pub(super) fn signal_slice(
        &mut self,
        span: &Span,
        cursor: Option<&Cursor>,
        steps: usize,
    ) -> (Wakers, Option<Cursor>) {
        let mut wakers = Wakers::default();
        let mut steps_left = steps;
        for (key, list) in self.lists_in(span, cursor) {
            let from = cursor
                .filter(|cursor| cursor.key == *key)
                .map_or(0, |cursor| cursor.at);
            let until = list.signal(from, from.saturating_add(steps_left), &mut wakers);
            steps_left = steps_left.saturating_sub((until - from).max(1));
            if steps_left == 0 {
                return (
                    wakers,
                    Some(Cursor {
                        key: Arc::clone(key),
                        at: until,
                    }),
                );
            }
        }
        (wakers, None)
    }

    /// The lengths of all prefixes of `key`, itself included, that are in the table; the longest first.
    ///
    /// Each step finds the last entry that is not behind a prefix of `key`. If it is no prefix itself, it
    /// parts from `key` at some byte, and no entry that is a longer prefix can exist: it would stand between
    /// the two. So each step either answers or shortens, and there are at most `key.len() + 1`, however many
    /// entries there are.
    pub(super) fn ancestors(&self, key: &[u8]) -> SmallVec<[usize; 8]> {
        let mut lengths = SmallVec::new();
        let mut upto = Bound::Included(key);
        while let Some((entry, _)) = self.lists.range::<[u8], _>((Bound::Unbounded, upto)).next_back() {
            let shared = entry.iter().zip(key).take_while(|(a, b)| a == b).count();
            if shared == entry.len() {
                lengths.push(shared);
                upto = Bound::Excluded(&key[..shared]);
            } else {
                upto = Bound::Included(&key[..shared]);
            }
        }
        lengths
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    fn lists_in<'a>(
        &'a self,
        span: &'a Span,
        cursor: Option<&'a Cursor>,
    ) -> impl Iterator<Item = (&'a Arc<[u8]>, &'a List)> {
        let (start, end) = match span {
            Span::One(key) => (&key[..], Bound::Included(&key[..])),
            Span::Below(prefix) => (&prefix[..], Bound::Unbounded),
        };
        let start = cursor.map_or(start, |cursor| &cursor.key[..]);
        let lists = self.lists.range::<[u8], _>((Bound::Included(start), end));
        lists.take_while(move |(key, _)| span.holds(key))
    }
}

impl Span {
    fn holds(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => one == key,
            Self::Below(prefix) => key.starts_with(prefix),
        }
    }
}

impl List {
    fn insert(&mut self, slot: Arc<Slot>) -> usize {
        if let Self::One(first) = self {
            let mut slots = Slab::with_capacity(2);
            slots.insert(Arc::clone(first));
            *self = Self::Many(Box::new(slots));
        }
        match self {
            Self::One(_) => 0,
            Self::Many(slots) => slots.insert(slot),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(slots) => slots.len(),
        }
    }

    /// Signals the waiters at the positions `from..to` and answers the first position that is left.
    fn signal(&self, from: usize, to: usize, wakers: &mut Wakers) -> usize {
        match self {
            Self::One(slot) if from == 0 && to > 0 => {
                wakers.add(slot);
                1
            }
            Self::One(_) => from,
            Self::Many(slots) => {
                let to = to.min(slots.capacity()).max(from);
                (from..to)
                    .filter_map(|at| slots.get(at))
                    .for_each(|slot| wakers.add(slot));
                to
            }
        }
    }
}

impl Wakers {
    /// How many waiters were signalled, those included that do not sleep yet.
    pub(super) fn signalled(&self) -> u64 {
        self.signalled
    }

    fn add(&mut self, slot: &Slot) {
        if let Signal::New(waker) = slot.signal() {
            self.signalled += 1;
            self.wakers.extend(waker);
        }
    }
}

impl IntoIterator for Wakers {
    type Item = Waker;
    type IntoIter = smallvec::IntoIter<[Waker; 16]>;

    fn into_iter(self) -> Self::IntoIter {
        self.wakers.into_iter()
    }
}
