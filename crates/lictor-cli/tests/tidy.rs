//! Rules of the repository that a machine can hold, so that reviews need not: lengths, layout, and what each crate may
//! depend on. They look at the whole workspace and stand in this crate because it builds without RocksDB.

#![expect(clippy::expect_used, reason = "a rule that cannot be checked must fail")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 900;
const LINE_CHARS_MAX: usize = 130;

/// What each crate may use of the others. A crate that is not here may not exist.
const LAYERS: &[(&str, &[&str])] = &[
    ("lictor-proto", &[]),
    ("lictor-state", &["lictor-proto"]),
    ("lictor-raft", &["lictor-proto"]),
    ("lictor-session", &["lictor-proto", "lictor-state"]),
    ("lictor-peer", &["lictor-proto"]),
    ("lictor-archive", &["lictor-proto", "lictor-state"]),
    ("lictor-watch", &["lictor-state"]),
    ("lictor-telemetry", &[]),
    (
        "lictor-sim",
        &[
            "lictor-proto",
            "lictor-state",
            "lictor-raft",
            "lictor-session",
            "lictor-watch",
        ],
    ),
    (
        "lictor-node",
        &[
            "lictor-proto",
            "lictor-state",
            "lictor-raft",
            "lictor-session",
            "lictor-watch",
            "lictor-peer",
            "lictor-archive",
            "lictor-telemetry",
        ],
    ),
    (
        "lictor-store",
        &["lictor-proto", "lictor-state", "lictor-raft", "lictor-node"],
    ),
    ("lictor-agent", &["lictor-proto", "lictor-state", "lictor-node"]),
    (
        "lictor-http",
        &[
            "lictor-proto",
            "lictor-state",
            "lictor-archive",
            "lictor-node",
            "lictor-agent",
            "lictor-telemetry",
        ],
    ),
    ("lictor-cli", &["lictor-proto", "lictor-archive", "lictor-peer"]),
    ("lictor-bench", &[]),
    (
        "lictor",
        &[
            "lictor-proto",
            "lictor-state",
            "lictor-raft",
            "lictor-peer",
            "lictor-node",
            "lictor-store",
            "lictor-agent",
            "lictor-http",
            "lictor-cli",
        ],
    ),
];

/// Third-party crates that one crate alone may name, so that each can be replaced in one place.
const OWNED: &[(&str, &str)] = &[
    ("raft", "lictor-raft"),
    ("raft-proto", "lictor-raft"),
    ("slog", "lictor-raft"),
    ("rocksdb", "lictor-store"),
    ("hcl-rs", "lictor-cli"),
];

/// The crates that decide: no runtime, no sockets, no clock, no chance.
const PURE: &[&str] = &["lictor-proto", "lictor-state", "lictor-raft", "lictor-session"];
const IMPURE: &[&str] = &["tokio", "hyper", "rand", "rustls", "socket2"];

fn root() -> PathBuf {
    // At run time: a test program may have been built in another clone that shares the target folder.
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo names the crate's folder"))
        .join("../..")
}

fn files(folder: &Path, wanted: &dyn Fn(&Path) -> bool, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                files(&path, wanted, found);
            }
        } else if wanted(&path) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in ["crates", "examples", "tests"] {
        files(
            &root().join(folder),
            &|path| path.extension().is_some_and(|end| end == "rs"),
            &mut found,
        );
    }
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("readable");
        let name = path
            .strip_prefix(root())
            .expect("below the root")
            .display()
            .to_string();
        (name, text)
    };
    found.into_iter().map(read).collect()
}

/// The crates that each crate names under `[dependencies]`.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let mut manifests = Vec::new();
    files(
        &root().join("crates"),
        &|path| path.ends_with("Cargo.toml"),
        &mut manifests,
    );
    manifests
        .iter()
        .map(|path| {
            let text = std::fs::read_to_string(path).expect("readable");
            let name = text
                .lines()
                .find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
            let section = text.split("\n[dependencies]\n").nth(1).unwrap_or_default();
            let section = section.split("\n[").next().unwrap_or_default();
            let names = section
                .lines()
                .filter_map(|line| line.split(['.', ' ', '=']).next());
            let names = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
            (name.expect("a package has a name").to_owned(), names)
        })
        .collect()
}

/// Everything that a rule finds, one a line.
fn complaints(rule: impl Fn(&str, &str) -> Option<String>) -> String {
    let found: Vec<_> = sources()
        .iter()
        .filter_map(|(name, text)| Some(format!("{name}: {}", rule(name, text)?)))
        .collect();
    found.join("\n")
}

#[test]
fn the_rules_see_the_repository() {
    assert!(sources().len() > 100);
    assert!(dependencies()["lictor-http"].contains(&"hyper".to_owned()));
}

#[test]
fn files_are_short_enough_to_be_one_thing() {
    let long = complaints(|_, text| {
        let lines = text.lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{lines} lines"))
    });
    assert_eq!(long, "");
}

#[test]
fn lines_fit_a_screen_and_have_no_tabs() {
    let bad = complaints(|name, text| {
        let bad = |line: &str| {
            line.contains('\t') || (line.chars().count() > LINE_CHARS_MAX && !is_data(name, line))
        };
        text.lines().position(bad).map(|at| format!("line {}", at + 1))
    });
    assert_eq!(bad, "");
}

/// A long text in a test or a table is data, which does not get better by being broken.
fn is_data(name: &str, line: &str) -> bool {
    line.contains('"') || line.contains("http") || name.contains("tests")
}

#[test]
fn nothing_is_left_to_be_done() {
    let this = "crates/lictor-cli/tests/tidy.rs";
    let left = complaints(|name, text| {
        let marks = ["todo!(", "unimplemented!(", "dbg!(", "#[ignore"];
        let found = marks
            .into_iter()
            .find(|mark| name != this && text.contains(mark))?;
        Some(found.to_owned())
    });
    assert_eq!(left, "");
}

#[test]
fn every_crate_opens_with_its_purpose() {
    let silent = complaints(|name, text| {
        let opens = name.ends_with("src/lib.rs") || name.ends_with("src/main.rs");
        (opens && !text.starts_with("//!")).then(|| "no //! at the top".to_owned())
    });
    assert_eq!(silent, "");
}

#[test]
fn dependencies_point_in_one_direction() {
    for (name, uses) in dependencies() {
        let (_, allowed) = LAYERS
            .iter()
            .find(|(layer, _)| *layer == name)
            .unwrap_or_else(|| panic!("{name} has no layer"));
        for used in uses.iter().filter(|used| used.starts_with("lictor")) {
            assert!(allowed.contains(&used.as_str()), "{name} may not use {used}");
        }
    }
}

#[test]
fn crates_that_can_be_replaced_are_named_in_one_place() {
    for (name, uses) in dependencies() {
        for (owned, owner) in OWNED {
            assert!(
                name == *owner || !uses.iter().any(|used| used == owned),
                "{name} may not use {owned}"
            );
        }
    }
}

#[test]
fn crates_that_decide_have_no_way_to_the_outside() {
    for (name, uses) in dependencies() {
        if PURE.contains(&name.as_str()) {
            let outside: Vec<_> = uses
                .iter()
                .filter(|used| IMPURE.contains(&used.as_str()))
                .collect();
            assert!(outside.is_empty(), "{name} may not use {outside:?}");
        }
    }
    let clocks = complaints(|name, text| {
        let pure = PURE
            .iter()
            .any(|pure| name.starts_with(&format!("crates/{pure}/src/")));
        let marks = [
            "std::net",
            "std::fs",
            "Instant::now",
            "SystemTime::now",
            "thread::sleep",
        ];
        marks
            .into_iter()
            .find(|mark| pure && text.contains(mark))
            .map(str::to_owned)
    });
    assert_eq!(clocks, "");
}
