use std::collections::BTreeMap;

use proptest::prelude::*;

use super::node::{Child, Node};
use super::*;

#[derive(Clone, Debug, PartialEq)]
struct Item {
    key: std::sync::Arc<[u8]>,
    index: u64,
}

impl Row for Item {
    fn key(&self) -> &[u8] {
        &self.key
    }
    fn index(&self) -> u64 {
        self.index
    }
}

fn item(key: &[u8], index: u64) -> Item {
    Item {
        key: key.into(),
        index,
    }
}

fn numbered(number: u32) -> Vec<u8> {
    format!("key/{number:06}").into_bytes()
}

impl<R: Row> Tree<R> {
    /// Panics unless order, separators, maxima, depth and count are right.
    fn check(&self) {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        if let Some(root) = &self.root {
            assert!(root.node.len() > 0, "an empty root must go");
            check_child(root, None, None, &mut keys);
        }
        assert!(keys.is_sorted_by(|a, b| a < b), "rows out of order");
        assert_eq!(keys.len(), self.len);
        assert!(self.iter().map(Row::key).eq(keys.iter().map(Vec::as_slice)));
    }
}

/// Answers the depth.
fn check_child<R: Row>(
    child: &Child<R>,
    low: Option<&[u8]>,
    high: Option<&[u8]>,
    keys: &mut Vec<Vec<u8>>,
) -> u32 {
    match &child.node {
        Node::Leaf(leaf) => {
            leaf.check();
            for row in leaf.rows() {
                assert!(low.is_none_or(|low| row.key() >= low) && high.is_none_or(|high| row.key() < high));
                keys.push(row.key().to_vec());
            }
            assert_eq!(child.max, leaf.rows().iter().map(Row::index).max().unwrap());
            0
        }
        Node::Inner(inner) => {
            assert!(!inner.children.is_empty() && !inner.children.spilled());
            assert_eq!(inner.seps.len() + 1, inner.children.len());
            assert!(inner.seps.iter().collect::<Vec<_>>().is_sorted_by(|a, b| a < b));
            assert_eq!(child.max, inner.children.iter().map(|c| c.max).max().unwrap());
            let mut depths = inner.children.iter().enumerate().map(|(at, below)| {
                let low = if at == 0 {
                    low
                } else {
                    Some(inner.seps.get(at - 1))
                };
                let high = if at == inner.seps.len() {
                    high
                } else {
                    Some(inner.seps.get(at))
                };
                check_child(below, low, high, keys)
            });
            let depth = depths.next().unwrap();
            assert!(depths.all(|other| other == depth), "leaves at different depths");
            depth + 1
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Insert(Vec<u8>, u64),
    Remove(Vec<u8>),
    RemovePrefix(Vec<u8>),
    Snapshot,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'a'), Just(b'b'), Just(b'/'), Just(0u8), Just(0xff)];
    prop_oneof![
        proptest::collection::vec(byte, 0..7),
        (0u32..400).prop_map(numbered),
    ]
}

/// Enough of these make a tree of three levels.
fn one_of_many() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![1 => key(), 9 => (0u32..5000).prop_map(numbered)]
}

fn prefix() -> impl Strategy<Value = Vec<u8>> {
    (key(), 0usize..10).prop_map(|(mut key, len)| {
        key.truncate(len);
        key
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (key(), 0u64..1000).prop_map(|(key, index)| Step::Insert(key, index)),
        5 => key().prop_map(Step::Remove),
        1 => prefix().prop_map(Step::RemovePrefix),
        1 => Just(Step::Snapshot),
    ]
}

type Model = BTreeMap<Vec<u8>, u64>;

fn same(tree: &Tree<Item>, model: &Model) -> bool {
    tree.iter()
        .map(|row| (row.key(), row.index))
        .eq(model.iter().map(|(key, &index)| (&key[..], index)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_an_ordered_map_and_snapshots_never_change(
        steps in proptest::collection::vec(step(), 1..400),
        prefixes in proptest::collection::vec(prefix(), 5),
    ) {
        let (mut tree, mut model) = (Tree::default(), Model::new());
        let mut snapshots = Vec::new();
        for (at, step) in steps.into_iter().enumerate() {
            let whole = matches!(step, Step::RemovePrefix(_));
            match step {
                Step::Insert(key, index) => {
                    let old = tree.insert(item(&key, index));
                    prop_assert_eq!(old.map(|row| row.index), model.insert(key, index));
                }
                Step::Remove(key) => {
                    prop_assert_eq!(tree.remove(&key).map(|row| row.index), model.remove(&key));
                }
                Step::RemovePrefix(prefix) => {
                    let mut seen = Vec::new();
                    let removed = tree.remove_prefix(&prefix, |row| seen.push(row.key().to_vec()));
                    let expected: Vec<_> = model.keys().filter(|key| key.starts_with(&prefix)).cloned().collect();
                    prop_assert_eq!(&seen, &expected);
                    prop_assert_eq!(removed, expected.len());
                    model.retain(|key, _| !key.starts_with(&prefix));
                }
                Step::Snapshot => snapshots.push((tree.clone(), model.clone())),
            }
            if whole || at % 16 == 0 {
                tree.check();
            }
        }
        tree.check();
        prop_assert!(same(&tree, &model));
        prop_assert!(tree.back(None).map(Row::key).eq(model.keys().rev().map(|key| &key[..])));
        for (snapshot, then) in &snapshots {
            snapshot.check();
            prop_assert!(same(snapshot, then));
        }
        for prefix in &prefixes {
            let below = model.iter().filter(|(key, _)| key.starts_with(prefix));
            prop_assert_eq!(tree.max_in(prefix), below.map(|(_, &index)| index).max().unwrap_or(0));
            let floor = model.range(..=prefix.clone()).next_back().map(|(key, _)| &key[..]);
            prop_assert_eq!(tree.floor(prefix).map(Row::key), floor);
            prop_assert_eq!(tree.get(prefix).map(Row::index), model.get(prefix).copied());
            let from = model.range(prefix.clone()..).map(|(key, _)| &key[..]);
            prop_assert!(tree.range(prefix).map(Row::key).eq(from));
            let back = model.range(..prefix.clone()).rev().map(|(key, _)| &key[..]);
            prop_assert!(tree.back(Some(prefix)).map(Row::key).eq(back));
            let newer = tree.newer(prefix, prefix_end(prefix).as_deref(), 500);
            let below = model.iter().filter(|(key, index)| key.starts_with(prefix) && **index > 500);
            prop_assert!(newer.iter().map(|row| row.key()).eq(below.map(|(key, _)| &key[..])));
        }
    }

    #[test]
    fn seeking_finds_what_a_new_range_finds(
        keys in proptest::collection::btree_set(one_of_many(), 0..1500),
        mut targets in proptest::collection::vec((one_of_many(), 0usize..40), 1..40),
    ) {
        let mut builder = Builder::default();
        for key in &keys {
            builder.push(item(key, 1)).unwrap();
        }
        let tree = builder.finish();
        tree.check();
        targets.sort();
        let mut iter = tree.iter();
        let mut at: Option<Vec<u8>> = None;
        for (target, steps) in targets {
            if at.as_ref().is_some_and(|at| *at >= target) {
                continue;
            }
            iter.seek(&target);
            let mut expected = tree.range(&target);
            for _ in 0..=steps {
                let (row, wanted) = (iter.next(), expected.next());
                prop_assert_eq!(row, wanted);
                at = row.map(|row| row.key().to_vec()).or(at);
            }
        }
    }

    /// Deep enough that a removal empties whole inner nodes, at both its ends and between them.
    #[test]
    fn groups_of_rows_come_and_go(
        steps in proptest::collection::vec((0u8..12, 0u16..700, any::<bool>(), any::<bool>()), 1..40),
    ) {
        let (mut tree, mut model) = (Tree::default(), Model::new());
        for (at, (group, size, remove, reverse)) in steps.into_iter().enumerate() {
            if remove {
                let removed = tree.remove_prefix(&[group], |_| ());
                let before = model.len();
                model.retain(|key, _| key[0] != group);
                prop_assert_eq!(removed, before - model.len());
            } else {
                for number in 0..size {
                    let number = if reverse { size - number } else { number };
                    let key = [&[group][..], &number.to_be_bytes()].concat();
                    tree.insert(item(&key, at as u64));
                    model.insert(key, at as u64);
                }
            }
            tree.check();
            prop_assert!(same(&tree, &model));
        }
    }

    #[test]
    fn a_built_tree_equals_an_inserted_one(keys in proptest::collection::btree_map(one_of_many(), 0u64..99, 0..1500)) {
        let mut builder = Builder::default();
        let mut inserted = Tree::default();
        for (key, &index) in &keys {
            builder.push(item(key, index)).unwrap();
            inserted.insert(item(key, index));
        }
        let built = builder.finish();
        built.check();
        prop_assert!(same(&built, &keys));
        prop_assert!(same(&inserted, &keys));
    }
}

#[test]
fn rows_in_order_fill_their_leaves() {
    let mut tree = Tree::default();
    for number in 0..10_000 {
        tree.insert(item(&numbered(number), 1));
    }

    let mut leaves = 0;
    let mut nodes: Vec<&Node<Item>> = tree.root.iter().map(|root| &root.node).collect();
    while let Some(node) = nodes.pop() {
        match node {
            Node::Leaf(_) => leaves += 1,
            Node::Inner(inner) => nodes.extend(inner.children.iter().map(|child| &child.node)),
        }
    }
    assert_eq!(leaves, 10_000 / LEAF_ROWS);
    tree.check();
}

#[test]
fn the_builder_refuses_rows_out_of_order() {
    let mut builder = Builder::default();
    for number in 0..100 {
        builder.push(item(&numbered(number), 1)).unwrap();
    }

    assert!(builder.push(item(&numbered(99), 1)).is_err());
    assert!(builder.push(item(&numbered(5), 1)).is_err());
    assert_eq!(builder.finish().len(), 100);
}

#[test]
fn removing_row_by_row_shrinks_the_tree_to_nothing() {
    let mut tree = Tree::default();
    for number in 0..5_000 {
        tree.insert(item(&numbered(number * 7919 % 5_000), u64::from(number)));
    }
    for number in 0..5_000 {
        assert!(tree.remove(&numbered(number)).is_some());
        if number % 500 == 0 {
            tree.check();
        }
    }

    assert!(tree.is_empty() && tree.root.is_none());
}

#[test]
fn a_prefix_that_fills_an_inner_node_can_be_removed() {
    for size in 1..600u16 {
        let mut tree = Tree::default();
        for number in 0..size {
            tree.insert(item(&[&b"a/"[..], &number.to_be_bytes()].concat(), 1));
        }
        for number in 0..20 {
            tree.insert(item(&[b'b', b'/', number], 2));
        }

        assert_eq!(tree.remove_prefix(b"a/", |_| ()), usize::from(size));
        tree.check();
        assert_eq!((tree.len(), tree.max_in(b"")), (20, 2));
    }
}

#[test]
fn the_end_of_a_prefix_skips_bytes_that_cannot_grow() {
    assert_eq!(prefix_end(b"a/"), Some(b"a0".to_vec()));
    assert_eq!(prefix_end(b"a\xff\xff"), Some(b"b".to_vec()));
    assert_eq!(prefix_end(b"\xff"), None);
    assert_eq!(prefix_end(b""), None);
}
