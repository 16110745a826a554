//! The data directory: who owns it, and in which format it is.
//!
//! | name | what |
//! |---|---|
//! | `LOCK` | locked while a process uses the directory |
//! | `FORMAT` | lines `name=value`: `format`, `node_id`, `raft_id`, `cluster_id`; written once, last of all at creation |
//! | `CLUSTER` | what the server is bound to, and which cluster it belongs to: a `Vow`; absent at first |
//! | `KEYRING` | the cluster keys, once they were changed: lines of hexadecimal digits, the primary first |
//! | `raft/` | the raft log |
//! | `state/`, `state-N/` | the durable copy of the state; `state.at` names it once it was replaced as a whole |
//! | `restore/` | archives that are being saved or restored |
//!
//! Other parts of the server may keep folders of their own beside these.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use lictor_node::VowStore;
use lictor_proto::RaftId;
use lictor_proto::v1::Vow;
use prost::Message as _;

use crate::StoreError;

/// The format that this build reads and writes.
pub const FORMAT: u32 = 1;

/// What a new directory is given, and what an old one was given: it never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirIdentity {
    /// The node's uuid as text.
    pub node_id: String,
    /// The identity in raft: random, not 0.
    pub raft_id: RaftId,
    /// The cluster's uuid as text.
    pub cluster_id: String,
}

/// An opened data directory; nobody else can open it until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: DirIdentity,
    is_new: bool,
    _lock: File,
}

impl DataDir {
    /// Opens the directory, or creates it with the identity that `fresh` draws.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open(path: &Path, fresh: impl FnOnce() -> DirIdentity) -> Result<Self, StoreError> {
        let unreadable = |cause| StoreError::Unreadable {
            path: path.to_owned(),
            cause,
        };
        fs::create_dir_all(path).map_err(unreadable)?;
        let format_file = path.join("FORMAT");
        let has_format = format_file.try_exists().map_err(unreadable)?;
        if !has_format {
            refuse_foreign(path)?;
        }
        let lock = lock(path)?;
        if has_format {
            let text = fs::read_to_string(&format_file).map_err(|cause| match cause.kind() {
                ErrorKind::InvalidData => damaged(&format_file, "not a text"),
                _ => StoreError::Unreadable {
                    path: format_file.clone(),
                    cause,
                },
            })?;
            let identity = parse(path, &format_file, &text)?;
            return Ok(Self {
                path: path.to_owned(),
                identity,
                is_new: false,
                _lock: lock,
            });
        }
        let identity = fresh();
        write_whole(&format_file, render(&identity).as_bytes()).map_err(unreadable)?;
        Ok(Self {
            path: path.to_owned(),
            identity,
            is_new: true,
            _lock: lock,
        })
    }

    /// What the directory was given at its creation.
    pub fn identity(&self) -> &DirIdentity {
        &self.identity
    }

    /// Whether [`Self::open`] created it.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Where the raft log is.
    pub fn raft(&self) -> PathBuf {
        self.path.join("raft")
    }

    /// What keeps the directory's vow.
    pub fn vow(&self) -> VowFile {
        VowFile(self.path.join("CLUSTER"))
    }

    /// What keeps the cluster keys.
    pub fn keyring(&self) -> KeyringFile {
        KeyringFile(self.path.join("KEYRING"))
    }

    /// Where the state is.
    pub fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The file of a vow. It is replaced as a whole, so that a crash leaves the old or the new.
#[derive(Debug)]
pub struct VowFile(PathBuf);

impl VowStore for VowFile {
    fn load(&self) -> io::Result<Option<Vow>> {
        let bytes = match fs::read(&self.0) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let (sum, vow) = bytes.split_first_chunk().ok_or(ErrorKind::InvalidData)?;
        if *sum != crc32c::crc32c(vow).to_le_bytes() {
            return Err(ErrorKind::InvalidData.into());
        }
        let vow = Vow::decode(vow).map_err(io::Error::other)?;
        Ok((vow != Vow::default()).then_some(vow))
    }

    fn save(&self, vow: Option<&Vow>) -> io::Result<()> {
        // None is kept too, as an empty one: no file is the same, but cannot be made durable as surely.
        let vow = vow.map(Vow::encode_to_vec).unwrap_or_default();
        let mut bytes = crc32c::crc32c(&vow).to_le_bytes().to_vec();
        bytes.extend(vow);
        write_whole(&self.0, &bytes)
    }
}

/// The file of the cluster keys, which its owner alone may read. It is replaced as a whole.
#[derive(Debug)]
pub struct KeyringFile(PathBuf);

impl KeyringFile {
    /// The keys, the primary first; `None` while they were never changed.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn load(&self) -> io::Result<Option<Vec<Vec<u8>>>> {
        let text = match fs::read_to_string(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let keys: Option<Vec<_>> = text.lines().map(from_hex).collect();
        let keys = keys.filter(|keys| !keys.is_empty() && text.ends_with('\n'));
        keys.map(Some).ok_or_else(|| ErrorKind::InvalidData.into())
    }

    /// Keeps the keys.
    ///
    /// # Errors
    /// They could not be written; what was there stays.
    pub fn save(&self, keys: &[Vec<u8>]) -> io::Result<()> {
        let mut text = String::new();
        for key in keys {
            text.extend(key.iter().map(|byte| format!("{byte:02x}")));
            text.push('\n');
        }
        write_whole_as(&self.0, text.as_bytes(), OWNER_ONLY)
    }
}

/// Read and written by the owner, by nobody else.
const OWNER_ONLY: u32 = 0o600;

fn from_hex(line: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = line.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()
    };
    let bytes: Vec<u8> = pairs.iter().map(byte).collect::<Option<_>>()?;
    (rest.is_empty() && !bytes.is_empty()).then_some(bytes)
}

/// A directory without `FORMAT` may hold what a creation that was cut short left behind, and nothing else.
fn refuse_foreign(path: &Path) -> Result<(), StoreError> {
    const HARMLESS: [&str; 3] = ["LOCK", "FORMAT.new", "lost+found"];
    let unreadable = |cause| StoreError::Unreadable {
        path: path.to_owned(),
        cause,
    };
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        if name == "raft" || name.to_string_lossy().starts_with("state") {
            return Err(damaged(path, "FORMAT is missing"));
        }
        if !HARMLESS.iter().any(|harmless| name == *harmless) {
            let found = name.to_string_lossy().into_owned();
            return Err(StoreError::NotOurs {
                path: path.to_owned(),
                found,
            });
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let unreadable = |cause| StoreError::Unreadable {
        path: path.to_owned(),
        cause,
    };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.join("LOCK"))
        .map_err(unreadable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(unreadable(source)),
    }
}

fn render(identity: &DirIdentity) -> String {
    let DirIdentity {
        node_id,
        raft_id,
        cluster_id,
    } = identity;
    format!("format={FORMAT}\nnode_id={node_id}\nraft_id={raft_id}\ncluster_id={cluster_id}\n")
}

fn parse(dir: &Path, file: &Path, text: &str) -> Result<DirIdentity, StoreError> {
    let value = |name: &str| {
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.ok_or_else(|| damaged(file, &format!("it has no line {name}=")))
    };
    let format = value("format")?;
    if format != FORMAT.to_string() {
        return Err(StoreError::OtherVersion {
            path: dir.to_owned(),
            found: format.to_owned(),
            expected: FORMAT,
        });
    }
    let raft_id = value("raft_id")?.parse().ok().filter(|id| *id != 0);
    Ok(DirIdentity {
        node_id: value("node_id")?.to_owned(),
        raft_id: RaftId(raft_id.ok_or_else(|| damaged(file, "raft_id is no number above 0"))?),
        cluster_id: value("cluster_id")?.to_owned(),
    })
}

fn damaged(path: &Path, what: &str) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        what: what.to_owned(),
    }
}

/// Writes a file so that a crash leaves either all of it or nothing.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole_as(path, bytes, 0o666)
}

/// The same with the rights that a new file gets, as far as the process's mask leaves them.
fn write_whole_as(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut staged = path.as_os_str().to_owned();
    staged.push(".new");
    let staged = PathBuf::from(staged);
    let mut options = File::options();
    options.create(true).truncate(true).write(true);
    let mut file = options.mode(mode).open(&staged)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&staged, path)?;
    let parent = path.parent().ok_or(ErrorKind::InvalidInput)?;
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> DirIdentity {
        DirIdentity {
            node_id: "n".to_owned(),
            raft_id: RaftId(7),
            cluster_id: "c".to_owned(),
        }
    }

    #[test]
    fn a_vow_is_kept_and_a_damaged_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = VowFile(folder.path().join("CLUSTER"));
        let vow = Vow {
            cluster_id: "c".to_owned(),
            coordinator: 7,
            ..Vow::default()
        };
        assert_eq!(file.load().unwrap(), None);

        file.save(Some(&vow)).unwrap();
        assert_eq!(file.load().unwrap(), Some(vow));
        file.save(None).unwrap();
        assert_eq!(file.load().unwrap(), None);

        fs::write(folder.path().join("CLUSTER"), b"damaged").unwrap();
        assert!(file.load().is_err());
    }

    #[test]
    fn keys_are_kept_in_their_order_for_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("KEYRING");
        let file = KeyringFile(path.clone());
        assert_eq!(file.load().unwrap(), None);

        let keys = vec![vec![0xff, 0, 7], vec![1]];
        file.save(&keys).unwrap();

        assert_eq!(file.load().unwrap(), Some(keys));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for damaged in ["", "ff", "0\n", "\n", "xx\n", "ff\n0"] {
            fs::write(&path, damaged).unwrap();
            assert!(file.load().is_err(), "{damaged:?}");
        }
    }

    fn never() -> DirIdentity {
        panic!("an existing directory keeps its identity")
    }

    #[test]
    fn a_directory_keeps_the_identity_of_its_creation() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("deep/data");

        let created = DataDir::open(&path, identity).unwrap();
        assert!(created.is_new());
        drop(created);

        let opened = DataDir::open(&path, never).unwrap();
        assert_eq!((opened.identity(), opened.is_new()), (&identity(), false));
    }

    #[test]
    fn a_directory_in_use_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let _held = DataDir::open(root.path(), identity).unwrap();

        let refused = DataDir::open(root.path(), never).unwrap_err();

        assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    }

    #[test]
    fn a_directory_of_another_format_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("FORMAT"), "format=99\nnode_id=n\n").unwrap();

        let refused = DataDir::open(root.path(), never).unwrap_err();

        assert!(
            matches!(&refused, StoreError::OtherVersion { found, .. } if found == "99"),
            "{refused}"
        );
    }

    #[test]
    fn somebody_elses_directory_is_refused_and_left_alone() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("letters.txt"), "dear").unwrap();

        let refused = DataDir::open(root.path(), never).unwrap_err();

        assert!(
            matches!(&refused, StoreError::NotOurs { found, .. } if found == "letters.txt"),
            "{refused}"
        );
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_without_its_format_file_is_damaged() {
        let root = tempfile::tempdir().unwrap();
        drop(DataDir::open(root.path(), identity).unwrap());
        fs::create_dir(root.path().join("state")).unwrap();
        fs::remove_file(root.path().join("FORMAT")).unwrap();

        let refused = DataDir::open(root.path(), never).unwrap_err();

        assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
    }

    #[test]
    fn a_format_file_with_nonsense_is_damaged() {
        let root = tempfile::tempdir().unwrap();
        for text in ["", "format=1\n", "format=1\nnode_id=n\nraft_id=0\ncluster_id=c\n"] {
            fs::write(root.path().join("FORMAT"), text).unwrap();

            let refused = DataDir::open(root.path(), never).unwrap_err();

            assert!(
                matches!(refused, StoreError::Damaged { .. }),
                "{text:?}: {refused}"
            );
        }
    }

    #[test]
    fn a_creation_that_was_cut_short_is_made_again() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("LOCK"), "").unwrap();
        fs::write(root.path().join("FORMAT.new"), "form").unwrap();

        assert!(DataDir::open(root.path(), identity).unwrap().is_new());
    }
}
