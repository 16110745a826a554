use crate::testing::run;

fn file(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("a file in a folder of our own");
    let path = path.display().to_string();
    (folder, path)
}

#[test]
fn a_service_is_registered_from_flags() {
    let line = "lictor services register -name=api -id=api1 -port=99 -tag=x -tag=y -meta a=b -address=1.2.3.4 -tagged-address lan=1.2.3.4:80";
    let ran = run(line, "", &[(200, "")]);

    let body = r#"{"ID":"api1","Name":"api","Tags":["x","y"],"Port":99,"Address":"1.2.3.4","TaggedAddresses":{"lan":{"Address":"1.2.3.4","Port":80}},"Meta":{"a":"b"}}"#;
    assert_eq!(ran.asked, [format!("PUT /v1/agent/service/register {body}")]);
    assert_eq!(ran.out, "Registered service: api\n");
}

#[test]
fn services_are_registered_and_removed_by_file() {
    let text = "service {\n name = \"db\"\n id = \"db1\"\n port = 5\n check {\n  ttl = \"30s\"\n }\n}\nservice {\n name = \"web\"\n}\n";
    let (_folder, path) = file("two.hcl", text);

    let ran = run(
        &format!("lictor services register {path}"),
        "",
        &[(200, ""), (200, "")],
    );
    let first = r#"{"Name":"db","ID":"db1","Port":5,"Check":{"TTL":"30s"}}"#;
    assert_eq!(
        ran.asked,
        [
            format!("PUT /v1/agent/service/register {first}"),
            r#"PUT /v1/agent/service/register {"Name":"web"}"#.to_owned()
        ]
    );
    assert_eq!(ran.out, "Registered service: db\nRegistered service: web\n");

    let ran = run(
        &format!("lictor services deregister {path}"),
        "",
        &[(200, ""), (200, "")],
    );
    assert_eq!(ran.out, "Deregistered service: db1\nDeregistered service: web\n");
}

#[test]
fn what_is_wrong_with_a_file_is_said_before_anything_is_sent() {
    let (_folder, path) = file("a.json", r#"{"nope":1}"#);
    for line in [
        format!("lictor services register {path}"),
        format!("lictor services register {path}.missing"),
    ] {
        let failed = run(&line, "", &[]).failed.expect("refused");
        assert!(failed.starts_with("Error: "), "{failed}");
    }
}

#[test]
fn mistakes_are_refused() {
    for (line, expected) in [
        (
            "register",
            "Service registration requires at least one argument or flags.",
        ),
        (
            "register -name=a f.json",
            "Service registration requires arguments or -id, not both.",
        ),
        (
            "deregister",
            "Service deregistration requires at least one argument or -id.",
        ),
        (
            "deregister -id=a f.json",
            "Service deregistration requires arguments or -id, not both.",
        ),
        ("export", "Missing the required -name flag"),
        (
            "export -name=a",
            "Missing the required -consumer-peers or -consumer-partitions flag",
        ),
    ] {
        let ran = run(&format!("lictor services {line}"), "", &[]);
        assert_eq!(ran.failed.as_deref(), Some(expected));
    }
}

#[test]
fn the_agents_refusal_is_passed_on() {
    let refused = "Unknown service ID \"nope\".";
    let ran = run("lictor services deregister -id=nope", "", &[(404, refused)]);

    let expected = format!("Error deregistering service \"\": Unexpected response code: 404 ({refused})");
    assert_eq!(ran.failed, Some(expected));
}

#[test]
fn an_export_is_added_to_what_is_exported_already() {
    let entry = r#"{"Kind":"exported-services","Name":"default","Services":[{"Name":"web","Consumers":[{"Peer":"a"}]}],"CreateIndex":3,"ModifyIndex":36}"#;
    let ran = run(
        "lictor services export -name=web -consumer-peers=a,b",
        "",
        &[(200, entry), (200, "true")],
    );

    let (target, body) = ran.asked[1].split_once(" {").expect("a body");
    assert_eq!(target, "PUT /v1/config?cas=36");
    assert!(
        body.contains(r#"{"Name":"web","Consumers":[{"Peer":"a"},{"Peer":"b"}]}"#),
        "{body}"
    );
    assert_eq!(
        ran.out,
        "Successfully exported service \"web\" to cluster peers \"a,b\"\n"
    );
}
