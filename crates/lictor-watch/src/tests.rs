use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lictor_state::{Area, Dirty};
use proptest::prelude::*;

use super::{INLINE_WAITERS_MAX, Registry, Topic, Waiter};

const LONG: Duration = Duration::from_secs(20);

fn registry() -> Registry {
    Registry::new(100_000).unwrap()
}

fn key(key: &str) -> Dirty {
    Dirty::Key(Bytes::copy_from_slice(key.as_bytes()))
}

fn tree(prefix: &str) -> Dirty {
    Dirty::Tree(Bytes::copy_from_slice(prefix.as_bytes()))
}

fn is_woken(waiter: &mut Waiter) -> bool {
    waiter.poll_changed(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
}

/// Waits for the wake thread, which nothing else can be asked about.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {LONG:?}: {what}");
        std::thread::yield_now();
    }
}

fn nothing_is_registered(registry: &Registry) -> bool {
    registry.waiters() == 0 && registry.shared.tables.iter().all(|table| table.lock().is_empty())
}

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_key_wakes_its_waiters_and_no_neighbour() {
    let registry = registry();
    let mut mine = registry.register(&[Topic::Key(b"a/b")]).unwrap();
    let mut others = [b"a/".as_slice(), b"a/a", b"a/bb", b"a/c", b""]
        .map(|other| registry.register(&[Topic::Key(other)]).unwrap());

    registry.wake(&[key("a/b")]);

    assert!(is_woken(&mut mine));
    assert!(others.iter_mut().all(|other| !is_woken(other)));
}

#[test]
fn a_key_wakes_the_waiters_of_its_prefixes() {
    let registry = registry();
    let mut above =
        [b"".as_slice(), b"a", b"a/", b"a/b"].map(|p| registry.register(&[Topic::Prefix(p)]).unwrap());
    let mut beside = [b"a/a".as_slice(), b"a/b/", b"a/bb", b"b", b"a!"]
        .map(|p| registry.register(&[Topic::Prefix(p)]).unwrap());

    registry.wake(&[key("a/b")]);

    assert!(above.iter_mut().all(is_woken));
    assert!(beside.iter_mut().all(|other| !is_woken(other)));
}

#[test]
fn r12_a_deleted_tree_wakes_keys_and_prefixes_below_it_and_prefixes_above() {
    let registry = registry();
    let topics = [
        (Topic::Key(b"a/"), true),
        (Topic::Key(b"a/b/c"), true),
        (Topic::Prefix(b"a/b/"), true),
        (Topic::Prefix(b"a/"), true),
        (Topic::Prefix(b"a"), true),
        (Topic::Prefix(b""), true),
        (Topic::Key(b"a"), false),
        (Topic::Key(b"b"), false),
        (Topic::Prefix(b"b/"), false),
        (Topic::Row(Area::Node, b"a/b"), false),
    ];
    let mut waiters = topics.map(|(topic, _)| registry.register(&[topic]).unwrap());

    registry.wake(&[tree("a/")]);

    for (waiter, (topic, woken)) in waiters.iter_mut().zip(topics) {
        assert_eq!(is_woken(waiter), woken, "{topic:?}");
    }
}

#[test]
fn rows_of_different_areas_do_not_mix() {
    let registry = registry();
    let mut node = registry.register(&[Topic::Row(Area::Node, b"n")]).unwrap();
    let mut sessions = registry
        .register(&[Topic::Row(Area::SessionsOfNode, b"n")])
        .unwrap();
    let mut table = registry.register(&[Topic::Row(Area::Nodes, b"")]).unwrap();
    let mut kv = registry
        .register(&[Topic::Key(b"n"), Topic::Prefix(b"n")])
        .unwrap();

    registry.wake(&[
        Dirty::Row(Area::Node, "n".into()),
        Dirty::Row(Area::Nodes, Bytes::new()),
    ]);

    assert!(is_woken(&mut node) && is_woken(&mut table));
    assert!(!is_woken(&mut sessions) && !is_woken(&mut kv));
}

#[test]
fn a_restore_wakes_everyone() {
    let registry = registry();
    let topics = [
        Topic::Key(b""),
        Topic::Key(b"a"),
        Topic::Prefix(b"b"),
        Topic::Row(Area::Checks, b""),
    ];
    let mut waiters: Vec<_> = (0..200)
        .map(|at| registry.register(&topics[at % 4..=at % 4]).unwrap())
        .collect();

    registry.wake(&[Dirty::All]);

    until("all are woken", || registry.woken_total() == 200);
    assert!(waiters.iter_mut().all(is_woken));
}

#[test]
fn a_waiter_of_several_topics_wakes_for_any() {
    let registry = registry();
    let mut waiter = registry
        .register(&[Topic::Key(b"a"), Topic::Key(b"b"), Topic::Prefix(b"c")])
        .unwrap();

    for change in ["a", "b", "c/d"] {
        registry.wake(&[key(change)]);
        assert!(is_woken(&mut waiter), "{change}");
        assert!(!is_woken(&mut waiter), "{change}");
    }
}

#[test]
fn a_change_before_the_sleep_ends_it_at_once() {
    let registry = registry();
    let mut waiter = registry.register(&[Topic::Key(b"a")]).unwrap();

    registry.wake(&[key("a")]);

    assert!(is_woken(&mut waiter));
}

#[test]
fn changes_before_the_waiter_runs_count_once() {
    let registry = registry();
    let count = Arc::<Count>::default();
    let waker = Waker::from(Arc::clone(&count));
    let mut waiter = registry
        .register(&[Topic::Key(b"a"), Topic::Prefix(b"")])
        .unwrap();
    assert_eq!(
        waiter.poll_changed(&mut Context::from_waker(&waker)),
        Poll::Pending
    );

    registry.wake(&[key("a"), key("a")]);
    registry.wake(&[key("a"), tree("")]);

    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    assert_eq!(registry.woken_total(), 1);
    assert!(is_woken(&mut waiter));
    assert!(!is_woken(&mut waiter));
}

#[test]
fn a_cancelled_wait_loses_nothing() {
    let registry = registry();
    let mut waiter = registry.register(&[Topic::Key(b"a")]).unwrap();
    {
        let mut cancelled = Box::pin(waiter.changed());
        assert!(
            cancelled
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        registry.wake(&[key("a")]);
    }

    assert!(is_woken(&mut waiter));
}

#[test]
fn the_last_waker_is_the_one_that_is_woken() {
    let registry = registry();
    let (first, last) = (Arc::<Count>::default(), Arc::<Count>::default());
    let mut waiter = registry.register(&[Topic::Key(b"a")]).unwrap();
    for count in [&first, &last] {
        let waker = Waker::from(Arc::clone(count));
        assert_eq!(
            waiter.poll_changed(&mut Context::from_waker(&waker)),
            Poll::Pending
        );
    }

    registry.wake(&[key("a")]);

    assert_eq!(
        (first.0.load(Ordering::SeqCst), last.0.load(Ordering::SeqCst)),
        (0, 1)
    );
}

#[test]
fn a_dropped_waiter_leaves_nothing_behind() {
    let registry = registry();
    let mut waiters: Vec<_> = (0..100)
        .map(|at: usize| {
            let own = at.to_string();
            registry
                .register(&[
                    Topic::Key(b"same"),
                    Topic::Key(own.as_bytes()),
                    Topic::Prefix(b"same"),
                ])
                .unwrap()
        })
        .collect();
    waiters.swap_remove(0);
    waiters.push(registry.register(&[Topic::Key(b"same")]).unwrap());

    drop(waiters);

    assert!(nothing_is_registered(&registry));
}

#[test]
fn the_bound_holds_and_a_dropped_waiter_gives_its_place_back() {
    let registry = Registry::new(2).unwrap();
    let first = registry.register(&[Topic::Key(b"a")]).unwrap();
    let _second = registry.register(&[Topic::Key(b"a")]).unwrap();
    assert!(registry.register(&[Topic::Key(b"b")]).is_err());

    drop(first);

    assert!(registry.register(&[Topic::Key(b"b")]).is_ok());
}

#[test]
fn a_few_waiters_are_woken_by_the_caller_itself() {
    let registry = registry();
    let mut waiters: Vec<_> = (0..INLINE_WAITERS_MAX)
        .map(|_| registry.register(&[Topic::Key(b"a")]).unwrap())
        .collect();

    registry.wake(&[key("a")]);

    assert!(waiters.iter_mut().all(is_woken));
}

#[test]
fn a_herd_is_woken_by_the_wake_thread() {
    let registry = registry();
    let count = Arc::<Count>::default();
    let waker = Waker::from(Arc::clone(&count));
    let mut waiters: Vec<_> = (0..10_000)
        .map(|_| registry.register(&[Topic::Key(b"a")]).unwrap())
        .collect();
    waiters.extend((0..10_000).map(|at: u32| registry.register(&[Topic::Key(&at.to_be_bytes())]).unwrap()));
    for waiter in &mut waiters {
        assert_eq!(
            waiter.poll_changed(&mut Context::from_waker(&waker)),
            Poll::Pending
        );
    }

    registry.wake(&[key("a")]);
    until("the herd of one key is woken", || {
        count.0.load(Ordering::SeqCst) == 10_000
    });

    assert!(waiters[..10_000].iter_mut().all(is_woken));
    assert!(waiters[10_000..].iter_mut().all(|other| !is_woken(other)));
    registry.wake(&[tree("\0")]);
    until("the herd of a tree is woken", || registry.woken_total() == 20_000);
    assert!(waiters[10_000..].iter_mut().all(is_woken));
}

#[test]
fn more_spans_than_may_wait_are_woken_all_the_same() {
    let registry = registry();
    let keys: Vec<_> = (0..20_000).map(|at| format!("k{at}")).collect();
    let mut waiters: Vec<_> = keys
        .iter()
        .map(|key| registry.register(&[Topic::Key(key.as_bytes())]).unwrap())
        .collect();

    registry.wake(&keys.iter().map(|text| key(text)).collect::<Vec<_>>());

    until("all are woken", || registry.woken_total() == 20_000);
    assert!(waiters.iter_mut().all(is_woken));
}

#[test]
fn a_long_key_with_a_hostile_set_of_prefixes_is_still_matched() {
    // Each prefix parts from the key one byte later than the last one, so that no step skips anything.
    let registry = registry();
    let long = vec![b'm'; 2_000];
    let prefixes: Vec<Vec<u8>> = (0..long.len())
        .map(|len| long[..len].iter().copied().chain([b'a']).collect())
        .collect();
    let mut hostile: Vec<_> = prefixes
        .iter()
        .map(|p| registry.register(&[Topic::Prefix(p)]).unwrap())
        .collect();
    let mut mine = registry.register(&[Topic::Prefix(b"m")]).unwrap();

    registry.wake(&[Dirty::Key(long.into())]);

    assert!(is_woken(&mut mine));
    assert!(hostile.iter_mut().all(|other| !is_woken(other)));
}

/// A writer and readers that sleep until they see its last write, in lockstep, so that each of thousands of
/// rounds can lose a wake-up.
#[test]
fn no_change_between_read_and_sleep_is_lost() {
    const READERS: usize = 4;
    const ROUNDS: usize = 3_000;
    // Enough that every second round goes through the wake thread.
    let registry = Arc::new(registry());
    let _crowd: Vec<_> = (0..40)
        .map(|_| registry.register(&[Topic::Prefix(b"k/")]).unwrap())
        .collect();
    let published = Arc::new(AtomicUsize::new(0));
    let start = Arc::new(Barrier::new(READERS + 1));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();

    // Counted, not asserted: a reader that panics would leave the others at the barrier.
    let read = async |reader: usize, round: usize, registry: &Registry, published: &AtomicUsize| {
        let topic = if (reader + round).is_multiple_of(2) {
            Topic::Key(b"k/x")
        } else {
            Topic::Prefix(b"k/")
        };
        let mut waiter = registry.register(&[topic]).unwrap();
        while published.load(Ordering::Relaxed) < round {
            if tokio::time::timeout(LONG, waiter.changed()).await.is_err() {
                return 1;
            }
        }
        0
    };
    let lost: usize = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                let (registry, published, start, runtime) = (&registry, &published, &start, &runtime);
                scope.spawn(move || {
                    let mut lost = 0;
                    for round in 1..=ROUNDS {
                        start.wait();
                        // One loss is enough to know; the remaining rounds only keep the others company.
                        if lost == 0 {
                            lost += runtime.block_on(read(reader, round, registry, published));
                        }
                    }
                    lost
                })
            })
            .collect();
        for round in 1..=ROUNDS {
            start.wait();
            published.store(round, Ordering::Relaxed);
            registry.wake(&[key("k/x")]);
        }
        readers.into_iter().map(|reader| reader.join().unwrap()).sum()
    });

    assert_eq!(lost, 0, "wake-ups were lost");
}

#[test]
fn an_idle_waiter_is_small() {
    // A counted slot, a counted key of 40 bytes, two words each for key and list in the tree, and the waiter.
    let slot = 16 + size_of::<super::Slot>();
    let key = 16 + 40;
    let entry = (16 + 16) * 3 / 2;

    assert!(slot + key + entry + size_of::<Waiter>() <= 224);
}

fn words() -> impl Strategy<Value = String> {
    "[ab]{0,4}"
}

proptest! {
    #[test]
    fn wake_ups_are_those_of_the_definition(
        keys in prop::collection::vec(words(), 0..20),
        prefixes in prop::collection::vec(words(), 0..20),
        dropped in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        change in words(),
        recursive: bool,
    ) {
        let registry = registry();
        let matches_key = |k: &str| if recursive { k.starts_with(&change) } else { k == change };
        let matches_prefix = |p: &str| change.starts_with(p) || (recursive && p.starts_with(&change));
        let on_key = |k: &String| (registry.register(&[Topic::Key(k.as_bytes())]).unwrap(), matches_key(k));
        let on_prefix =
            |p: &String| (registry.register(&[Topic::Prefix(p.as_bytes())]).unwrap(), matches_prefix(p));
        let mut waiters: Vec<_> = keys.iter().map(on_key).chain(prefixes.iter().map(on_prefix)).collect();
        for index in dropped {
            if !waiters.is_empty() {
                waiters.swap_remove(index.index(waiters.len()));
            }
        }
        let expected = waiters.iter().filter(|(_, woken)| *woken).count();

        registry.wake(&[if recursive { tree(&change) } else { key(&change) }]);

        until("the expected number is woken", || registry.woken_total() >= expected as u64);
        prop_assert_eq!(registry.woken_total(), expected as u64);
        for (waiter, woken) in &mut waiters {
            prop_assert_eq!(is_woken(waiter), *woken);
        }
        drop(waiters);
        prop_assert!(nothing_is_registered(&registry));
    }
}
