use anyhow::Result;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Program, await_file, with_each};

fn printed(program: &Program, args: &[&str]) -> Result<Value> {
    let all = [&["watch"], args].concat();
    Ok(serde_json::from_str(&program.output(&all)?)?)
}

#[test]
fn a_command_runs_at_each_change_and_a_signal_ends_the_watch() -> Result<()> {
    with_each(|server, program| {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("seen");
        server.put("/v1/kv/w/a", "1")?;
        let script = format!("cat >>{0}; echo $CONSUL_INDEX >>{0}", file.display());
        let watch = program.start(&["watch", "-type=key", "-key=w/a", &script])?;
        await_file(&file, "\"Value\":\"MQ==\"")?;

        server.put("/v1/kv/w/a", "2")?;
        await_file(&file, "\"Value\":\"Mg==\"")?;
        let index = server.get("/v1/kv/w/a")?.index()?;
        await_file(&file, &format!("}}\n{index}\n"))?;
        server.delete("/v1/kv/w/a")?;
        await_file(&file, "null\n")?;
        watch.signal(Signal::INT)?;

        assert_eq!(watch.end()?.0, Some(0));
        Ok(())
    })
}

#[test]
fn without_a_command_the_state_is_printed_once() -> Result<()> {
    with_each(|server, program| {
        server.put("/v1/kv/w/a", "1")?;
        server.put("/v1/kv/w/b", "2")?;
        server.put("/v1/event/fire/deploy", "x")?;
        let node = server.node();

        assert_eq!(
            printed(program, &["-type=key", "-key=w/a"])?["Value"],
            json!("MQ==")
        );
        assert_eq!(printed(program, &["-type=key", "-key=w/no"])?, Value::Null);
        let tree = printed(program, &["-type=keyprefix", "-prefix=w/"])?;
        assert_eq!((&tree[0]["Key"], &tree[1]["Key"]), (&json!("w/a"), &json!("w/b")));
        assert!(printed(program, &["-type=services"])?["consul"].is_array());
        assert_eq!(printed(program, &["-type=nodes"])?[0]["Node"], json!(node));
        let service = printed(
            program,
            &["-type=service", "-service=consul", "-passingonly=true"],
        )?;
        assert_eq!(service[0]["Node"]["Node"], json!(node));
        let checks = printed(program, &["-type=checks", "-state=passing"])?;
        assert_eq!(checks[0]["CheckID"], json!("serfHealth"));
        assert_eq!(
            printed(program, &["-type=event", "-name=deploy"])?[0]["Payload"],
            json!("eA==")
        );
        assert_eq!(printed(program, &["-type=event", "-name=other"])?, json!([]));
        Ok(())
    })
}

#[test]
fn a_command_that_fails_ends_the_watch() -> Result<()> {
    with_each(|server, program| {
        server.put("/v1/kv/w/a", "1")?;
        let (code, said) = program.failure(&["watch", "-type=key", "-key=w/a", "exit 3"])?;
        assert_eq!(
            (code, said.as_str()),
            (1, "Error executing handler: exit status 3\n")
        );
        Ok(())
    })
}
