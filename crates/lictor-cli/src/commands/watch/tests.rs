use super::*;
use crate::testing::run;

const ONE: &str = r#"[{"LockIndex":0,"Key":"a","Flags":0,"Value":"b25l","CreateIndex":5,"ModifyIndex":7}]"#;

#[test]
fn a_key_is_printed_once_in_consuls_layout() {
    let ran = run("lictor watch -type=key -key=a", "", &[(200, "\"l\""), (200, ONE)]);

    assert_eq!(ran.asked, ["GET /v1/status/leader", "GET /v1/kv/a"]);
    let printed = "{\n    \"Key\": \"a\",\n    \"CreateIndex\": 5,\n    \"ModifyIndex\": 7,\n    \"LockIndex\": 0,\n\
                   \x20   \"Flags\": 0,\n    \"Value\": \"b25l\",\n    \"Session\": \"\"\n}\n";
    assert_eq!(ran.out, printed);
}

#[test]
fn a_key_that_is_not_there_is_null() {
    let ran = run("lictor watch -type=key -key=a", "", &[(200, "\"l\""), (404, "")]);
    assert_eq!(ran.out, "null\n");

    let ran = run(
        "lictor watch -type=keyprefix -prefix=a/",
        "",
        &[(200, "\"l\""), (404, "")],
    );
    assert_eq!(ran.asked[1], "GET /v1/kv/a/?recurse");
    assert_eq!(ran.out, "null\n");
}

#[test]
fn each_type_asks_its_endpoint() {
    for (flags, asked) in [
        ("services", "/v1/catalog/services"),
        ("nodes -filter=x", "/v1/catalog/nodes?filter=x"),
        (
            "service -service=web -tag=a -tag=b -passingonly=true",
            "/v1/health/service/web?passing=1&tag=a&tag=b",
        ),
        ("checks", "/v1/health/state/any"),
        ("checks -state=critical", "/v1/health/state/critical"),
        ("checks -service=web", "/v1/health/checks/web"),
        ("event -name=deploy", "/v1/event/list?name=deploy"),
        ("event", "/v1/event/list"),
    ] {
        let ran = run(
            &format!("lictor watch -type={flags}"),
            "",
            &[(200, "\"l\""), (200, "[]")],
        );
        assert_eq!(ran.asked[1], format!("GET {asked}"));
        assert_eq!(ran.out, "[]\n");
    }
}

#[test]
fn mistakes_are_refused_before_anything_is_asked() {
    for (line, expected) in [
        ("lictor watch", "Watch type must be specified"),
        ("lictor watch -type=zz", "Unsupported watch type: zz"),
        (
            "lictor watch -type=agent_service",
            "Type agent_service is not supported in the CLI tool",
        ),
        ("lictor watch -type=key", "Must specify a single key to watch"),
        (
            "lictor watch -type=keyprefix",
            "Must specify a single prefix to watch",
        ),
        (
            "lictor watch -type=service",
            "Must specify a single service to watch",
        ),
        (
            "lictor watch -type=checks -service=a -state=b",
            "Cannot specify service and state",
        ),
        (
            "lictor watch -type=key -key=a -tag=b -name=c",
            "Invalid parameters: [tag name]",
        ),
        (
            "lictor watch -type=service -service=a -passingonly=zz",
            "Failed to parse passingonly flag: strconv.ParseBool: parsing \"zz\": invalid syntax",
        ),
    ] {
        assert_eq!(run(line, "", &[]).failed.as_deref(), Some(expected), "{line}");
    }
}

#[test]
fn the_command_gets_the_state_and_its_failure_ends_the_watch() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let seen = folder.path().join("seen");
    let line = format!("lictor watch -type=key -key=a cat >{}; exit 3", seen.display());
    let ran = run(&line, "", &[(200, "\"l\""), (200, ONE)]);

    assert_eq!(
        ran.failed.as_deref(),
        Some("Error executing handler: exit status 3")
    );
    let state = "{\"Key\":\"a\",\"CreateIndex\":5,\"ModifyIndex\":7,\"LockIndex\":0,\"Flags\":0,\"Value\":\"b25l\",\"Session\":\"\"}\n";
    assert_eq!(
        std::fs::read_to_string(seen).expect("written by the command"),
        state
    );
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let line = "lictor watch -type=key -key=a -shell=false lictor-has-no-such-program";
    let ran = run(line, "", &[(200, "\"l\""), (200, ONE)]);

    let expected =
        "Error starting handler: exec: \"lictor-has-no-such-program\": executable file not found in $PATH";
    assert_eq!(ran.failed.as_deref(), Some(expected));
}

fn answer(index: u64, body: &'static str) -> Answer {
    Answer {
        status: hyper::StatusCode::OK,
        index: Some(index),
        body: bytes::Bytes::from_static(body.as_bytes()),
    }
}

#[test]
fn only_a_new_state_counts_and_a_lower_index_begins_anew() {
    let mut state = Watched::default();
    let mut changed = |index, body| {
        let value = state.change(&answer(index, body), Shape::Any);
        (value.expect("JSON").is_some(), state.index)
    };

    assert_eq!(changed(5, "[1]"), (true, 5));
    assert_eq!(changed(5, "[1]"), (false, 5));
    assert_eq!(changed(6, "[1]"), (false, 6));
    assert_eq!(changed(7, "[2]"), (true, 7));
    assert_eq!(changed(3, "[3]"), (true, 0));
}

#[test]
fn an_event_is_passed_on_once() {
    let mut state = Watched::default();
    let mut passed = |index, body| {
        let events = state.change(&answer(index, body), Shape::Events).expect("JSON");
        events.map(|events| {
            let ids = events.as_array().expect("a list").iter();
            ids.map(|event| event["ID"].as_str().unwrap_or_default().to_owned())
                .collect::<String>()
        })
    };

    assert_eq!(passed(1, "[]").as_deref(), Some(""));
    assert_eq!(passed(9, r#"[{"ID":"a"}]"#).as_deref(), Some("a"));
    assert_eq!(passed(9, r#"[{"ID":"a"}]"#), None);
    let three = r#"[{"ID":"a"},{"ID":"b"},{"ID":"c"}]"#;
    assert_eq!(
        passed(4, three).as_deref(),
        Some("bc"),
        "indexes of events go down too"
    );
    assert_eq!(passed(5, three), None);
    assert_eq!(
        passed(6, r#"[{"ID":"x"},{"ID":"y"}]"#).as_deref(),
        Some("xy"),
        "all are new"
    );
}

#[test]
fn pauses_grow_to_a_bound() {
    assert_eq!(pause_after(1), Duration::from_secs(5));
    assert_eq!(pause_after(3), Duration::from_secs(45));
    assert_eq!(pause_after(u32::MAX), RETRY_PAUSE_MAX);
}
