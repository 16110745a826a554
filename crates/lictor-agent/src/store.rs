//! The agent's own files: what clients registered, and the last health of each check.
//!
//! ```text
//! <data-dir>/agent/services/<sha256 of the id>.json   a service without its checks
//! <data-dir>/agent/checks/<sha256 of the id>.json     a check and its health
//! <data-dir>/agent/alive                              milliseconds since 1970 when TTLs were last seen to be fed
//! ```
//! A file is written beside its place, synced and renamed, so that a crash leaves the old or the new one. A TTL check
//! is not written each time it is fed: every check that says passing was within its TTL when `alive` was written, and
//! when its own file was.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::definition::{CheckDefinition, Health, ServiceDefinition};
use crate::local::{LocalCheck, Restored, Source};

/// The files of one agent, or none for an agent that forgets.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    dir: Option<PathBuf>,
}

/// What was found at the start.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) services: Vec<ServiceDefinition>,
    pub(crate) checks: Vec<(StoredCheck, Restored)>,
}

/// A check on disk. One from a configuration file is kept for its health alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StoredCheck {
    pub(crate) source: Source,
    pub(crate) definition: CheckDefinition,
    pub(crate) health: Health,
    pub(crate) output: String,
}

impl From<&LocalCheck> for StoredCheck {
    fn from(check: &LocalCheck) -> Self {
        Self {
            source: check.source,
            definition: (*check.definition).clone(),
            health: check.health(),
            output: check.row.output.clone(),
        }
    }
}

impl Store {
    /// Opens the files below a data directory.
    ///
    /// # Errors
    /// A directory cannot be made.
    pub(crate) fn open(data_dir: Option<&Path>) -> io::Result<Self> {
        let dir = data_dir.map(|data_dir| data_dir.join("agent"));
        if let Some(dir) = &dir {
            fs::create_dir_all(dir.join("services"))?;
            fs::create_dir_all(dir.join("checks"))?;
        }
        Ok(Self { dir })
    }

    /// Reads all files. One that cannot be read is named in the log and left as it is.
    pub(crate) fn load(&self) -> Stored {
        let Some(dir) = &self.dir else {
            return Stored::default();
        };
        let alive = fs::read_to_string(dir.join("alive"))
            .ok()
            .and_then(|text| text.trim().parse().ok());
        let alive = alive.map(|millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        let restored = |(check, written): (StoredCheck, SystemTime)| {
            let seen = alive.map_or(written, |alive| alive.max(written));
            let age = seen.elapsed().unwrap_or_default();
            let restored = Restored {
                health: check.health,
                output: check.output.clone(),
                age,
            };
            (check, restored)
        };
        Stored {
            services: read_all(&dir.join("services"))
                .into_iter()
                .map(|(service, _)| service)
                .collect(),
            checks: read_all(&dir.join("checks")).into_iter().map(restored).collect(),
        }
    }

    /// Writes a service; its checks are written by themselves.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn save_service(&self, service: &ServiceDefinition) -> io::Result<()> {
        self.save("services", &service.id, service)
    }

    /// Writes a check.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn save_check(&self, check: &StoredCheck) -> io::Result<()> {
        self.save("checks", &check.definition.id, check)
    }

    /// Removes a service's file.
    ///
    /// # Errors
    /// The disk's; a file that is not there is none.
    pub(crate) fn remove_service(&self, id: &str) -> io::Result<()> {
        self.remove("services", id)
    }

    /// Removes a check's file.
    ///
    /// # Errors
    /// The disk's; a file that is not there is none.
    pub(crate) fn remove_check(&self, id: &str) -> io::Result<()> {
        self.remove("checks", id)
    }

    /// Notes that TTLs are being fed.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn save_alive(&self) -> io::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        // Not synced: if it is lost, checks only lapse a little early.
        let beside = dir.join("alive.tmp");
        fs::write(&beside, now.as_millis().to_string())?;
        fs::rename(beside, dir.join("alive"))
    }

    fn save(&self, kind: &str, id: &str, content: &impl Serialize) -> io::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        write_whole(
            &dir.join(kind).join(file_name(id)),
            &serde_json::to_vec_pretty(content)?,
        )
    }

    fn remove(&self, kind: &str, id: &str) -> io::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        match fs::remove_file(dir.join(kind).join(file_name(id))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => File::open(dir.join(kind))?.sync_all(),
        }
    }
}

/// Writes a file so that a crash leaves the old or the new content. Only its owner may read it: checks carry
/// credentials in their headers.
///
/// # Errors
/// The disk's.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("tmp");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Ids may hold any character and be of any length, file names may not.
fn file_name(id: &str) -> String {
    use std::fmt::Write as _;

    let mut name = String::with_capacity(69);
    for byte in Sha256::digest(id.as_bytes()) {
        // Writing to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name.push_str(".json");
    name
}

/// Reads all files of a directory, each with the time that it was written.
fn read_all<T: DeserializeOwned>(dir: &Path) -> Vec<(T, SystemTime)> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::error!(dir = %dir.display(), %error, "the agent's files cannot be read");
            return Vec::new();
        }
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let read = |path: &PathBuf| {
        let content = serde_json::from_slice(&fs::read(path)?)?;
        io::Result::Ok((content, fs::metadata(path)?.modified()?))
    };
    let logged = |path: &PathBuf| {
        let result = read(path);
        result.inspect_err(|error| {
            tracing::error!(path = %path.display(), %error, "a file of the agent is damaged and was left out");
        })
    };
    paths.iter().filter_map(|path| logged(path).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(id: &str) -> ServiceDefinition {
        ServiceDefinition {
            id: id.into(),
            name: "web".into(),
            ..ServiceDefinition::default()
        }
    }

    fn check(id: &str) -> StoredCheck {
        let definition = CheckDefinition {
            id: id.into(),
            ..CheckDefinition::default()
        };
        StoredCheck {
            source: Source::Api,
            definition,
            health: Health::Passing,
            output: "ok".into(),
        }
    }

    #[test]
    fn what_was_saved_is_found_again_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Some(dir.path())).unwrap();
        let long = "../\0/".repeat(100);

        for id in ["a", &long] {
            store.save_service(&service(id)).unwrap();
            store.save_check(&check(id)).unwrap();
        }
        store.remove_service("a").unwrap();
        store.remove_service("none").unwrap();
        let stored = Store::open(Some(dir.path())).unwrap().load();

        assert_eq!(stored.services, [service(&long)]);
        let mut ids: Vec<_> = stored
            .checks
            .iter()
            .map(|(check, _)| check.definition.id.as_str())
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, [long.as_str(), "a"]);
    }

    #[test]
    fn a_damaged_file_does_not_hide_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Some(dir.path())).unwrap();
        store.save_service(&service("a")).unwrap();
        fs::write(dir.path().join("agent/services/0.json"), b"{").unwrap();
        fs::write(dir.path().join("agent/services/left.tmp"), b"{}").unwrap();

        assert_eq!(store.load().services, [service("a")]);
    }

    #[test]
    fn the_age_of_a_check_counts_from_the_last_sign_of_life() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Some(dir.path())).unwrap();
        store.save_check(&check("a")).unwrap();
        let age = || store.load().checks[0].1.age;
        let old = SystemTime::now() - Duration::from_secs(1000);
        let file = dir.path().join("agent/checks").join(file_name("a"));

        File::options()
            .write(true)
            .open(file)
            .unwrap()
            .set_modified(old)
            .unwrap();
        assert!(age() >= Duration::from_secs(1000));
        store.save_alive().unwrap();
        assert!(age() < Duration::from_secs(500));
    }

    #[test]
    fn without_a_directory_nothing_is_kept() {
        let store = Store::open(None).unwrap();

        store.save_service(&service("a")).unwrap();

        assert!(store.load().services.is_empty());
    }
}
