//! Archives there and back, damaged ones, and one that a Consul 1.20.6 saved.
#![expect(clippy::unwrap_used, reason = "tests may panic")]

use std::io::{Cursor, Write as _};

use flate2::Compression;
use flate2::write::GzEncoder;
use lictor_archive::{KvSizes, Meta, Saved, Server, Stat, inspect, read};
use lictor_proto::v1::KvSet;
use lictor_proto::{Command, LogIndex, SessionId, Term};
use lictor_state::{Effects, State};
use sha2::{Digest as _, Sha256};

const CONSUL: &[u8] = include_bytes!("data/consul.tgz");

fn state(keys: u64) -> State {
    let (mut state, mut out) = (State::default(), Effects::default());
    for index in 1..=keys {
        let set = KvSet {
            key: format!("dir{}/key{index:05}", index % 2).into(),
            value: format!("value {index}").into(),
            flags: index,
            cas: None,
        };
        state.apply(LogIndex(index), Term(1), &Command::KvSet(set), &mut out);
    }
    state
}

fn save(state: &State) -> Vec<u8> {
    let server = Server {
        address: "127.0.0.1:8300".to_owned(),
        ..Server::default()
    };
    let meta = Meta::new(state.applied().0.0, 1, 1_795_275_395_425, vec![server]);
    let saved = Saved::new(state, &state.meta(), meta, Cursor::new(Vec::new())).unwrap();
    let mut archive = Vec::new();
    saved.send(&mut archive).unwrap();
    archive
}

/// The files of an archive.
fn files(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    let entries = tar.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        std::io::copy(&mut entry, &mut bytes).unwrap();
        (entry.path().unwrap().display().to_string(), bytes)
    });
    entries.collect()
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

fn sums(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut text = Vec::new();
    for (name, bytes) in files {
        writeln!(text, "{}  {name}", hex::encode(Sha256::digest(bytes))).unwrap();
    }
    text
}

/// An archive of these two files with the right digests.
fn sealed(meta: &[u8], state: &[u8]) -> Vec<u8> {
    let files = [("meta.json", meta), ("state.bin", state)];
    archive(&[files[0], files[1], ("SHA256SUMS", &sums(&files))])
}

fn refusal(archive: &[u8]) -> String {
    read(archive).unwrap_err().to_string()
}

fn rows(state: &State) -> Vec<(&'static str, bytes::Bytes, Vec<u8>)> {
    state
        .dump()
        .map(|row| (row.table().name(), row.key_bytes(), row.value_bytes()))
        .collect()
}

#[test]
fn an_archive_gives_the_state_again() {
    for keys in [0, 1, 20_000] {
        let state = state(keys);

        let contents = read(&save(&state)[..]).unwrap();

        assert_eq!(rows(&contents.state), rows(&state), "{keys}");
        assert_eq!(contents.state.meta(), state.meta());
        assert_eq!(contents.meta.index, keys);
        assert!(contents.left_out.is_empty());
    }
}

#[test]
fn an_archive_has_consuls_files_in_consuls_order() {
    let archive = save(&state(3));

    let files = files(&archive);

    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["meta.json", "state.bin", "SHA256SUMS"]);
    let (meta, state_bin) = (&files[0].1, &files[1].1);
    assert_eq!(files[2].1, sums(&[("meta.json", meta), ("state.bin", state_bin)]));
    // The map that a Consul's state.bin begins with, then the first record.
    assert_eq!(state_bin[..20], *b"\x81\xa9LastIndex\xcf\0\0\0\0\0\0\0\x03");
    assert_eq!(state_bin[20..22], [200, 0xc6]);
    assert_eq!(
        serde_json::from_slice::<Meta>(meta).unwrap().size,
        i64::try_from(state_bin.len()).unwrap()
    );
}

#[test]
fn a_changed_byte_anywhere_is_refused_or_without_effect() {
    let state = state(3);
    let archive = save(&state);
    let mut refused = 0;

    for at in 0..archive.len() {
        let mut damaged = archive.clone();
        damaged[at] ^= 0x11;
        // Times and owners in the headers of gzip and tar mean nothing.
        match read(&damaged[..]) {
            Ok(contents) => assert_eq!(rows(&contents.state), rows(&state), "byte {at}"),
            Err(_) => refused += 1,
        }
    }

    // All of what is checked: the gzip's checksum sees any change behind its head.
    assert!(refused >= archive.len() - 10, "{refused} of {}", archive.len());
}

#[test]
fn an_archive_that_is_cut_anywhere_is_refused() {
    let archive = save(&state(3));

    for len in 0..archive.len() {
        assert!(read(&archive[..len]).is_err(), "{len}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a list of cases")]
fn what_is_wrong_is_said_in_consuls_words() {
    let files = files(&save(&state(3)));
    let (meta, state_bin, list) = (&files[0].1[..], &files[1].1[..], &files[2].1[..]);
    let gzip = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let mut flipped = state_bin.to_vec();
    flipped[40] ^= 1;
    let text = String::from_utf8_lossy(meta).into_owned();
    let version = text.replace("\"Version\":2", "\"Version\":9");

    let form = "failed to read snapshot file: ";
    let integrity = "failed to read snapshot file: failed checking integrity of snapshot: ";
    for (archive, expected) in [
        (
            b"junk".to_vec(),
            "failed to decompress snapshot: unexpected EOF".to_owned(),
        ),
        (Vec::new(), "failed to decompress snapshot: EOF".to_owned()),
        (
            vec![b'x'; 100],
            "failed to decompress snapshot: gzip: invalid header".to_owned(),
        ),
        (
            gzip(&[b'x'; 2000]),
            format!("{form}failed reading snapshot: archive/tar: invalid tar header"),
        ),
        (gzip(b""), format!("{integrity}file missing for \"meta.json\"")),
        (
            archive(&[("meta.json", meta), ("state.bin", &flipped), ("SHA256SUMS", list)]),
            format!("{integrity}hash check failed for \"state.bin\""),
        ),
        (
            archive(&[("meta.json", meta), ("x", b"y"), ("SHA256SUMS", list)]),
            format!("{form}unexpected file \"x\" in snapshot"),
        ),
        (
            archive(&[
                ("meta.json", meta),
                ("state.bin", state_bin),
                ("state.bin", state_bin),
            ]),
            format!("{form}unexpected file \"state.bin\" in snapshot"),
        ),
        (
            archive(&[("meta.json", meta), ("state.bin", state_bin)]),
            format!("{integrity}file missing for \"meta.json\""),
        ),
        (
            archive(&[("meta.json", meta), ("SHA256SUMS", list)]),
            format!("{integrity}file missing for \"state.bin\""),
        ),
        (
            sealed(version.as_bytes(), state_bin),
            "Raft error when restoring snapshot: unsupported snapshot version 9".to_owned(),
        ),
        (
            sealed(meta, &state_bin[..20]),
            format!(
                "Raft error when restoring snapshot: failed to write snapshot, size didn't match (20 != {})",
                state_bin.len()
            ),
        ),
    ] {
        assert_eq!(refusal(&archive), expected);
    }
    let trailing = [save(&state(3)), b"more".to_vec()].concat();
    assert_eq!(refusal(&trailing), "unexpected EOF");
    assert!(
        refusal(&sealed(b"{", state_bin))
            .starts_with("failed to read snapshot file: failed to decode snapshot metadata: ")
    );
}

#[test]
fn the_first_archives_had_the_version_of_consuls() {
    let state = state(3);
    let files = files(&save(&state));
    let meta = String::from_utf8_lossy(&files[0].1).replace("\"Version\":2", "\"Version\":1");

    let contents = read(&sealed(meta.as_bytes(), &files[1].1)[..]).unwrap();

    assert_eq!(contents.meta.version, 1);
    assert_eq!(rows(&contents.state), rows(&state));
}

#[test]
fn rows_that_make_no_state_are_refused_though_their_digests_are_right() {
    let files = files(&save(&state(2000)));
    let state_bin = &files[1].1;
    let with = |state_bin: &[u8]| {
        let mut meta: Meta = serde_json::from_slice(&files[0].1).unwrap();
        meta.size = i64::try_from(state_bin.len()).unwrap();
        sealed(&serde_json::to_vec(&meta).unwrap(), state_bin)
    };
    assert!(read(&with(state_bin)[..]).is_ok());
    let mut other = state_bin.clone();
    *other.last_mut().unwrap() ^= 1;
    let twice = [&state_bin[..], &state_bin[20..]].concat();
    let with_index =
        b"\x81\xa9LastIndex\x01\x10\x82\xa3Key\xa3kvs\xa5Value\xcf\xff\xff\xff\xff\xff\xff\xff\xff";
    for bad in [
        &other[..],
        &twice,
        &state_bin[..state_bin.len() - 1],
        b"\x81\xa9LastIndex\x05\x02\x81\xa3Key\x05",
        b"\x81\xa9LastIndex\x05\x03\x80",
        b"\x81\xa9LastIndex\x05\x00\xc0",
        b"\x81\xa5Other\x05",
        b"garbage",
        with_index,
    ] {
        let refusal = refusal(&with(bad));
        assert!(
            refusal.starts_with("Raft error when restoring snapshot: "),
            "{refusal}"
        );
    }
}

#[test]
fn an_archive_padded_as_tar_programs_do_is_read() {
    let mut tar = Vec::new();
    std::io::copy(&mut flate2::read::GzDecoder::new(&save(&state(3))[..]), &mut tar).unwrap();
    tar.resize(10_240, 0);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&tar).unwrap();

    assert!(read(&encoder.finish().unwrap()[..]).is_ok());
}

#[test]
fn keys_sessions_and_the_catalog_of_a_consul_are_taken_over() {
    let contents = read(CONSUL).unwrap();
    let state = &contents.state;

    assert_eq!(contents.meta.index, 18);
    assert_eq!(state.newest_index(), 18);
    assert_eq!(state.kv_len(), 3);
    let key = state.kv_get(b"app/a").unwrap();
    assert_eq!(
        (key.value(), key.flags(), key.create_index(), key.modify_index()),
        (&b"hello"[..], 42, 7, 7)
    );
    assert_eq!(state.kv_get(b"app/empty").unwrap().value(), b"");
    let held = state.kv_get(b"locks/l").unwrap();
    let holder = "ab7a8108-ec94-f3dd-7037-7caa4250eaed";
    assert_eq!(
        (held.session(), held.lock_index(), held.flags()),
        (Some(holder), 1, u64::MAX)
    );
    // The table's index, that of a key's tombstone, and that of a recursive delete.
    assert_eq!(state.kv_list_index(b"").0, 14);
    assert_eq!(
        (state.kv_list_index(b"gone").0, state.kv_list_index(b"tree/a").0),
        (10, 12)
    );

    let session = state.session(SessionId::parse(holder).unwrap()).unwrap();
    assert_eq!(
        (session.name.as_str(), session.ttl.as_str(), session.ttl_ms),
        ("s1", "30s", 30_000)
    );
    assert_eq!((session.lock_delay_ns, session.behavior), (7_000_000_000, 1));
    assert_eq!(session.node_checks.as_ref().unwrap().items, ["serfHealth"]);
    let other = state.sessions().find(|session| session.name == "s2").unwrap();
    assert_eq!(other.service_checks[0].id, "service:web1");
    assert_eq!(other.node_checks.as_ref().map(|list| list.items.len()), Some(0));

    let node = state.node("ext").unwrap();
    assert_eq!(
        (node.address.as_str(), node.meta["m"].as_str(), node.modify_index),
        ("10.1.1.1", "1", 15)
    );
    let db = state.service("ext", "db1").unwrap();
    assert_eq!(
        (db.port, db.tags.join(","), db.meta["x"].as_str()),
        (5432, "p,q".to_owned(), "y")
    );
    let check = state.check("ext", "service:db1").unwrap();
    assert_eq!(
        (
            check.status.as_str(),
            check.output.as_str(),
            check.service_name.as_str()
        ),
        ("warning", "o", "db")
    );
    assert_eq!(state.table_indexes().sessions, 18);
    assert_eq!(state.verify(), Ok(()));
}

#[test]
fn what_a_consul_has_beyond_that_is_named() {
    let left_out = read(CONSUL).unwrap().left_out;

    let expected = [("Autopilot", 1), ("ChunkingState", 1), ("FederationState", 1)];
    assert_eq!(left_out, expected.map(|(name, count)| (name.to_owned(), count)));
}

#[test]
fn archives_are_counted_as_consul_does() {
    let sizes = KvSizes {
        depth: 2,
        filter: String::new(),
    };

    let found = inspect(CONSUL, Some(&sizes)).unwrap();

    let stat = |name: &str, count, sum_bytes| Stat {
        name: name.to_owned(),
        sum_bytes,
        count,
    };
    assert_eq!(found.meta.id, "2-18-1795276046265");
    assert_eq!(found.kinds[0].name, "Register");
    assert_eq!(found.kinds.iter().map(|stat| stat.sum_bytes).sum::<u64>(), 7286);
    assert_eq!(
        found.kinds[1..4],
        [
            stat("Index", 18, 513),
            stat("Session", 2, 369),
            stat("KVS", 3, 277)
        ]
    );
    assert_eq!(
        found.keys,
        [
            stat("locks/l", 1, 124),
            stat("app/a", 1, 77),
            stat("app/empty", 1, 76)
        ]
    );
}

#[test]
fn own_archives_are_counted_by_the_beginning_of_the_keys() {
    let archive = save(&state(100));
    let sizes = |depth, filter: &str| KvSizes {
        depth,
        filter: filter.to_owned(),
    };

    let all = inspect(&archive[..], Some(&sizes(1, ""))).unwrap();
    let some = inspect(&archive[..], Some(&sizes(2, "dir1/key0000"))).unwrap();

    assert_eq!(
        all.kinds
            .iter()
            .map(|stat| (stat.name.as_str(), stat.count))
            .collect::<Vec<_>>(),
        [("KVS", 100)]
    );
    assert_eq!(
        all.keys
            .iter()
            .map(|stat| (stat.name.as_str(), stat.count))
            .collect::<Vec<_>>(),
        [("dir0", 50), ("dir1", 50)]
    );
    assert_eq!(some.keys.len(), 5);
    assert!(inspect(&archive[..], None).unwrap().keys.is_empty());
}
