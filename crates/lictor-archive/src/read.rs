//! Reading an archive into a state.

use std::io::{BufRead, Read};

use lictor_proto::v1::MetaRow;
use lictor_state::State;
use lictor_state::snapshot::{Progress, Receiver, SnapshotError};

use crate::consul::{self, Import};
use crate::msgpack::Source;
use crate::{ArchiveError, LICTOR_RECORD, Meta, UNPACKED_MAX_BYTES};

/// The most that a record of Lictor's may hold.
pub(crate) const RECORD_MAX_BYTES: usize = 1 << 20;

/// What an archive holds.
#[derive(Debug)]
pub struct Contents {
    /// Where the state stood.
    pub meta: Meta,
    /// The state; its applied index is that of the cluster that was saved.
    pub state: State,
    /// Kinds of rows that a Consul's archive has and Lictor does not, with their number.
    pub left_out: Vec<(String, u64)>,
}

/// Reads an archive and checks all of it.
///
/// # Errors
/// See [`ArchiveError`].
pub fn read(source: impl Read) -> Result<Contents, ArchiveError> {
    let (meta, (state, left_out)) = crate::open::open(source, content)?;
    state.check_archive().map_err(ArchiveError::content)?;
    Ok(Contents {
        meta,
        state,
        left_out,
    })
}

fn content(state_bin: &mut dyn BufRead) -> Result<(State, Vec<(String, u64)>), ArchiveError> {
    let mut source = Source::new(state_bin);
    let last_index = last_index(&mut source)?;
    let mut next = source.byte()?;
    if next == Some(LICTOR_RECORD) {
        return Ok((stream(&mut source)?, Vec::new()));
    }
    let mut import = Import::default();
    while let Some(kind) = next {
        import.take(kind, &source.value()?)?;
        next = source.byte()?;
    }
    let meta = MetaRow {
        applied_index: last_index,
        ..MetaRow::default()
    };
    let left_out = import.left_out();
    Ok((import.finish(meta)?, left_out))
}

/// The map that `state.bin` begins with.
pub(crate) fn last_index(source: &mut Source<'_>) -> Result<u64, ArchiveError> {
    let head = source.value()?;
    let index = head.field("LastIndex");
    index
        .uint()
        .filter(|_| !index.is_nil())
        .ok_or_else(|| consul::damaged("it has no LastIndex"))
}

/// Lictor's own records; the type of the first is read.
fn stream(source: &mut Source<'_>) -> Result<State, ArchiveError> {
    let mut receiver = Receiver::new(UNPACKED_MAX_BYTES);
    let mut bytes = Vec::new();
    loop {
        source.bytes_into(RECORD_MAX_BYTES, &mut bytes)?;
        let progress = receiver.push(&bytes)?;
        match source.byte()? {
            Some(LICTOR_RECORD) if progress == Progress::More => {}
            None if progress == (Progress::Done { unused: 0 }) => return Ok(receiver.finish()?.state),
            None if progress == Progress::More => return Err(SnapshotError::CutOff.into()),
            _ => return Err(consul::damaged("something follows its end")),
        }
    }
}
