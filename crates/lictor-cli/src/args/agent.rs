//! Flags of `agent`. Each is a configuration key in another coat: flags become a configuration source like a file.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use serde_json::{Map, Value, json};

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
        Ok(Sources {
            dev: self.flags.dev.unwrap_or(false),
            flags: self.flags.into_config()?,
            environment: Map::new(),
            places: self.places,
            format: self.format,
            fragments: self.fragments,
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
