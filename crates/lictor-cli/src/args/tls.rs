//! Flags of `tls`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum TlsCommand {
    /// Authorities that issue certificates.
    #[command(subcommand)]
    Ca(CaCommand),
    /// Certificates of servers and clients.
    #[command(subcommand)]
    Cert(CertCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Make an authority, and write it to <DOMAIN>-agent-ca.pem and <DOMAIN>-agent-ca-key.pem here.
    Create(CaArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Issue a certificate, and write it to <DC>-server-<DOMAIN>-<N>.pem and <DC>-server-<DOMAIN>-<N>-key.pem here.
    Create(CertArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CaArgs {
    /// The domain of the cluster; names the files.
    #[arg(long, default_value = "lictor")]
    pub(crate) domain: String,
    /// How many days the authority is valid.
    #[arg(long, default_value_t = 1825)]
    pub(crate) days: u32,
    /// The name of the authority; a number follows it.
    #[arg(long, default_value = "Lictor Agent CA")]
    pub(crate) common_name: String,
    /// Lets the authority issue names below the domain and localhost only.
    #[arg(long)]
    pub(crate) name_constraint: Option<bool>,
    /// One more domain that -name-constraint allows; may be repeated. Nothing without it.
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) additional_name_constraint: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CertArgs {
    /// Issue a certificate of a server.
    #[arg(long)]
    pub(crate) server: Option<bool>,
    /// Issue a certificate of a client.
    #[arg(long)]
    pub(crate) client: Option<bool>,
    /// Issue a certificate for the command line.
    #[arg(long)]
    pub(crate) cli: Option<bool>,
    /// The datacenter of the server.
    #[arg(long, default_value = "dc1")]
    pub(crate) dc: String,
    /// The domain of the cluster.
    #[arg(long, default_value = "lictor")]
    pub(crate) domain: String,
    /// The name of the node, with -server, which becomes one more name of the certificate.
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// How many days the certificate is valid.
    #[arg(long, default_value_t = 365)]
    pub(crate) days: u32,
    /// The certificate of the authority [default: <DOMAIN>-agent-ca.pem].
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The key of the authority [default: <DOMAIN>-agent-ca-key.pem].
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// One more name besides localhost; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) additional_dnsname: Vec<String>,
    /// One more address besides 127.0.0.1; may be repeated.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) additional_ipaddress: Vec<IpAddr>,
}
