//! `session`: Consul has no such command; ours follows the habits of its others.

use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::{Failure, Outcome, Ui, query_failed, table};
use crate::args::Output;
use crate::args::client::ClientArgs;
use crate::args::session::{CreateArgs, SessionCommand};
use crate::client::{Answer, Call, ClientError};

pub(crate) async fn run(command: SessionCommand, ui: &mut Ui<'_>) -> Outcome {
    match command {
        SessionCommand::Create(args) => create(args, ui).await,
        SessionCommand::Destroy(args) => destroy(&args.id, args.format, &args.client, ui).await,
        SessionCommand::Info(args) => {
            let path = format!("session/info/{}", args.id);
            let found = sessions(Call::get(&path), &args.client, ui).await?;
            show_one(&found, &args.id, args.format, ui)
        }
        SessionCommand::Renew(args) => {
            let path = format!("session/renew/{}", args.id);
            let found = sessions(Call::put(&path, ""), &args.client, ui).await?;
            show_one(&found, &args.id, args.format, ui)
        }
        SessionCommand::List(args) => {
            let found = sessions(Call::get("session/list"), &args.client, ui).await?;
            show_all(&found, args.format, ui)
        }
        SessionCommand::Node(args) => {
            let path = format!("session/node/{}", args.node);
            let found = sessions(Call::get(&path), &args.client, ui).await?;
            show_all(&found, args.format, ui)
        }
    }
}

async fn create(args: CreateArgs, ui: &mut Ui<'_>) -> Outcome {
    let mut body = Map::new();
    for (name, value) in [
        ("Name", args.name),
        ("Node", args.node),
        ("TTL", args.ttl),
        ("LockDelay", args.lock_delay),
        ("Behavior", args.behavior),
    ] {
        if let Some(value) = value {
            body.insert(name.to_owned(), Value::String(value));
        }
    }
    if let Some(checks) = args.node_check {
        let checks: Vec<_> = checks.into_iter().filter(|check| !check.is_empty()).collect();
        body.insert("NodeChecks".to_owned(), json!(checks));
    }
    if !args.service_check.is_empty() {
        let checks: Vec<_> = args.service_check.iter().map(|id| json!({ "ID": id })).collect();
        body.insert("ServiceChecks".to_owned(), Value::Array(checks));
    }
    let mut client = ui.client(&args.client)?;
    let call = Call::put("session/create", Value::Object(body).to_string());
    let answer = client
        .send(call)
        .await
        .map_err(|error| failed("creating session", error))?;
    let created = parse(&answer)?;
    match (args.format, created.get("ID").and_then(Value::as_str)) {
        (Output::Json, _) => ui.line(format_args!("{created:#}"))?,
        (Output::Pretty, Some(id)) => ui.line(id)?,
        (Output::Pretty, None) => return Err(Failure::error("The answer has no ID in it")),
    }
    Ok(())
}

async fn destroy(id: &str, format: Output, args: &ClientArgs, ui: &mut Ui<'_>) -> Outcome {
    let mut client = ui.client(args)?;
    let path = format!("session/destroy/{id}");
    let answer = client
        .send(Call::put(&path, ""))
        .await
        .map_err(|error| failed("destroying session", error))?;
    let done = parse(&answer)?;
    match format {
        Output::Json => ui.line(done)?,
        Output::Pretty => ui.line(format_args!("Session destroyed: {id}"))?,
    }
    Ok(())
}

fn failed(doing: &str, error: impl std::fmt::Display) -> Failure {
    Failure::error(format_args!("Failed {doing}: {error}"))
}

async fn sessions(call: Call<'_>, args: &ClientArgs, ui: &mut Ui<'_>) -> Result<Vec<Value>, Failure> {
    let answer = match ui.client(args)?.send(call).await {
        // A renewal of a session that has ended; the caller says so.
        Err(ClientError::Refused {
            status: StatusCode::NOT_FOUND,
            ..
        }) => return Ok(Vec::new()),
        answer => answer.map_err(query_failed)?,
    };
    match parse(&answer)? {
        Value::Array(found) => Ok(found),
        other => Err(Failure::error(format_args!("The answer is not a list: {other}"))),
    }
}

fn parse(answer: &Answer) -> Result<Value, Failure> {
    serde_json::from_slice(&answer.body)
        .map_err(|error| Failure::error(format_args!("Cannot read the answer: {error}")))
}

fn show_one(found: &[Value], id: &str, format: Output, ui: &mut Ui<'_>) -> Outcome {
    let Some(session) = found.first() else {
        return Err(Failure::error(format_args!("No session exists with ID: {id}")));
    };
    if format == Output::Json {
        ui.line(format_args!("{session:#}"))?;
        return Ok(());
    }
    let names = ["ID", "Name", "Node", "TTL", "Behavior", "LockDelay"];
    let mut rows: Vec<[String; 2]> = names.map(|name| [name.to_owned(), field(session, name)]).to_vec();
    rows.push(["NodeChecks".to_owned(), checks(session, "NodeChecks")]);
    rows.push(["ServiceChecks".to_owned(), checks(session, "ServiceChecks")]);
    rows.push(["CreateIndex".to_owned(), field(session, "CreateIndex")]);
    rows.push(["ModifyIndex".to_owned(), field(session, "ModifyIndex")]);
    table(ui, &rows)?;
    Ok(())
}

fn show_all(found: &[Value], format: Output, ui: &mut Ui<'_>) -> Outcome {
    if format == Output::Json {
        ui.line(format_args!("{:#}", Value::Array(found.to_vec())))?;
        return Ok(());
    }
    let names = ["ID", "Name", "Node", "TTL", "Behavior", "LockDelay"];
    let rows = found.iter().map(|session| names.map(|name| field(session, name)));
    let all: Vec<_> = std::iter::once(names.map(str::to_owned)).chain(rows).collect();
    table(ui, &all)?;
    Ok(())
}

/// A field as a cell; durations, which come as nanoseconds, in seconds.
fn field(session: &Value, name: &str) -> String {
    match session.get(name) {
        Some(Value::String(text)) if !text.is_empty() => text.clone(),
        Some(Value::Number(ns)) if name == "LockDelay" => {
            format!(
                "{}s",
                std::time::Duration::from_nanos(ns.as_u64().unwrap_or(0)).as_secs_f64()
            )
        }
        Some(Value::Number(number)) => number.to_string(),
        _ => "-".to_owned(),
    }
}

fn checks(session: &Value, name: &str) -> String {
    let ids = session.get(name).and_then(Value::as_array).into_iter().flatten();
    let ids: Vec<_> = ids
        .filter_map(|check| check.as_str().or_else(|| check.get("ID")?.as_str()))
        .collect();
    if ids.is_empty() {
        "-".to_owned()
    } else {
        ids.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::run;

    const ONE: &str = r#"[{"ID":"s-1","Name":"n","Node":"vm","LockDelay":15000000000,"Behavior":"release","TTL":"30s",
        "NodeChecks":["serfHealth"],"ServiceChecks":[{"ID":"web","Namespace":""}],"CreateIndex":7,"ModifyIndex":8}]"#;

    #[test]
    fn create_sends_what_is_given_and_prints_the_id() {
        let line =
            "lictor session create -name=n -ttl=10s -lock-delay=0s -behavior=delete -service-check=web";

        let ran = run(line, "", &[(200, r#"{"ID":"s-1"}"#)]);

        let body =
            r#"{"Name":"n","TTL":"10s","LockDelay":"0s","Behavior":"delete","ServiceChecks":[{"ID":"web"}]}"#;
        assert_eq!(ran.asked, [format!("PUT /v1/session/create {body}")]);
        assert_eq!((ran.out.as_str(), ran.failed), ("s-1\n", None));
    }

    #[test]
    fn an_empty_node_check_binds_the_session_to_no_check() {
        let ran = run(
            "lictor session create -node-check=",
            "",
            &[(200, r#"{"ID":"s-1"}"#)],
        );

        assert_eq!(ran.asked, [r#"PUT /v1/session/create {"NodeChecks":[]}"#]);
    }

    #[test]
    fn list_is_a_table_or_json() {
        let ran = run("lictor session list", "", &[(200, ONE)]);
        let table = "ID   Name  Node  TTL  Behavior  LockDelay\ns-1  n     vm    30s  release   15s\n";
        assert_eq!(
            (ran.asked, ran.out.as_str()),
            (vec!["GET /v1/session/list".to_owned()], table)
        );

        let ran = run("lictor session node -format=json vm", "", &[(200, ONE)]);
        assert_eq!(ran.asked, ["GET /v1/session/node/vm"]);
        let printed: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
        assert_eq!(printed[0]["ID"], "s-1");
    }

    #[test]
    fn info_shows_every_field() {
        let ran = run("lictor session info s-1", "", &[(200, ONE)]);

        assert_eq!(ran.asked, ["GET /v1/session/info/s-1"]);
        for row in [
            "ID             s-1\n",
            "NodeChecks     serfHealth\n",
            "ServiceChecks  web\n",
            "LockDelay      15s\n",
        ] {
            assert!(ran.out.contains(row), "{}", ran.out);
        }
    }

    #[test]
    fn a_session_that_is_gone_is_an_error() {
        let gone = Some("Error! No session exists with ID: s-1".to_owned());

        assert_eq!(run("lictor session info s-1", "", &[(200, "[]")]).failed, gone);
        assert_eq!(
            run(
                "lictor session renew s-1",
                "",
                &[(404, "Session id 's-1' not found")]
            )
            .failed,
            gone
        );
    }

    #[test]
    fn destroy_and_renew_put() {
        let ran = run("lictor session destroy s-1", "", &[(200, "true")]);
        assert_eq!(
            (ran.asked, ran.out.as_str()),
            (
                vec!["PUT /v1/session/destroy/s-1".to_owned()],
                "Session destroyed: s-1\n"
            )
        );

        let ran = run("lictor session renew s-1", "", &[(200, ONE)]);
        assert_eq!(
            (ran.asked, ran.failed),
            (vec!["PUT /v1/session/renew/s-1".to_owned()], None)
        );
    }
}
