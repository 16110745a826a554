//! The pid file.

use std::path::{Path, PathBuf};

use crate::config::ConfigError;

/// Removes its file when dropped.
#[derive(Debug)]
pub(crate) struct PidFile(PathBuf);

impl PidFile {
    /// Writes this process's id.
    pub(crate) fn create(path: &Path) -> Result<Self, ConfigError> {
        std::fs::write(path, format!("{}\n", std::process::id())).map_err(|error| {
            ConfigError::Invalid(format!("pid_file: cannot write {}: {error}", path.display()))
        })?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Nothing depends on it any more; at worst a stale number stays.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_the_id_and_goes_at_the_end() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("pid");

        let file = PidFile::create(&path).expect("writable");
        let text = std::fs::read_to_string(&path).expect("written");
        drop(file);

        assert_eq!(text.trim(), std::process::id().to_string());
        assert!(!path.exists());
    }

    #[test]
    fn a_path_that_cannot_be_written_is_named() {
        let error = PidFile::create(Path::new("/nowhere/pid")).expect_err("no such folder");

        assert!(
            error
                .to_string()
                .starts_with("pid_file: cannot write /nowhere/pid: "),
            "{error}"
        );
    }
}
