//! Who the members are. Replicated: it changes with the entries that change the members.

use std::collections::BTreeMap;

use lictor_proto::RaftId;
use lictor_proto::v1::{Members, MembersContext, ServerRow};
use lictor_raft::Membership;
use prost::Message as _;

/// The members and who they are, as of some entry.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    members: Membership,
    servers: BTreeMap<u64, ServerRow>,
}

impl Roster {
    /// The founders of a cluster, all of them voters.
    pub fn founding(servers: impl IntoIterator<Item = ServerRow>) -> Self {
        let servers: BTreeMap<u64, ServerRow> = servers
            .into_iter()
            .map(|server| (server.raft_id, server))
            .collect();
        Self {
            members: Membership::of_voters(servers.keys().map(|&id| RaftId(id))),
            servers,
        }
    }

    /// What a server knows that has joined a cluster and has no state yet: where others are, and no members.
    pub fn joining(servers: impl IntoIterator<Item = ServerRow>) -> Self {
        Self {
            members: Membership::default(),
            servers: servers
                .into_iter()
                .map(|server| (server.raft_id, server))
                .collect(),
        }
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let stored = Members::decode(bytes).ok()?;
        Some(Self {
            members: Membership::decode(&stored.raft)?,
            servers: stored
                .servers
                .into_iter()
                .map(|server| (server.raft_id, server))
                .collect(),
        })
    }

    /// The bytes to store. Equal rosters have equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        Members {
            raft: self.members.encode().into(),
            servers: self.servers.values().cloned().collect(),
        }
        .encode_to_vec()
    }

    /// Who votes and who learns.
    pub fn members(&self) -> &Membership {
        &self.members
    }

    /// All servers, by raft id.
    pub fn servers(&self) -> impl Iterator<Item = &ServerRow> {
        self.servers.values()
    }

    /// One server.
    pub fn get(&self, id: RaftId) -> Option<&ServerRow> {
        self.servers.get(&id.0)
    }

    /// The server of this node name.
    pub fn named(&self, name: &str) -> Option<&ServerRow> {
        self.servers.values().find(|server| server.name == name)
    }

    /// The roster after an entry that changed the members, whose context is `context`.
    pub(crate) fn changed(&self, members: Membership, context: &[u8]) -> Self {
        let mut servers = self.servers.clone();
        // Written by this code: anything else would be another release's, which is refused before this.
        if let Ok(context) = MembersContext::decode(context) {
            servers.extend(context.servers.into_iter().map(|server| (server.raft_id, server)));
        }
        servers.retain(|&id, _| members.names(RaftId(id)));
        Self { members, servers }
    }
}

/// Where a server is reached.
pub(crate) fn address(server: &ServerRow) -> String {
    if server.address.contains(':') {
        format!("[{}]:{}", server.address, server.port)
    } else {
        format!("{}:{}", server.address, server.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(raft_id: u64, name: &str) -> ServerRow {
        ServerRow {
            raft_id,
            name: name.to_owned(),
            ..ServerRow::default()
        }
    }

    #[test]
    fn what_is_stored_comes_back() {
        let roster = Roster::founding([server(2, "b"), server(1, "a")]);

        let back = Roster::decode(&roster.encode()).unwrap();

        assert_eq!(back.encode(), roster.encode());
        assert_eq!(back.named("b").map(|server| server.raft_id), Some(2));
        assert!(Roster::decode(&[0xff]).is_none());
    }

    #[test]
    fn who_is_no_member_any_more_is_forgotten() {
        let roster = Roster::founding([server(1, "a"), server(2, "b")]);
        let context = MembersContext {
            servers: vec![server(3, "c")],
        };

        let after = roster.changed(
            Membership::of_voters([RaftId(1), RaftId(3)]),
            &context.encode_to_vec(),
        );

        let names: Vec<_> = after.servers().map(|server| server.name.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
    }
}
