//! Where the copy is: a whole new one is made beside it and takes its place in one step.
//!
//! The first copy is `DIR/state`. A later one is `DIR/state-N`, and the file `DIR/state.at` names it: writing that file,
//! which is atomic and synced, is what puts it in force. Folders that are not in force are what a crash left behind, of a
//! copy that was being made or of one that was replaced, and go at the next start.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::StoreError;
use crate::dir::write_whole;

/// The folder of the copy that is in force, and with `first` the name of the first.
pub(super) fn find(first: &Path) -> Result<PathBuf, StoreError> {
    let unreadable = |cause| StoreError::Unreadable {
        path: first.to_owned(),
        cause,
    };
    let in_force = match fs::read_to_string(pointer(first)) {
        Ok(name) => {
            let folder = first.with_file_name(name.trim_end());
            if number(first, &folder).is_none() || !folder.join("CURRENT").exists() {
                return Err(StoreError::Damaged {
                    path: pointer(first),
                    what: "it names no copy of the state".to_owned(),
                });
            }
            folder
        }
        Err(error) if error.kind() == ErrorKind::NotFound => first.to_owned(),
        Err(error) => return Err(unreadable(error)),
    };
    for other in copies(first).map_err(unreadable)? {
        if other != in_force {
            fs::remove_dir_all(&other).map_err(unreadable)?;
        }
    }
    Ok(in_force)
}

/// The folder for the copy after the one at `in_force`.
pub(super) fn after(first: &Path, in_force: &Path) -> PathBuf {
    let next = number(first, in_force).unwrap_or(0) + 1;
    let mut name = first.file_name().unwrap_or_default().to_owned();
    name.push(format!("-{next}"));
    first.with_file_name(name)
}

/// Puts the copy at `folder` in force, durably.
pub(super) fn switch(first: &Path, folder: &Path) -> io::Result<()> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    write_whole(&pointer(first), format!("{name}\n").as_bytes())
}

fn pointer(first: &Path) -> PathBuf {
    let mut name = first.as_os_str().to_owned();
    name.push(".at");
    name.into()
}

/// The number of a copy; none for the first, or for anything else.
fn number(first: &Path, folder: &Path) -> Option<u64> {
    let name = folder.file_name()?.to_str()?;
    let rest = name.strip_prefix(first.file_name()?.to_str()?)?;
    rest.strip_prefix('-')?.parse().ok()
}

/// All folders of copies.
fn copies(first: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(first.parent().unwrap_or(first)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let is_copy = |path: &PathBuf| path == first || number(first, path).is_some();
    paths.filter(|path| path.as_ref().map_or(true, is_copy)).collect()
}
