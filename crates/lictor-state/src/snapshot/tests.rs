use bytes::Bytes;
use lictor_proto::v1::{KvSet, NodeRow, Register};
use lictor_proto::{Command, LogIndex, Term};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::{Effects, State};

/// A state of `keys` keys and a node.
fn state(keys: u64) -> State {
    let mut state = State::default();
    let mut out = Effects::default();
    let node = NodeRow {
        node: "n".to_owned(),
        ..NodeRow::default()
    };
    let register = Register {
        node: Some(node),
        ..Register::default()
    };
    state.apply(LogIndex(1), Term(1), &Command::Register(register), &mut out);
    for index in 2..keys + 2 {
        let set = KvSet {
            key: format!("some/key/{index:08}").into(),
            value: Bytes::from(vec![b'v'; 100]),
            flags: index,
            cas: None,
        };
        state.apply(LogIndex(index), Term(1), &Command::KvSet(set), &mut out);
    }
    state
}

fn stream(state: &State) -> Vec<u8> {
    let mut stream = Vec::new();
    write(state, &state.meta(), &mut stream).unwrap();
    stream
}

fn read(stream: &[u8]) -> Result<Received, SnapshotError> {
    let mut receiver = Receiver::new(u64::MAX);
    receiver.push(stream)?;
    receiver.finish()
}

#[test]
fn a_stream_has_the_documented_bytes() {
    let stream = stream(&State::default());

    // An empty meta row but for its empty table indexes: too short to pack.
    let mut expected = b"LICTOR-SNAPSHOT\n\x03\0\0\0".to_vec();
    expected.extend_from_slice(b"\x03\0\0\0\x03\0\0\0\x02\x42\0");
    assert_eq!(stream[..expected.len()], expected);
    // Thirteen counts and the digest, each after its tag and length.
    assert_eq!(stream[expected.len()..][..8], *b"\0\0\0\0\x31\0\0\0");
    assert_eq!(stream.len(), expected.len() + 8 + 2 + 13 + 2 + 32);
}

#[test]
fn many_frames_make_one_state() {
    let state = state(10_000);
    let stream = stream(&state);

    let received = read(&stream).unwrap();

    assert!(
        received
            .state
            .dump()
            .map(|row| row.value_bytes())
            .eq(state.dump().map(|row| row.value_bytes()))
    );
    assert_eq!(
        received.summary.rows,
        [10_000, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
    );
    assert!(stream.len() < 10_000 * 100, "it is packed: {}", stream.len());
}

#[test]
fn a_changed_byte_anywhere_is_refused() {
    let stream = stream(&state(4));

    for at in 0..stream.len() {
        for bit in 0..8 {
            let mut damaged = stream.clone();
            damaged[at] ^= 1 << bit;
            assert!(read(&damaged).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn a_stream_that_is_cut_anywhere_is_refused() {
    let stream = stream(&state(4));

    for len in 0..stream.len() {
        assert_eq!(read(&stream[..len]).unwrap_err(), SnapshotError::CutOff, "{len}");
    }
}

#[test]
fn frames_that_are_left_out_or_swapped_are_refused() {
    let stream = stream(&state(10_000));
    let mut ends = vec![20];
    while let Some(lengths) = stream[ends[ends.len() - 1]..].first_chunk::<8>() {
        let len = u32::from_le_bytes([lengths[4], lengths[5], lengths[6], lengths[7]]);
        ends.push(ends[ends.len() - 1] + 8 + len as usize);
    }
    assert!(ends.len() > 5, "{} frames", ends.len());
    let frame = |at: usize| &stream[ends[at]..ends[at + 1]];

    let without = [&stream[..ends[1]], &stream[ends[2]..]].concat();
    let swapped = [&stream[..ends[1]], frame(2), frame(1), &stream[ends[3]..]].concat();

    assert!(read(&without).is_err());
    assert!(read(&swapped).is_err());
}

/// What was written before there were more tables has fewer counts.
#[test]
fn streams_of_the_formats_before_are_read() {
    let counts = |count: usize| {
        [4, 0, 0, 0, 0, 1]
            .into_iter()
            .chain([0; 12])
            .take(count)
            .collect()
    };
    for (format, rows) in [(1, counts(8)), (2, counts(12))] {
        is_read(format, rows);
    }
}

fn is_read(format: u8, rows: Vec<u64>) {
    let state = state(4);
    let mut stream = stream(&state);
    let trailer_at = stream.len() - 8 - (2 + TABLES.len() + 2 + 32);
    stream.truncate(trailer_at);
    stream[16] = format;
    let trailer = lictor_proto::v1::SnapshotTrailer {
        rows,
        sha256: Bytes::copy_from_slice(&Sha256::digest(&stream)),
    };
    let trailer = trailer.encode_to_vec();
    stream.extend_from_slice(&[0; 4]);
    stream.extend_from_slice(&u32::try_from(trailer.len()).unwrap().to_le_bytes());
    stream.extend_from_slice(&trailer);

    let received = read(&stream).unwrap();

    assert!(
        received
            .state
            .dump()
            .map(|row| row.value_bytes())
            .eq(state.dump().map(|row| row.value_bytes()))
    );
}

#[test]
fn another_format_is_named() {
    let mut stream = stream(&state(1));
    stream[16] = 9;

    assert_eq!(
        read(&stream).unwrap_err(),
        SnapshotError::OtherFormat { found: 9 }
    );
    assert_eq!(read(b"PK\x03\x04").unwrap_err(), SnapshotError::NotASnapshot);
}

#[test]
fn a_stream_beyond_the_limit_is_refused_before_it_is_unpacked() {
    let stream = stream(&state(10_000));
    let mut receiver = Receiver::new(600_000);
    let mut pushed = 0;

    let refused = stream.chunks(1000).find_map(|piece| {
        pushed += piece.len();
        receiver.push(piece).err()
    });

    assert_eq!(refused, Some(SnapshotError::TooLarge { limit_bytes: 600_000 }));
    assert!(pushed < stream.len() / 2, "{pushed} of {}", stream.len());
}

#[test]
fn an_impossible_length_is_refused_before_anything_is_kept() {
    for lengths in [
        [0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0],
        [1, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f],
        [1, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0xff, 0xff, 0, 0],
    ] {
        let stream = [&MAGIC[..], &FORMAT.to_le_bytes(), &lengths].concat();

        assert!(
            matches!(read(&stream), Err(SnapshotError::Damaged(_))),
            "{lengths:?}"
        );
    }
}

#[test]
fn what_follows_the_end_is_left_to_the_caller_but_refused_in_a_file() {
    let mut stream = stream(&state(3));
    stream.extend_from_slice(b"next");
    let mut receiver = Receiver::new(u64::MAX);

    assert_eq!(receiver.push(&stream).unwrap(), Progress::Done { unused: 4 });
    assert_eq!(receiver.push(b"more").unwrap(), Progress::Done { unused: 4 });
    assert!(receiver.finish().is_ok());
    assert!(Receiver::new(u64::MAX).read(&mut &stream[..]).is_err());
}
