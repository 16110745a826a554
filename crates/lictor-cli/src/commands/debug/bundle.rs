//! The folder that everything is gathered into, and the archive made of it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value};

/// Something on the disk does not work.
#[derive(Debug, thiserror::Error)]
pub(super) enum BundleError {
    #[error("output {} exists already", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

#[derive(Debug)]
pub(super) struct Bundle {
    folder: PathBuf,
    archive: bool,
    missing: Map<String, Value>,
}

impl Bundle {
    /// Makes the folder.
    ///
    /// # Errors
    /// When it, or the archive, is there already or cannot be made.
    pub(super) fn create(folder: PathBuf, archive: bool) -> Result<Self, BundleError> {
        let bundle = Self {
            folder,
            archive,
            missing: Map::new(),
        };
        let taken = [&bundle.folder, &bundle.result()]
            .into_iter()
            .find(|path| path.exists())
            .cloned();
        if let Some(path) = taken {
            return Err(BundleError::Exists(path));
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&bundle.folder)
            .map_err(at(&bundle.folder))?;
        Ok(bundle)
    }

    /// Where everything is in the end.
    pub(super) fn result(&self) -> PathBuf {
        if !self.archive {
            return self.folder.clone();
        }
        let mut name = self.folder.clone().into_os_string();
        name.push(".tar.gz");
        PathBuf::from(name)
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), BundleError> {
        let path = self.folder.join(name);
        let file = private().create(true).truncate(true).write(true).open(&path);
        file.and_then(|mut file| file.write_all(bytes)).map_err(at(&path))
    }

    pub(super) fn append(&self, name: &str, bytes: &[u8]) -> Result<(), BundleError> {
        let path = self.folder.join(name);
        let file = private().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(bytes)).map_err(at(&path))
    }

    /// Notes what could not be gathered.
    pub(super) fn miss(&mut self, name: &str, why: String) {
        self.missing.insert(name.to_owned(), Value::String(why));
    }

    pub(super) fn missing(&self) -> Value {
        Value::Object(self.missing.clone())
    }

    /// Packs the folder if that was asked for, and answers where everything is.
    pub(super) fn finish(self) -> Result<PathBuf, BundleError> {
        let result = self.result();
        if self.archive {
            pack(&self.folder, &result).map_err(at(&result))?;
            fs::remove_dir_all(&self.folder).map_err(at(&self.folder))?;
        }
        Ok(result)
    }
}

/// A bundle tells more of a server than everybody on the machine need know.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::Write { path, source }
}

fn pack(folder: &Path, archive: &Path) -> io::Result<()> {
    let file = private().create_new(true).write(true).open(archive)?;
    let mut tar = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    let name = folder.file_name().map_or_else(|| Path::new("debug"), Path::new);
    tar.append_dir_all(name, folder)?;
    tar.into_inner()?.finish()?.sync_all()
}
