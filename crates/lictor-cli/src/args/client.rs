//! Flags of every command that talks to a server.

use std::path::PathBuf;

/// How to reach the server. What is not given comes from the environment, see `docs/configuration.md`.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ClientArgs {
    /// Address of the server: host:port, http://..., https://... or `unix://PATH`.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) http_addr: Option<String>,
    /// ACL token.
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// File with the ACL token.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// PEM file of authorities to trust.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Folder of PEM files of authorities to trust.
    #[arg(long, value_name = "DIR")]
    pub(crate) ca_path: Option<PathBuf>,
    /// PEM file of the certificate to present.
    #[arg(long, value_name = "FILE")]
    pub(crate) client_cert: Option<PathBuf>,
    /// PEM file of the key to the certificate.
    #[arg(long, value_name = "FILE")]
    pub(crate) client_key: Option<PathBuf>,
    /// Name that the server's certificate must have.
    #[arg(long, value_name = "NAME")]
    pub(crate) tls_server_name: Option<String>,
    /// Datacenter to ask; the server's own when not given.
    #[arg(long, value_name = "NAME")]
    pub(crate) datacenter: Option<String>,
    /// Let any server answer, even with old data.
    #[arg(long)]
    pub(crate) stale: Option<bool>,
    /// Only the default namespace is there.
    #[arg(long, value_name = "NAME", hide = true)]
    pub(crate) namespace: Option<String>,
    /// Only the default partition is there.
    #[arg(long, value_name = "NAME", hide = true)]
    pub(crate) partition: Option<String>,
}
