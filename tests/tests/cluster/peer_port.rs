//! Whoever is no server, at the ports for servers.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lictor_tests::{Cluster, Load, until};

use crate::{LONG, none_unclear, settle, trial};

/// What such connections begin with; `None` says nothing at all.
const WORDS: [Option<&[u8]>; 6] = [
    None,
    Some(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    Some(b"L"),
    Some(b"LICT\x01\x01\x03\x00\x40"),
    Some(b"LICT\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
    Some(&[0x16, 0x03, 0x01, 0xff, 0xff, 0x01, 0x00, 0xff, 0xff]),
];
/// Connections at a time at each port.
const AT_ONCE: usize = 120;
/// How long a connection is looked at before the next.
const GLANCE: Duration = Duration::from_millis(1);

/// Opens many connections to all ports for servers; each says its words, the slow ones byte by byte.
fn knock(cluster: &Cluster) -> Result<Vec<TcpStream>> {
    let mut knocking = Vec::new();
    for number in cluster.all() {
        let seat = cluster.server(number).seat();
        for port in [seat.server, seat.serf_lan] {
            for turn in 0..AT_ONCE {
                let mut stream = TcpStream::connect((seat.address, port))?;
                let words = WORDS[turn % WORDS.len()].unwrap_or_default();
                for byte in words {
                    // It may have been closed at the first wrong byte, or have been one too many.
                    if stream.write_all(&[*byte]).is_err() {
                        break;
                    }
                }
                knocking.push(stream);
            }
        }
    }
    Ok(knocking)
}

/// Whether the other side has closed a connection.
fn is_closed(stream: &mut TcpStream) -> Result<bool> {
    stream.set_read_timeout(Some(GLANCE))?;
    let mut answer = [0; 256];
    loop {
        match stream.read(&mut answer) {
            Ok(0) => return Ok(true),
            // Its part of a handshake.
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(false);
            }
            Err(_) => return Ok(true),
        }
    }
}

#[test]
fn strangers_at_the_ports_for_servers_are_closed_and_disturb_nobody() -> Result<()> {
    trial(3, |cluster| {
        let leader = cluster.leader(&[0, 1, 2])?;
        let load = Load::start("strangers", &cluster.http(&[0, 1, 2]));
        load.await_more(50)?;
        let resident = |cluster: &Cluster| -> Result<Vec<u64>> {
            cluster
                .all()
                .into_iter()
                .map(|n| cluster.server(n).resident_kib())
                .collect()
        };
        let descriptors = |cluster: &Cluster| -> Result<Vec<usize>> {
            cluster
                .all()
                .into_iter()
                .map(|n| cluster.server(n).descriptors())
                .collect()
        };
        let open = descriptors(cluster)?;
        // Of the first round: the load itself fills the log's buffers.
        let mut memory = None;

        for _ in 0..3 {
            let mut knocking = knock(cluster)?;
            load.await_more(50)?;
            // Also those that say nothing more.
            until("the strangers to be closed", LONG, || {
                for stream in &mut knocking {
                    if !is_closed(stream)? {
                        return Ok(None);
                    }
                }
                Ok(Some(()))
            })?;
            memory.get_or_insert(resident(cluster)?);
        }

        until("the descriptors to come back", LONG, || {
            let now = descriptors(cluster)?;
            Ok(now
                .iter()
                .zip(&open)
                .all(|(now, open)| *now <= open + 8)
                .then_some(()))
        })?;
        let memory = memory.context("no round")?;
        for (now, before) in resident(cluster)?.iter().zip(&memory) {
            ensure!(
                *now < before + before / 2,
                "memory grew from {before} to {now} KiB"
            );
        }
        ensure!(cluster.leader(&[0, 1, 2])? == leader, "another leads now");
        let told = load.stop()?;
        none_unclear(&told, "while strangers knocked")?;
        settle(cluster, &[0, 1, 2], &told)
    })
}
