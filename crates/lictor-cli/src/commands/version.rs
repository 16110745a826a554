//! `version`.

use serde_json::json;

use super::{Outcome, Ui};
use crate::args::{Output, VersionArgs};

/// Lictor's own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The release of Consul whose HTTP API Lictor answers like. Programs that start a server binary read this from
/// `version -format=json` to decide what they may ask of it, so it is what the field `Version` says there.
pub const CONSUL_VERSION: &str = "1.20.6";

pub(crate) fn run(args: &VersionArgs, ui: &mut Ui<'_>) -> Outcome {
    match args.format {
        Output::Pretty => {
            ui.line(format_args!("Lictor v{VERSION}"))?;
            ui.line(format_args!("Answers like Consul v{CONSUL_VERSION}"))?;
        }
        Output::Json => {
            let version = json!({
                "Version": CONSUL_VERSION,
                "Revision": "",
                "Prerelease": "",
                "BuildDate": "1970-01-01T00:00:01Z",
                "RPC": { "Default": 2, "Min": 2, "Max": 3 },
                "Lictor": VERSION,
            });
            ui.line(format_args!("{version:#}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::run;

    #[test]
    fn programs_read_consuls_version_and_people_lictors() {
        let json: serde_json::Value =
            serde_json::from_str(&run("consul version -format=json", "", &[]).out).expect("JSON");
        assert_eq!(json["Version"], super::CONSUL_VERSION);
        assert_eq!(json["Lictor"], super::VERSION);

        let plain = run("lictor version", "", &[]).out;
        assert!(
            plain.starts_with(&format!("Lictor v{}\n", super::VERSION)),
            "{plain}"
        );
    }
}
