//! The body of `/v1/session/create`: Consul's oldest and most lenient format.

use std::time::Duration;

use lictor_proto::limits::LOCK_DELAY_DEFAULT;
use lictor_proto::v1::{SessionBehavior, SessionRow, SessionServiceCheck, StringList};
use serde_json::Value;

use crate::decode;
use lictor_proto::go;

/// The check that a session is bound to if it names none.
const SERF_HEALTH: &str = "serfHealth";

/// What a client asks for, with Consul's defaults filled in and nothing checked yet.
#[derive(Debug)]
pub(super) struct Request {
    name: String,
    node: String,
    behavior: String,
    ttl: String,
    /// Lictor's own: the session ends one TTL after its last renewal, and not two.
    ttl_exact: bool,
    lock_delay_ns: i64,
    /// `null` counts as the empty list.
    checks: Option<Vec<String>>,
    node_checks: Option<Vec<String>>,
    service_checks: Option<Vec<SessionServiceCheck>>,
}

/// Reads a body; an empty one asks for the defaults. Unknown fields are ignored.
///
/// # Errors
/// What comes after `Request decode failed: `.
pub(super) fn decode(body: &[u8], this_node: &str) -> Result<Request, String> {
    let mut request = Request {
        name: String::new(),
        node: this_node.to_owned(),
        behavior: String::new(),
        ttl: String::new(),
        ttl_exact: false,
        lock_delay_ns: nanos(LOCK_DELAY_DEFAULT),
        checks: None,
        node_checks: Some(vec![SERF_HEALTH.to_owned()]),
        service_checks: None,
    };
    if body.is_empty() {
        return Ok(request);
    }
    let fields = match decode::value(&decode::text(body))? {
        Value::Null => return Ok(request),
        Value::Object(fields) => fields,
        other => return Err(decode::wrong_kind(&other, "Session", "structs.Session")),
    };
    for (name, value) in fields {
        request.set(&name, value)?;
    }
    Ok(request)
}

impl Request {
    fn set(&mut self, name: &str, value: Value) -> Result<(), String> {
        match name.to_ascii_lowercase().as_str() {
            "checks" => self.checks = Some(decode::strings(value, name)?.unwrap_or_default()),
            "nodechecks" => self.node_checks = decode::strings(value, name)?,
            // For everything else `null` leaves the default.
            _ if value.is_null() => {}
            "name" => self.name = decode::string(value, name)?,
            "node" => self.node = decode::string(value, name)?,
            "behavior" => self.behavior = decode::string(value, name)?,
            "ttl" => self.ttl = decode::string(value, name)?,
            "ttlexact" => self.ttl_exact = boolean(&value, name)?,
            "lockdelay" => self.lock_delay_ns = lock_delay_ns(&value)?,
            "servicechecks" => self.service_checks = Some(service_checks(value, name)?),
            // Nobody chooses it, but it has a type.
            "id" => drop(decode::string(value, name)?),
            _ => {}
        }
        Ok(())
    }

    /// Checks what can be checked here and draws the id.
    ///
    /// # Errors
    /// Consul's words, in the order that it checks in: behavior, then TTL, whose range is for the leader. Node and
    /// checks are for the state.
    pub(super) fn into_row(self) -> Result<SessionRow, String> {
        if self.node.is_empty() {
            return Err("Must provide Node".to_owned());
        }
        let behavior = match self.behavior.as_str() {
            "" | "release" => SessionBehavior::Release,
            "delete" => SessionBehavior::Delete,
            other => return Err(format!("Invalid Behavior setting '{other}'")),
        };
        let ttl_ms = ttl_ms(&self.ttl)?;
        let (checks, node_checks) = self.check_lists();
        let list = |items: Option<Vec<String>>| items.map(|items| StringList { items });
        // An empty list of service checks is shown as such.
        let is_empty = self.service_checks.as_ref().is_some_and(Vec::is_empty);
        Ok(SessionRow {
            id: bytes::Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes()),
            name: self.name,
            node: self.node,
            lock_delay_ns: self.lock_delay_ns,
            behavior: behavior.into(),
            ttl: self.ttl,
            ttl_ms,
            node_checks: list(node_checks),
            service_checks_legacy: is_empty.then(StringList::default),
            service_checks: self.service_checks.unwrap_or_default(),
            create_index: 0,
            modify_index: 0,
            checks: list(checks),
            ttl_exact: self.ttl_exact,
        })
    }

    /// The deprecated `Checks` beside `NodeChecks`: an empty one stands for no checks at all, and one that names
    /// the default alone adds nothing and is forgotten, as is any where there are no node checks (recorded answers).
    fn check_lists(&self) -> (Option<Vec<String>>, Option<Vec<String>>) {
        let has_node_checks = self.node_checks.as_ref().is_some_and(|checks| !checks.is_empty());
        match self.checks.as_deref() {
            Some([]) => (None, Some(Vec::new())),
            _ if !has_node_checks => (None, self.node_checks.clone()),
            Some([only]) if only == SERF_HEALTH => (None, self.node_checks.clone()),
            _ => (self.checks.clone(), self.node_checks.clone()),
        }
    }
}

/// A text is a Go duration; a number means seconds below 1000 and nanoseconds from there on, its fraction cut off
/// first; anything else is 0.
fn lock_delay_ns(value: &Value) -> Result<i64, String> {
    match value {
        Value::String(text) => go::parse_duration(text),
        Value::Number(number) => {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the fraction is cut off; casts saturate"
            )]
            let number = number
                .as_i64()
                .unwrap_or_else(|| number.as_f64().unwrap_or_default() as i64);
            Ok(if number < 1000 {
                number.saturating_mul(1_000_000_000)
            } else {
                number
            })
        }
        _ => Ok(0),
    }
}

/// 0 for a session that does not expire.
fn ttl_ms(ttl: &str) -> Result<u64, String> {
    if ttl.is_empty() {
        return Ok(0);
    }
    let ttl_ns = go::parse_duration(ttl).map_err(|why| format!("Session TTL '{ttl}' invalid: {why}"))?;
    // A part of a millisecond counts whole: 0 would be a session without an end.
    Ok(u64::try_from(ttl_ns).unwrap_or(0).div_ceil(1_000_000))
}

fn boolean(value: &Value, field: &str) -> Result<bool, String> {
    value
        .as_bool()
        .ok_or_else(|| decode::wrong_kind(value, field, "bool"))
}

fn service_checks(value: Value, field: &str) -> Result<Vec<SessionServiceCheck>, String> {
    let Value::Array(items) = value else {
        return Err(decode::wrong_kind(&value, field, "[]ServiceCheck"));
    };
    items.into_iter().map(|item| service_check(item, field)).collect()
}

fn service_check(value: Value, field: &str) -> Result<SessionServiceCheck, String> {
    let fields = match value {
        Value::Null => serde_json::Map::new(),
        Value::Object(fields) => fields,
        other => return Err(decode::wrong_kind(&other, field, "ServiceCheck")),
    };
    let mut check = SessionServiceCheck::default();
    for (name, value) in fields {
        match name.to_ascii_lowercase().as_str() {
            "id" => check.id = decode::string(value, &name)?,
            "namespace" => check.namespace = decode::string(value, &name)?,
            _ => {}
        }
    }
    Ok(check)
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(body: &str) -> Result<SessionRow, String> {
        decode(body.as_bytes(), "here")?.into_row()
    }

    #[test]
    fn an_empty_body_an_empty_object_and_null_give_the_defaults() {
        for body in [
            "",
            "{}",
            "null",
            r#"{"LockDelay":null,"Node":null,"Behavior":null}"#,
        ] {
            let row = row(body).unwrap();
            assert_eq!(row.lock_delay_ns, 15_000_000_000, "{body}");
            assert_eq!(row.node, "here");
            assert_eq!(row.behavior(), SessionBehavior::Release);
            assert_eq!(row.node_checks.unwrap().items, ["serfHealth"]);
            assert_eq!(row.ttl_ms, 0);
        }
    }

    #[test]
    fn a_lock_delay_is_a_duration_or_seconds_or_nanoseconds() {
        for (text, nanos) in [
            (r#""1500ms""#, 1_500_000_000),
            (r#""0""#, 0),
            (r#""-5s""#, -5_000_000_000),
            ("0", 0),
            ("999", 999_000_000_000),
            ("1000", 1000),
            ("15000000000", 15_000_000_000),
            ("1.5", 1_000_000_000),
            ("-5", -5_000_000_000),
            ("[]", 0),
            ("{}", 0),
            ("true", 0),
        ] {
            assert_eq!(
                row(&format!("{{\"lockdelay\":{text}}}")).unwrap().lock_delay_ns,
                nanos,
                "{text}"
            );
        }
        assert_eq!(
            row(r#"{"LockDelay":"5"}"#).unwrap_err(),
            "time: missing unit in duration \"5\""
        );
    }

    #[test]
    fn a_ttl_is_a_duration() {
        for (ttl, ms) in [
            ("", 0),
            ("0", 0),
            ("0s", 0),
            ("10s", 10_000),
            ("24h", 86_400_000),
            ("1m30s", 90_000),
            ("1us", 1),
        ] {
            let row = row(&format!("{{\"TTL\":\"{ttl}\"}}")).unwrap();
            assert_eq!((row.ttl.as_str(), row.ttl_ms), (ttl, ms));
        }
        assert_eq!(
            row(r#"{"TTL":"1d"}"#).unwrap_err(),
            "Session TTL '1d' invalid: time: unknown unit \"d\" in duration \"1d\""
        );
    }

    #[test]
    fn an_exact_ttl_is_asked_for_by_a_boolean() {
        assert!(row(r#"{"TTLExact":true}"#).unwrap().ttl_exact);
        for body in ["{}", r#"{"TTLExact":false}"#, r#"{"TTLExact":null}"#] {
            assert!(!row(body).unwrap().ttl_exact, "{body}");
        }
        assert!(row(r#"{"TTLExact":"yes"}"#).is_err());
    }

    /// As they were recorded: what is shown of both lists.
    #[test]
    fn old_checks_count_only_beside_new_ones() {
        let items = |list: Option<StringList>| list.map(|list| list.items);
        for (body, checks, node_checks) in [
            (r#"{"NodeChecks":[],"Checks":["a"]}"#, None, Some(vec![])),
            (r#"{"NodeChecks":null,"Checks":["a"]}"#, None, None),
            (r#"{"NodeChecks":null,"Checks":[]}"#, None, Some(vec![])),
            (
                r#"{"NodeChecks":["a"],"Checks":["serfHealth"]}"#,
                None,
                Some(vec!["a"]),
            ),
            (r#"{"NodeChecks":["a"],"Checks":[]}"#, None, Some(vec![])),
            (r#"{"Checks":["a"]}"#, Some(vec!["a"]), Some(vec!["serfHealth"])),
        ] {
            let row = row(body).unwrap();
            let owned =
                |list: Option<Vec<&str>>| list.map(|list| list.into_iter().map(String::from).collect());
            let found: (Option<Vec<String>>, Option<Vec<String>>) =
                (items(row.checks), items(row.node_checks));
            assert_eq!(found, (owned(checks), owned(node_checks)), "{body}");
        }
    }

    #[test]
    fn behavior_is_checked_before_the_ttl() {
        let error = row(r#"{"Behavior":"Release","TTL":"junk"}"#).unwrap_err();

        assert_eq!(error, "Invalid Behavior setting 'Release'");
        assert_eq!(row(r#"{"Node":""}"#).unwrap_err(), "Must provide Node");
    }

    #[test]
    fn bodies_of_other_kinds_are_refused() {
        for body in [
            "{",
            "junk",
            "[]",
            "\"x\"",
            "1",
            r#"{"Name":1}"#,
            r#"{"TTL":15}"#,
            r#"{"Behavior":1}"#,
            r#"{"id":[]}"#,
            r#"{"Checks":"x"}"#,
            r#"{"ServiceChecks":["nope"]}"#,
        ] {
            assert!(decode(body.as_bytes(), "here").is_err(), "{body}");
        }
        assert!(row(r#"{"Foo":1,"ID":"x"} trailing"#).is_ok());
    }

    #[test]
    fn ids_are_drawn_here_and_differ() {
        assert_ne!(
            row("").unwrap().id,
            row(r#"{"ID":"11111111-2222-3333-4444-555555555555"}"#)
                .unwrap()
                .id
        );
    }
}
