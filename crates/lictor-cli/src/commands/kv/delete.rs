use super::{Failure, Outcome, Ui, missing_key, one, without_slash};
use crate::args::kv::DeleteArgs;
use crate::client::Call;

pub(super) async fn run(args: DeleteArgs, ui: &mut Ui<'_>) -> Outcome {
    let key = without_slash(one(&args.key)?.unwrap_or_default());
    let (cas, tree) = (args.cas.unwrap_or(false), args.recurse.unwrap_or(false));
    let refused = |text: &str| Err(Failure(text.to_owned()));
    if key.is_empty() && !tree {
        return Err(missing_key());
    }
    if !cas && args.modify_index != 0 {
        return refused("Cannot specify -modify-index without -cas!");
    }
    if cas && args.modify_index == 0 {
        return refused("Cannot delete a key that does not exist. Provide a -modify-index greater than 0.");
    }
    if cas && tree {
        return refused("Cannot specify both -cas and -recurse!");
    }

    let mut client = ui.client(&args.client)?;
    let path = format!("kv/{key}");
    let call = Call::delete(&path);
    let call = match (tree, cas) {
        (true, _) => call.with("recurse", ""),
        (false, true) => call.with("cas", args.modify_index.to_string()),
        (false, false) => call,
    };
    let failed = |error| Failure::error(format_args!("Did not delete {} {key}: {error}", noun(tree)));
    let answer = client.send(call).await.map_err(failed)?;
    if !answer.is_true() {
        return Err(Failure::error(format_args!(
            "Did not delete key {key}: CAS failed"
        )));
    }
    if tree {
        ui.line(format_args!("Success! Deleted keys with prefix: {key}"))?;
    } else {
        ui.line(format_args!("Success! Deleted key: {key}"))?;
    }
    Ok(())
}

fn noun(tree: bool) -> &'static str {
    if tree { "prefix" } else { "key" }
}
