//! The local agent of a Lictor server: the services and checks that are registered with it, the runs of these checks,
//! and their sync to the replicated catalog. It also keeps the server's events and certificate authority.
//!
//! It does not speak HTTP to clients (`lictor-http` does) and decides nothing about the catalog: it only proposes.
//!
//! ```text
//! API, config files ──> Agent ──> local services, checks, deadlines ──> files below <data-dir>/agent
//!                                   ^               │ changed ids
//!                        run, script ──── runner   └──> sync ── compare with the view ──> Register, Deregister
//! ```
//! Tasks: `runner` (one timer for all checks), `sync` and `saver`; each run of a check is a short task of its own.
//! Twenty thousand TTL checks that are fed in time cost no timer, no file and no proposal each.

mod agent;
mod alias;
mod ca;
mod content_hash;
pub mod decode;
pub mod definition;
mod events;
mod local;
mod mesh;
mod reconcile;
mod run;
mod runner;
mod saver;
mod store;
mod sync;

pub use agent::{Agent, Config, Definitions, Error, Leave, RequestReload, node_row, rfc3339, timestamp};
pub use ca::CertificateAuthority;
pub use content_hash::content_hash;
pub use definition::{CheckDefinition, CheckKind, Health, ReadError, ServiceDefinition};
pub use events::{Event, Events};
pub use local::{LocalError, Scripts};
