//! The rows of the table: each kind of work, and what its figures are to reach beside a Consul on the same machine.

use crate::figures::Figure::{self, Cpu, Idle, Kept, Memory, P50, Rate, Time, Written};
use crate::figures::Target::{self, AtMost, Part, Times, Unchanged};

/// Servers and data are shared by the rows of one phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Ten thousand keys; both servers run all the time and take turns row by row.
    Small,
    /// A hundred thousand keys in a thousand folders; as above.
    Tree,
    /// Ten thousand watchers; fresh servers in each round.
    Watch,
    /// A million keys; fresh servers in each round.
    Million,
    /// Nothing stored; fresh servers in each round.
    Start,
    /// Ten thousand services with twenty thousand checks; fresh servers in each round.
    Services,
    /// Three servers with ten thousand keys; fresh ones in each round.
    Cluster,
    /// Three servers with a million keys; fresh ones in each round.
    ClusterMillion,
}

/// One kind of work.
#[derive(Debug)]
pub(crate) struct Row {
    /// What `--only` selects by.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) phase: Phase,
    pub(crate) targets: &'static [(Figure, Target)],
}

const fn row(
    id: &'static str,
    title: &'static str,
    phase: Phase,
    targets: &'static [(Figure, Target)],
) -> Row {
    Row {
        id,
        title,
        phase,
        targets,
    }
}

const fn times(goal: f64, floor: f64) -> Target {
    Times { goal, floor }
}

const fn at_most(goal: f64, floor: f64) -> Target {
    AtMost { goal, floor }
}

const fn part(goal: f64, floor: f64) -> Target {
    Part { goal, floor }
}

/// A figure with a goal but without a floor.
const NONE: f64 = 0.0;

const PUT_MANY: &[(Figure, Target)] = &[
    (Rate, times(6.0, 3.6)),
    (Cpu, part(8.0, 5.0)),
    (Written, part(5.0, NONE)),
];

/// All rows, in the order of the table.
pub(crate) static ROWS: &[Row] = &[
    row(
        "put-1",
        "durable PUT 100 B, 1 client",
        Phase::Small,
        &[(Rate, times(2.0, 1.5))],
    ),
    row(
        "put-8",
        "durable PUT 100 B, 8 clients",
        Phase::Small,
        &[(Rate, times(4.5, 2.7))],
    ),
    row("put-64", "durable PUT 100 B, 64 clients", Phase::Small, PUT_MANY),
    row(
        "put-256",
        "durable PUT 100 B, 256 clients",
        Phase::Small,
        PUT_MANY,
    ),
    row(
        "get-1",
        "GET, 1 client, 10 k keys",
        Phase::Small,
        &[(Rate, times(2.6, 2.0))],
    ),
    row(
        "get-64",
        "GET, 64 clients, 10 k keys",
        Phase::Small,
        &[(Rate, times(3.8, 2.5)), (Cpu, part(6.0, NONE))],
    ),
    row(
        "get-consistent",
        "GET ?consistent, 64 clients",
        Phase::Small,
        &[(Rate, times(4.5, 2.7))],
    ),
    row(
        "recurse",
        "?recurse of 1,000 keys, 8 clients",
        Phase::Small,
        &[(Rate, times(2.4, 1.8)), (Cpu, part(4.0, NONE))],
    ),
    row(
        "keys-separator",
        "?keys&separator=/ over 100,000 keys with 1,000 answers",
        Phase::Tree,
        &[(Rate, times(20.0, 12.0))],
    ),
    row(
        "session-cycle",
        "session create + renew + destroy, 64 clients",
        Phase::Small,
        &[(Rate, times(6.0, 3.6))],
    ),
    row(
        "lock-cycle",
        "lock acquire + release, 64 clients",
        Phase::Small,
        &[(Rate, times(6.0, 3.6))],
    ),
    row(
        "handoff-2",
        "contended hand-off, 2 contenders",
        Phase::Small,
        &[(P50, part(3.0, 2.0))],
    ),
    row(
        "handoff-100",
        "contended hand-off, 100 contenders",
        Phase::Small,
        &[(P50, part(3.0, 2.0))],
    ),
    row(
        "txn-64",
        "txn of 64 sets, 64 clients (CPU per key)",
        Phase::Small,
        &[(Rate, times(6.0, 3.6))],
    ),
    row(
        "mixed",
        "90 % GET 10 % PUT, 64 clients",
        Phase::Small,
        &[(Rate, times(4.0, 2.5))],
    ),
    row(
        "watch-memory",
        "idle watcher, 10,000 each on its own key, memory each",
        Phase::Watch,
        &[(
            Memory,
            AtMost {
                goal: 10_240.0,
                floor: 16_384.0,
            },
        )],
    ),
    row(
        "watch-put",
        "PUT on other keys with 10,000 watchers idle, 64 clients",
        Phase::Watch,
        &[(
            Kept,
            Unchanged {
                goal: 0.05,
                floor: 0.15,
            },
        )],
    ),
    row(
        "watch-wake-one",
        "wake of one watcher among 10,000",
        Phase::Watch,
        &[(P50, part(3.5, 2.0))],
    ),
    row(
        "watch-wake-all",
        "one PUT wakes 10,000 watchers of one key, last one answered",
        Phase::Watch,
        &[(Time, part(8.0, 5.0))],
    ),
    row(
        "million-load",
        "1 M keys of 100 B: load by txns of 64, keys",
        Phase::Million,
        &[(Rate, times(5.5, 3.0))],
    ),
    row(
        "million-memory",
        "1 M keys: resident memory",
        Phase::Million,
        &[(Memory, part(6.0, 4.0))],
    ),
    row(
        "million-get",
        "GET, 64 clients, 1 M keys",
        Phase::Million,
        &[(Rate, times(5.0, 3.0))],
    ),
    row(
        "million-restart",
        "1 M keys: kill -9 to first consistent read",
        Phase::Million,
        &[(Time, part(17.0, 10.0))],
    ),
    row(
        "empty-memory",
        "empty: resident memory",
        Phase::Start,
        &[(Memory, part(5.0, 3.0))],
    ),
    row(
        "start-dev",
        "-dev start to first answered write",
        Phase::Start,
        &[(
            Time,
            AtMost {
                goal: 0.1,
                floor: 0.3,
            },
        )],
    ),
    row(
        "start-durable",
        "durable server start to first answered write",
        Phase::Start,
        &[(
            Time,
            AtMost {
                goal: 0.2,
                floor: 0.6,
            },
        )],
    ),
    row(
        "services-health",
        "10,000 services: /v1/health/service/NAME of 100 instances with 2 checks each, 8 clients",
        Phase::Services,
        &[(Rate, times(3.0, 3.0))],
    ),
    row(
        "services-idle",
        "10,000 services of the server's own agent with 20,000 TTL checks, nobody asks",
        Phase::Services,
        &[(Idle, at_most(0.05, 0.05))],
    ),
    row(
        "cluster-put-64",
        "three servers: durable PUT through the leader, 64 clients, CPU of all",
        Phase::Cluster,
        &[(Rate, times(7.0, 4.0)), (Cpu, part(7.0, NONE))],
    ),
    row(
        "cluster-put-followers",
        "three servers: durable PUT over the followers, 64 clients",
        Phase::Cluster,
        &[(Rate, times(6.0, 3.6))],
    ),
    row(
        "cluster-put-1",
        "three servers: durable PUT through the leader, 1 client",
        Phase::Cluster,
        &[(Rate, times(2.5, 1.7))],
    ),
    row(
        "cluster-get-default",
        "three servers: GET at a follower, 64 clients",
        Phase::Cluster,
        &[(Rate, times(5.0, 3.0))],
    ),
    row(
        "cluster-get-stale",
        "three servers: GET ?stale at a follower, 64 clients",
        Phase::Cluster,
        &[(Rate, times(5.0, 3.0))],
    ),
    row(
        "cluster-get-consistent",
        "three servers: GET ?consistent at a follower, 64 clients",
        Phase::Cluster,
        &[(Rate, times(9.0, 5.0))],
    ),
    row(
        "cluster-watch-memory",
        "three servers: 10,000 idle watchers spread over them, memory each",
        Phase::Cluster,
        &[(Memory, at_most(10_240.0, 16_384.0))],
    ),
    row(
        "cluster-transfer",
        "three servers: longest pause of a writer while the leadership is handed over",
        Phase::Cluster,
        &[(Time, at_most(0.2, 0.5))],
    ),
    row(
        "cluster-pause",
        "three servers: leader paused, to the first write through a survivor",
        Phase::Cluster,
        &[(P50, at_most(1.0, 1.5))],
    ),
    row(
        "cluster-kill",
        "three servers: leader killed, to the first write through a survivor",
        Phase::Cluster,
        &[(P50, at_most(0.6, 1.0))],
    ),
    row(
        "cluster-snapshot-save",
        "three servers, 1 M keys: snapshot save",
        Phase::ClusterMillion,
        &[(Time, at_most(1.1, 2.0))],
    ),
    row(
        "cluster-catch-up",
        "three servers, 1 M keys: an empty fourth one catches up while 64 clients write",
        Phase::ClusterMillion,
        &[(Time, at_most(10.0, 20.0))],
    ),
    row(
        "cluster-snapshot-restore",
        "three servers, 1 M keys: snapshot restore",
        Phase::ClusterMillion,
        &[(Time, at_most(4.0, 8.0))],
    ),
];
