//! Bounds that the whole product shares, with the place that each comes from.

use std::time::Duration;

/// Largest value of one KV entry, in bytes (Consul: `kv_max_value_size`).
pub const KV_VALUE_MAX_BYTES: usize = 512 * 1024;
/// Most operations in one transaction (Consul: `txn` endpoint).
pub const TXN_OPS_MAX: usize = 128;
/// Largest body of a transaction, in bytes (Consul: `txn_max_req_len`).
pub const TXN_BODY_MAX_BYTES: usize = 512 * 1024;
/// Most rows that a transaction may answer with. Part of what the log means: one server must not refuse what another
/// carries out.
pub const TXN_RESULT_ROWS_MAX: usize = 256 * 1024;
/// Most bytes of keys and values that a transaction may answer with; 128 reads of the largest values stay far below it.
/// As [`TXN_RESULT_ROWS_MAX`] in all else.
pub const TXN_RESULT_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Largest encoded command, in bytes.
pub const ENTRY_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Shortest session TTL (Consul: `session_ttl_min`).
pub const SESSION_TTL_MIN: Duration = Duration::from_secs(10);
/// Longest session TTL.
pub const SESSION_TTL_MAX: Duration = Duration::from_secs(86_400);
/// Shortest TTL of a key.
pub const KV_TTL_MIN: Duration = Duration::from_secs(1);
/// Longest TTL of a key.
pub const KV_TTL_MAX: Duration = Duration::from_secs(366 * 86_400);
/// A session ends after this many TTLs without a renewal (Consul: sessions, TTL contract).
pub const SESSION_TTL_MULTIPLIER: u32 = 2;
/// What a lock-delay acts for at most; a longer one is accepted and shown.
pub const LOCK_DELAY_MAX: Duration = Duration::from_secs(60);
/// The lock-delay of a session that names none.
pub const LOCK_DELAY_DEFAULT: Duration = Duration::from_secs(15);
/// How long a tombstone is kept before it may be reaped (Consul: `tombstone_ttl`).
pub const TOMBSTONE_TTL: Duration = Duration::from_secs(15 * 60);
/// Tombstones are reaped in bins of this width.
pub const TOMBSTONE_BIN: Duration = Duration::from_secs(30);
/// `wait` of a blocking query that names none.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(300);
/// Longest `wait` of a blocking query.
pub const WAIT_MAX: Duration = Duration::from_secs(600);
/// How long the name of a fair lock is known after its last entry.
pub const QUEUE_NAME_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Names of fair locks are forgotten in bins of this width.
pub const QUEUE_NAME_BIN: Duration = Duration::from_secs(60 * 60);
/// How long an entry of a fair queue whose lease never lapses still waits once nobody says that it is waited for.
pub const QUEUE_WAIT_TTL: Duration = Duration::from_secs(60);
/// How long the place of a session in line for a key's lock is kept once nobody says that it is waited for.
pub const LOCK_WAIT_TTL: Duration = Duration::from_secs(10);
