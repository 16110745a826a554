//! Addresses as people write them.

use std::fmt;
use std::str::FromStr;

/// Longest name of a host, as DNS has it.
const HOST_MAX_BYTES: usize = 255;

/// `HOST:PORT`. The host is a name, an IP address (IPv6 in brackets), or empty for every address of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Without brackets.
    pub host: String,
    /// Not 0.
    pub port: u16,
}

/// A text that is no [`HostPort`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not of the form HOST:PORT")]
pub struct NoHostPort;

impl HostPort {
    /// Whether it stands for all addresses of a machine, so that nobody else can be sent there.
    pub fn is_wildcard(&self) -> bool {
        // `0.0.0.0`, `::` and all other ways to write them.
        self.host.chars().all(|c| "0.:".contains(c))
    }
}

impl FromStr for HostPort {
    type Err = NoHostPort;

    fn from_str(text: &str) -> Result<Self, NoHostPort> {
        let (host, port) = text.rsplit_once(':').ok_or(NoHostPort)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or(NoHostPort)?,
            None if host.contains(':') => return Err(NoHostPort),
            None => host,
        };
        let is_odd = |c: char| c.is_whitespace() || c.is_control() || "/?#@%[]\\\"<>".contains(c);
        match port.parse() {
            Ok(port @ 1..) if host.len() <= HOST_MAX_BYTES && !host.contains(is_odd) => Ok(Self {
                host: host.to_owned(),
                port,
            }),
            _ => Err(NoHostPort),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_shown_as_it_was() {
        for (text, host) in [
            ("127.0.0.1:4001", "127.0.0.1"),
            ("[::1]:4001", "::1"),
            ("localhost:4001", "localhost"),
            (":4001", ""),
        ] {
            let parsed: HostPort = text.parse().unwrap();
            assert_eq!((parsed.host.as_str(), parsed.to_string().as_str()), (host, text));
        }
    }

    #[test]
    fn what_is_no_host_and_port_is_refused() {
        let long = format!("{}:1", "a".repeat(256));
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
            &long,
        ] {
            assert_eq!(text.parse::<HostPort>(), Err(NoHostPort), "{text}");
        }
    }

    #[test]
    fn a_wildcard_is_no_place_to_go() {
        let is_wildcard = |text: &str| text.parse::<HostPort>().unwrap().is_wildcard();

        assert!(is_wildcard("0.0.0.0:1") && is_wildcard("[::]:1") && is_wildcard("[::0]:1"));
        assert!(is_wildcard(":1") && is_wildcard("0:1"));
        assert!(!is_wildcard("127.0.0.1:1") && !is_wildcard("localhost:1") && !is_wildcard("[::1]:1"));
    }
}
