//! raft-rs logs through slog; this passes it on to `tracing`.
