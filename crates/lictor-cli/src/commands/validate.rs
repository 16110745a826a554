//! `validate`.

use super::{Failure, Outcome, Ui};
use crate::args::node::ValidateArgs;
use crate::config::{Place, Sources};

pub(crate) fn run(args: ValidateArgs, ui: &mut Ui<'_>) -> Outcome {
    if args.places.is_empty() {
        return Err(Failure(
            "Must specify at least one config file or directory".to_owned(),
        ));
    }
    let sources = Sources {
        places: args.places.into_iter().map(Place::of).collect(),
        format: args.config_format,
        definitions: ui.definitions,
        ..Sources::default()
    };
    let config = sources
        .load()
        .map_err(|error| Failure(format!("Config validation failed: {error}")))?;
    if args.quiet == Some(true) {
        return Ok(());
    }
    if !config.absent_keys.is_empty() {
        let keys = config.absent_keys.join(", ");
        ui.warn(format_args!("These keys have no effect: {keys}"))?;
    }
    ui.line("Configuration is valid!")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::run;

    fn file(name: &str, text: &str) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file in a folder of our own");
        let path = path.display().to_string();
        (folder, path)
    }

    #[test]
    fn a_valid_configuration_is_called_so_unless_silence_was_asked_for() {
        let (folder, path) = file(
            "a.hcl",
            "server = true\nbootstrap = true\ndata_dir = \"d\"\nbind_addr = \"127.0.0.1\"\n",
        );

        assert_eq!(
            run(&format!("lictor validate {path}"), "", &[]).out,
            "Configuration is valid!\n"
        );
        let whole = folder.path().display();
        let ran = run(&format!("lictor validate -quiet {whole}"), "", &[]);
        assert_eq!((ran.out.as_str(), ran.failed), ("", None));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let (_folder, path) = file("a.json", r#"{"nope": 1}"#);

        let failed = run(&format!("lictor validate {path}"), "", &[])
            .failed
            .expect("refused");
        assert!(failed.starts_with("Config validation failed: "), "{failed}");
        assert!(failed.contains("nope"), "{failed}");
        let ran = run("lictor validate", "", &[]);
        assert_eq!(
            ran.failed.as_deref(),
            Some("Must specify at least one config file or directory")
        );
    }
}
