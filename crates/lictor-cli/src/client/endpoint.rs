//! Where the server is and how it is spoken to, from flags and environment.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use super::{ClientError, os_error};
use crate::args::client::ClientArgs;

const DEFAULT_ADDRESS: &str = "127.0.0.1:8500";

/// The way to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// Host and port; with TLS or without.
    Tcp { host: String, port: u16, tls: bool },
    /// A Unix domain socket.
    Unix(PathBuf),
}

/// Everything a client needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: Address,
    /// What stands before `/v1`, without a slash at the end.
    pub(crate) base_path: String,
    pub(crate) token: Option<String>,
    /// Name and password for a proxy in front of the server, as `name:password`.
    pub(crate) basic_auth: Option<String>,
    pub(crate) datacenter: Option<String>,
    /// A namespace other than the default one, for the server to refuse.
    pub(crate) namespace: Option<String>,
    /// A partition other than the default one, likewise.
    pub(crate) partition: Option<String>,
    pub(crate) stale: bool,
    pub(crate) tls: TlsSettings,
    /// Variables that could not be read and count for nothing, a line each.
    pub(crate) warnings: Vec<String>,
}

/// How the server's certificate is checked and what certificate is presented.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) ca_path: Option<PathBuf>,
    pub(crate) client_cert: Option<PathBuf>,
    pub(crate) client_key: Option<PathBuf>,
    pub(crate) server_name: Option<String>,
    pub(crate) skip_verify: bool,
}

impl TlsSettings {
    /// Whether any file or folder is named.
    pub(crate) fn name_files(&self) -> bool {
        [&self.ca_file, &self.ca_path, &self.client_cert, &self.client_key]
            .iter()
            .any(|path| path.is_some())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, tls } => {
                let scheme = if *tls { "https" } else { "http" };
                let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
                write!(f, "{scheme}://{open}{host}{close}:{port}")
            }
            // The host's name in a request over a socket says nothing.
            Self::Unix(_) => f.write_str("http://localhost"),
        }
    }
}

impl Endpoint {
    /// Flags win over `LICTOR_*`, those over `CONSUL_*`.
    ///
    /// # Errors
    /// When an address or the token file cannot be read.
    pub(crate) fn resolve(
        args: &ClientArgs,
        env: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ClientError> {
        let var = |name: &str| {
            let set = |prefix: &str| env(&format!("{prefix}_{name}")).filter(|value| !value.is_empty());
            set("LICTOR").or_else(|| set("CONSUL"))
        };
        let text = |name: &str| var(name).and_then(|value| value.into_string().ok());
        let path = |flag: &Option<PathBuf>, name: &str| flag.clone().or_else(|| var(name).map(PathBuf::from));
        let mut warnings = Vec::new();
        let mut switch = |name: &str| {
            let value = text(name)?;
            let parsed = parse_bool(&value);
            if parsed.is_none() {
                warnings.push(format!(
                    "{name}: {value:?} is neither true nor false, and is overlooked"
                ));
            }
            parsed
        };
        let tls_by_default = switch("HTTP_SSL").unwrap_or(false);
        let skip_verify = switch("HTTP_SSL_VERIFY") == Some(false);
        let address = args.http_addr.clone().or_else(|| text("HTTP_ADDR"));
        let (address, base_path) =
            parse_address(address.as_deref().unwrap_or(DEFAULT_ADDRESS), tls_by_default)?;
        let token_file = path(&args.token_file, "HTTP_TOKEN_FILE");
        let token = match token_file {
            Some(file) => Some(read_token(&file)?),
            None => args.token.clone().or_else(|| text("HTTP_TOKEN")),
        };
        Ok(Self {
            address,
            base_path,
            token: token.filter(|token| !token.is_empty()),
            basic_auth: text("HTTP_AUTH"),
            datacenter: args.datacenter.clone().filter(|name| !name.is_empty()),
            namespace: not_default(args.namespace.clone().or_else(|| text("NAMESPACE"))),
            partition: not_default(args.partition.clone().or_else(|| text("PARTITION"))),
            stale: args.stale.unwrap_or(false),
            tls: TlsSettings {
                ca_file: path(&args.ca_file, "CACERT"),
                ca_path: path(&args.ca_path, "CAPATH"),
                client_cert: path(&args.client_cert, "CLIENT_CERT"),
                client_key: path(&args.client_key, "CLIENT_KEY"),
                server_name: args.tls_server_name.clone().or_else(|| text("TLS_SERVER_NAME")),
                skip_verify,
            },
            warnings,
        })
    }
}

/// What everything is in anyway need not be said.
fn not_default(name: Option<String>) -> Option<String> {
    name.filter(|name| !name.is_empty() && name != "default")
}

/// Go's spellings of a truth value.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn read_token(file: &std::path::Path) -> Result<String, ClientError> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(ClientError::Setup(format!(
            "Error loading token file {0} : open {0}: {1}",
            file.display(),
            os_error(&error)
        ))),
    }
}

fn parse_address(text: &str, tls_by_default: bool) -> Result<(Address, String), ClientError> {
    let refuse = || {
        ClientError::Setup(format!(
            "{text:?} is not an address (host:port, http://, https:// or unix://)"
        ))
    };
    let (tls, rest) = match text.split_once("://") {
        Some(("unix", path)) if !path.is_empty() => return Ok((Address::Unix(path.into()), String::new())),
        Some(("http" | "tcp", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        Some(_) => return Err(refuse()),
        None => (tls_by_default, text),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let default_port = if tls { 443 } else { 80 };
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, after) = v6.split_once(']').ok_or_else(refuse)?;
            (host, after.strip_prefix(':'))
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().map_err(|_| refuse())?,
        None => default_port,
    };
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err(refuse());
    }
    let path = path.trim_end_matches('/');
    let base_path = if path.is_empty() {
        String::new()
    } else {
        format!("/{path}")
    };
    Ok((
        Address::Tcp {
            host: host.to_owned(),
            port,
            tls,
        },
        base_path,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(args: &ClientArgs, env: &[(&str, &str)]) -> Result<Endpoint, String> {
        let env: Vec<(String, OsString)> = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), OsString::from(value)))
            .collect();
        let look = |name: &str| {
            env.iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
        };
        Endpoint::resolve(args, &look).map_err(|error| error.to_string())
    }

    #[test]
    fn without_anything_it_is_consuls_address() {
        let endpoint = resolve(&ClientArgs::default(), &[]).expect("valid");

        assert_eq!(endpoint.address.to_string(), "http://127.0.0.1:8500");
    }

    #[test]
    fn flags_win_over_lictors_variables_and_those_over_consuls() {
        let env = [
            ("CONSUL_HTTP_ADDR", "a:1"),
            ("LICTOR_HTTP_ADDR", "b:2"),
            ("CONSUL_HTTP_TOKEN", "t"),
        ];
        let flag = ClientArgs {
            http_addr: Some("c:3".to_owned()),
            ..ClientArgs::default()
        };

        assert_eq!(
            resolve(&flag, &env).expect("valid").address.to_string(),
            "http://c:3"
        );
        let endpoint = resolve(&ClientArgs::default(), &env).expect("valid");
        assert_eq!(endpoint.address.to_string(), "http://b:2");
        assert_eq!(endpoint.token.as_deref(), Some("t"));
    }

    #[test]
    fn all_forms_of_an_address_are_read() {
        for (text, ssl, shown, base) in [
            ("host:1", "false", "http://host:1", ""),
            ("host:1", "true", "https://host:1", ""),
            ("http://host:1", "true", "http://host:1", ""),
            ("https://host", "false", "https://host:443", ""),
            ("https://[::1]:8501/base/", "false", "https://[::1]:8501", "/base"),
            ("unix:///run/l.sock", "false", "http://localhost", ""),
        ] {
            let env = [("CONSUL_HTTP_ADDR", text), ("CONSUL_HTTP_SSL", ssl)];
            let endpoint = resolve(&ClientArgs::default(), &env).expect(text);
            assert_eq!(
                (endpoint.address.to_string().as_str(), endpoint.base_path.as_str()),
                (shown, base)
            );
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["ftp://a", "unix://", "host:port", "[::1", ":8500", "a b:1"] {
            let env = [("CONSUL_HTTP_ADDR", text)];
            assert!(resolve(&ClientArgs::default(), &env).is_err(), "{text}");
        }
    }

    #[test]
    fn certificates_are_verified_unless_the_variable_says_false() {
        let skips = |value| {
            resolve(&ClientArgs::default(), &[("CONSUL_HTTP_SSL_VERIFY", value)]).map(|e| e.tls.skip_verify)
        };

        assert_eq!(skips("false"), Ok(true));
        assert_eq!(skips("true"), Ok(false));
        assert_eq!(skips("maybe"), Ok(false));
    }

    #[test]
    fn a_switch_that_is_none_is_warned_of_and_counts_for_nothing() {
        let env = [("CONSUL_HTTP_SSL", "junk"), ("CONSUL_HTTP_SSL_VERIFY", "junk")];

        let endpoint = resolve(&ClientArgs::default(), &env).expect("valid");

        assert_eq!(endpoint.address.to_string(), "http://127.0.0.1:8500");
        assert_eq!(endpoint.warnings.len(), 2);
        assert!(endpoint.warnings[0].starts_with("HTTP_SSL: \"junk\" is neither"));
    }

    #[test]
    fn only_a_namespace_that_is_not_there_is_sent() {
        let namespace = |value| resolve(&ClientArgs::default(), &[("CONSUL_NAMESPACE", value)]);

        assert_eq!(namespace("default").expect("valid").namespace, None);
        assert_eq!(
            namespace("team").expect("valid").namespace.as_deref(),
            Some("team")
        );
    }

    #[test]
    fn a_token_file_wins_over_a_token_and_must_be_readable() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "secret\n").expect("writable");
        let args = ClientArgs {
            token: Some("other".to_owned()),
            token_file: Some(file.path().to_owned()),
            ..ClientArgs::default()
        };

        assert_eq!(
            resolve(&args, &[]).expect("valid").token.as_deref(),
            Some("secret")
        );
        let missing = ClientArgs {
            token_file: Some("/nowhere/t".into()),
            ..ClientArgs::default()
        };
        assert!(
            resolve(&missing, &[])
                .expect_err("no file")
                .contains("/nowhere/t")
        );
    }
}
