//! Who the members are. Replicated: it changes with the entries that change the members.

use std::collections::BTreeMap;

use lictor_proto::v1::{AutopilotRow, Members, MembersContext, ServerRow, SetAutopilot};
use lictor_proto::{LogIndex, RaftId};
use lictor_raft::Membership;
use prost::Message as _;

/// The members and who they are, as of some entry.
#[derive(Debug, Clone, Default)]
pub struct Roster {
    members: Membership,
    servers: BTreeMap<u64, ServerRow>,
    autopilot: Option<AutopilotRow>,
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
            autopilot: None,
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
            autopilot: None,
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
            autopilot: stored.autopilot,
        })
    }

    /// The bytes to store. Equal rosters have equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        Members {
            raft: self.members.encode().into(),
            servers: self.servers.values().cloned().collect(),
            autopilot: self.autopilot,
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

    /// Where a server is reached: host and port.
    pub fn address(&self, id: RaftId) -> Option<String> {
        self.get(id).map(address)
    }

    /// The server of this node name.
    pub fn named(&self, name: &str) -> Option<&ServerRow> {
        self.servers.values().find(|server| server.name == name)
    }

    /// How the group looks after itself, if that was ever set.
    pub fn autopilot(&self) -> Option<&AutopilotRow> {
        self.autopilot.as_ref()
    }

    /// The roster after an entry that changed the members, whose context is `context`; and whether all of it took
    /// effect: autopilot is only set if it is what the entry expects.
    pub(crate) fn changed(&self, members: Membership, index: LogIndex, context: &[u8]) -> (Self, bool) {
        let mut servers = self.servers.clone();
        let mut autopilot = self.autopilot;
        let mut took = true;
        // Written by this code: anything else would be another release's, which is refused before this.
        if let Ok(context) = MembersContext::decode(context) {
            servers.extend(context.servers.into_iter().map(|server| (server.raft_id, server)));
            if let Some(set) = context.autopilot {
                took = set_autopilot(&mut autopilot, set, index);
            }
        }
        servers.retain(|&id, _| members.names(RaftId(id)));
        let changed = Self {
            members,
            servers,
            autopilot,
        };
        (changed, took)
    }
}

fn set_autopilot(autopilot: &mut Option<AutopilotRow>, set: SetAutopilot, index: LogIndex) -> bool {
    let found = autopilot.map_or(0, |row| row.modify_index);
    let Some(wanted) = set.autopilot.filter(|_| set.cas.is_none_or(|cas| cas == found)) else {
        return false;
    };
    *autopilot = Some(AutopilotRow {
        create_index: autopilot.map_or(index.0, |row| row.create_index),
        modify_index: index.0,
        ..wanted
    });
    true
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
            autopilot: None,
        };

        let (after, _) = roster.changed(
            Membership::of_voters([RaftId(1), RaftId(3)]),
            LogIndex(7),
            &context.encode_to_vec(),
        );

        let names: Vec<_> = after.servers().map(|server| server.name.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
    }

    #[test]
    fn autopilot_is_set_only_if_it_is_what_the_setter_has_seen() {
        let mut roster = Roster::founding([server(1, "a")]);
        let mut set = |index, cas, min_quorum| {
            let autopilot = AutopilotRow {
                min_quorum,
                ..AutopilotRow::default()
            };
            let context = MembersContext {
                servers: Vec::new(),
                autopilot: Some(SetAutopilot {
                    autopilot: Some(autopilot),
                    cas,
                }),
            };
            let members = roster.members().clone();
            let (after, took) = roster.changed(members, LogIndex(index), &context.encode_to_vec());
            roster = Roster::decode(&after.encode()).unwrap();
            let row = roster.autopilot().copied().unwrap_or_default();
            (took, row.min_quorum, row.create_index, row.modify_index)
        };

        assert_eq!(set(5, Some(1), 3), (false, 0, 0, 0));
        assert_eq!(set(6, Some(0), 3), (true, 3, 6, 6));
        assert_eq!(set(7, Some(0), 5), (false, 3, 6, 6));
        assert_eq!(set(8, Some(6), 5), (true, 5, 6, 8));
        assert_eq!(set(9, None, 7), (true, 7, 6, 9));
    }
}
