//! Addresses to listen on and to advertise.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::path::PathBuf;

/// One place where HTTP is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An address and port.
    Tcp(SocketAddr),
    /// A Unix domain socket.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// `HOST:PORT`. The host is a name, an IP address (IPv6 in brackets), or empty for every address of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Without brackets.
    pub host: String,
    /// Not 0.
    pub port: u16,
}

impl HostPort {
    /// Reads one.
    ///
    /// # Errors
    /// A text that names the key and the entry.
    pub(crate) fn parse(key: &str, text: &str) -> Result<Self, String> {
        let wrong = || format!("{key}: {text:?} is not of the form HOST:PORT");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(wrong)?,
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        let is_odd = |c: char| c.is_whitespace() || c.is_control() || "/?#@%[]\\".contains(c);
        match port.parse() {
            Ok(port @ 1..) if !host.contains(is_odd) => Ok(Self {
                host: host.to_owned(),
                port,
            }),
            _ => Err(wrong()),
        }
    }

    /// Where to listen: the first address of the name, IPv4 before IPv6.
    ///
    /// # Errors
    /// A text that names the key, for a name without an address.
    pub(crate) fn resolve(&self, key: &str) -> Result<SocketAddr, String> {
        if self.host.is_empty() {
            return Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), self.port));
        }
        let mut found: Vec<SocketAddr> = match (self.host.as_str(), self.port).to_socket_addrs() {
            Ok(found) => found.collect(),
            Err(error) => return Err(format!("{key}: {self} has no address: {error}")),
        };
        found.sort_by_key(SocketAddr::is_ipv6);
        let first = found.into_iter().next();
        first.ok_or_else(|| format!("{key}: {self} has no address"))
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Reads a list of addresses separated by spaces, each an IP address or `unix://PATH`.
///
/// # Errors
/// A text that names the key and the entry.
pub(crate) fn parse_listen(key: &str, text: &str, port: u16) -> Result<Vec<Listen>, String> {
    text.split_ascii_whitespace()
        .map(|entry| match entry.strip_prefix("unix://") {
            Some("") => Err(format!("{key}: unix:// needs a path after it")),
            Some(path) => Ok(Listen::Unix(path.into())),
            None => Ok(Listen::Tcp(SocketAddr::new(parse_ip(key, entry)?, port))),
        })
        .collect()
}

/// Reads one IP address.
///
/// # Errors
/// A text that names the key and the entry.
pub(crate) fn parse_ip(key: &str, text: &str) -> Result<IpAddr, String> {
    if text.contains("{{") {
        return Err(format!(
            "{key}: address templates ({{{{ ... }}}}) are not available; write the IP address"
        ));
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse()
        .map_err(|_| format!("{key}: {text:?} is not an IP address"))
}

/// The address that others reach this host at, as its routing table has it; nothing is sent. `None` on a host
/// without a route.
pub(crate) fn outward_ip() -> Option<IpAddr> {
    // Connecting a UDP socket only looks up the route. The target is from the range kept for documentation.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_addresses_and_unix_sockets_are_read() {
        let all = parse_listen("client_addr", "127.0.0.1 ::1 [::1] unix:///run/l.sock", 8500).expect("valid");

        let shown: Vec<_> = all.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["127.0.0.1:8500", "[::1]:8500", "[::1]:8500", "unix:///run/l.sock"]
        );
    }

    #[test]
    fn a_host_and_a_port_are_read_and_found() {
        for (text, host, at) in [
            ("127.0.0.1:4001", "127.0.0.1", "127.0.0.1:4001"),
            ("[::1]:4001", "::1", "[::1]:4001"),
            ("localhost:4001", "localhost", "127.0.0.1:4001"),
            (":4001", "", "0.0.0.0:4001"),
        ] {
            let parsed = HostPort::parse("addr", text).expect(text);
            assert_eq!((parsed.host.as_str(), parsed.to_string().as_str()), (host, text));
            assert_eq!(parsed.resolve("addr").expect(text).to_string(), at);
        }
    }

    #[test]
    fn what_is_no_host_and_port_is_refused_by_name() {
        for text in [
            "",
            "4001",
            "a",
            "a:",
            "a:0",
            "a:70000",
            "a:-1",
            "::1:4001",
            "[::1:4001",
            "a b:1",
            "http://a:1",
            "a/b:1",
        ] {
            let error = HostPort::parse("addr", text).expect_err(text);
            assert!(error.starts_with("addr: ") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_by_name() {
        for (text, wanted) in [
            ("localhost", "client_addr: \"localhost\" is not an IP address"),
            ("unix://", "client_addr: unix:// needs a path"),
            ("{{ GetPrivateIP }}", "client_addr: address templates"),
        ] {
            let error = parse_listen("client_addr", text, 1).expect_err(text);
            assert!(error.starts_with(wanted), "{error}");
        }
    }
}
