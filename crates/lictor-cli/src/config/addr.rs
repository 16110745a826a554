//! Addresses to listen on and to advertise.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
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
