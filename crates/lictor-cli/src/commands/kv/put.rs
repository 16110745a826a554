use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Failure, Outcome, Ui, missing_key};
use crate::args::kv::PutArgs;
use crate::client::Call;

/// What the write is conditional on, in Consul's order of precedence.
enum Verb {
    Cas,
    Acquire,
    Release,
    Plain,
}

pub(super) async fn run(args: PutArgs, ui: &mut Ui<'_>) -> Outcome {
    let (key, value) = match args.key_and_value.as_slice() {
        [] => return Err(missing_key()),
        [key] => (key.as_str(), ""),
        [key, value] => (key.as_str(), value.as_str()),
        more => {
            let count = more.len();
            return Err(Failure::error(format_args!(
                "Too many arguments (expected 1 or 2, got {count})"
            )));
        }
    };
    let (acquire, release) = (args.acquire.unwrap_or(false), args.release.unwrap_or(false));
    if (acquire || release) && args.session.is_empty() {
        return Err(Failure::error(
            "Missing -session (required with -acquire and -release)",
        ));
    }
    if key.starts_with('/') {
        let refused = format_args!("Invalid key. Key must not begin with a '/': {key}");
        return Err(Failure::error(format_args!("Failed writing data: {refused}")));
    }
    let value = value_bytes(value, args.base64.unwrap_or(false), ui)?;
    let verb = match (args.cas.unwrap_or(false), acquire, release) {
        (true, _, _) => Verb::Cas,
        (false, true, _) => Verb::Acquire,
        (false, false, true) => Verb::Release,
        (false, false, false) => Verb::Plain,
    };

    let mut client = ui.client(&args.client)?;
    let path = format!("kv/{key}");
    let mut call = Call::put(&path, value);
    if args.flags != 0 {
        call = call.with("flags", args.flags.to_string());
    }
    call = match verb {
        Verb::Cas => call.with("cas", args.modify_index.to_string()),
        Verb::Acquire => call.with("acquire", &args.session),
        Verb::Release => call.with("release", &args.session),
        Verb::Plain => call,
    };
    let failed = |error| Failure::error(format_args!("Failed writing data: {error}"));
    let answer = client.send(call).await.map_err(failed)?;
    let done = answer.is_true();
    match (verb, done) {
        (Verb::Acquire, true) => ui.line(format_args!("Success! Lock acquired on: {key}"))?,
        (Verb::Release, true) => ui.line(format_args!("Success! Lock released on: {key}"))?,
        (Verb::Cas | Verb::Plain, true) => ui.line(format_args!("Success! Data written to: {key}"))?,
        (verb, false) => return Err(refused(&verb, key, args.modify_index)),
    }
    Ok(())
}

fn refused(verb: &Verb, key: &str, index: u64) -> Failure {
    match verb {
        Verb::Cas if index == 0 => Failure::error(format_args!(
            "Did not write to {key}: CAS performed with index=0 and key already exists."
        )),
        Verb::Cas => Failure::error(format_args!("Did not write to {key}: CAS failed")),
        Verb::Acquire => Failure::error("Did not acquire lock"),
        Verb::Release => Failure::error("Did not release lock"),
        Verb::Plain => Failure::error(format_args!("Did not write to {key}")),
    }
}

fn value_bytes(argument: &str, base64: bool, ui: &mut Ui<'_>) -> Result<Vec<u8>, Failure> {
    let bytes = ui.data(argument)?;
    if !base64 {
        return Ok(bytes);
    }
    // Files and pipes end in a line break more often than not.
    let text: Vec<u8> = bytes
        .into_iter()
        .filter(|byte| !matches!(byte, b'\r' | b'\n'))
        .collect();
    STANDARD
        .decode(text)
        .map_err(|error| Failure::error(format_args!("Cannot base 64 decode data: {error}")))
}
