//! Several servers that are to be one.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::server::{Options, Seat, Server, free_port};
use crate::wait::until;

/// Longest wait for servers to agree on something.
const AGREE_LIMIT: Duration = Duration::from_secs(60);

/// Servers that join each other, by number.
#[derive(Debug)]
pub struct Cluster {
    seats: Vec<Seat>,
    hcl: String,
    servers: Vec<Option<Server>>,
}

impl Cluster {
    /// Places on loopback for `count` servers, of which `expect` are to form the cluster. None runs yet.
    ///
    /// # Errors
    /// When no port is free.
    pub fn plan(count: usize, expect: usize) -> Result<Self> {
        let seats = (0..count)
            .map(|number| seat(number, Ipv4Addr::LOCALHOST, expect))
            .collect::<Result<_>>()?;
        Ok(Self::of(seats))
    }

    /// Servers at these places, each of which is to join all of them.
    pub fn of(mut seats: Vec<Seat>) -> Self {
        let join: Vec<String> = seats.iter().map(join_address).collect();
        for seat in &mut seats {
            seat.join.clone_from(&join);
        }
        let servers = seats.iter().map(|_| None).collect();
        Self {
            seats,
            hcl: String::new(),
            servers,
        }
    }

    /// More configuration of all servers that are launched from now on, in HCL.
    #[must_use]
    pub fn with_hcl(mut self, hcl: &str) -> Self {
        hcl.clone_into(&mut self.hcl);
        self
    }

    /// The same, from now on.
    pub fn set_hcl(&mut self, hcl: &str) {
        hcl.clone_into(&mut self.hcl);
    }

    /// Starts those that do not run yet and waits until all are ready.
    ///
    /// # Errors
    /// When one ends or does not become ready.
    pub fn start(&mut self) -> Result<()> {
        for number in 0..self.seats.len() {
            if self.servers[number].is_none() {
                self.launch(number)?;
            }
        }
        self.await_ready()
    }

    /// Starts one for the first time, and waits for nothing.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn launch(&mut self, number: usize) -> Result<()> {
        self.launch_with(number, |_| {})
    }

    /// The same, with something special about this one.
    ///
    /// # Errors
    /// As for [`Self::launch`].
    pub fn launch_with(&mut self, number: usize, change: impl FnOnce(&mut Options)) -> Result<()> {
        let mut options = Options {
            seat: Some(self.seats[number].clone()),
            hcl: self.hcl.clone(),
            ..Options::default()
        };
        change(&mut options);
        self.servers[number] = Some(Server::launch(options)?);
        Ok(())
    }

    /// A place for one more server, which joins the others. It does not run yet.
    ///
    /// # Errors
    /// When no port is free.
    pub fn add(&mut self) -> Result<usize> {
        let mut seat = seat(self.seats.len(), Ipv4Addr::LOCALHOST, self.seats[0].expect)?;
        seat.join = self.seats.iter().map(join_address).collect();
        self.seats.push(seat);
        self.servers.push(None);
        Ok(self.seats.len() - 1)
    }

    /// The place of a server, to be changed before it is launched.
    pub fn seat_mut(&mut self, number: usize) -> &mut Seat {
        &mut self.seats[number]
    }

    /// Waits until all that were launched are ready.
    ///
    /// # Errors
    /// When one ends or does not become ready.
    pub fn await_ready(&mut self) -> Result<()> {
        for server in self.servers.iter_mut().flatten() {
            server.await_ready()?;
        }
        Ok(())
    }

    /// All servers that were launched.
    pub fn all(&self) -> Vec<usize> {
        (0..self.servers.len())
            .filter(|&number| self.servers[number].is_some())
            .collect()
    }

    /// All servers that were launched, but one.
    pub fn others(&self, than: usize) -> Vec<usize> {
        self.all().into_iter().filter(|&number| number != than).collect()
    }

    /// One server.
    ///
    /// # Panics
    /// When it was not launched.
    #[expect(clippy::expect_used, reason = "a mistake of the test")]
    pub fn server(&self, number: usize) -> &Server {
        self.servers[number].as_ref().expect("the server was launched")
    }

    /// One server.
    ///
    /// # Panics
    /// When it was not launched.
    #[expect(clippy::expect_used, reason = "a mistake of the test")]
    pub fn server_mut(&mut self, number: usize) -> &mut Server {
        self.servers[number].as_mut().expect("the server was launched")
    }

    /// HTTP addresses of some servers.
    pub fn http(&self, of: &[usize]) -> Vec<SocketAddr> {
        of.iter().map(|&number| self.server(number).http()).collect()
    }

    /// Waits until these servers name one of themselves as the leader, all the same.
    ///
    /// # Errors
    /// When they do not.
    pub fn leader(&self, among: &[usize]) -> Result<usize> {
        until("one leader", AGREE_LIMIT, || {
            let mut found = None;
            for &number in among {
                let answer = self.server(number).get("/v1/status/leader")?.json()?;
                let named = among.iter().copied().find(|&other| {
                    let seat = self.server(other).seat();
                    answer == json!(format!("{}:{}", seat.address, seat.server))
                });
                if named.is_none() || found.is_some() && found != named {
                    bail!("server {number} names {answer}");
                }
                found = named;
            }
            Ok(found)
        })
        .with_context(|| self.words())
    }

    /// Waits until these servers hold the same, each by itself, and answers their keys.
    ///
    /// # Errors
    /// When they go on to differ.
    pub fn same(&self, among: &[usize]) -> Result<BTreeMap<String, String>> {
        let dump = until("the servers to hold the same", AGREE_LIMIT, || {
            let mut first: Option<(usize, Value)> = None;
            for &number in among {
                let dump = dump(self.server(number))?;
                match &first {
                    Some((other, expected)) if *expected != dump => {
                        bail!(
                            "server {number} differs from {other}: {}",
                            difference(expected, &dump)
                        )
                    }
                    Some(_) => {}
                    None => first = Some((number, dump)),
                }
            }
            Ok(first.map(|(_, dump)| dump))
        })
        .with_context(|| self.words())?;
        rows(&dump[0])
    }

    /// The last lines of all logs.
    pub fn words(&self) -> String {
        let words = self.servers.iter().flatten().map(|server| {
            format!(
                "---- {} (HTTP {}): {}",
                server.node(),
                server.http(),
                server.log_tail()
            )
        });
        words.collect::<Vec<_>>().join("\n")
    }

    /// Runs a test; should it fail, logs and data are kept and the error says where.
    ///
    /// # Errors
    /// Those of the test.
    pub fn trial(mut self, test: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let result = test(&mut self);
        if result.is_err() {
            let words = self.words();
            writeln!(std::io::stderr(), "{words}")?;
            for server in self.servers.iter_mut().flatten() {
                let name = server.node().to_owned();
                writeln!(std::io::stderr(), "{name}: {}", server.keep_files().display())?;
            }
        }
        result
    }
}

/// A place with free ports.
///
/// # Errors
/// When there is none.
pub fn seat(number: usize, address: Ipv4Addr, expect: usize) -> Result<Seat> {
    Ok(Seat {
        name: format!("server-{number}"),
        address,
        http: free_port()?,
        server: free_port()?,
        serf_lan: free_port()?,
        expect,
        join: Vec::new(),
        namespace: None,
    })
}

/// Where the server at a place is joined.
pub fn join_address(seat: &Seat) -> String {
    format!("{}:{}", seat.address, seat.serf_lan)
}

/// All keys and sessions of a server with the index of the keys, as it sees them by itself.
fn dump(server: &Server) -> Result<Value> {
    let keys = server.get("/v1/kv/?recurse&stale")?;
    ensure!(
        keys.status == 200 || keys.status == 404,
        "{} {}",
        keys.status,
        keys.text()
    );
    let rows = if keys.status == 404 {
        json!([])
    } else {
        keys.json()?
    };
    let mut sessions = server.get("/v1/session/list?stale")?.json()?;
    if let Some(list) = sessions.as_array_mut() {
        list.sort_by_key(|session| session["ID"].to_string());
    }
    Ok(json!([rows, keys.index()?, sessions]))
}

fn rows(list: &Value) -> Result<BTreeMap<String, String>> {
    let rows = list.as_array().context("no list of keys")?.iter().map(|row| {
        let key = row["Key"].as_str().context("no key")?.to_owned();
        let value = STANDARD.decode(row["Value"].as_str().unwrap_or_default())?;
        Ok((key, String::from_utf8_lossy(&value).into_owned()))
    });
    rows.collect()
}

/// The first rows that differ.
fn difference(expected: &Value, found: &Value) -> String {
    let list = |dump: &Value| dump[0].as_array().cloned().unwrap_or_default();
    let (a, b) = (list(expected), list(found));
    let at = a.iter().zip(&b).position(|(a, b)| a != b);
    let rows = match at {
        Some(at) => format!("row {at}: {} and {}", a[at], b[at]),
        None => format!("{} and {} rows", a.len(), b.len()),
    };
    format!(
        "{rows}; indexes {} and {}; sessions {} and {}",
        expected[1], found[1], expected[2], found[2]
    )
}

/// Ends the data of a server that does not run: it begins like a new one.
///
/// # Errors
/// When it cannot be removed.
pub fn wipe(server: &Server) -> Result<()> {
    fs::remove_dir_all(server.data_dir()).context("wiping a server")
}
