//! `event`.

use regex::Regex;
use serde::Deserialize;

use super::{Failure, Outcome, Ui};
use crate::args::cluster::EventArgs;
use crate::client::Call;

#[derive(Debug, Deserialize)]
struct Fired {
    #[serde(rename = "ID")]
    id: String,
}

pub(crate) async fn run(args: EventArgs, ui: &mut Ui<'_>) -> Outcome {
    let refuse = |text: &str| Failure(text.to_owned());
    let Some(name) = args.name.filter(|name| !name.is_empty()) else {
        return Err(refuse("Event name must be specified"));
    };
    for (what, pattern) in [
        ("node", &args.node),
        ("service", &args.service),
        ("tag", &args.tag),
    ] {
        let compiled = pattern
            .as_deref()
            .map_or(Ok(()), |text| Regex::new(text).map(drop));
        compiled.map_err(|error| Failure(format!("Failed to compile {what} filter regexp: {error}")))?;
    }
    if args.tag.is_some() && args.service.is_none() {
        return Err(refuse("Cannot provide tag filter without service filter."));
    }
    let mut payload = args.payload;
    let data = payload.pop().unwrap_or_default();
    if !payload.is_empty() {
        return Err(refuse("Too many command line arguments."));
    }
    let path = format!("event/fire/{name}");
    let call = Call::put(&path, data)
        .with_some("node", args.node)
        .with_some("service", args.service)
        .with_some("tag", args.tag);
    let fired: Result<Fired, _> = ui.client(&args.client)?.fetch(call).await;
    let fired = fired.map_err(|error| Failure(format!("Error firing event: {error}")))?;
    ui.line(format_args!("Event ID: {}", fired.id))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::run;

    #[test]
    fn an_event_goes_out_with_its_filters() {
        let ran = run(
            "lictor event -name=deploy -node=^a -service=web -tag=v1 now",
            "",
            &[(200, r#"{"ID":"e-1"}"#)],
        );

        assert_eq!(
            ran.asked,
            ["PUT /v1/event/fire/deploy?node=%5Ea&service=web&tag=v1 now"]
        );
        assert_eq!(ran.out, "Event ID: e-1\n");
    }

    #[test]
    fn mistakes_are_refused_before_anything_is_sent() {
        for (line, expected) in [
            ("lictor event", "Event name must be specified"),
            ("lictor event -name=a b c", "Too many command line arguments."),
            (
                "lictor event -name=a -tag=x",
                "Cannot provide tag filter without service filter.",
            ),
            (
                "lictor event -name=a -node=(",
                "Failed to compile node filter regexp: ",
            ),
        ] {
            let failed = run(line, "", &[]).failed.expect(line);
            assert!(failed.starts_with(expected), "{failed}");
        }
    }
}
