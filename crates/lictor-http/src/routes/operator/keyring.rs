//! `/v1/operator/keyring`: the cluster keys, under the names that Consul has for its rings of gossip keys. There is one
//! ring; it is shown as that of the datacenter (LAN), with servers and client agents, and as that of the servers (WAN).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lictor_node::{KeyringChange, ServerKeys};
use lictor_proto::go;
use serde::Serialize;
use serde_json::Value;

use crate::acl::{Access, Resource};
use crate::ctx::{Ctx, Verb};
use crate::decode;
use crate::error::ApiError;
use crate::reply::Reply;
use crate::routes::truth;
use crate::rows::unknown_field;

const BODY_MAX_BYTES: usize = 64 * 1024;
/// Consul's bound of a factor that means nothing here.
const RELAY_FACTOR_MAX: i64 = 5;

/// The keys of a ring. Fields in Consul's order.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ring<'a> {
    #[serde(rename = "WAN")]
    wan: bool,
    datacenter: &'a str,
    segment: &'static str,
    keys: BTreeMap<String, u64>,
    primary_keys: BTreeMap<String, u64>,
    num_nodes: u64,
}

pub(crate) const PATH: &str = "/v1/operator/keyring";

/// `GET`: the keys, and how many nodes have each. `POST` installs one, `PUT` makes one the primary, `DELETE` removes one,
/// on all servers; client agents follow them.
pub(crate) async fn keyring(mut ctx: Ctx) -> Result<Reply, ApiError> {
    check_relay_factor(&ctx)?;
    let local_only = is_local_only(&ctx)?;
    let datacenter = ctx.shared.node.identity().datacenter.clone();
    let access = if ctx.verb == Verb::Get {
        Access::Read
    } else {
        Access::Write
    };
    ctx.authorize(Resource::Operator, access)?;
    if ctx.verb == Verb::Get {
        let found = ctx.shared.node.cluster_keys().await;
        check(&found, &datacenter)?;
        let rings = [true, false].map(|wan| ring(&found, &datacenter, wan));
        return Ok(Reply::json(&rings[usize::from(local_only)..]));
    }
    if local_only {
        return Err(ApiError::bad_request(
            "Invalid use of local-only: local-only can only be set for list requests",
        ));
    }
    let body = ctx.body(BODY_MAX_BYTES).await?;
    let key = named_key(&decode::text(&body)).map_err(|why| ApiError::decode(&why))?;
    let key = key_bytes(&key).map_err(|offset| {
        let why = format!("illegal base64 data at input byte {offset}");
        errors(&[
            format!("WAN error: {why}"),
            format!("{datacenter} (LAN) error: {why}"),
        ])
    })?;
    let change = match ctx.verb {
        Verb::Post => KeyringChange::Install(key),
        Verb::Put => KeyringChange::MakePrimary(key),
        _ => KeyringChange::Remove(key),
    };
    let found = ctx.shared.node.change_cluster_keys(change).await;
    check(&found, &datacenter)?;
    Ok(Reply::empty_json())
}

fn check_relay_factor(ctx: &Ctx) -> Result<(), ApiError> {
    let Some(text) = ctx.query().non_empty("relay-factor") else {
        return Ok(());
    };
    let factor: i64 = text.parse().map_err(|_| {
        let quoted = go::quote(text.as_bytes());
        ApiError::bad_request(format!(
            "Error parsing relay factor: strconv.Atoi: parsing {quoted}: invalid syntax"
        ))
    })?;
    if (0..=RELAY_FACTOR_MAX).contains(&factor) {
        return Ok(());
    }
    Err(ApiError::bad_request(format!(
        "Invalid relay-factor: Relay factor must be in range: [0, {RELAY_FACTOR_MAX}]"
    )))
}

fn is_local_only(ctx: &Ctx) -> Result<bool, ApiError> {
    let Some(text) = ctx.query().non_empty("local-only") else {
        return Ok(false);
    };
    truth(&text).ok_or_else(|| {
        let quoted = go::quote(text.as_bytes());
        ApiError::bad_request(format!(
            "Error parsing local-only: strconv.ParseBool: parsing {quoted}: invalid syntax"
        ))
    })
}

/// The text under `Key`; empty if there is none.
fn named_key(body: &str) -> Result<String, String> {
    match decode::value(body)? {
        Value::Null => Ok(String::new()),
        Value::Object(fields) => {
            let is_known = |name: &&String| {
                let known = ["Key", "Token", "RelayFactor", "LocalOnly"];
                known.iter().any(|known| name.eq_ignore_ascii_case(known))
            };
            if let Some(name) = fields.keys().find(|name| !is_known(name)) {
                return Err(unknown_field(name));
            }
            let key = fields
                .into_iter()
                .rfind(|(name, _)| name.eq_ignore_ascii_case("key"));
            decode::string(key.map_or(Value::Null, |(_, value)| value), "keyringArgs.Key")
        }
        other => Err(format!(
            "json: cannot unmarshal {} into Go value of type agent.keyringArgs",
            lictor_agent::decode::kind(&other)
        )),
    }
}

/// The bytes of a key. An error is the place in the text that Go names: where the first group of four begins that is
/// not whole, or the first byte that is no digit.
fn key_bytes(text: &str) -> Result<Vec<u8>, usize> {
    BASE64_STANDARD.decode(text).map_err(|error| match error {
        base64::DecodeError::InvalidByte(offset, _) | base64::DecodeError::InvalidLastSymbol(offset, _) => {
            offset
        }
        base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
            let digits = text.trim_end_matches('=').len();
            if digits == text.len() {
                digits / 4 * 4
            } else {
                text.len()
            }
        }
    })
}

/// Fails with Consul's words unless all servers did what was asked of them.
fn check(found: &[ServerKeys], datacenter: &str) -> Result<(), ApiError> {
    let refusals: Vec<_> = found
        .iter()
        .filter_map(|server| match &server.answer {
            Some(Err(why)) => Some((&server.server, why)),
            _ => None,
        })
        .collect();
    let answers = found.iter().filter(|server| server.answer.is_some()).count();
    let all = found.len();
    let what = if refusals.is_empty() {
        if answers == all {
            return Ok(());
        }
        format!("{answers}/{all} nodes reported success")
    } else {
        format!("{}/{all} nodes reported failure", refusals.len())
    };
    let mut lines = vec![format!("WAN error: {what}")];
    lines.extend(
        refusals
            .iter()
            .map(|(name, why)| format!("{name}.{datacenter}: {why}")),
    );
    lines.push(format!("{datacenter} (LAN) error: {what}"));
    lines.extend(refusals.iter().map(|(name, why)| format!("{name}: {why}")));
    Err(errors(&lines))
}

/// Several errors as one text, as Go's libraries write them.
fn errors(lines: &[String]) -> ApiError {
    let mut text = format!("{} errors occurred:\n", lines.len());
    for line in lines {
        text.push_str("\t* ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
    ApiError::internal(text)
}

/// What the servers said, as of one of the two rings.
fn ring<'a>(found: &[ServerKeys], datacenter: &'a str, wan: bool) -> Ring<'a> {
    let mut ring = Ring {
        wan,
        datacenter,
        segment: "",
        keys: BTreeMap::new(),
        primary_keys: BTreeMap::new(),
        num_nodes: 0,
    };
    for keys in found
        .iter()
        .filter_map(|server| server.answer.as_ref()?.as_ref().ok())
    {
        let (agents, behind) = if wan {
            (0, 0)
        } else {
            (keys.agents, keys.agents_behind)
        };
        ring.num_nodes += 1 + u64::from(agents);
        let holders = 1 + u64::from(agents.saturating_sub(behind));
        for (at, key) in keys.keys.iter().enumerate() {
            let key = BASE64_STANDARD.encode(key);
            if at == 0 {
                *ring.primary_keys.entry(key.clone()).or_default() += holders;
            }
            *ring.keys.entry(key).or_default() += holders;
        }
    }
    ring
}

#[cfg(test)]
mod tests {
    use lictor_node::Keys;

    use super::*;

    fn server(name: &str, answer: Option<Result<Keys, String>>) -> ServerKeys {
        ServerKeys {
            server: name.to_owned(),
            answer,
        }
    }

    fn keys(first: u8, second: u8, agents: u32, agents_behind: u32) -> Keys {
        Keys {
            keys: [first, second].map(|byte| vec![byte; 16]).to_vec(),
            agents,
            agents_behind,
        }
    }

    #[test]
    fn keys_are_counted_for_each_who_has_them() {
        let found = [
            server("a", Some(Ok(keys(1, 2, 3, 1)))),
            server("b", Some(Ok(keys(2, 1, 0, 0)))),
            server("c", Some(Ok(keys(1, 3, 0, 0)))),
        ];
        let [one, two, three] = [1, 2, 3].map(|byte| BASE64_STANDARD.encode([byte; 16]));

        let lan = ring(&found, "dc1", false);
        let wan = ring(&found, "dc1", true);

        assert_eq!(lan.num_nodes, 6);
        assert_eq!(lan.keys, [(one.clone(), 5), (two.clone(), 4), (three, 1)].into());
        assert_eq!(lan.primary_keys, [(one.clone(), 4), (two.clone(), 1)].into());
        assert_eq!(wan.num_nodes, 3);
        assert_eq!(wan.primary_keys, [(one, 2), (two, 1)].into());
    }

    #[test]
    fn refusals_are_told_for_both_rings_and_silence_is_no_success() {
        let refused = Some(Err("Requested key is not in the keyring".to_owned()));
        let found = [server("a", Some(Ok(keys(1, 2, 0, 0)))), server("b", refused)];
        assert_eq!(
            check(&found, "dc1").unwrap_err().text(),
            "4 errors occurred:\n\t* WAN error: 1/2 nodes reported failure\n\
             \t* b.dc1: Requested key is not in the keyring\n\
             \t* dc1 (LAN) error: 1/2 nodes reported failure\n\
             \t* b: Requested key is not in the keyring\n\n"
        );

        let silent = [server("a", Some(Ok(keys(1, 2, 0, 0)))), server("b", None)];
        assert!(
            check(&silent, "dc1")
                .unwrap_err()
                .text()
                .contains("WAN error: 1/2 nodes reported success")
        );
        assert!(check(&silent[..1], "dc1").is_ok());
    }

    /// The offsets are those that Consul answers.
    #[test]
    fn what_is_no_base64_is_refused_at_the_place_that_go_names() {
        assert_eq!(key_bytes("!!!"), Err(0));
        assert_eq!(key_bytes("d8wu8CSUrqgtjVsvcBPmhQ"), Err(20));
        assert_eq!(key_bytes("x"), Err(0));
        assert_eq!(key_bytes("YWJj"), Ok(b"abc".to_vec()));
        assert_eq!(key_bytes(""), Ok(Vec::new()));
    }

    #[test]
    fn the_key_is_read_as_go_reads_it() {
        assert_eq!(named_key("{\"key\":\"a\"}"), Ok("a".to_owned()));
        assert_eq!(named_key("{}"), Ok(String::new()));
        assert_eq!(named_key(""), Err("EOF".to_owned()));
        assert_eq!(
            named_key("{\"Key\":5}").unwrap_err(),
            "json: cannot unmarshal number into Go struct field keyringArgs.Key of type string"
        );
        assert_eq!(
            named_key("[]").unwrap_err(),
            "json: cannot unmarshal array into Go value of type agent.keyringArgs"
        );
    }
}
