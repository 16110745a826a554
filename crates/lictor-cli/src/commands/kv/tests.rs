//! Outputs and requests, against what a Consul 1.20.6 printed for the same.

use crate::testing::run;

const FOO: &str = r#"[{"LockIndex":1,"Key":"foo","Flags":42,"Value":"YmFy","CreateIndex":3,"ModifyIndex":5,"Session":"s-1"}]"#;
const TREE: &str = r#"[{"LockIndex":0,"Key":"a/b","Flags":0,"Value":"MQ==","CreateIndex":3,"ModifyIndex":5},
    {"LockIndex":0,"Key":"a/c","Flags":7,"Value":null,"CreateIndex":4,"ModifyIndex":4}]"#;

/// Command line, answer, request expected, output expected.
fn succeeds(line: &str, answer: (u16, &str), asked: &str, out: &str) {
    let ran = run(line, "", &[answer]);

    assert_eq!(ran.failed, None, "{line}");
    assert_eq!(ran.asked, [asked], "{line}");
    assert_eq!(ran.out, out, "{line}");
}

/// Command line, answers, line on standard error expected.
fn fails(line: &str, answers: &[(u16, &str)], expected: &str) {
    let ran = run(line, "", answers);

    assert_eq!(ran.failed.as_deref(), Some(expected), "{line}");
    assert_eq!(ran.out, "", "{line}");
}

#[test]
fn get_prints_the_value_and_a_line_break() {
    succeeds("lictor kv get foo", (200, FOO), "GET /v1/kv/foo", "bar\n");
    succeeds("lictor kv get /foo", (200, FOO), "GET /v1/kv/foo", "bar\n");
    succeeds(
        "lictor kv get -base64 foo",
        (200, FOO),
        "GET /v1/kv/foo",
        "YmFy\n",
    );
}

#[test]
fn get_detailed_prints_a_table() {
    let table = "CreateIndex      3\nFlags            42\nKey              foo\nLockIndex        1\n\
                 ModifyIndex      5\nSession          s-1\nValue            bar\n";

    succeeds("lictor kv get -detailed foo", (200, FOO), "GET /v1/kv/foo", table);
}

#[test]
fn get_recurse_prints_pairs_and_tables() {
    succeeds(
        "lictor kv get -recurse a",
        (200, TREE),
        "GET /v1/kv/a?recurse",
        "a/b:1\na/c:\n",
    );
    let tables = "CreateIndex      3\nFlags            0\nKey              a/b\nLockIndex        0\n\
                  ModifyIndex      5\nSession          -\nValue            1\n\n\
                  CreateIndex      4\nFlags            7\nKey              a/c\nLockIndex        0\n\
                  ModifyIndex      4\nSession          -\nValue\n";
    succeeds(
        "lictor kv get -recurse -detailed a",
        (200, TREE),
        "GET /v1/kv/a?recurse",
        tables,
    );
}

#[test]
fn get_keys_folds_at_slashes_unless_told_otherwise() {
    let keys = r#"["a/b","a/c/"]"#;
    succeeds(
        "lictor kv get -keys a/",
        (200, keys),
        "GET /v1/kv/a/?keys&separator=%2F",
        "a/b\na/c/\n",
    );
    succeeds(
        "lictor kv get -keys -separator= a/",
        (200, keys),
        "GET /v1/kv/a/?keys",
        "a/b\na/c/\n",
    );
    succeeds(
        "lictor kv get -keys -recurse a/",
        (200, keys),
        "GET /v1/kv/a/?keys",
        "a/b\na/c/\n",
    );
    succeeds(
        "lictor kv get -keys",
        (200, keys),
        "GET /v1/kv/?keys&separator=%2F",
        "a/b\na/c/\n",
    );
}

#[test]
fn nothing_found_is_an_error_for_a_key_and_silence_for_a_prefix() {
    fails(
        "lictor kv get nope",
        &[(404, "")],
        "Error! No key exists at: nope",
    );
    succeeds(
        "lictor kv get -recurse nope",
        (404, ""),
        "GET /v1/kv/nope?recurse",
        "",
    );
    succeeds(
        "lictor kv get -keys nope",
        (404, ""),
        "GET /v1/kv/nope?keys&separator=%2F",
        "",
    );
}

#[test]
fn mistakes_are_refused_before_anything_is_sent() {
    for (line, expected) in [
        ("lictor kv get", "Error! Missing KEY argument"),
        ("lictor kv get /", "Error! Missing KEY argument"),
        ("lictor kv get a b", "Too many arguments (expected 1, got 2)"),
        ("lictor kv put", "Error! Missing KEY argument"),
        (
            "lictor kv put a b c",
            "Error! Too many arguments (expected 1 or 2, got 3)",
        ),
        (
            "lictor kv put -acquire a b",
            "Error! Missing -session (required with -acquire and -release)",
        ),
        (
            "lictor kv put /a b",
            "Error! Failed writing data: Invalid key. Key must not begin with a '/': /a",
        ),
        ("lictor kv delete", "Error! Missing KEY argument"),
        ("lictor kv delete a b", "Too many arguments (expected 1, got 2)"),
        (
            "lictor kv delete -modify-index=1 a",
            "Cannot specify -modify-index without -cas!",
        ),
        (
            "lictor kv delete -cas -recurse -modify-index=4 a",
            "Cannot specify both -cas and -recurse!",
        ),
        ("lictor kv export a b", "Too many arguments (expected 1, got 2)"),
        ("lictor kv import", "Error! Missing DATA argument"),
    ] {
        fails(line, &[], expected);
    }
    let ran = run("lictor kv put -base64 a %%", "", &[]);
    assert!(
        ran.failed
            .expect("no base64")
            .starts_with("Error! Cannot base 64 decode data: ")
    );
}

#[test]
fn put_sends_value_flags_and_condition() {
    let ok = (200, "true");
    let written = "Success! Data written to: a\n";
    succeeds("lictor kv put a b", ok, "PUT /v1/kv/a b", written);
    succeeds("lictor kv put a", ok, "PUT /v1/kv/a", written);
    succeeds("lictor kv put a -1", ok, "PUT /v1/kv/a -1", written);
    succeeds("lictor kv put -base64 a YmFy", ok, "PUT /v1/kv/a bar", written);
    succeeds(
        "lictor kv put -flags=42 a b",
        ok,
        "PUT /v1/kv/a?flags=42 b",
        written,
    );
    succeeds("lictor kv put -cas a b", ok, "PUT /v1/kv/a?cas=0 b", written);
    succeeds(
        "lictor kv put -cas -modify-index=9 a b",
        ok,
        "PUT /v1/kv/a?cas=9 b",
        written,
    );
    succeeds(
        "lictor kv put -cas=false -modify-index=9 a b",
        ok,
        "PUT /v1/kv/a b",
        written,
    );
    let acquired = "Success! Lock acquired on: a\n";
    succeeds(
        "lictor kv put -acquire -session s a b",
        ok,
        "PUT /v1/kv/a?acquire=s b",
        acquired,
    );
    let released = "Success! Lock released on: a\n";
    succeeds(
        "lictor kv put -release -session s a b",
        ok,
        "PUT /v1/kv/a?release=s b",
        released,
    );
}

#[test]
fn a_condition_that_does_not_hold_is_an_error() {
    let no = &[(200, "false")];
    let exists = "Error! Did not write to a: CAS performed with index=0 and key already exists.";
    fails("lictor kv put -cas a b", no, exists);
    fails(
        "lictor kv put -cas -modify-index=9 a b",
        no,
        "Error! Did not write to a: CAS failed",
    );
    fails(
        "lictor kv put -acquire -session s a b",
        no,
        "Error! Did not acquire lock",
    );
    fails(
        "lictor kv put -release -session s a b",
        no,
        "Error! Did not release lock",
    );
    fails(
        "lictor kv delete -cas -modify-index=9 a",
        no,
        "Error! Did not delete key a: CAS failed",
    );
}

#[test]
fn values_come_from_standard_input_and_files() {
    let ran = run("lictor kv put a -", "from a pipe", &[(200, "true")]);
    assert_eq!(ran.asked, ["PUT /v1/kv/a from a pipe"]);

    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), "from a file").expect("writable");
    let ran = run(
        &format!("lictor kv put a @{}", file.path().display()),
        "",
        &[(200, "true")],
    );
    assert_eq!(ran.asked, ["PUT /v1/kv/a from a file"]);

    let ran = run("lictor kv put a @/nowhere/f", "", &[]);
    assert!(
        ran.failed
            .expect("no file")
            .starts_with("Error! Failed to read file: open /nowhere/f: ")
    );
}

#[test]
fn delete_takes_a_key_or_a_prefix() {
    let ok = (200, "true");
    succeeds(
        "lictor kv delete a",
        ok,
        "DELETE /v1/kv/a",
        "Success! Deleted key: a\n",
    );
    succeeds(
        "lictor kv delete -recurse a",
        ok,
        "DELETE /v1/kv/a?recurse",
        "Success! Deleted keys with prefix: a\n",
    );
    succeeds(
        "lictor kv delete -cas -modify-index=2 a",
        ok,
        "DELETE /v1/kv/a?cas=2",
        "Success! Deleted key: a\n",
    );
}

#[test]
fn export_prints_what_import_reads() {
    let json = "[\n\t{\n\t\t\"key\": \"a/b\",\n\t\t\"flags\": 0,\n\t\t\"value\": \"MQ==\"\n\t},\n\t{\n\t\t\"key\": \"a/c\",\n\
                \t\t\"flags\": 7,\n\t\t\"value\": \"\"\n\t}\n]\n";
    succeeds("lictor kv export a", (200, TREE), "GET /v1/kv/a?recurse", json);
    succeeds("lictor kv export", (404, ""), "GET /v1/kv/?recurse", "[]\n");

    let ran = run(
        "lictor kv import -prefix=p/ -",
        json,
        &[(200, "true"), (200, "true")],
    );

    assert_eq!(ran.failed, None);
    assert_eq!(ran.asked, ["PUT /v1/kv/p/a/b 1", "PUT /v1/kv/p/a/c?flags=7"]);
    assert_eq!(ran.out, "Imported: p/a/b\nImported: p/a/c\n");
}

#[test]
fn import_reads_values_with_line_breaks() {
    let ran = run(
        "lictor kv import -",
        r#"[{"key":"a","value":"MT\r\nIz\n"}]"#,
        &[(200, "true")],
    );

    assert_eq!(
        (ran.asked, ran.failed),
        (vec!["PUT /v1/kv/a 123".to_owned()], None)
    );
}

#[test]
fn import_stops_at_the_first_entry_that_is_wrong() {
    let ran = run("lictor kv import -", "{", &[]);
    assert!(
        ran.failed
            .expect("no JSON")
            .starts_with("Cannot unmarshal data: ")
    );

    let ran = run(
        "lictor kv import -",
        r#"[{"key":"a","value":"%%"},{"key":"b"}]"#,
        &[],
    );
    assert!(
        ran.failed
            .expect("no base64")
            .starts_with("Error base 64 decoding value for key a: ")
    );

    let ran = run(
        "lictor kv import -",
        r#"[{"key":"a"},{"key":"b"}]"#,
        &[(500, "No cluster leader")],
    );
    let expected = "Error! Failed writing data for key a: Unexpected response code: 500 (No cluster leader)";
    assert_eq!(ran.failed.as_deref(), Some(expected));
}

#[test]
fn refusals_of_the_server_are_passed_on_in_its_words() {
    let refused = &[(403, "Permission denied")];
    let response = "Unexpected response code: 403 (Permission denied)";
    fails(
        "lictor kv get a",
        refused,
        &format!("Error querying Consul agent: {response}"),
    );
    fails(
        "lictor kv put a b",
        refused,
        &format!("Error! Failed writing data: {response}"),
    );
    fails(
        "lictor kv delete a",
        refused,
        &format!("Error! Did not delete key a: {response}"),
    );
}

#[test]
fn a_redirect_to_the_clean_path_is_followed_with_method_and_body() {
    let ran = run("lictor kv put a//b c", "", &[(307, "/v1/kv/a/b"), (200, "true")]);

    assert_eq!(ran.asked, ["PUT /v1/kv/a//b c", "PUT /v1/kv/a/b c"]);
    assert_eq!(ran.out, "Success! Data written to: a//b\n");
}

#[test]
fn a_write_to_a_path_that_is_no_key_is_refused() {
    let no_endpoint = &[(404, "Invalid URL path")];
    let expected = "Error! Failed writing data: Unexpected response code: 404 (Invalid URL path)";

    fails("lictor kv put ../x y", no_endpoint, expected);
}

#[test]
fn a_redirect_elsewhere_is_not_followed() {
    let ran = run("lictor kv get a", "", &[(307, "http://127.0.0.1:1/v1/kv/a")]);

    assert!(
        ran.failed
            .expect("refused")
            .contains("Unexpected response code: 307")
    );
}

#[test]
fn a_server_that_is_not_there_is_an_error_with_its_address() {
    let ran = run("lictor kv get -http-addr=127.0.0.1:1 a", "", &[]);

    let failed = ran.failed.expect("nobody listens there");
    assert!(failed.starts_with(
        "Error querying Consul agent: Get \"http://127.0.0.1:1/v1/kv/a\": dial tcp 127.0.0.1:1: connect: "
    ));
}
