//! Addresses to listen on and to advertise.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::path::PathBuf;

use lictor_proto::{HostPort, NoHostPort};

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

/// Reads `HOST:PORT`.
///
/// # Errors
/// A text that names the key and the entry.
pub(crate) fn parse_host_port(key: &str, text: &str) -> Result<HostPort, String> {
    text.parse()
        .map_err(|error: NoHostPort| format!("{key}: {text:?} is {error}"))
}

/// Where to listen: the first address of the host's name, IPv4 before IPv6.
///
/// # Errors
/// A text that names the key, for a name without an address.
pub(crate) fn find(key: &str, place: &HostPort) -> Result<SocketAddr, String> {
    if place.host.is_empty() {
        return Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), place.port));
    }
    let mut found: Vec<SocketAddr> = match (place.host.as_str(), place.port).to_socket_addrs() {
        Ok(found) => found.collect(),
        Err(error) => return Err(format!("{key}: {place} has no address: {error}")),
    };
    found.sort_by_key(SocketAddr::is_ipv6);
    let first = found.into_iter().next();
    first.ok_or_else(|| format!("{key}: {place} has no address"))
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
    fn a_name_is_listened_on_where_it_leads() {
        for (text, at) in [
            ("127.0.0.1:4001", "127.0.0.1:4001"),
            ("[::1]:4001", "[::1]:4001"),
            ("localhost:4001", "127.0.0.1:4001"),
            (":4001", "0.0.0.0:4001"),
        ] {
            let place = parse_host_port("addr", text).expect(text);
            assert_eq!(find("addr", &place).expect(text).to_string(), at);
        }
        let nowhere = parse_host_port("addr", "no-such-host.invalid:1").expect("a host and a port");
        let error = find("addr", &nowhere).expect_err("no address");
        assert!(
            error.starts_with("addr: no-such-host.invalid:1 has no address"),
            "{error}"
        );
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
