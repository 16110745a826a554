//! Whoever is no server, at the ports for servers.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, ensure};
use lictor_tests::{Cluster, Load, until};

use crate::{LONG, none_unclear, settle, trial, under_one_leader};

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

/// Knocks, and waits until every connection is closed, also of those that say nothing more.
fn round(cluster: &Cluster, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut knocking = knock(cluster)?;
    meanwhile()?;
    until("the strangers to be closed", LONG, || {
        for stream in &mut knocking {
            if !is_closed(stream)? {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
}

fn descriptors(cluster: &Cluster) -> Result<Vec<usize>> {
    let servers = cluster.all().into_iter();
    servers.map(|n| cluster.server(n).descriptors()).collect()
}

fn resident_kib(cluster: &Cluster) -> Result<Vec<u64>> {
    let servers = cluster.all().into_iter();
    servers.map(|n| cluster.server(n).resident_kib()).collect()
}

#[test]
fn strangers_at_the_ports_for_servers_are_closed_and_leave_nothing() -> Result<()> {
    trial(3, |cluster| {
        cluster.leader(&[0, 1, 2])?;
        let open = descriptors(cluster)?;
        // Nobody writes, so that what grows is the strangers'. The first come for free: buffers and threads that stay.
        round(cluster, || Ok(()))?;
        let memory = resident_kib(cluster)?;

        for _ in 0..3 {
            round(cluster, || Ok(()))?;
        }

        until("the descriptors to come back", LONG, || {
            let now = descriptors(cluster)?;
            Ok(now
                .iter()
                .zip(&open)
                .all(|(now, open)| *now <= open + 8)
                .then_some(()))
        })?;
        for (now, before) in resident_kib(cluster)?.iter().zip(&memory) {
            ensure!(
                *now < before + before / 4,
                "memory grew from {before} to {now} KiB"
            );
        }
        Ok(())
    })
}

#[test]
fn strangers_at_the_ports_for_servers_disturb_nobody() -> Result<()> {
    trial(3, |cluster| {
        under_one_leader(|load| bears_strangers_under_the_same_leader(cluster, load))
    })
}

/// Says whether nobody else was elected meanwhile, for then no write fails.
fn bears_strangers_under_the_same_leader(cluster: &Cluster, load: &str) -> Result<bool> {
    let leader = cluster.leader(&[0, 1, 2])?;
    let term = crate::term(cluster, leader)?;
    let load = Load::start(load, &cluster.http(&[0, 1, 2]));
    load.await_more(50)?;

    for _ in 0..2 {
        round(cluster, || load.await_more(50))?;
    }

    let told = load.stop()?;
    let leader = cluster.leader(&[0, 1, 2])?;
    let is_same_term = crate::term(cluster, leader)? == term;
    if is_same_term {
        none_unclear(&told, "while strangers knocked")?;
    }
    settle(cluster, &[0, 1, 2], &told)?;
    Ok(is_same_term)
}
