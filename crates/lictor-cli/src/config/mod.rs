//! Configuration: from files, flags and fragments to one plain, validated [`RuntimeConfig`].
//!
//! ```text
//! files, folders ─┐
//! flags ──────────┼─> check (known names, right kinds) ─> merge ─> resolve (defaults, validation) ─> RuntimeConfig
//! -hcl fragments ─┘
//! ```

mod addr;
mod check;
mod cors;
mod duration;
mod error;
mod hcl;
mod load;
mod merged;
mod resolve;
mod runtime;
mod schema;
mod tls;

pub use addr::Listen;
pub(crate) use addr::{find, parse_host_port};
pub use duration::parse_duration;
pub use error::ConfigError;
pub use load::{Definitions, Format, Place, Sources};
pub use runtime::{
    Acl, Autopilot, DataDir, Demo, Limits, LogSettings, PeerTls, Ports, RetryJoin, RuntimeConfig, TlsFiles,
};
