//! `info` and `reload`; and `exec`, which is not there.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Failure, Outcome, Ui};
use crate::args::node::PlainArgs;
use crate::client::Call;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct About {
    #[serde(default)]
    stats: BTreeMap<String, BTreeMap<String, String>>,
}

pub(crate) async fn info(args: &PlainArgs, ui: &mut Ui<'_>) -> Outcome {
    let about: Result<About, _> = ui.client(&args.client)?.fetch(Call::get("agent/self")).await;
    let about = about.map_err(|error| Failure(format!("Error querying agent: {error}")))?;
    for (group, values) in &about.stats {
        ui.line(format_args!("{group}:"))?;
        for (name, value) in values {
            ui.line(format_args!("\t{name} = {value}"))?;
        }
    }
    Ok(())
}

pub(crate) async fn reload(args: &PlainArgs, ui: &mut Ui<'_>) -> Outcome {
    let mut client = ui.client(&args.client)?;
    let reloaded = client.send(Call::put("agent/reload", "")).await;
    reloaded.map_err(|error| Failure(format!("Error reloading: {error}")))?;
    ui.line("Configuration reload triggered")?;
    Ok(())
}

/// Commands on other hosts are nothing that a lock service should run.
pub(crate) fn exec() -> Outcome {
    Err(Failure(
        "exec is not available: Lictor does not run commands on other hosts".to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use crate::testing::run;

    #[test]
    fn info_prints_groups_in_order() {
        let about = r#"{"Config":{},"Stats":{"raft":{"term":"2","state":"Leader"},"agent":{"checks":"0"}}}"#;
        let ran = run("lictor info", "", &[(200, about)]);

        assert_eq!(ran.asked, ["GET /v1/agent/self"]);
        assert_eq!(
            ran.out,
            "agent:\n\tchecks = 0\nraft:\n\tstate = Leader\n\tterm = 2\n"
        );
    }

    #[test]
    fn reload_passes_on_what_the_agent_says() {
        let ran = run("lictor reload", "", &[(200, "")]);
        assert_eq!(ran.asked, ["PUT /v1/agent/reload"]);
        assert_eq!(ran.out, "Configuration reload triggered\n");

        let ran = run("lictor reload", "", &[(500, "bad file")]);
        assert_eq!(
            ran.failed.as_deref(),
            Some("Error reloading: Unexpected response code: 500 (bad file)")
        );
    }

    #[test]
    fn exec_says_in_one_line_that_it_is_not_there() {
        let ran = run("lictor exec -node=a uptime", "", &[]);

        let said = ran.failed.expect("refused");
        assert!(
            said.starts_with("exec is not available") && !said.contains('\n'),
            "{said}"
        );
    }
}
