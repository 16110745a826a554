//! `keyring`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::{Failure, Outcome, Ui};
use crate::args::operator::KeyringArgs;
use crate::client::Call;

const RELAY_FACTOR_MAX: i64 = 5;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Ring {
    #[serde(rename = "WAN")]
    wan: bool,
    datacenter: String,
    keys: Option<BTreeMap<String, u64>>,
    primary_keys: Option<BTreeMap<String, u64>>,
    num_nodes: u64,
}

pub(crate) async fn run(args: &KeyringArgs, ui: &mut Ui<'_>) -> Outcome {
    let lists = args.list == Some(true);
    let lists_primary = args.list_primary == Some(true);
    let keys = [&args.install, &args.make_primary, &args.remove];
    let actions = keys.iter().filter(|key| !key.is_empty()).count();
    match actions + usize::from(lists) + usize::from(lists_primary) {
        0 => {
            return Err(Failure(
                "One of -install, -list, -list-primary, -remove and -use is needed".to_owned(),
            ));
        }
        1 => {}
        _ => return Err(Failure("Only a single action is allowed".to_owned())),
    }
    if !(0..=RELAY_FACTOR_MAX).contains(&args.relay_factor) {
        return Err(Failure(format!(
            "Error parsing relay factor: Relay factor must be in range: [0, {RELAY_FACTOR_MAX}]"
        )));
    }
    let local_only = args.local_only == Some(true);
    if local_only && actions > 0 {
        return Err(Failure(
            "Error validating local-only: local-only can only be set for list requests".to_owned(),
        ));
    }
    if lists || lists_primary {
        return list(args, lists_primary, ui).await;
    }
    let body = |key: &str| json!({"Key": key}).to_string();
    let (what, call) = if !args.install.is_empty() {
        (
            "Installing new",
            Call::post("operator/keyring").with_body(body(&args.install)),
        )
    } else if !args.make_primary.is_empty() {
        (
            "Changing primary",
            Call::put("operator/keyring", body(&args.make_primary)),
        )
    } else {
        (
            "Removing",
            Call::delete("operator/keyring").with_body(body(&args.remove)),
        )
    };
    ui.tell(format_args!("==> {what} gossip encryption key..."))?;
    let factor = args.relay_factor.to_string();
    let sent = ui
        .client(&args.client)?
        .send(call.with("relay-factor", factor))
        .await;
    sent.map_err(|error| Failure(format!("error: {error}")))?;
    Ok(())
}

async fn list(args: &KeyringArgs, primary: bool, ui: &mut Ui<'_>) -> Outcome {
    let which = if primary { "primary " } else { "" };
    ui.tell(format_args!("==> Gathering installed {which}encryption keys..."))?;
    let call = Call::get("operator/keyring")
        .with("relay-factor", args.relay_factor.to_string())
        .with_some("local-only", args.local_only.map(|local| local.to_string()));
    let rings: Result<Vec<Ring>, _> = ui.client(&args.client)?.fetch(call).await;
    for ring in rings.map_err(|error| Failure(format!("error: {error}")))? {
        let pool = if ring.wan {
            "WAN".to_owned()
        } else {
            format!("{} (LAN)", ring.datacenter)
        };
        ui.line(format_args!("\n{pool}:"))?;
        let keys = if primary { ring.primary_keys } else { ring.keys };
        for (key, nodes) in keys.unwrap_or_default() {
            ui.line(format_args!("  {key} [{nodes}/{}]", ring.num_nodes))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::run;

    const RINGS: &str = r#"[
        {"WAN":true,"Datacenter":"dc1","Segment":"","Keys":{"a=":1,"b=":1},"PrimaryKeys":{"b=":1},"NumNodes":1},
        {"WAN":false,"Datacenter":"dc1","Segment":"","Keys":{"a=":1,"b=":2},"PrimaryKeys":{"b=":2},"NumNodes":2}]"#;

    #[test]
    fn keys_are_listed_with_their_holders() {
        let ran = run("lictor keyring -list", "", &[(200, RINGS)]);
        assert_eq!(ran.asked, ["GET /v1/operator/keyring?relay-factor=0"]);
        assert_eq!(
            ran.out,
            "==> Gathering installed encryption keys...\n\nWAN:\n  a= [1/1]\n  b= [1/1]\n\ndc1 (LAN):\n  a= [1/2]\n  b= [2/2]\n"
        );

        let ran = run("lictor keyring -list-primary -local-only", "", &[(200, RINGS)]);
        assert_eq!(
            ran.asked,
            ["GET /v1/operator/keyring?relay-factor=0&local-only=true"]
        );
        assert_eq!(
            ran.out,
            "==> Gathering installed primary encryption keys...\n\nWAN:\n  b= [1/1]\n\ndc1 (LAN):\n  b= [2/2]\n"
        );
    }

    #[test]
    fn keys_are_installed_used_and_removed() {
        let asked = |line: &str| {
            let ran = run(line, "", &[(200, "")]);
            assert_eq!(ran.failed, None);
            (ran.asked[0].clone(), ran.out)
        };
        assert_eq!(
            asked("lictor keyring -install k"),
            (
                r#"POST /v1/operator/keyring?relay-factor=0 {"Key":"k"}"#.to_owned(),
                "==> Installing new gossip encryption key...\n".to_owned()
            )
        );
        assert_eq!(
            asked("lictor keyring -use=k"),
            (
                r#"PUT /v1/operator/keyring?relay-factor=0 {"Key":"k"}"#.to_owned(),
                "==> Changing primary gossip encryption key...\n".to_owned()
            )
        );
        assert_eq!(
            asked("lictor keyring -remove k -relay-factor=2"),
            (
                r#"DELETE /v1/operator/keyring?relay-factor=2 {"Key":"k"}"#.to_owned(),
                "==> Removing gossip encryption key...\n".to_owned()
            )
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_is_asked() {
        for (line, why) in [
            ("lictor keyring -list -use=x", "Only a single action is allowed"),
            (
                "lictor keyring -list -relay-factor=9",
                "Error parsing relay factor: Relay factor must be in range: [0, 5]",
            ),
            (
                "lictor keyring -use=x -local-only",
                "Error validating local-only: local-only can only be set for list requests",
            ),
        ] {
            let ran = run(line, "", &[]);
            assert_eq!(ran.failed.as_deref(), Some(why));
        }
        assert!(run("lictor keyring", "", &[]).failed.is_some());
    }

    #[test]
    fn a_refusal_is_told_in_the_words_of_the_server() {
        let ran = run("lictor keyring -use=x", "", &[(500, "no")]);

        assert_eq!(
            ran.failed.as_deref(),
            Some("error: Unexpected response code: 500 (no)")
        );
    }
}
