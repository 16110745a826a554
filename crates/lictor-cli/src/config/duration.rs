//! Durations as Consul's files and flags have them, in Go's form: `10s`, `1h30m`, `1.5h`.

use std::time::Duration;

use lictor_proto::go;

/// Reads a duration; negative ones are refused, since none of ours may be.
///
/// # Errors
/// A text that names the value and how to write it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    go::parse_duration(text)
        .ok()
        .and_then(|nanos| u64::try_from(nanos).ok())
        .map(Duration::from_nanos)
        .ok_or_else(|| format!("{text:?} is not a duration (write it as in 10s, 1m30s or 1.5h)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read() {
        for (text, ms) in [
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("250ms", 250),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "10",
            "s",
            "10x",
            "-1s",
            "1..5s",
            "1e400h",
            "99999999999999999999h",
        ] {
            let error = parse_duration(text).expect_err(text);
            assert!(error.contains("is not a duration"), "{error}");
        }
    }
}
