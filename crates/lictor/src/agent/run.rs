//! Wires the crates into one server.

use lictor_cli::Start;

/// Runs a server until it is asked to stop.
pub(crate) async fn run(start: Start) -> anyhow::Result<()> {
    start.ready();
    start.control.stop_requested().await;
    Ok(())
}
