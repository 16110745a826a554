//! What a request on keys may ask for beyond Consul's API, taken apart in one place.
//!
//! A request that asks for none of it has no [`Extras`] at all, and is served as if there were none.

use std::borrow::Cow;
use std::time::Duration;

use lictor_proto::go;
use lictor_proto::limits::{KV_TTL_MAX, KV_TTL_MIN};

use crate::error::ApiError;
use crate::glob::Glob;
use crate::query::Query;

/// The most entries that a client may ask for in one page.
const LIMIT_MAX: usize = 1_000_000;

/// What is asked for, see `docs/extensions.md`.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a parameter of its own")]
pub(crate) struct Extras<'a> {
    /// `?limit=`: the most entries of a page.
    pub(crate) limit: Option<usize>,
    /// `?after=`: the page begins behind this key.
    pub(crate) after: Option<Cow<'a, [u8]>>,
    /// `?match=`: only names like this.
    pub(crate) matching: Option<Glob>,
    /// `?reverse`: the last key first.
    pub(crate) is_reverse: bool,
    /// `?novalue`: rows without their values.
    pub(crate) no_value: bool,
    /// `?count`: how many there are, and nothing of them.
    pub(crate) is_count: bool,
    /// `?changed`: what changed since `index`, deletes included.
    pub(crate) is_changed: bool,
    /// `?export`: all rows in the form that `?import` takes.
    pub(crate) is_export: bool,
}

impl<'a> Extras<'a> {
    /// Reads a query; `None` if it asks for nothing of this. Of several values of one parameter the first counts.
    ///
    /// # Errors
    /// 400 with a line for a value that is none.
    pub(crate) fn read(query: Query<'a>) -> Result<Option<Box<Self>>, ApiError> {
        let mut extras: Option<Box<Self>> = None;
        for (name, value) in query.pairs() {
            if !matches!(
                &*name,
                b"limit" | b"after" | b"match" | b"reverse" | b"novalue" | b"count" | b"changed" | b"export"
            ) {
                continue;
            }
            let extras = extras.get_or_insert_default();
            match &*name {
                b"limit" if extras.limit.is_none() => extras.limit = Some(limit(&value)?),
                b"after" if extras.after.is_none() => extras.after = Some(value),
                b"match" if extras.matching.is_none() => {
                    let glob = Glob::new(&value).map_err(|why| refused("match", &value, &why))?;
                    extras.matching = Some(glob);
                }
                b"reverse" => extras.is_reverse = true,
                b"novalue" => extras.no_value = true,
                b"count" => extras.is_count = true,
                b"changed" => extras.is_changed = true,
                b"export" => extras.is_export = true,
                _ => {}
            }
        }
        if let Some(extras) = &extras {
            extras.check()?;
        }
        Ok(extras)
    }

    /// Whether one key can be shown so: only a row can do without its value.
    pub(crate) fn is_of_one_key(&self) -> bool {
        self.no_value && !self.is_list()
    }

    fn is_list(&self) -> bool {
        self.limit.is_some()
            || self.after.is_some()
            || self.matching.is_some()
            || self.is_reverse
            || self.is_count
            || self.is_changed
            || self.is_export
    }

    fn check(&self) -> Result<(), ApiError> {
        let pages = self.limit.is_some() || self.after.is_some() || self.is_reverse || self.is_count;
        let together = if self.is_changed && (pages || self.is_export || self.matching.is_some()) {
            "changed stands alone, or with novalue"
        } else if self.is_export && (pages || self.no_value || self.matching.is_some()) {
            "export stands alone"
        } else {
            return Ok(());
        };
        Err(ApiError::bad_request(format!(
            "Conflicting parameters: {together}\n"
        )))
    }
}

/// The TTL in milliseconds that a write asks for by `?ttl=`.
///
/// # Errors
/// 400 with a line for what is none.
pub(crate) fn ttl_ms(query: Query<'_>) -> Result<Option<u64>, ApiError> {
    let Some(value) = query.get("ttl") else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&value);
    let nanos = go::parse_duration(&text).map_err(|why| refused("ttl", &value, &why))?;
    let ttl = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
    if !(KV_TTL_MIN..=KV_TTL_MAX).contains(&ttl) {
        return Err(refused("ttl", &value, "not between 1s and 366 days"));
    }
    // A part of a millisecond counts whole: never before the time.
    Ok(u64::try_from(ttl.as_nanos().div_ceil(1_000_000)).ok())
}

fn limit(value: &[u8]) -> Result<usize, ApiError> {
    let limit = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    limit
        .filter(|limit| (1..=LIMIT_MAX).contains(limit))
        .ok_or_else(|| refused("limit", value, &format!("not a number from 1 to {LIMIT_MAX}")))
}

/// 400 with one line.
pub(crate) fn refused(name: &str, value: &[u8], why: &str) -> ApiError {
    let value = go::quote(value);
    ApiError::bad_request(format!("Invalid {name} {value}: {why}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Option<Box<Extras<'_>>>, String> {
        Extras::read(Query::new(query.as_bytes())).map_err(|error| error.text().to_owned())
    }

    #[test]
    fn a_query_of_consul_s_api_has_none() {
        for query in [
            "",
            "recurse&index=5&wait=10s",
            "keys&separator=/",
            "raw&stale",
            "limits=1",
        ] {
            assert!(read(query).unwrap().is_none(), "{query}");
        }
    }

    #[test]
    fn values_are_read_and_the_first_counts() {
        let extras = read("recurse&limit=5&limit=junk&after=a%2Fb&reverse&novalue")
            .unwrap()
            .unwrap();

        assert_eq!(
            (extras.limit, extras.after.as_deref()),
            (Some(5), Some(&b"a/b"[..]))
        );
        assert!(extras.is_reverse && extras.no_value && !extras.is_count);
    }

    #[test]
    fn a_ttl_is_a_duration_within_bounds() {
        let ttl = |query: &'static str| {
            ttl_ms(Query::new(query.as_bytes())).map_err(|error| error.text().to_owned())
        };

        assert_eq!(ttl("flags=1"), Ok(None));
        assert_eq!(ttl("ttl=60s"), Ok(Some(60_000)));
        assert_eq!(ttl("ttl=1000000001ns"), Ok(Some(1_001)));
        for query in ["ttl=", "ttl=60", "ttl=-5s", "ttl=0s", "ttl=999ms", "ttl=9000h"] {
            let text = ttl(query).unwrap_err();
            assert!(
                text.starts_with("Invalid ttl") && text.lines().count() == 1,
                "{query}: {text}"
            );
        }
    }

    #[test]
    fn bad_values_are_refused_in_one_line() {
        for query in [
            "limit=",
            "limit=0",
            "limit=-1",
            "limit=1e3",
            "limit=99999999",
            "match=[a",
            "changed&limit=5",
            "changed&match=*",
            "export&reverse",
        ] {
            let text = read(query).unwrap_err();
            assert!(
                text.ends_with('\n') && text.lines().count() == 1,
                "{query}: {text:?}"
            );
        }
        assert_eq!(
            read("limit=x").unwrap_err(),
            "Invalid limit \"x\": not a number from 1 to 1000000\n"
        );
    }
}
