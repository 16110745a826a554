//! The life of the agent's process: logging, panics, signals, pid file, exit.

mod control;
mod logging;
mod monitor;
mod panic;
mod pid_file;

pub use control::{Control, Handle, Leave, Reload};
pub use logging::LevelHandle;
pub use monitor::Monitors;

pub(crate) use control::watch_signals;
pub(crate) use logging::start as start_logging;
pub(crate) use panic::abort_on_panic;
pub(crate) use pid_file::PidFile;
