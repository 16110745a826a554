//! What needs no server; the rest is tested from outside against a running one.

use crate::testing::run;

#[test]
fn mistakes_are_refused_before_anything_is_asked() {
    for (line, expected) in [
        ("", "Key prefix and child command must be specified"),
        (" p", "Key prefix and child command must be specified"),
        (" -n=0 p true", "Lock holder limit must be positive"),
        (" -n=-1 p true", "Lock holder limit must be positive"),
        (" -try=-5s p true", "Timeout must be positive"),
        (" -timeout -1s p true", "Timeout must be positive"),
        (
            " -monitor-retry=-1 p true",
            "Number for 'monitor-retry' must be >= 0",
        ),
    ] {
        let ran = run(&format!("lictor lock{line}"), "", &[]);
        assert_eq!(ran.failed.as_deref(), Some(expected), "{line}");
    }
}

#[test]
fn a_refused_session_is_an_error() {
    let answers = &[(200, "{}"), (500, "No cluster leader")];
    let ran = run("lictor lock -name=n p echo -n x", "", answers);

    assert_eq!(ran.asked[0], "GET /v1/agent/self");
    assert_eq!(ran.asked[1], r#"PUT /v1/session/create {"Name":"n","TTL":"15s"}"#);
    let expected = "Lock acquisition failed: failed to create session: Unexpected response code: 500 (No cluster leader)";
    assert_eq!(ran.failed.as_deref(), Some(expected));
}

#[test]
fn a_semaphores_keys_go_with_its_session() {
    let ran = run(
        "lictor lock -n=2 p echo x",
        "",
        &[(200, "{}"), (500, "No cluster leader")],
    );

    let asked = r#"PUT /v1/session/create {"Name":"Consul lock for 'echo x' at 'p'","TTL":"15s","Behavior":"delete"}"#;
    assert_eq!(ran.asked[1], asked);
}
