//! Restoring an archive (rule R9).
//!
//! ```text
//! upload ──> file in the staging folder ──check──> renamed to its digest, synced, its rows in memory ──> other servers
//!                                                       │
//!            Restore{digest} through the log ──> apply takes the staged rows ──> view, timers, all watchers
//!                                                       └──> checkpoint thread: durable copy replaced, file removed
//! ```
//! Why a crash leaves the old or the new state and never a mix: before the entry is committed nothing was changed; from
//! then on a restart applies it again, from the file, which stays until the durable copy was replaced whole
//! (`a_restore_that_was_cut_short_is_done_after_the_restart`).
//!
//! Only `apply` may change the state, and it does no I/O on a network: where the archive is not, apply waits until a task
//! has fetched it from another server (see `cluster::archives`). Where there are other servers the last two archives are
//! kept for that; who comes later fetches the whole state.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use lictor_archive::{ArchiveError, Contents, Meta, Saved, Server};
use lictor_proto::Command;
use lictor_proto::v1::Restore;
use lictor_state::{Outcome, State};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::cluster::archives;
use crate::pipeline::SPACE_MIN_BYTES;
use crate::{Node, ProposeError};

/// The SHA-256 of an archive.
pub(crate) type Digest = [u8; 32];

/// The largest archive that is taken in.
const ARCHIVE_MAX_BYTES: u64 = 16 << 30;
/// The free space is looked at each time this much came in.
const LOOK_EVERY_BYTES: u64 = 16 << 20;
/// Archives that are on their way in or out at a time; each may be as large as the state.
const SLOTS: usize = 8;
/// What the names of files end with that are not whole yet.
const HALF: &str = "new";

/// Why an archive was not restored. But for [`RestoreError::Propose`] with an unknown outcome, nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// It is no archive, or a damaged one.
    #[error(transparent)]
    Refused(#[from] ArchiveError),
    /// It cannot be kept here.
    #[error("the archive cannot be staged: {0}")]
    Staging(#[from] io::Error),
    /// The leader, or too many of the servers, did not take it.
    #[error("{0}")]
    Leader(String),
    /// It could not be put into the log.
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

/// An archive that is here, durably.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) digest: Digest,
    pub(crate) path: PathBuf,
}

/// Archives that were taken in and wait to be applied.
#[derive(Debug)]
pub(crate) struct Staging {
    folder: PathBuf,
    /// For archives on their way in or out.
    slots: Arc<Semaphore>,
    /// One restore at a time.
    turn: tokio::sync::Mutex<()>,
    /// Held while files are put into their places.
    keeping: Mutex<()>,
    /// The rows of the archive that is being restored, so that apply need not read it.
    loaded: Mutex<Option<(Digest, State)>>,
}

impl Staging {
    /// The archives of `folder`, which is created when one comes. Removes files that a crash left half written.
    pub(crate) fn new(folder: PathBuf) -> Self {
        let is_half = |path: &PathBuf| path.extension().is_some_and(|end| end == HALF);
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(is_half) {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "a file that is of no use could not be removed");
            }
        }
        Self {
            folder,
            slots: Arc::new(Semaphore::new(SLOTS)),
            turn: tokio::sync::Mutex::new(()),
            keeping: Mutex::default(),
            loaded: Mutex::new(None),
        }
    }

    /// The state of a staged archive, read from its file if a restart has come between.
    pub(crate) fn take(&self, digest: &Digest) -> Result<State, RestoreError> {
        if let Some((_, state)) = self.loaded.lock().take_if(|(loaded, _)| loaded == digest) {
            return Ok(state);
        }
        let file = File::open(self.path(digest))?;
        Ok(lictor_archive::read(file)?.state)
    }

    /// Removes an archive that is part of the durable state now.
    pub(crate) fn forget(&self, digest: &Digest) {
        let path = self.path(digest);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a restored archive could not be removed");
        }
    }

    /// The file of an archive, if it is here.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(hex::encode(digest))
    }

    /// Makes room for one more: the newest stays, since the restore before may not be durable everywhere.
    fn clear(&self) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let mut staged = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.path().extension().is_none() {
                staged.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        staged.sort_unstable();
        staged.pop();
        for (_, path) in staged {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    /// Checks an archive, and keeps it until it is applied, durably. Needs the turn.
    fn stage(&self, mut upload: Upload) -> Result<Staged, RestoreError> {
        upload.scratch.seek(io::SeekFrom::Start(0))?;
        let Contents { state, left_out, .. } = lictor_archive::read(&mut upload.scratch)?;
        if !left_out.is_empty() {
            let kinds: Vec<_> = left_out
                .iter()
                .map(|(kind, count)| format!("{kind} ({count})"))
                .collect();
            tracing::warn!(kinds = kinds.join(", "), "the archive has rows that are left out");
        }
        let staged = self.keep(&upload)?;
        *self.loaded.lock() = Some((staged.digest, state));
        Ok(staged)
    }

    /// Keeps an archive durably, under its digest.
    pub(crate) fn keep(&self, upload: &Upload) -> io::Result<Staged> {
        let digest = upload.digest();
        let path = self.path(&digest);
        // One archive at a time, whoever brings it.
        let _keeping = self.keeping.lock();
        if !path.exists() {
            self.clear()?;
        }
        upload.scratch.file.sync_all()?;
        fs::rename(&upload.scratch.path, &path)?;
        File::open(&self.folder)?.sync_all()?;
        Ok(Staged { digest, path })
    }

    /// A file for an archive on its way in or out.
    fn scratch(&self) -> io::Result<Scratch> {
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        let slot =
            slot.map_err(|_| io::Error::new(ErrorKind::ResourceBusy, "too many snapshots at a time"))?;
        fs::create_dir_all(&self.folder)?;
        let path = self.folder.join(format!("{}.{HALF}", uuid::Uuid::new_v4()));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        Ok(Scratch {
            file,
            path,
            until_look_bytes: 0,
            _slot: slot,
        })
    }

    /// Forgets the rows in memory; the file stays if a restart may need it.
    fn unload(&self) {
        *self.loaded.lock() = None;
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Goes if nothing is in it; it need not be there.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// An archive on its way in. Dropped, it is gone.
#[derive(Debug)]
pub struct Upload {
    scratch: Scratch,
    digest: Sha256,
    len_bytes: u64,
}

impl Upload {
    /// The digest of what has come in.
    pub(crate) fn digest(&self) -> Digest {
        self.digest.clone().finalize().into()
    }

    /// Where it is kept meanwhile.
    pub(crate) fn path(&self) -> &Path {
        &self.scratch.path
    }

    /// Takes the next bytes. Blocks.
    ///
    /// # Errors
    /// Those of the disk, [`ErrorKind::StorageFull`] when it is nearly full among them;
    /// [`ErrorKind::FileTooLarge`] for an archive beyond all bounds.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let len_bytes = self.len_bytes + bytes.len() as u64;
        if len_bytes > ARCHIVE_MAX_BYTES {
            return Err(ErrorKind::FileTooLarge.into());
        }
        self.digest.update(bytes);
        self.scratch.write_all(bytes)?;
        self.len_bytes = len_bytes;
        Ok(())
    }
}

impl Node {
    /// Room for an archive that comes in.
    ///
    /// # Errors
    /// Those of the disk; [`ErrorKind::ResourceBusy`] when too many archives come and go already.
    pub fn upload(&self) -> io::Result<Upload> {
        Ok(Upload {
            scratch: self.shared().staging.scratch()?,
            digest: Sha256::new(),
            len_bytes: 0,
        })
    }

    /// Restores an archive, whoever leads: all of it, or nothing. Carried through even if the caller stops waiting.
    ///
    /// # Errors
    /// See [`RestoreError`].
    pub async fn restore(&self, upload: Upload) -> Result<(), RestoreError> {
        let node = self.clone();
        let task = tokio::spawn(async move { node.restore_wherever(upload).await });
        task.await
            .unwrap_or_else(|error| Err(io::Error::other(error).into()))
    }

    async fn restore_wherever(&self, upload: Upload) -> Result<(), RestoreError> {
        let mut seeking = self.seek_leader();
        loop {
            match seeking.next().await? {
                None => return self.restore_here(upload).await,
                Some(leader) => {
                    if let Some(done) = self.restore_at(leader, &upload).await {
                        return done;
                    }
                }
            }
        }
    }

    /// Restores an archive, if this server leads.
    pub(crate) async fn restore_here(&self, upload: Upload) -> Result<(), RestoreError> {
        let shared = self.shared();
        let _turn = shared.staging.turn.lock().await;
        let staging = Arc::clone(shared);
        let staged = tokio::task::spawn_blocking(move || staging.staging.stage(upload)).await;
        let staged = staged.map_err(io::Error::other)??;
        let restored = self.spread_and_propose(&staged).await;
        shared.staging.unload();
        let is_unknown = matches!(restored, Err(RestoreError::Propose(ProposeError::OutcomeUnknown)));
        if restored.is_err() && !is_unknown {
            shared.staging.forget(&staged.digest);
        }
        restored
    }

    async fn spread_and_propose(&self, staged: &Staged) -> Result<(), RestoreError> {
        let voters = self.roster().members().voters().count();
        let have_it = archives::spread(self, staged).await;
        if have_it <= voters / 2 {
            return Err(RestoreError::Leader(format!(
                "only {have_it} of {voters} servers could take the archive"
            )));
        }
        let sha256 = staged.digest.to_vec().into();
        let outcome = self.propose(Command::Restore(Restore { sha256 })).await;
        match outcome {
            Ok(Outcome::Failed(error)) => Err(io::Error::other(error).into()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes an archive of the state as it is now; writes go on meanwhile.
    ///
    /// # Errors
    /// As for [`Self::upload`] and [`Upload::write`].
    pub async fn save(&self) -> io::Result<Saved<Scratch>> {
        let state = State::clone(&self.view());
        let identity = self.identity();
        let server = Server {
            suffrage: 0,
            id: identity.node_id.clone(),
            address: format!("{}:{}", identity.address, identity.server_port),
        };
        let shared = Arc::clone(self.shared());
        let save = move || {
            let (index, term) = state.applied();
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let now_ms = u64::try_from(since.as_millis()).unwrap_or_default();
            let meta = Meta::new(state.visible(index).0, term.0, now_ms, vec![server]);
            let scratch = shared.staging.scratch()?;
            Saved::new(&state, &state.meta(), meta, scratch)
        };
        tokio::task::spawn_blocking(save)
            .await
            .map_err(io::Error::other)?
    }
}

/// A file in the data directory that is gone when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    file: File,
    path: PathBuf,
    /// What may still be written before the free space is looked at.
    until_look_bytes: u64,
    _slot: OwnedSemaphorePermit,
}

impl Scratch {
    fn check_room(&self) -> io::Result<()> {
        let found = rustix::fs::fstatvfs(&self.file)?;
        let least = SPACE_MIN_BYTES.min(found.f_blocks * found.f_frsize / 8);
        if found.f_bavail * found.f_frsize < least + LOOK_EVERY_BYTES {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Renamed when it was kept; else it is removed at the next restore at the latest.
        let _ = fs::remove_file(&self.path);
    }
}

impl io::Read for Scratch {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl io::Write for Scratch {
    /// [`ErrorKind::StorageFull`] before the disk is full, since the Raft log needs room too.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.until_look_bytes == 0 {
            self.check_room()?;
            self.until_look_bytes = LOOK_EVERY_BYTES;
        }
        let written = self.file.write(bytes)?;
        self.until_look_bytes = self.until_look_bytes.saturating_sub(written as u64);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl io::Seek for Scratch {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}
