//! The hash of what a service says, by which clients wait for another: the same as Consul's agent answers for the same
//! service (release 1.22), so that a client may keep its own over a change of the server.
//!
//! A text is hashed by FNV-1 with 64 bits, a number by its 8 little-endian bytes, a list by one element after the other,
//! and an object by its name and, in no order, its pairs of field and value. Parts that are kept as JSON are hashed as
//! text; there the hashes differ from Consul's.

use lictor_proto::v1::ServiceRow;

/// The hash as hexadecimal digits.
pub fn content_hash(service: &ServiceRow) -> String {
    let addresses = service.tagged_addresses.iter().map(|(tag, address)| {
        let fields = [
            ("Address", text(&address.address)),
            ("Port", number(address.port.into())),
        ];
        (text(tag), object("ServiceAddress", &fields))
    });
    let weights = [
        ("Passing", number(service.weight_passing)),
        ("Warning", number(service.weight_warning)),
    ];
    let fields = [
        ("Kind", text(&service.kind)),
        ("ID", text(&service.id)),
        ("Service", text(&service.service)),
        ("Tags", list(service.tags.iter().map(|tag| text(tag)))),
        (
            "Meta",
            map(service.meta.iter().map(|(key, value)| (text(key), text(value)))),
        ),
        ("Port", number(service.port.into())),
        ("Ports", kept(&service.ports_json, 0)),
        ("Address", text(&service.address)),
        ("SocketPath", text(&service.socket_path)),
        ("TaggedAddresses", map(addresses)),
        ("Weights", object("AgentWeights", &weights)),
        ("EnableTagOverride", fnv(&[service.enable_tag_override.into()])),
        ("CreateIndex", number(0)),
        ("ModifyIndex", number(0)),
        ("ContentHash", text("")),
        ("Proxy", kept(&service.proxy_json, number(0))),
        ("Connect", kept(&service.connect_json, number(0))),
        ("PeerName", text("")),
    ];
    format!("{:x}", object("AgentService", &fields))
}

fn fnv(bytes: &[u8]) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    bytes
        .iter()
        .fold(BASIS, |hash, byte| hash.wrapping_mul(PRIME) ^ u64::from(*byte))
}

fn text(text: &str) -> u64 {
    fnv(text.as_bytes())
}

fn number(number: i64) -> u64 {
    fnv(&number.to_le_bytes())
}

/// A part that is JSON here; `absent` is the hash of none.
fn kept(json: &str, absent: u64) -> u64 {
    if json.is_empty() { absent } else { text(json) }
}

fn ordered(first: u64, second: u64) -> u64 {
    fnv(&[first.to_le_bytes(), second.to_le_bytes()].concat())
}

fn list(elements: impl Iterator<Item = u64>) -> u64 {
    elements.fold(0, ordered)
}

fn map(pairs: impl Iterator<Item = (u64, u64)>) -> u64 {
    pairs.fold(0, |hash, (key, value)| hash ^ ordered(key, value))
}

fn object(name: &str, fields: &[(&str, u64)]) -> u64 {
    text(name) ^ map(fields.iter().map(|(name, value)| (text(name), *value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Consul answers for this service.
    #[test]
    fn the_hash_is_consuls() {
        let service = ServiceRow {
            id: "foo".into(),
            service: "foo".into(),
            tags: vec!["bar".into(), "baz".into()],
            port: 8000,
            weight_passing: 1,
            weight_warning: 1,
            ..ServiceRow::default()
        };

        assert_eq!(content_hash(&service), "c4bb6737c185ed93");
    }

    #[test]
    fn every_part_counts() {
        let plain = ServiceRow::default();
        let others = [
            ServiceRow {
                port: 1,
                ..plain.clone()
            },
            ServiceRow {
                meta: [("a".to_owned(), "b".to_owned())].into(),
                ..plain.clone()
            },
            ServiceRow {
                enable_tag_override: true,
                ..plain.clone()
            },
            ServiceRow {
                proxy_json: "{}".into(),
                ..plain.clone()
            },
        ];

        for other in others {
            assert_ne!(content_hash(&other), content_hash(&plain), "{other:?}");
        }
    }
}
