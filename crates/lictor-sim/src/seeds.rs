//! Seeds that found bugs, run again in each test of the crate.

/// A seed, and what it found. A later change to the simulation may give a seed another run: what it found then has a
/// test of its own beside the code.
pub const FOUND: &[(u64, &str)] = &[
    (
        8,
        "After a transfer that came to nothing there is no lease for the rest of the term: a leader whose timers acted \
         under the lease alone never ended a session again. Without one they act after a round.",
    ),
    (
        110,
        "What it finds without the votes that a member withholds after its start: a second leader beside a lease.",
    ),
    (
        2,
        "A network that doubled calls had a compare-and-set carried out twice and its client told that it failed: calls \
         travel at most once.",
    ),
    (
        72,
        "A client that came back to its fair lock with a shorter TTL was taken to rely on the longer one still.",
    ),
    (
        13,
        "A cut that was planned before all faults ended came after, and kept a server apart for good.",
    ),
];
