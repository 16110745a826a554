//! `monitor`.

use std::io::Write as _;

use super::process::Stops;
use super::{Failure, Outcome, Ui};
use crate::args::node::MonitorArgs;
use crate::client::Call;

pub(crate) async fn run(args: &MonitorArgs, ui: &mut Ui<'_>) -> Outcome {
    let mut client = ui.client(&args.client)?;
    let mut stops = Stops::new()?;
    let json = (args.log_json == Some(true)).then_some("true");
    let call = Call::get("agent/monitor")
        .with_some("logjson", json)
        .with("loglevel", args.log_level.as_deref().unwrap_or("INFO"));
    let broken = |error| Failure(format!("Error starting monitor: {error}"));
    let mut log = tokio::select! {
        log = client.stream(call) => log.map_err(broken)?,
        _ = stops.next() => return Ok(()),
    };
    loop {
        let piece = tokio::select! {
            piece = log.next() => piece,
            _ = stops.next() => return Ok(()),
        };
        let Ok(Some(piece)) = piece else {
            return Err(Failure(
                "The agent has ended the monitor; it may have stopped.".to_owned(),
            ));
        };
        ui.out.write_all(&piece)?;
        ui.out.flush()?;
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::run;

    #[test]
    fn the_log_is_printed_until_the_agent_ends_it() {
        let ran = run(
            "lictor monitor -log-level=debug -log-json",
            "",
            &[(200, "one\ntwo\n")],
        );

        assert_eq!(ran.asked, ["GET /v1/agent/monitor?logjson=true&loglevel=debug"]);
        assert_eq!((ran.out.as_str(), ran.code), ("one\ntwo\n", 1));
    }

    #[test]
    fn a_level_that_the_agent_does_not_know_is_its_error() {
        let ran = run(
            "lictor monitor -log-level=zz",
            "",
            &[(400, "Unknown log level: zz")],
        );

        let expected = "Error starting monitor: Unexpected response code: 400 (Unknown log level: zz)";
        assert_eq!(ran.failed.as_deref(), Some(expected));
    }
}
