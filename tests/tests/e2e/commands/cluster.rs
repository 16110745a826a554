use anyhow::{Context, Result};
use lictor_tests::{Server, until};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Program, SOON, with_each};

/// Whether the server has an endpoint; a command that asks one that is not there has nothing to show.
fn has(server: &Server, path: &str) -> Result<bool> {
    Ok(server.get(path)?.status != 501)
}

#[test]
fn keys_are_written_read_and_deleted() -> Result<()> {
    with_each(|_, program| {
        assert_eq!(
            program.output(&["kv", "put", "a/b", "1"])?,
            "Success! Data written to: a/b\n"
        );
        assert_eq!(program.output(&["kv", "get", "a/b"])?, "1\n");
        assert_eq!(program.output(&["kv", "get", "-recurse", "a"])?, "a/b:1\n");
        let exported = program.output(&["kv", "export", "a"])?;
        program.output(&["kv", "delete", "-recurse", "a"])?;
        assert_eq!(program.output(&["kv", "import", &exported])?, "Imported: a/b\n");
        let gone = "Error! No key exists at: none\n".to_owned();
        assert_eq!(program.failure(&["kv", "get", "none"])?, (1, gone));
        Ok(())
    })
}

#[test]
fn members_and_the_agent_are_shown() -> Result<()> {
    with_each(|server, program| {
        let members = program.output(&["members"])?;
        let (head, row) = members.split_once('\n').context("one line")?;
        let head: Vec<_> = head.split_whitespace().collect();
        let names = "Node Address Status Type Build Protocol DC Partition Segment";
        assert_eq!(head, names.split(' ').collect::<Vec<_>>());
        let row: Vec<_> = row.split_whitespace().collect();
        assert_eq!((row[0], row[2], row[3]), (server.node(), "alive", "server"));
        assert!(program.output(&["members", "-detailed"])?.contains("role=consul"));
        assert_eq!(program.failure(&["members", "-status=left"])?, (2, String::new()));

        let info = program.output(&["info"])?;
        assert!(info.starts_with("agent:\n\t"), "{info}");
        assert!(info.contains("\nraft:\n"), "{info}");
        let rtt = program.output(&["rtt", server.node()])?;
        let node = server.node();
        assert!(
            rtt.starts_with(&format!("Estimated {node} <-> {node} rtt: ")),
            "{rtt}"
        );
        let unknown = "Could not find a coordinate for node \"none\"\n".to_owned();
        assert_eq!(program.failure(&["rtt", "none"])?, (1, unknown));
        assert_eq!(program.output(&["reload"])?, "Configuration reload triggered\n");
        Ok(())
    })
}

#[test]
fn events_are_fired() -> Result<()> {
    with_each(|server, program| {
        let said = program.output(&["event", "-name=deploy", "now"])?;
        let id = said.trim().strip_prefix("Event ID: ").context("no id")?;
        until("the event to be listed", SOON, || {
            let events = server.get("/v1/event/list?name=deploy")?.json()?;
            let listed = events[0]["ID"] == id && events[0]["Payload"] == "bm93";
            Ok(listed.then_some(()))
        })
    })
}

#[test]
fn maintenance_begins_is_shown_and_ends() -> Result<()> {
    with_each(|server, program| {
        assert_eq!(program.output(&["maint"])?, "");
        assert_eq!(
            program.output(&["maint", "-enable", "-reason=new disk"])?,
            "Node maintenance is now enabled\n"
        );
        let node = server.node();
        assert_eq!(
            program.output(&["maint"])?,
            format!("Node:\n  Name:   {node}\n  Reason: new disk\n\n")
        );
        assert_eq!(
            program.output(&["maint", "-disable"])?,
            "Node maintenance is now disabled\n"
        );

        program.output(&["services", "register", "-name=web", "-id=w1"])?;
        assert_eq!(
            program.output(&["maint", "-enable", "-service=w1"])?,
            "Service maintenance is now enabled for \"w1\"\n"
        );
        let shown = program.output(&["maint"])?;
        assert!(shown.starts_with("Service:\n  ID:     w1\n  Reason: "), "{shown}");
        let (code, said) = program.failure(&["maint", "-enable", "-service=none"])?;
        assert_eq!(code, 1);
        let expected =
            "Error enabling service maintenance: Unexpected response code: 404 (Unknown service ID";
        assert!(said.starts_with(expected), "{said}");
        Ok(())
    })
}

#[test]
fn services_are_registered_listed_and_removed() -> Result<()> {
    with_each(|server, program| {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("web.hcl");
        let text = "services {\n  name = \"web\"\n  id = \"web1\"\n  port = 80\n  tags = [\"b\", \"a\"]\n  \
                    enable_tag_override = true\n  meta {\n    some_key = \"v\"\n  }\n  checks {\n    ttl = \"30s\"\n  }\n}\n";
        std::fs::write(&file, text)?;
        let file = file.display().to_string();

        assert_eq!(
            program.output(&["services", "register", &file])?,
            "Registered service: web\n"
        );
        let service = server.get("/v1/agent/service/web1")?.json()?;
        assert_eq!(service["EnableTagOverride"], json!(true));
        assert_eq!(service["Meta"]["some_key"], json!("v"));
        assert!(server.get("/v1/agent/checks")?.json()?["service:web1"].is_object());
        until("the catalog to follow", SOON, || {
            let listed = program.output(&["catalog", "services"])?;
            Ok((listed == "consul\nweb\n").then_some(()))
        })?;
        assert_eq!(
            program.output(&["catalog", "services", "-tags"])?,
            "consul      \nweb         a,b\n"
        );
        let nodes = program.output(&["catalog", "nodes", "-service=web"])?;
        assert!(
            nodes.starts_with("Node") && nodes.contains(server.node()),
            "{nodes}"
        );
        assert_eq!(program.output(&["catalog", "datacenters"])?, "dc1\n");
        let none = program.run(&["catalog", "nodes", "-service=none"])?;
        assert!(none.status.success() && none.stdout.is_empty() && !none.stderr.is_empty());

        assert_eq!(
            program.output(&["services", "deregister", &file])?,
            "Deregistered service: web1\n"
        );
        assert_eq!(server.get("/v1/agent/services")?.json()?, json!({}));
        Ok(())
    })
}

#[test]
fn snapshots_are_saved_looked_into_and_restored() -> Result<()> {
    with_each(|server, program| {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("backup.snap").display().to_string();
        program.output(&["kv", "put", "a/b", "1"])?;
        let session = server.session(r#"{"TTL":"60s"}"#)?;
        let before = (server.get("/v1/kv/a/b")?.text(), session);

        let saved = program.output(&["snapshot", "save", &file])?;
        assert!(
            saved.starts_with("Saved and verified snapshot to index "),
            "{saved}"
        );
        let shown = program.output(&["snapshot", "inspect", &file])?;
        assert!(
            ["ID", "Size", "Index", "Term", "Version"]
                .iter()
                .all(|name| shown.lines().any(|line| line.trim_start().starts_with(name))),
            "{shown}"
        );
        program.output(&["kv", "put", "a/b", "2"])?;
        program.output(&["kv", "put", "c", "3"])?;
        server.put(&format!("/v1/session/destroy/{}", before.1), "")?;
        assert_eq!(
            program.output(&["snapshot", "restore", &file])?,
            "Restored snapshot\n"
        );

        assert_eq!(program.output(&["kv", "get", "-recurse", ""])?, "a/b:1\n");
        assert_eq!(server.get("/v1/kv/a/b")?.text(), before.0);
        let session = server.get(&format!("/v1/session/info/{}", before.1))?.json()?;
        assert_eq!(session[0]["TTL"], json!("60s"));
        std::fs::write(&file, "junk")?;
        let (code, said) = program.failure(&["snapshot", "restore", &file])?;
        assert_eq!(code, 1);
        assert!(said.starts_with("Error restoring snapshot: "), "{said}");
        Ok(())
    })
}

#[test]
fn servers_of_all_datacenters_are_listed() -> Result<()> {
    with_each(|server, program| {
        let members = program.output(&["members", "-wan"])?;
        let row = members.lines().nth(1).context("no member")?;
        let row: Vec<_> = row.split_whitespace().collect();
        let name = format!("{}.dc1", server.node());
        assert_eq!(
            (row[0], row[2], row[3], row[6]),
            (name.as_str(), "alive", "server", "dc1")
        );
        Ok(())
    })
}

const KEY: &str = "pUqJrVyVRj5jsiYEkM/tFQYfWyJIv4s3XkvDwy7Cu5s=";

#[test]
fn keys_of_the_cluster_are_listed_and_changed() -> Result<()> {
    let start = || {
        lictor_tests::Server::with(lictor_tests::Options {
            hcl: format!("encrypt = \"{KEY}\""),
            ..lictor_tests::Options::default()
        })
    };
    let other = "qxycTi/SsePj/TZzCBmNXw==";
    let scenario = |program: &Program| -> Result<()> {
        let ring = |keys: &[&str]| {
            let keys: Vec<_> = keys.iter().map(|key| format!("  {key} [1/1]\n")).collect();
            let keys = keys.concat();
            format!("\nWAN:\n{keys}\ndc1 (LAN):\n{keys}")
        };
        let (install, make_primary, remove) = (
            format!("-install={other}"),
            format!("-use={other}"),
            format!("-remove={KEY}"),
        );
        assert_eq!(
            program.output(&["keyring", &install])?,
            "==> Installing new gossip encryption key...\n"
        );
        let listed = program.output(&["keyring", "-list"])?;
        let gathering = "==> Gathering installed encryption keys...\n";
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort_unstable();
            lines
        };
        // Consul's keys come in any order.
        assert_eq!(
            sorted(&listed),
            sorted(&format!("{gathering}{}", ring(&[KEY, other])))
        );
        let (code, said) = program.failure(&["keyring", &remove])?;
        assert_eq!(code, 1);
        assert!(said.contains("Removing the primary key is not allowed"), "{said}");

        assert_eq!(
            program.output(&["keyring", &make_primary])?,
            "==> Changing primary gossip encryption key...\n"
        );
        assert_eq!(
            program.output(&["keyring", &remove])?,
            "==> Removing gossip encryption key...\n"
        );
        let gathering = "==> Gathering installed primary encryption keys...\n";
        assert_eq!(
            program.output(&["keyring", "-list-primary"])?,
            format!("{gathering}{}", ring(&[other]))
        );
        let (code, said) = program.failure(&["keyring", "-use=YWJj"])?;
        assert_eq!(code, 1);
        assert!(said.contains("Requested key is not in the keyring"), "{said}");
        Ok(())
    };
    let server = start()?;
    scenario(&Program::own(&server)?).context("with the binary under test")?;
    let server = start()?;
    match Program::consul(&server)? {
        Some(consul) => scenario(&consul).context("with a real Consul"),
        None => crate::skip("no Consul binary as $CONSUL_BIN or on $PATH"),
    }
}

#[test]
fn peers_of_raft_are_listed() -> Result<()> {
    with_each(|server, program| {
        if !has(server, "/v1/operator/raft/configuration")? {
            return crate::skip("the server has no /v1/operator/raft yet");
        }
        let peers = program.output(&["operator", "raft", "list-peers"])?;
        let (head, row) = peers.split_once('\n').context("one line")?;
        assert!(
            head.starts_with("Node") && head.ends_with("Trails Leader By"),
            "{peers}"
        );
        let row: Vec<_> = row.split_whitespace().collect();
        assert_eq!((row[0], row[3], row[4]), (server.node(), "leader", "true"));
        let (code, _) = program.failure(&["operator", "raft", "remove-peer", "-id=none"])?;
        assert_eq!(code, 1);
        Ok(())
    })
}

#[test]
fn autopilot_is_shown_and_changed() -> Result<()> {
    with_each(|server, program| {
        if !has(server, "/v1/operator/autopilot/configuration")? {
            return crate::skip("the server has no /v1/operator/autopilot yet");
        }
        let changed = program.output(&["operator", "autopilot", "set-config", "-max-trailing-logs=300"])?;
        assert_eq!(changed, "Configuration updated!\n");
        let shown = program.output(&["operator", "autopilot", "get-config"])?;
        assert!(
            shown.starts_with("CleanupDeadServers = true\n") && shown.contains("MaxTrailingLogs = 300\n"),
            "{shown}"
        );
        let state = program.output(&["operator", "autopilot", "state", "-format=json"])?;
        let state: Value = serde_json::from_str(&state)?;
        assert_eq!(state["Healthy"], json!(true));
        Ok(())
    })
}

#[test]
fn the_log_is_streamed_until_a_signal() -> Result<()> {
    with_each(|server, program| {
        let (code, said) = program.failure(&["monitor", "-log-level=none"])?;
        assert_eq!(code, 1);
        assert!(said.starts_with("Error starting monitor: "), "{said}");
        // Asked with a level that is none, the server does not stream, whether it can or not.
        if server.get("/v1/agent/monitor?loglevel=none")?.status == 501 {
            return crate::skip("the server has no /v1/agent/monitor yet");
        }
        let monitor = program.start(&["monitor", "-log-level=trace"])?;
        server.await_open_connections(1)?;

        monitor.signal(Signal::INT)?;

        assert_eq!(monitor.end()?.0, Some(0));
        Ok(())
    })
}

#[test]
fn a_support_bundle_is_gathered() -> Result<()> {
    if lictor_tests::is_consul()? {
        return crate::skip("Consul's bundle takes a minute and has other files");
    }
    let server = Server::start()?;
    let folder = tempfile::tempdir()?;
    let output = folder.path().join("bundle");
    let name = format!("-output={}", output.display());
    let args = ["debug", "-duration=10s", "-interval=5s", "-archive=false", &name];
    let debug = Program::own(&server)?.start(&args)?;
    super::await_file(&output.join("metrics.json"), "\"Gauges\"")?;
    super::await_file(
        &output.join("metrics-0.prom"),
        "# TYPE lictor_http_requests_total counter",
    )?;

    debug.signal(Signal::INT)?;

    let (code, said, errors) = debug.end()?;
    assert_eq!(code, Some(0), "{errors}");
    assert!(said.contains("Stopped early"), "{said}");
    for file in ["agent.json", "host.json", "members.json", "index.json"] {
        let text = std::fs::read_to_string(output.join(file)).context(file)?;
        serde_json::from_str::<Value>(&text).context(file)?;
    }
    Ok(())
}

#[test]
fn a_configuration_is_validated() -> Result<()> {
    with_each(|_, program| {
        let folder = tempfile::tempdir()?;
        std::fs::write(
            folder.path().join("a.json"),
            r#"{"server":true,"bootstrap":true,"data_dir":"d","bind_addr":"127.0.0.1"}"#,
        )?;
        let path = folder.path().display().to_string();
        assert_eq!(program.output(&["validate", &path])?, "Configuration is valid!\n");
        assert_eq!(program.output(&["validate", "-quiet", &path])?, "");
        std::fs::write(folder.path().join("b.json"), r#"{"nope":1}"#)?;
        let (code, said) = program.failure(&["validate", &path])?;
        assert_eq!(code, 1);
        assert!(
            said.starts_with("Config validation failed: ") && said.contains("nope"),
            "{said}"
        );
        Ok(())
    })
}

#[test]
fn a_server_on_a_socket_is_reached_by_its_path() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("http.sock");
    let hcl = format!("addresses {{ http = \"127.0.0.1 unix://{}\" }}", socket.display());
    let mut server = Server::launch(lictor_tests::Options {
        hcl,
        ..lictor_tests::Options::default()
    })?;
    server.await_ready()?;
    let program = Program {
        address: format!("unix://{}", socket.display()),
        ..Program::own(&server)?
    };

    program.output(&["kv", "put", "k", "v"])?;

    assert_eq!(program.output(&["lock", "l", "echo held"])?, "held\n");
    assert!(program.output(&["members"])?.contains(server.node()));
    Ok(())
}

#[test]
fn leaving_stops_the_agent() -> Result<()> {
    let mut server = Server::start()?;
    let program = Program::own(&server)?;

    assert_eq!(program.output(&["leave"])?, "Graceful leave complete\n");

    server.await_exit()?;
    Ok(())
}
