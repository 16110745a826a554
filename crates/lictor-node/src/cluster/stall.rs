//! How long a bulk stream may stand still. A server that is frozen keeps its connections, so nothing else ends them.

use std::io;
use std::time::Duration;

/// A stream on which nothing moves for so long is given up.
pub(super) const STALLED: Duration = Duration::from_secs(15);

/// One read or write of a stream, or [`io::ErrorKind::TimedOut`].
pub(super) async fn moving<T>(done: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let done = tokio::time::timeout(STALLED, done).await;
    done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
