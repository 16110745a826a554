//! `meta.json`, with the fields of Consul's.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// The version of the archive's form: one that a Consul knows nothing of, and refuses. It would take the rows of version
/// 1 for its own, and end when it meets the first.
pub(crate) const VERSION: i64 = 2;
/// A Consul's, and that of the first archives of Lictor.
pub(crate) const CONSUL_VERSION: i64 = 1;

/// Where the state of an archive stood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Meta {
    /// The version of the archive's form: 2, and 1 for a Consul's.
    pub version: i64,
    /// A name for the snapshot: term, index, milliseconds since 1970.
    #[serde(rename = "ID")]
    pub id: String,
    /// The index under which clients saw the last change.
    pub index: u64,
    /// The term of the last entry.
    pub term: u64,
    /// The servers' addresses, as a `MessagePack` list in Base64; for tools that look for it.
    pub peers: String,
    /// The servers.
    pub configuration: Configuration,
    /// The index since which these are the servers.
    pub configuration_index: u64,
    /// The length of `state.bin` in bytes.
    pub size: i64,
}

/// The servers of the cluster that was saved.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Configuration {
    /// All of them.
    pub servers: Vec<Server>,
}

/// A server of the cluster that was saved. A restore does not look at it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Server {
    /// 0 for a voter, 1 for others.
    pub suffrage: u8,
    /// The node's id.
    #[serde(rename = "ID")]
    pub id: String,
    /// `address:port`.
    pub address: String,
}

impl Default for Meta {
    fn default() -> Self {
        Self::new(0, 0, 0, Vec::new())
    }
}

impl Meta {
    /// The description of a state at `index`, saved at `now_ms` since 1970.
    pub fn new(index: u64, term: u64, now_ms: u64, servers: Vec<Server>) -> Self {
        Self {
            version: VERSION,
            id: format!("{term}-{index}-{now_ms}"),
            index,
            term,
            peers: STANDARD.encode(list(servers.iter().map(|server| server.address.as_str()))),
            configuration: Configuration { servers },
            configuration_index: 1,
            size: 0,
        }
    }
}

/// A `MessagePack` list of short texts.
fn list<'a>(texts: impl ExactSizeIterator<Item = &'a str>) -> Vec<u8> {
    // A cluster has a few servers; what would not fit is left out.
    let (few, short) = (15, 31);
    let texts: Vec<_> = texts.filter(|text| text.len() <= short).take(few).collect();
    let mut bytes = vec![0x90 | u8::try_from(texts.len()).unwrap_or(0)];
    for text in texts {
        bytes.push(0xa0 | u8::try_from(text.len()).unwrap_or(0));
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_has_the_fields_and_the_order_of_consuls() {
        let server = Server {
            suffrage: 0,
            id: "n".to_owned(),
            address: "127.0.0.1:18913".to_owned(),
        };
        let meta = Meta {
            size: 10297,
            ..Meta::new(29, 2, 1_795_275_395_425, vec![server])
        };

        let expected = r#"{"Version":2,"ID":"2-29-1795275395425","Index":29,"Term":2,"Peers":"ka8xMjcuMC4wLjE6MTg5MTM=","Configuration":{"Servers":[{"Suffrage":0,"ID":"n","Address":"127.0.0.1:18913"}]},"ConfigurationIndex":1,"Size":10297}"#;
        assert_eq!(serde_json::to_string(&meta).unwrap(), expected);
        assert_eq!(serde_json::from_str::<Meta>(expected).unwrap(), meta);
    }
}
