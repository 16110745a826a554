//! The TTL that a session may have: the leader's configuration decides for all servers, by the replicated state.

use std::time::Duration;

use lictor_proto::go;
use lictor_proto::limits::SESSION_TTL_MAX;
use lictor_proto::v1::SessionRow;

use crate::ProposeError;

/// Refuses a TTL that is neither 0 nor between `least` and the greatest, in Consul's words.
pub(crate) fn check(row: &SessionRow, least: Duration) -> Result<(), ProposeError> {
    if row.ttl.is_empty() {
        return Ok(());
    }
    let nanos = |duration: Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    let ttl = go::parse_duration(&row.ttl)
        .map_err(|why| ProposeError::Refused(format!("Session TTL '{}' invalid: {why}", row.ttl)))?;
    if ttl == 0 || (nanos(least)..=nanos(SESSION_TTL_MAX)).contains(&ttl) {
        return Ok(());
    }
    Err(ProposeError::Refused(format!(
        "Invalid Session TTL '{ttl}', must be between [{}={}]",
        go::format_duration(nanos(least)),
        go::format_duration(nanos(SESSION_TTL_MAX)),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(ttl: &str) -> Result<(), String> {
        let row = SessionRow {
            ttl: ttl.to_owned(),
            ..SessionRow::default()
        };
        check(&row, Duration::from_secs(10)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_ttl_is_nothing_or_between_the_least_and_a_day() {
        for ttl in ["", "0", "0s", "10s", "24h", "1m30s"] {
            assert_eq!(checked(ttl), Ok(()), "{ttl}");
        }
        let range = |ttl: &str| {
            Err(format!(
                "Invalid Session TTL '{ttl}', must be between [10s=24h0m0s]"
            ))
        };
        assert_eq!(checked("9s"), range("9000000000"));
        assert_eq!(checked("-10s"), range("-10000000000"));
        assert_eq!(checked("25h"), range("90000000000000"));
    }
}
