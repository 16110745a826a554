//! Runs seeds: `lictor-sim [--from FIRST] [--seeds COUNT]`, or one seed in detail: `lictor-sim --seed SEED`.

#![expect(clippy::print_stdout, reason = "a program's answer")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use lictor_sim::{Report, run, seeds};

const USAGE: &str = "usage: lictor-sim [--from FIRST] [--seeds COUNT] | --seed SEED";

struct Wanted {
    from: u64,
    count: u64,
    verbose: bool,
}

fn main() -> ExitCode {
    let Some(wanted) = wanted(std::env::args().skip(1)) else {
        println!("{USAGE}");
        return ExitCode::from(2);
    };
    let known = seeds::FOUND
        .iter()
        .map(|(seed, _)| *seed)
        .filter(|_| !wanted.verbose);
    let (mut failed, mut total) = (Vec::new(), Report::default());
    for seed in known.chain(wanted.from..wanted.from + wanted.count) {
        match try_one(seed, wanted.verbose) {
            Ok(report) => {
                total.counts.add(&report.counts);
                total.undecided += report.undecided;
            }
            Err(text) => {
                println!("seed {seed}: {text}");
                failed.push(seed);
            }
        }
    }
    println!("{total:#?}");
    if failed.is_empty() {
        println!("{} seeds, no promise broken", wanted.count);
        return ExitCode::SUCCESS;
    }
    println!("failed: {failed:?}; see one in detail with --seed SEED");
    ExitCode::FAILURE
}

fn wanted(mut arguments: impl Iterator<Item = String>) -> Option<Wanted> {
    let mut wanted = Wanted {
        from: 1,
        count: 100,
        verbose: false,
    };
    while let Some(name) = arguments.next() {
        let value = arguments.next()?.parse().ok()?;
        match name.as_str() {
            "--from" => wanted.from = value,
            "--seeds" => wanted.count = value,
            "--seed" => (wanted.from, wanted.count, wanted.verbose) = (value, 1, true),
            _ => return None,
        }
    }
    Some(wanted)
}

/// A panic of the code under test is a failure like others.
fn try_one(seed: u64, verbose: bool) -> Result<Report, String> {
    match catch_unwind(AssertUnwindSafe(|| run(seed, verbose))) {
        Ok(Ok(report)) => Ok(report),
        Ok(Err(failure)) => Err(format!("at {} us: {}", failure.at, failure.breach.0)),
        Err(_) => Err("panicked, see above".to_owned()),
    }
}
