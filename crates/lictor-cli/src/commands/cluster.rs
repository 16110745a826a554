//! `join`, `leave` and `force-leave`.

use super::{Failure, Outcome, Ui};
use crate::args::cluster::{ForceLeaveArgs, JoinArgs, LeaveArgs};
use crate::client::Call;

pub(crate) async fn join(args: &JoinArgs, ui: &mut Ui<'_>) -> Outcome {
    if args.addresses.is_empty() {
        return Err(Failure(
            "At least one address to join must be specified.".to_owned(),
        ));
    }
    let mut client = ui.client(&args.client)?;
    let mut joined = 0;
    for address in &args.addresses {
        let path = format!("agent/join/{address}");
        match client.send(Call::put(&path, "").with_flag("wan", args.wan)).await {
            Ok(_) => joined += 1,
            Err(error) => ui.warn(format_args!("Error joining address '{address}': {error}"))?,
        }
    }
    if joined == 0 {
        return Err(Failure("Failed to join any nodes.".to_owned()));
    }
    ui.line(format_args!(
        "Successfully joined cluster by contacting {joined} nodes."
    ))?;
    Ok(())
}

pub(crate) async fn leave(args: &LeaveArgs, ui: &mut Ui<'_>) -> Outcome {
    if !args.rest.is_empty() {
        return Err(Failure(format!(
            "Error found unexpected args: [{}]",
            args.rest.join(" ")
        )));
    }
    let mut client = ui.client(&args.client)?;
    let left = client.send(Call::put("agent/leave", "")).await;
    left.map_err(|error| Failure(format!("Error leaving: {error}")))?;
    ui.line("Graceful leave complete")?;
    Ok(())
}

pub(crate) async fn force_leave(args: &ForceLeaveArgs, ui: &mut Ui<'_>) -> Outcome {
    let [name] = args.name.as_slice() else {
        return Err(Failure(
            "A single node name must be specified to force leave.".to_owned(),
        ));
    };
    let path = format!("agent/force-leave/{name}");
    let call = Call::put(&path, "")
        .with_flag("prune", args.prune)
        .with_flag("wan", args.wan);
    let left = ui.client(&args.client)?.send(call).await;
    left.map_err(|error| Failure(format!("Error force leaving: {error}")))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::run;

    #[test]
    fn join_counts_what_it_reached_and_names_what_it_did_not() {
        let ran = run("lictor join -wan a:1 b", "", &[(200, ""), (500, "no such host")]);

        assert_eq!(
            ran.asked,
            ["PUT /v1/agent/join/a%3A1?wan=1", "PUT /v1/agent/join/b?wan=1"]
        );
        assert_eq!(ran.out, "Successfully joined cluster by contacting 1 nodes.\n");
        let expected = "Error joining address 'b': Unexpected response code: 500 (no such host)\n";
        assert_eq!((ran.err.as_str(), ran.code), (expected, 0));
    }

    #[test]
    fn join_fails_when_nobody_was_reached() {
        let ran = run("lictor join a", "", &[(500, "x")]);
        assert_eq!(ran.failed.as_deref(), Some("Failed to join any nodes."));

        let ran = run("lictor join", "", &[]);
        assert_eq!(
            ran.failed.as_deref(),
            Some("At least one address to join must be specified.")
        );
    }

    #[test]
    fn leave_says_that_it_is_done() {
        let ran = run("lictor leave", "", &[(200, "")]);

        assert_eq!(
            (ran.asked, ran.out.as_str()),
            (
                vec!["PUT /v1/agent/leave".to_owned()],
                "Graceful leave complete\n"
            )
        );
        let ran = run("lictor leave x", "", &[]);
        assert_eq!(ran.failed.as_deref(), Some("Error found unexpected args: [x]"));
    }

    #[test]
    fn force_leave_is_silent_when_done() {
        let ran = run("lictor force-leave -prune n", "", &[(200, "")]);
        assert_eq!(ran.asked, ["PUT /v1/agent/force-leave/n?prune=1"]);
        assert_eq!((ran.out.as_str(), ran.failed), ("", None));

        let ran = run(
            "lictor force-leave n",
            "",
            &[(500, "agent: No node found with name 'n'")],
        );
        let expected =
            "Error force leaving: Unexpected response code: 500 (agent: No node found with name 'n')";
        assert_eq!(ran.failed.as_deref(), Some(expected));
    }
}
