//! Flags of `raft-kv-demo`. They are few, and become a configuration of the agent.

use std::fmt::Write as _;
use std::path::PathBuf;

use lictor_proto::HostPort;
use serde_json::{Map, json};

use crate::config::{ConfigError, Demo, Sources, find, parse_duration, parse_host_port};

/// Longest name of a node, in bytes, without a folder of its own for its data; and with one.
const NAME_MAX_BYTES: (usize, usize) = (60, 512);

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DemoArgs {
    /// Name of this node.
    #[arg(long, value_name = "NAME", default_value = "node1")]
    id: String,
    /// Address for other nodes.
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:8080")]
    raddr: String,
    /// Address for clients (HTTP).
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:8079")]
    haddr: String,
    /// Form a cluster of this node alone, unless it has data already.
    #[arg(long)]
    bootstrap: Option<bool>,
    /// Join the cluster of which a member serves clients at this address.
    #[arg(long, value_name = "HOST:PORT")]
    join: Option<String>,
    /// How long to try.
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    join_timeout: String,
    /// Folder for everything durable; raft-kv-demo-NAME in the current one when not given.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Origins whose pages may read answers, separated by commas; * for all.
    #[arg(long, value_name = "ORIGINS")]
    cors: Vec<String>,
    /// trace, debug, info, warn, err or off.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

impl DemoArgs {
    /// The agent's configuration, and what it does not know.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(crate) fn into_sources(self) -> Result<(Sources, Demo), ConfigError> {
        self.resolve().map_err(ConfigError::Invalid)
    }

    fn resolve(self) -> Result<(Sources, Demo), String> {
        let raddr = parse_host_port("-raddr", &self.raddr)?;
        if raddr.is_wildcard() {
            return Err(format!(
                "-raddr: {raddr} names no host; other nodes must find this one there"
            ));
        }
        let haddr = parse_host_port("-haddr", &self.haddr)?;
        let (bind, serve) = (find("-raddr", &raddr)?, find("-haddr", &haddr)?);
        let join = self.join.filter(|join| !join.is_empty());
        let join = join.map(|join| match parse_host_port("-join", &join) {
            Ok(member) if member.is_wildcard() => Err(format!("-join: {member} names no host")),
            parsed => parsed,
        });
        let join_timeout =
            parse_duration(&self.join_timeout).map_err(|why| format!("-join-timeout: {why}"))?;
        if self.id.is_empty() || self.id.len() > NAME_MAX_BYTES.1 {
            return Err(format!("-id: a name has 1 to {} bytes", NAME_MAX_BYTES.1));
        }
        let data_dir = match self.data_dir {
            Some(dir) => dir,
            None => own_folder(&self.id)?,
        };
        let flags = json!({
            "server": true,
            "bootstrap": self.bootstrap.unwrap_or(false),
            "node_name": self.id,
            "data_dir": data_dir,
            "bind_addr": bind.ip().to_string(),
            "client_addr": serve.ip().to_string(),
            "ports": {"server": raddr.port, "http": haddr.port, "serf_lan": -1},
            // Members come and go by /join and /remove, and a node that joins votes as soon as it is caught up.
            "autopilot": {"cleanup_dead_servers": false, "server_stabilization_time": "0s"},
            "cors": self.cors,
            "log_level": self.log_level,
        });
        let sources = Sources {
            flags: flags.as_object().cloned().unwrap_or_else(Map::new),
            ..Sources::default()
        };
        let haddr = HostPort {
            host: if haddr.is_wildcard() {
                raddr.host.clone()
            } else {
                haddr.host
            },
            port: haddr.port,
        };
        let demo = Demo {
            raddr,
            haddr,
            join: join.transpose()?,
            join_timeout,
        };
        Ok((sources, demo))
    }
}

/// Two nodes that are started in one folder have their data apart.
fn own_folder(name: &str) -> Result<PathBuf, String> {
    if name.len() > NAME_MAX_BYTES.0 {
        let most = NAME_MAX_BYTES.0;
        return Err(format!(
            "-id: with a name of more than {most} bytes, say where the data is: -data-dir DIR"
        ));
    }
    let mut folder = "raft-kv-demo-".to_owned();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            folder.push(byte.into());
        } else {
            // Writing to a String cannot fail.
            let _ = write!(folder, "%{byte:02X}");
        }
    }
    Ok(folder.into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use clap::Parser;

    use super::*;
    use crate::config::{DataDir, RuntimeConfig};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: DemoArgs,
    }

    fn read(args: &[&str]) -> Result<(RuntimeConfig, Demo), String> {
        let line = Line::parse_from([&["raft-kv-demo"], args].concat());
        let (sources, demo) = line.args.into_sources().map_err(|error| error.to_string())?;
        let config = sources.load().map_err(|error| error.to_string())?;
        Ok((config, demo))
    }

    #[test]
    fn without_flags_it_is_the_first_node_on_this_host() {
        let (config, demo) = read(&[]).expect("valid");

        assert_eq!((config.node_name.as_str(), config.bootstrap), ("node1", false));
        assert_eq!(
            (demo.raddr.to_string(), demo.haddr.to_string()),
            ("localhost:8080".to_owned(), "localhost:8079".to_owned())
        );
        assert_eq!(config.http[0].to_string(), "127.0.0.1:8079");
        assert_eq!(
            (config.bind_addr.to_string(), config.ports.server),
            ("127.0.0.1".to_owned(), 8080)
        );
        assert_eq!(config.ports.serf_lan, None);
        assert_eq!(config.data_dir, DataDir::Kept("raft-kv-demo-node1".into()));
        assert_eq!((demo.join, demo.join_timeout), (None, Duration::from_secs(60)));
    }

    #[test]
    fn nodes_of_all_names_have_their_data_apart() {
        let folder = |name: &str| own_folder(name).expect(name);

        assert_eq!(folder("node-2.a_b"), Path::new("raft-kv-demo-node-2.a_b"));
        assert_eq!(folder("../x"), Path::new("raft-kv-demo-..%2Fx"));
        assert_eq!(folder("%2F"), Path::new("raft-kv-demo-%252F"));
        assert!(own_folder(&"n".repeat(61)).is_err());
    }

    #[test]
    fn clients_are_not_sent_to_a_wildcard() {
        for haddr in ["0.0.0.0:80", ":80", "[::]:80"] {
            let (_, demo) = read(&["--raddr=localhost:1", "--haddr", haddr]).expect(haddr);
            assert_eq!(demo.haddr.to_string(), "localhost:80", "{haddr}");
        }
    }

    #[test]
    fn every_mistake_is_one_line_that_names_the_flag() {
        for (args, wanted) in [
            (["--raddr", "8080"], "-raddr: \"8080\" is not"),
            (["--raddr", "0.0.0.0:8080"], "-raddr: 0.0.0.0:8080 names no host"),
            (["--haddr", "x y:1"], "-haddr: \"x y:1\" is not"),
            (["--join", "http://a:1"], "-join: \"http://a:1\" is not"),
            (["--join", ":1"], "-join: :1 names no host"),
            (["--join-timeout", "60"], "-join-timeout: "),
            (["--id", ""], "-id: a name has"),
            (["--cors", "x"], "cors: \"x\" is not an origin"),
            (["--log-level", "loud"], "log_level: \"loud\""),
        ] {
            let error = read(&args).expect_err(wanted);
            assert!(error.starts_with(wanted) && !error.contains('\n'), "{error}");
        }
    }
}
