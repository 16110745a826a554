//! A few runs in each test; many more with `make sim SEEDS=1000`.

use lictor_sim::{Counts, run, seeds};

/// Runs that take some seconds together in a build without optimisation.
const RUNS: u64 = 40;

fn survive(seeds: impl Iterator<Item = u64>) -> Counts {
    let mut total = Counts::default();
    for seed in seeds {
        let report = run(seed, false).unwrap_or_else(|failure| {
            panic!(
                "seed {seed} at {} us: {}\nreplay it with: make sim SEED={seed}",
                failure.at, failure.breach.0
            )
        });
        total.add(&report.counts);
    }
    total
}

#[test]
fn no_promise_is_broken_under_faults() {
    let counts = survive(1..=RUNS);

    let enough = counts.reigns > RUNS
        && counts.installed > RUNS / 8
        && counts.lease_reads > 10 * RUNS
        && counts.round_reads > 10 * RUNS
        && counts.expired > RUNS / 2
        && counts.locked > RUNS
        && counts.crashes > RUNS
        && counts.replaced > RUNS / 8
        && counts.woken > 5 * RUNS
        && counts.fair > RUNS
        && counts.in_line > RUNS / 2
        && counts.ttls_over > RUNS
        && counts.answered > 100 * RUNS;
    assert!(enough, "too little happened: {counts:?}");
}

#[test]
fn seeds_that_found_bugs_find_none() {
    survive(seeds::FOUND.iter().map(|(seed, _)| *seed));
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 11] {
        let (first, second) = (run(seed, false), run(seed, false));

        assert_eq!(first, second);
        assert!(first.is_ok_and(|report| report.digest != 0));
    }
    assert_ne!(
        run(3, false).map(|report| report.digest),
        run(11, false).map(|report| report.digest)
    );
}
