//! `GET /v1/kv-watch`: one query for several keys and prefixes.

use std::borrow::Cow;

use lictor_node::Topic;
use lictor_state::{Span, State};

use super::kv::changes;
use crate::acl::{Access, Resource};
use crate::blocking::{self, View};
use crate::ctx::Ctx;
use crate::error::ApiError;
use crate::extras::Extras;
use crate::reply::Reply;

/// Keys and prefixes of one query.
const SPANS_MAX: usize = 64;

/// `?key=` and `?prefix=`, each as often as wanted; `index`, `wait`, `changed` and `novalue` as for a list of keys.
pub(crate) async fn get(ctx: Ctx) -> Result<Reply, ApiError> {
    let options = ctx.read_options()?;
    let extras = Extras::read(ctx.query())?.unwrap_or_default();
    let asked = asked(&ctx)?;
    ctx.check_datacenter()?;
    let spans = disjoint(&asked);
    for span in &spans {
        let resource = match span {
            Span::Key(key) => Resource::Key(key),
            Span::Prefix(prefix) => Resource::KeyPrefix(prefix),
        };
        ctx.authorize(resource, Access::Read)?;
    }
    let topics = spans.iter().map(|span| match *span {
        Span::Key(key) => Topic::Key(key),
        Span::Prefix(prefix) => Topic::Prefix(prefix),
    });
    let topics: Vec<_> = topics.collect();
    let view = Watched {
        spans: &spans,
        since: extras.is_changed.then(|| ctx.since(options)),
        with_value: !extras.no_value,
    };
    blocking::read(&ctx, options, &topics, &view).await
}

/// A key, or a prefix.
type Asked<'a> = (bool, Cow<'a, [u8]>);

fn asked(ctx: &Ctx) -> Result<Vec<Asked<'_>>, ApiError> {
    let query = ctx.query();
    let keys = query.all("key").map(|key| (true, key));
    let asked: Vec<_> = keys
        .chain(query.all("prefix").map(|prefix| (false, prefix)))
        .take(SPANS_MAX + 1)
        .collect();
    if asked.is_empty() {
        return Err(ApiError::bad_request("Missing key or prefix\n"));
    }
    if asked.len() > SPANS_MAX {
        let text = format!("Too many keys and prefixes: {SPANS_MAX} at most\n");
        return Err(ApiError::bad_request(text));
    }
    if asked.iter().any(|(is_key, name)| *is_key && name.is_empty()) {
        return Err(ApiError::bad_request("Missing key name\n"));
    }
    Ok(asked)
}

/// The same in the order of keys and without what another covers.
fn disjoint<'a>(asked: &'a [Asked<'_>]) -> Vec<Span<'a>> {
    let mut sorted: Vec<_> = asked.iter().map(|(is_key, name)| (&**name, *is_key)).collect();
    // A prefix stands before all that it covers.
    sorted.sort_unstable();
    let mut spans: Vec<Span<'a>> = Vec::with_capacity(sorted.len());
    let mut covered_by: Option<&[u8]> = None;
    for (name, is_key) in sorted {
        if covered_by.is_some_and(|prefix| name.starts_with(prefix))
            || spans.last() == Some(&Span::Key(name)) && is_key
        {
            continue;
        }
        spans.push(if is_key {
            Span::Key(name)
        } else {
            covered_by = Some(name);
            Span::Prefix(name)
        });
    }
    spans
}

struct Watched<'a> {
    spans: &'a [Span<'a>],
    /// Only what changed after it is shown.
    since: Option<u64>,
    with_value: bool,
}

impl View for Watched<'_> {
    /// The last change of what is watched, and of nothing else.
    fn index(&self, state: &State) -> u64 {
        let changed = self.spans.iter().map(|span| state.kv_changed(*span).0);
        changed.max().unwrap_or_default().max(1)
    }

    fn render(&self, state: &State) -> Reply {
        match self.since {
            Some(since) => changes::reply(state, self.spans, since, self.with_value),
            None => changes::rows(state, self.spans, self.with_value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_covers_is_watched_once() {
        let asked = |list: &[(bool, &'static str)]| -> Vec<Asked<'static>> {
            list.iter()
                .map(|(is_key, name)| (*is_key, Cow::Borrowed(name.as_bytes())))
                .collect()
        };

        let list = asked(&[
            (true, "b/1"),
            (false, "b/"),
            (true, "a"),
            (true, "a"),
            (false, "b/c/"),
            (true, "b"),
        ]);
        assert_eq!(
            disjoint(&list),
            [Span::Key(b"a"), Span::Key(b"b"), Span::Prefix(b"b/")]
        );
        let list = asked(&[(true, "a"), (false, "")]);
        assert_eq!(disjoint(&list), [Span::Prefix(b"")]);
    }
}
