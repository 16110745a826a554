//! Where a configuration comes from: files, folders, flags and fragments, read in this order and merged.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::ConfigError;
use super::resolve;
use super::runtime::RuntimeConfig;
use super::{check, hcl};

/// A configuration is written by people; a file above this is a mistake.
const FILE_MAX_BYTES: u64 = 32 * 1024 * 1024;

/// How configuration text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// JSON.
    Json,
    /// HCL; HCL 2 and most of what is written for HCL 1.
    Hcl,
}

/// A file or a folder of files named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// One file of any name.
    File(PathBuf),
    /// The `.json` and `.hcl` files of a folder, by name; folders inside are not looked into.
    Folder(PathBuf),
}

impl Place {
    /// A folder if there is one of this name, else a file.
    pub(crate) fn of(path: PathBuf) -> Self {
        if path.is_dir() {
            Self::Folder(path)
        } else {
            Self::File(path)
        }
    }
}

/// Who reads the definitions of services and checks, and says what is wrong with one. The agent does; here they are data.
#[derive(Debug, Clone, Copy)]
pub struct Definitions {
    /// Reads a service.
    pub service: fn(&Value) -> Result<(), String>,
    /// Reads a check.
    pub check: fn(&Value) -> Result<(), String>,
}

impl Definitions {
    /// Reads all definitions of one source. The text of the first error says which it is about.
    fn read(self, source: &Map<String, Value>) -> Result<(), String> {
        for (word, plural, read) in [
            ("service", "services", self.service),
            ("check", "checks", self.check),
        ] {
            let all = source.get(plural).and_then(Value::as_array);
            for definition in all.into_iter().flatten() {
                read(definition).map_err(|why| match name_of(definition) {
                    Some(name) => format!("{word} {name:?}: {why}"),
                    None => format!("{word}: {why}"),
                })?;
            }
        }
        Ok(())
    }
}

fn name_of(definition: &Value) -> Option<&str> {
    let member = |wanted: &str| {
        let mut all = definition.as_object()?.iter();
        all.find(|(name, _)| name.eq_ignore_ascii_case(wanted))?
            .1
            .as_str()
    };
    member("name").or_else(|| member("id"))
}

/// Everything a configuration is made from. Kept for the life of the process, so that a reload reads it again.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Files and folders in the order of the command line.
    pub places: Vec<Place>,
    /// The format of all files, whatever their names say.
    pub format: Option<Format>,
    /// What the flags say, under the names of the configuration keys.
    pub flags: Map<String, Value>,
    /// What environment variables say, under the names of the configuration keys; everything else wins over it.
    pub environment: Map<String, Value>,
    /// Fragments given with `-hcl`; they win over flags and files.
    pub fragments: Vec<String>,
    /// Development mode: other defaults, and a data directory that goes with the process.
    pub dev: bool,
    /// By whom definitions are read; `None` leaves them unread.
    pub definitions: Option<Definitions>,
}

impl Sources {
    /// Reads, merges, fills in defaults and validates.
    ///
    /// # Errors
    /// The first thing that is wrong, see [`ConfigError`].
    pub fn load(&self) -> Result<RuntimeConfig, ConfigError> {
        let mut absent = Vec::new();
        let mut merged = self.merged(&mut absent)?;
        let flags = check::check("command line", Value::Object(self.flags.clone()), &mut absent)?;
        check::merge(&mut merged, flags);
        for fragment in &self.fragments {
            self.add(&mut merged, "-hcl", fragment, Format::Hcl, &mut absent)?;
        }
        let environment = Value::Object(self.environment.clone());
        for (name, value) in check::check("environment", environment, &mut absent)? {
            merged.entry(name).or_insert(value);
        }
        resolve::resolve(merged, absent, self.dev)
    }

    /// The services that the files define, whether or not these make up a whole configuration.
    ///
    /// # Errors
    /// As for [`Self::load`], but for what is missing.
    pub(crate) fn services(&self) -> Result<Vec<Value>, ConfigError> {
        let mut merged = self.merged(&mut Vec::new())?;
        match merged.remove("services") {
            Some(Value::Array(services)) => Ok(services),
            _ => Ok(Vec::new()),
        }
    }

    /// What the files say.
    fn merged(&self, absent: &mut Vec<String>) -> Result<Map<String, Value>, ConfigError> {
        let mut merged = Map::new();
        for path in self.files()? {
            let text = read(&path)?;
            let format = self
                .format
                .or_else(|| format_of(&path))
                .ok_or(ConfigError::UnknownFormat { path: path.clone() })?;
            self.add(&mut merged, &path.display().to_string(), &text, format, absent)?;
        }
        Ok(merged)
    }

    fn add(
        &self,
        merged: &mut Map<String, Value>,
        origin: &str,
        text: &str,
        format: Format,
        absent: &mut Vec<String>,
    ) -> Result<(), ConfigError> {
        // A file may be created empty and filled before a reload.
        if text.trim().is_empty() {
            return Ok(());
        }
        let parsed = match format {
            Format::Json => serde_json::from_str(text).map_err(|error| error.to_string()),
            Format::Hcl => hcl::parse(text),
        };
        let value = parsed.map_err(|message| ConfigError::Syntax {
            origin: origin.to_owned(),
            message,
        })?;
        let checked = check::check(origin, value, absent)?;
        if let Some(definitions) = self.definitions {
            definitions
                .read(&checked)
                .map_err(|why| ConfigError::Invalid(format!("{origin}: {why}")))?;
        }
        check::merge(merged, checked);
        Ok(())
    }

    fn files(&self) -> Result<Vec<PathBuf>, ConfigError> {
        let mut files = Vec::new();
        for place in &self.places {
            match place {
                Place::File(path) => files.push(path.clone()),
                Place::Folder(folder) => files.extend(self.folder(folder)?),
            }
        }
        Ok(files)
    }

    fn folder(&self, folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
        let unreadable = |cause| ConfigError::Read {
            path: folder.to_owned(),
            cause,
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let wanted = self.format.is_some() || format_of(&path).is_some();
            if wanted && path.is_file() {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |cause| ConfigError::Read {
        path: path.to_owned(),
        cause,
    };
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > FILE_MAX_BYTES {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
            bytes,
            limit: FILE_MAX_BYTES,
        });
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

fn format_of(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()? {
        "json" => Some(Format::Json),
        "hcl" => Some(Format::Hcl),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file in a folder of our own");
        path
    }

    fn base() -> Sources {
        let flags =
            serde_json::json!({"server": true, "bootstrap": true, "data_dir": "d", "bind_addr": "127.0.0.1"});
        Sources {
            flags: flags.as_object().expect("an object").clone(),
            ..Sources::default()
        }
    }

    fn load(sources: &Sources) -> Result<RuntimeConfig, String> {
        sources.load().map_err(|error| error.to_string())
    }

    #[test]
    fn later_files_win_and_empty_ones_count_for_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let places = vec![
            Place::File(write(
                &folder,
                "a.json",
                r#"{"node_name": "a", "datacenter": "east"}"#,
            )),
            Place::File(write(&folder, "b.hcl", "node_name = \"b\"\n")),
            Place::File(write(&folder, "c.json", "")),
        ];

        let config = load(&Sources { places, ..base() }).expect("valid");

        assert_eq!(
            (config.node_name.as_str(), config.datacenter.as_str()),
            ("b", "east")
        );
    }

    #[test]
    fn a_folder_is_read_in_the_order_of_its_names_and_other_files_are_left_alone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write(&folder, "20.json", r#"{"node_name": "second"}"#);
        write(&folder, "10.hcl", "node_name = \"first\"\n");
        write(&folder, "notes.txt", "not a configuration");

        let config = load(&Sources {
            places: vec![Place::Folder(folder.path().to_owned())],
            ..base()
        });

        assert_eq!(config.expect("valid").node_name, "second");
    }

    #[test]
    fn flags_win_over_files_and_fragments_over_flags() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut sources = base();
        sources.places = vec![Place::File(write(
            &folder,
            "a.hcl",
            "ports {\n http = 1000\n https = 1001\n}\n",
        ))];
        sources.flags.insert(
            "ports".to_owned(),
            serde_json::json!({"http": 2000, "https": 2001}),
        );
        sources.fragments = vec!["ports { http = 3000 }".to_owned()];

        let config = load(&sources).expect("valid");

        assert_eq!((config.ports.http, config.ports.https), (Some(3000), Some(2001)));
    }

    #[test]
    fn the_environment_counts_where_nothing_else_is_said() {
        let mut sources = base();
        let environment = serde_json::json!({"cors": "http://from.environment"});
        sources.environment = environment.as_object().expect("an object").clone();
        assert_eq!(load(&sources).expect("valid").cors, ["http://from.environment"]);

        sources.flags.insert("cors".to_owned(), serde_json::json!(["*"]));
        assert_eq!(load(&sources).expect("valid").cors, ["*"]);
    }

    #[test]
    fn mistakes_name_their_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, text, wanted) in [
            ("a.json", "{", "a.json: EOF while parsing"),
            ("b.hcl", "x = ", "b.hcl: line 1"),
            (
                "c.json",
                r#"{"nope": 1}"#,
                "c.json: unknown configuration key \"nope\"",
            ),
            ("d.conf", "x = 1", "cannot tell the format of"),
        ] {
            let path = write(&folder, name, text);
            let error = load(&Sources {
                places: vec![Place::File(path)],
                ..base()
            })
            .expect_err(name);
            assert!(error.contains(wanted), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_definition_that_cannot_be_read_is_named_with_its_file() {
        fn refuse(_: &Value) -> Result<(), String> {
            Err("no good".to_owned())
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let definitions = Some(Definitions {
            service: |_| Ok(()),
            check: refuse,
        });
        for (text, wanted) in [
            ("service { name = \"a\" }", None),
            ("check { Name = \"c\" }", Some("a.hcl: check \"c\": no good")),
            ("checks = [{ x = 1 }]", Some("a.hcl: check: no good")),
        ] {
            let places = vec![Place::File(write(&folder, "a.hcl", text))];

            let loaded = load(&Sources {
                places,
                definitions,
                ..base()
            });

            match (loaded, wanted) {
                (Ok(_), None) => {}
                (Err(error), Some(wanted)) => assert!(error.ends_with(wanted), "{error}"),
                (loaded, _) => panic!("{text}: {loaded:?}"),
            }
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load(&Sources {
            places: vec![Place::File("/nowhere/a.json".into())],
            ..base()
        });

        assert!(
            error
                .expect_err("no file")
                .starts_with("cannot read /nowhere/a.json: ")
        );
    }

    /// The agent shows an error with its sources behind it.
    #[test]
    fn the_cause_is_told_once() {
        let error = anyhow::Error::from(read(Path::new("/nowhere/a.json")).expect_err("no file"));

        assert_eq!(format!("{error:#}"), format!("{error}"));
    }

    #[test]
    fn a_format_given_by_hand_holds_for_all_names() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = write(&folder, "agent.conf", "node_name = \"n\"\n");

        let config = load(&Sources {
            places: vec![Place::File(path)],
            format: Some(Format::Hcl),
            ..base()
        });

        assert_eq!(config.expect("valid").node_name, "n");
    }

    #[test]
    fn the_configuration_that_go_test_suites_write_is_accepted() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let text = r#"{"node_name":"node-f0625afb","node_id":"f0625afb-c093-b779-c649-0fb617e77180",
            "performance":{"raft_multiplier":1},"bootstrap":true,"server":true,"data_dir":"/tmp/x/data",
            "segments":null,"disable_update_check":true,"log_level":"debug","bind_addr":"127.0.0.1","addresses":{},
            "ports":{"dns":11501,"http":11502,"https":11503,"serf_lan":11504,"serf_wan":11505,"server":11506,
            "grpc":11507,"grpc_tls":11508},"acl":{"tokens":{}},
            "connect":{"ca_config":{"cluster_id":"11111111-2222-3333-4444-555555555555"},"enabled":true},
            "skip_leave_on_interrupt":true,"peering":{"enabled":true},"version":"1.22.0"}"#;
        let places = vec![Place::File(write(&folder, "config.json", text))];

        let config = load(&Sources {
            places,
            ..Sources::default()
        })
        .expect("valid");

        assert_eq!(
            config.node_id.as_deref(),
            Some("f0625afb-c093-b779-c649-0fb617e77180")
        );
        assert_eq!((config.ports.http, config.ports.server), (Some(11502), 11506));
        assert_eq!(
            config.absent_keys,
            ["ports.dns", "ports.grpc", "ports.grpc_tls", "connect", "peering"]
        );
    }
}
