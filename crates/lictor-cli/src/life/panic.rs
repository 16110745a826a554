//! A panic is a bug, and the state it leaves behind cannot be trusted: it is logged, and the process ends.

use std::backtrace::Backtrace;

/// Logs a panic of any thread and aborts.
pub(crate) fn abort_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let message = text
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("no message");
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = Backtrace::force_capture();
        tracing::error!(message, place, %backtrace, "panic: this is a bug, the process ends here");
        // The log's own thread or lock may be what panicked.
        eprintln!("==> panic at {place}: {message}");
        std::process::abort();
    }));
}
