//! A log in memory on a simulated disk.

use lictor_proto::{LogIndex, Term};

use super::{LogEntry, LogError, LogPosition, LogReader, LogStore, LogTask, LogWriter, Recovered};

/// A simulated disk. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct SimDisk {}

impl SimDisk {
    /// Power is cut.
    pub fn crash(&self, seed: u64) {
        let _ = seed;
        todo!()
    }
}

/// A log in memory.
#[derive(Debug, Default)]
pub struct MemLog {}

impl MemLog {
    /// Opens what is on the disk.
    ///
    /// # Errors
    /// [`LogError::Corrupt`].
    pub fn open(disk: &SimDisk) -> Result<Self, LogError> {
        let _ = disk;
        todo!()
    }
}

impl LogStore for MemLog {
    type Reader = MemReader;
    type Writer = MemWriter;

    fn split(self) -> (Recovered, MemReader, MemWriter) {
        todo!()
    }
}

/// Reads a [`MemLog`].
#[derive(Debug, Clone)]
pub struct MemReader {}

impl LogReader for MemReader {
    fn entries(&self, _: LogIndex, _: LogIndex, _: u64) -> Result<Vec<LogEntry>, LogError> {
        todo!()
    }

    fn term(&self, _: LogIndex) -> Result<Term, LogError> {
        todo!()
    }
}

/// Writes a [`MemLog`].
#[derive(Debug)]
pub struct MemWriter {}

impl LogWriter for MemWriter {
    fn append(&mut self, _: &[LogTask]) -> Result<(), LogError> {
        todo!()
    }

    fn compact(&mut self, _: LogPosition) -> Result<(), LogError> {
        todo!()
    }

    fn reset(&mut self, _: LogPosition) -> Result<(), LogError> {
        todo!()
    }
}
