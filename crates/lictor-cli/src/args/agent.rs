//! Flags of `agent`. Each is a configuration key in another coat: flags become a configuration source like a file.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use serde_json::{Map, Value, json};

use super::agent_absent;
use crate::config::{Format, Place, Sources};

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AgentFlags {
    /// Development mode: one server on 127.0.0.1 that keeps nothing.
    #[arg(long)]
    dev: Option<bool>,
    /// Run as a server.
    #[arg(long)]
    server: Option<bool>,
    /// Form a cluster of this one server.
    #[arg(long)]
    bootstrap: Option<bool>,
    /// Form a cluster when this many servers are there.
    #[arg(long, value_name = "COUNT")]
    bootstrap_expect: Option<i64>,
    /// Folder for everything durable.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Address to listen on for other servers.
    #[arg(long, value_name = "IP")]
    bind: Option<String>,
    /// Address that others reach this one at.
    #[arg(long, value_name = "IP")]
    advertise: Option<String>,
    /// Addresses to serve HTTP on, separated by spaces; `unix://PATH` for a socket.
    #[arg(long, value_name = "ADDRESSES")]
    client: Option<String>,
    /// One more address to serve HTTP on; may be repeated.
    #[arg(long, value_name = "HOST:PORT")]
    addr: Vec<String>,
    /// Origins whose pages may read answers, separated by commas; * for all.
    #[arg(long, value_name = "ORIGINS")]
    cors: Vec<String>,
    /// Name of this node; the host's name when not given.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Id of this node, a uuid; kept in the data directory when not given.
    #[arg(long, value_name = "UUID")]
    node_id: Option<String>,
    /// A pair key:value that describes this node; may be repeated.
    #[arg(long, value_name = "KEY:VALUE")]
    node_meta: Vec<String>,
    /// Name of the datacenter.
    #[arg(long, value_name = "NAME")]
    datacenter: Option<String>,
    /// Certificates of servers have the name server.DATACENTER.DOMAIN.
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// How long a blocking query waits that names no time.
    #[arg(long, value_name = "DURATION")]
    default_query_time: Option<String>,
    /// How long a blocking query waits at most.
    #[arg(long, value_name = "DURATION")]
    max_query_time: Option<String>,
    /// Bytes of a check's output that are kept.
    #[arg(long = "check_output_max_size", value_name = "BYTES")]
    check_output_max_size: Option<i64>,
    /// A network that may write over HTTP; may be repeated; all may when none is given.
    #[arg(long, value_name = "CIDR")]
    allow_write_http_from: Vec<String>,
    /// Port of HTTP, -1 for none.
    #[arg(long, value_name = "PORT", allow_negative_numbers = true)]
    http_port: Option<i64>,
    /// Port of HTTPS, -1 for none.
    #[arg(long, value_name = "PORT", allow_negative_numbers = true)]
    https_port: Option<i64>,
    /// Port for other servers.
    #[arg(long, value_name = "PORT", allow_negative_numbers = true)]
    server_port: Option<i64>,
    /// Consul's gossip port: where other servers' configurations expect this one.
    #[arg(long, value_name = "PORT", allow_negative_numbers = true)]
    serf_lan_port: Option<i64>,
    /// Where servers of other datacenters may join this one; none by default.
    #[arg(long, value_name = "PORT", allow_negative_numbers = true)]
    serf_wan_port: Option<i64>,
    /// Accepted; Lictor has no such listener.
    #[arg(long, value_name = "PORT", allow_negative_numbers = true)]
    dns_port: Option<i64>,
    /// Accepted; Lictor has no such listener.
    #[arg(long, value_name = "PORT", allow_negative_numbers = true)]
    grpc_port: Option<i64>,
    /// Accepted; Lictor has no such listener.
    #[arg(long, value_name = "PORT", allow_negative_numbers = true)]
    grpc_tls_port: Option<i64>,
    /// A server to join; tried until it answers; may be repeated.
    #[arg(long, value_name = "ADDRESS")]
    retry_join: Vec<String>,
    /// A server to join; may be repeated.
    #[arg(long, value_name = "ADDRESS")]
    join: Vec<String>,
    /// Pause between attempts to join.
    #[arg(long, value_name = "DURATION")]
    retry_interval: Option<String>,
    /// Most attempts to join; 0 for no end.
    #[arg(long, value_name = "COUNT")]
    retry_max: Option<i64>,
    /// Cluster key in base64.
    #[arg(long, value_name = "KEY")]
    encrypt: Option<String>,
    /// Let checks that are registered over HTTP run scripts.
    #[arg(long)]
    enable_script_checks: Option<bool>,
    /// Let checks from configuration files run scripts.
    #[arg(long)]
    enable_local_script_checks: Option<bool>,
    /// Serve the web page at /ui/, as is done anyway; -ui=false does not.
    #[arg(long)]
    ui: Option<bool>,
    /// trace, debug, info, warn, err or off.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Write the log as JSON, one object a line.
    #[arg(long)]
    log_json: Option<bool>,
    /// Append the log to this file as well.
    #[arg(long, value_name = "FILE")]
    log_file: Option<String>,
    /// Write the process id to this file.
    #[arg(long, value_name = "FILE")]
    pid_file: Option<String>,
}

impl AgentFlags {
    /// The flags under the names of the configuration keys; only those that were given.
    fn into_config(self) -> Result<Map<String, Value>, String> {
        let mut node_meta = Map::new();
        for pair in &self.node_meta {
            let Some((name, value)) = pair.split_once(':') else {
                return Err(format!("-node-meta: {pair:?} is not of the form KEY:VALUE"));
            };
            node_meta.insert(name.to_owned(), json!(value));
        }
        let ports = given([
            ("http", json!(self.http_port)),
            ("https", json!(self.https_port)),
            ("server", json!(self.server_port)),
            ("serf_lan", json!(self.serf_lan_port)),
            ("serf_wan", json!(self.serf_wan_port)),
            ("dns", json!(self.dns_port)),
            ("grpc", json!(self.grpc_port)),
            ("grpc_tls", json!(self.grpc_tls_port)),
        ]);
        let http = given([("allow_write_http_from", some(&self.allow_write_http_from))]);
        Ok(given([
            ("server", json!(self.server)),
            ("bootstrap", json!(self.bootstrap)),
            ("bootstrap_expect", json!(self.bootstrap_expect)),
            ("data_dir", json!(self.data_dir)),
            ("bind_addr", json!(self.bind)),
            ("advertise_addr", json!(self.advertise)),
            ("client_addr", json!(self.client)),
            ("addr", some(&self.addr)),
            ("cors", some(&self.cors)),
            ("node_name", json!(self.node)),
            ("node_id", json!(self.node_id)),
            ("node_meta", Value::Object(node_meta)),
            ("datacenter", json!(self.datacenter)),
            ("domain", json!(self.domain)),
            ("default_query_time", json!(self.default_query_time)),
            ("max_query_time", json!(self.max_query_time)),
            ("check_output_max_size", json!(self.check_output_max_size)),
            ("http_config", Value::Object(http)),
            ("ports", Value::Object(ports)),
            ("retry_join", json!(self.retry_join)),
            ("start_join", json!(self.join)),
            ("retry_interval", json!(self.retry_interval)),
            ("retry_max", json!(self.retry_max)),
            ("encrypt", json!(self.encrypt)),
            ("enable_script_checks", json!(self.enable_script_checks)),
            (
                "enable_local_script_checks",
                json!(self.enable_local_script_checks),
            ),
            ("ui", json!(self.ui)),
            ("log_level", json!(self.log_level)),
            ("log_json", json!(self.log_json)),
            ("log_file", json!(self.log_file)),
            ("pid_file", json!(self.pid_file)),
        ]))
    }
}

fn given<const N: usize>(all: [(&str, Value); N]) -> Map<String, Value> {
    all.into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// A list, unless nothing was said.
fn some(list: &[String]) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

/// All that `agent` is told: flags, and files and folders in the order in which they were named.
#[derive(Debug, Clone, Default)]
pub(crate) struct AgentArgs {
    flags: AgentFlags,
    absent: Map<String, Value>,
    places: Vec<Place>,
    format: Option<Format>,
    fragments: Vec<String>,
}

impl AgentArgs {
    /// The configuration's sources.
    ///
    /// # Errors
    /// A text about a flag that cannot be read.
    pub(crate) fn into_sources(self) -> Result<Sources, String> {
        let dev = self.flags.dev.unwrap_or(false);
        let mut flags = self.flags.into_config()?;
        flags.extend(self.absent);
        Ok(Sources {
            dev,
            flags,
            environment: Map::new(),
            places: self.places,
            format: self.format,
            fragments: self.fragments,
            definitions: None,
        })
    }
}

const FILE: &str = "config-file";
const FOLDER: &str = "config-dir";
const FORMAT: &str = "config-format";
const FRAGMENT: &str = "hcl";

// Written by hand, since derive would lose the order between -config-file and -config-dir, in which later wins.
impl FromArgMatches for AgentArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let all = |id: &str| -> Vec<(usize, PathBuf)> {
            let paths = matches
                .get_many::<OsString>(id)
                .into_iter()
                .flatten()
                .map(PathBuf::from);
            matches.indices_of(id).into_iter().flatten().zip(paths).collect()
        };
        let files = all(FILE).into_iter().map(|(at, path)| (at, Place::File(path)));
        let folders = all(FOLDER)
            .into_iter()
            .map(|(at, path)| (at, Place::Folder(path)));
        let mut places: Vec<_> = files.chain(folders).collect();
        places.sort_by_key(|(at, _)| *at);
        Ok(Self {
            flags: AgentFlags::from_arg_matches(matches)?,
            absent: agent_absent::given(matches),
            places: places.into_iter().map(|(_, place)| place).collect(),
            format: matches.get_one::<Format>(FORMAT).copied(),
            fragments: matches
                .get_many::<String>(FRAGMENT)
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for AgentArgs {
    fn augment_args(command: Command) -> Command {
        let path = |id: &'static str, help: &'static str| {
            Arg::new(id)
                .long(id)
                .value_parser(clap::value_parser!(OsString))
                .action(clap::ArgAction::Append)
                .value_name("PATH")
                .help(help)
        };
        AgentFlags::augment_args(command)
            .args(agent_absent::args())
            .arg(path(
                FILE,
                "A configuration file, JSON or HCL by its name; may be repeated, later ones win",
            ))
            .arg(path(
                FOLDER,
                "A folder of configuration files, read in the order of their names; may be repeated",
            ))
            .arg(
                Arg::new(FORMAT)
                    .long(FORMAT)
                    .value_parser(clap::value_parser!(Format))
                    .help("The format of all configuration files, whatever their names"),
            )
            .arg(
                Arg::new(FRAGMENT)
                    .long(FRAGMENT)
                    .action(clap::ArgAction::Append)
                    .value_name("TEXT")
                    .help("A piece of HCL that wins over files and flags; may be repeated"),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    /// The flags that `consul agent -h` lists (1.20.6), each with a value; an empty one for a switch.
    const CONSUL: &[(&str, &str)] = &[
        ("advertise", "127.0.0.1"),
        ("advertise-wan", "127.0.0.1"),
        ("allow-write-http-from", "10.0.0.0/8"),
        ("alt-domain", "other"),
        ("auto-reload-config", ""),
        ("bind", "127.0.0.1"),
        ("bootstrap", ""),
        ("bootstrap-expect", "1"),
        ("check_output_max_size", "100"),
        ("client", "127.0.0.1"),
        ("config-dir", "d"),
        ("config-file", "f"),
        ("config-format", "hcl"),
        ("data-dir", "d"),
        ("datacenter", "dc2"),
        ("default-query-time", "7s"),
        ("dev", ""),
        ("disable-host-node-id", ""),
        ("disable-keyring-file", ""),
        ("dns-port", "-1"),
        ("domain", "example"),
        ("enable-local-script-checks", ""),
        ("enable-script-checks", ""),
        ("encrypt", "k"),
        ("grpc-port", "-1"),
        ("grpc-tls-port", "-1"),
        ("hcl", "ui = true"),
        ("http-port", "1"),
        ("https-port", "2"),
        ("join", "a"),
        ("join-wan", "a"),
        ("log-file", "f"),
        ("log-json", ""),
        ("log-level", "info"),
        ("log-rotate-bytes", "1"),
        ("log-rotate-duration", "1h"),
        ("log-rotate-max-files", "-1"),
        ("max-query-time", "8s"),
        ("node", "n"),
        ("node-id", "x"),
        ("node-meta", "a:b"),
        ("non-voting-server", ""),
        ("pid-file", "f"),
        ("primary-gateway", "a"),
        ("protocol", "3"),
        ("raft-protocol", "3"),
        ("read-replica", ""),
        ("recursor", "127.0.0.1"),
        ("rejoin", ""),
        ("retry-interval", "1s"),
        ("retry-interval-wan", "1s"),
        ("retry-join", "a"),
        ("retry-join-wan", "a"),
        ("retry-max", "1"),
        ("retry-max-wan", "1"),
        ("segment", "s"),
        ("serf-lan-allowed-cidrs", "10.0.0.0/8"),
        ("serf-lan-bind", "127.0.0.1"),
        ("serf-lan-port", "1"),
        ("serf-wan-allowed-cidrs", "10.0.0.0/8"),
        ("serf-wan-bind", "127.0.0.1"),
        ("serf-wan-port", "-1"),
        ("server", ""),
        ("server-port", "1"),
        ("syslog", ""),
        ("ui", ""),
        ("ui-content-path", "/u/"),
        ("ui-dir", "d"),
    ];

    fn sources(line: &[String]) -> Sources {
        let words = ["lictor", "agent"].into_iter().map(OsString::from);
        let cli = crate::parse(words.chain(line.iter().map(OsString::from))).expect("a line to run");
        match cli.command {
            crate::args::Command::Agent(args) => args.into_sources().expect("flags that can be read"),
            other => panic!("{other:?} is not the agent"),
        }
    }

    #[test]
    fn every_flag_of_consuls_agent_is_understood() {
        for (flag, value) in CONSUL {
            let words: Vec<_> = [format!("-{flag}"), (*value).to_owned()]
                .into_iter()
                .filter(|word| !word.is_empty())
                .collect();

            let read = sources(&words);

            let kept = read.dev
                || read.format.is_some()
                || !(read.flags.is_empty() && read.places.is_empty() && read.fragments.is_empty());
            assert!(kept, "-{flag} was read and forgotten");
        }
    }

    #[test]
    fn every_flag_is_a_key_and_those_without_effect_are_named() {
        let words: Vec<_> = CONSUL
            .iter()
            .filter(|(flag, _)| !["config-dir", "config-file", "config-format", "node-id"].contains(flag))
            .map(|(flag, value)| match *value {
                "" => format!("-{flag}"),
                value => format!("-{flag}={value}"),
            })
            .collect();

        let config = sources(&words).load().expect("valid");

        assert_eq!(config.limits.default_query_time.as_secs(), 7);
        assert_eq!(config.limits.max_query_time.as_secs(), 8);
        assert_eq!(config.limits.check_output_max_size, 100);
        assert_eq!(config.allow_write_http_from.len(), 1);
        for key in [
            "alt_domain",
            "auto_reload_config",
            "enable_syslog",
            "non_voting_server",
            "protocol",
            "recursors",
            "rejoin_after_leave",
            "serf_lan",
            "start_join_wan",
            "ui_content_path",
        ] {
            assert!(config.absent_keys.iter().any(|absent| absent == key), "{key}");
        }
    }

    #[test]
    fn flags_without_effect_are_held_to_their_kind_too() {
        let refused = |line: &str| crate::parse(line.split(' ').map(OsString::from)).is_err();

        assert!(refused("lictor agent -protocol=x"));
        assert!(refused("lictor agent -rejoin=perhaps"));
    }
}
