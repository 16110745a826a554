//! Nodes that are started as a user of Raft-KV-Demo does it: by that name, with its flags and nothing else, in one folder.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lictor_tests::{Client, Response, binary, free_port, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// For what takes as long as it takes on a loaded machine.
pub(super) const LONG: Duration = Duration::from_secs(60);
/// Redirects that a client follows at most.
const HOPS: usize = 5;

/// Nodes `node1`, `node2`, ..., by number from 1. Those that run are killed in the end.
#[derive(Debug)]
pub(super) struct Nodes {
    dir: TempDir,
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    raddr: u16,
    haddr: u16,
    child: Option<Child>,
}

impl Node {
    fn plan() -> Result<Self> {
        Ok(Self {
            raddr: free_port()?,
            haddr: free_port()?,
            child: None,
        })
    }
}

impl Nodes {
    /// Places for `count` nodes. None runs yet.
    pub(super) fn plan(count: usize) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("lictor-demo-").tempdir()?;
        symlink(binary()?, dir.path().join("raft-kv-demo"))?;
        let nodes = (0..count).map(|_| Node::plan()).collect::<Result<_>>()?;
        Ok(Self { dir, nodes })
    }

    /// A place for one more.
    pub(super) fn add(&mut self) -> Result<()> {
        self.nodes.push(Node::plan()?);
        Ok(())
    }

    /// A cluster: the first node founds it, and the others join it through the one before them.
    pub(super) fn cluster(count: usize) -> Result<Self> {
        let mut nodes = Self::plan(count)?;
        nodes.start(1, &["-bootstrap"])?;
        nodes.leader(&[1])?;
        for number in 2..=count {
            let member = nodes.haddr(number - 1);
            nodes.start(number, &["-join", &member])?;
            nodes.await_vote(number)?;
        }
        Ok(nodes)
    }

    fn node(&self, number: usize) -> &Node {
        &self.nodes[number - 1]
    }

    pub(super) fn name(number: usize) -> String {
        format!("node{number}")
    }

    pub(super) fn raddr(&self, number: usize) -> String {
        format!("localhost:{}", self.node(number).raddr)
    }

    pub(super) fn haddr(&self, number: usize) -> String {
        format!("localhost:{}", self.node(number).haddr)
    }

    /// Gives a node that does not run another place.
    pub(super) fn move_http(&mut self, number: usize) -> Result<()> {
        self.nodes[number - 1].haddr = free_port()?;
        Ok(())
    }

    /// Starts a node, and waits until it serves HTTP.
    pub(super) fn start(&mut self, number: usize, flags: &[&str]) -> Result<()> {
        self.launch(number, flags)?;
        until("HTTP", LONG, || {
            if let Some(status) = self.ended(number)? {
                bail!("it ended with {status}");
            }
            self.get(number, "none", "stale").map(Some)
        })
        .with_context(|| self.words(number))
        .map(drop)
    }

    /// Starts a node, and waits for nothing.
    pub(super) fn launch(&mut self, number: usize, flags: &[&str]) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join(format!("log{number}")))?;
        let (name, raddr, haddr) = (Self::name(number), self.raddr(number), self.haddr(number));
        let child = Command::new(self.dir.path().join("raft-kv-demo"))
            .args(["-id", &name, "-raddr", &raddr, "-haddr", &haddr])
            .args(flags)
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.nodes[number - 1].child = Some(child);
        Ok(())
    }

    fn ended(&mut self, number: usize) -> Result<Option<ExitStatus>> {
        let child = self.nodes[number - 1]
            .child
            .as_mut()
            .context("it was not started")?;
        Ok(child.try_wait()?)
    }

    /// Waits until a node has ended by itself.
    pub(super) fn await_exit(&mut self, number: usize) -> Result<ExitStatus> {
        until("the node to end", LONG, || self.ended(number))
    }

    pub(super) fn signal(&self, number: usize, signal: Signal) -> Result<()> {
        let child = self.node(number).child.as_ref().context("it was not started")?;
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// Ends a node in order.
    pub(super) fn stop(&mut self, number: usize) -> Result<()> {
        self.signal(number, Signal::TERM)?;
        let status = self.await_exit(number)?;
        ensure!(status.success(), "{status}: {}", self.words(number));
        Ok(())
    }

    /// Ends a node without warning.
    pub(super) fn kill(&mut self, number: usize) -> Result<()> {
        self.signal(number, Signal::KILL)?;
        self.await_exit(number).map(drop)
    }

    /// Takes the data of a node that does not run.
    pub(super) fn wipe(&self, number: usize) -> Result<()> {
        let data = self
            .dir
            .path()
            .join(format!("raft-kv-demo-{}", Self::name(number)));
        std::fs::remove_dir_all(&data).with_context(|| data.display().to_string())
    }

    /// What a node wrote last.
    pub(super) fn words(&self, number: usize) -> String {
        let log = std::fs::read_to_string(self.dir.path().join(format!("log{number}"))).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(15)..];
        format!("the last words of node{number}:\n{}", last.join("\n"))
    }

    /// Asks a node, and follows nothing.
    pub(super) fn ask(&self, number: usize, method: &str, target: &str, body: &str) -> Result<Response> {
        ask(self.node(number).haddr, method, target, body)
    }

    pub(super) fn get(&self, number: usize, key: &str, level: &str) -> Result<Response> {
        self.ask(number, "GET", &format!("/key?key={key}&level={level}"), "")
    }

    /// Writes as the documentation shows it.
    pub(super) fn post(&self, number: usize, key: &str, value: &str) -> Result<Response> {
        let body = format!(r#"{{"key":"{key}","value":"{value}"}}"#);
        self.ask(number, "POST", "/key", &body)
    }

    /// As a client does it that goes where it is sent, with the same method and body.
    pub(super) fn follow(&self, number: usize, method: &str, target: &str, body: &str) -> Result<Response> {
        let (mut port, mut target) = (self.node(number).haddr, target.to_owned());
        for _ in 0..HOPS {
            let answer = ask(port, method, &target, body)?;
            if answer.status != 307 {
                return Ok(answer);
            }
            let location = answer.header("Location").context("no Location")?;
            let rest = location
                .strip_prefix("http://localhost:")
                .context("another host")?;
            let (to, path) = rest.split_once('/').context("no path")?;
            ensure!(to.parse() != Ok(port), "a redirect to itself");
            port = to.parse()?;
            target = format!("/{path}");
        }
        bail!("more than {HOPS} redirects")
    }

    /// The node that answers a consistent read itself.
    pub(super) fn leader(&self, among: &[usize]) -> Result<usize> {
        until("a leader", LONG, || {
            let leads = |number: &usize| {
                let answer = self.get(*number, "none", "consistent");
                answer.is_ok_and(|answer| answer.status == 404)
            };
            Ok(among.iter().copied().find(leads))
        })
    }

    /// Waits until a node has a vote, and answers by itself what a client stores.
    pub(super) fn await_vote(&self, number: usize) -> Result<()> {
        until("the node to vote", LONG, || {
            let name = Self::name(number);
            let servers = self.servers(number)?;
            let is_it = |server: &Value| server["Node"] == name.as_str() && server["Voter"] == true;
            Ok(servers.iter().any(is_it).then_some(()))
        })
        .with_context(|| self.words(number))
    }

    /// Waits until nodes have a value themselves.
    pub(super) fn await_value(&self, at: &[usize], key: &str, value: &str) -> Result<()> {
        until("the value", LONG, || {
            for &number in at {
                let answer = self.get(number, key, "stale")?;
                ensure!(
                    answer.text() == value,
                    "node{number}: {} {}",
                    answer.status,
                    answer.text()
                );
            }
            Ok(Some(()))
        })
    }

    /// The members as the leader knows them.
    fn servers(&self, at: usize) -> Result<Vec<Value>> {
        let seen = self
            .ask(at, "GET", "/v1/operator/raft/configuration", "")?
            .json()?;
        Ok(seen["Servers"].as_array().context("no servers")?.clone())
    }

    /// The names of all members, in order.
    pub(super) fn members(&self, at: usize) -> Result<Vec<String>> {
        let servers = self.servers(at)?;
        let names = servers
            .iter()
            .map(|server| server["Node"].as_str().unwrap_or_default().to_owned());
        let mut names: Vec<_> = names.collect();
        names.sort();
        Ok(names)
    }

    /// Has a node take over the leadership.
    pub(super) fn hand_over(&self, from: usize, to: usize) -> Result<()> {
        let name = Self::name(to);
        let servers = self.servers(from)?;
        let server = servers.iter().find(|server| server["Node"] == name.as_str());
        let id = server
            .and_then(|server| server["ID"].as_str())
            .context("no member")?;
        self.ask(
            from,
            "POST",
            &format!("/v1/operator/raft/transfer-leader?id={id}"),
            "",
        )
        .map(drop)
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for number in 1..=self.nodes.len() {
            // It may have ended already, or never have run.
            let _ = self.kill(number);
        }
    }
}

fn ask(port: u16, method: &str, target: &str, body: &str) -> Result<Response> {
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    Client::new(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).call(method, target, &form, body.as_bytes())
}
