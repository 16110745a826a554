//! `services`.

mod export;
mod file;

use serde_json::{Map, Value, json};

use super::{Failure, Outcome, Ui};
use crate::args::services::{DeregisterArgs, RegisterArgs, ServicesCommand};
use crate::client::{Call, Client};

pub(crate) async fn run(command: ServicesCommand, ui: &mut Ui<'_>) -> Outcome {
    match command {
        ServicesCommand::Register(args) => register(*args, ui).await,
        ServicesCommand::Deregister(args) => deregister(&args, ui).await,
        ServicesCommand::Export(args) => export::run(&args, ui).await,
    }
}

async fn register(args: RegisterArgs, ui: &mut Ui<'_>) -> Outcome {
    let services = match (args.files.as_slice(), &args.name) {
        ([], None) => {
            return Err(Failure(
                "Service registration requires at least one argument or flags.".to_owned(),
            ));
        }
        ([], Some(_)) => vec![from_flags(&args)?],
        (files, None) => file::services(files)?,
        (_, Some(_)) => {
            return Err(Failure(
                "Service registration requires arguments or -id, not both.".to_owned(),
            ));
        }
    };
    let mut client = ui.client(&args.client)?;
    for service in services {
        let name = text(&service, "Name");
        let call = Call::put("agent/service/register", Value::Object(service).to_string());
        let registered = client.send(call).await;
        registered.map_err(|error| Failure(format!("Error registering service {name:?}: {error}")))?;
        ui.line(format_args!("Registered service: {name}"))?;
    }
    Ok(())
}

fn from_flags(args: &RegisterArgs) -> Result<Map<String, Value>, Failure> {
    let mut addresses = Map::new();
    for (name, address) in &args.tagged_address {
        let parsed = address
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let (host, port) = parsed.ok_or_else(|| {
            Failure(format!(
                "Failed to parse Tagged address: {address:?} is not HOST:PORT"
            ))
        })?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        addresses.insert(name.clone(), json!({ "Address": host, "Port": port }));
    }
    let meta: Map<_, _> = args
        .meta
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    let given = [
        ("Kind", json!(args.kind)),
        ("ID", json!(args.id)),
        ("Name", json!(args.name)),
        ("Tags", json!(args.tag)),
        ("Port", json!(args.port)),
        ("Address", json!(args.address)),
        ("SocketPath", json!(args.socket)),
        ("TaggedAddresses", Value::Object(addresses)),
        ("Meta", Value::Object(meta)),
    ];
    let is_given = |value: &Value| match value {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    };
    Ok(given
        .into_iter()
        .filter(|(_, value)| is_given(value))
        .map(|(name, value)| (name.to_owned(), value))
        .collect())
}

async fn deregister(args: &DeregisterArgs, ui: &mut Ui<'_>) -> Outcome {
    let mut client = ui.client(&args.client)?;
    match (args.files.as_slice(), &args.id) {
        ([], None) => Err(Failure(
            "Service deregistration requires at least one argument or -id.".to_owned(),
        )),
        ([], Some(id)) => remove(&mut client, id, "", ui).await,
        (files, None) => {
            for service in file::services(files)? {
                let (id, name) = (text(&service, "ID"), text(&service, "Name"));
                // A service without an id has its name for one.
                let id = if id.is_empty() { &name } else { &id };
                if !id.is_empty() {
                    remove(&mut client, id, &name, ui).await?;
                }
            }
            Ok(())
        }
        (_, Some(_)) => Err(Failure(
            "Service deregistration requires arguments or -id, not both.".to_owned(),
        )),
    }
}

async fn remove(client: &mut Client, id: &str, name: &str, ui: &mut Ui<'_>) -> Outcome {
    let path = format!("agent/service/deregister/{id}");
    let removed = client.send(Call::put(&path, "")).await;
    removed.map_err(|error| Failure(format!("Error deregistering service {name:?}: {error}")))?;
    ui.line(format_args!("Deregistered service: {id}"))?;
    Ok(())
}

fn text(service: &Map<String, Value>, name: &str) -> String {
    let value = service.get(name).and_then(Value::as_str);
    value.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
