//! `operator raft`.

use serde::Deserialize;

use super::{Failure, Outcome, Ui};
use crate::args::node::PlainArgs;
use crate::args::operator::{RaftCommand, RemovePeerArgs, TransferLeaderArgs};
use crate::client::Call;
use crate::commands::table;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Configuration {
    servers: Vec<Server>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Server {
    #[serde(rename = "ID")]
    id: String,
    node: String,
    address: String,
    leader: bool,
    #[serde(default)]
    protocol_version: String,
    voter: bool,
    #[serde(default)]
    last_index: u64,
}

pub(super) async fn run(command: RaftCommand, ui: &mut Ui<'_>) -> Outcome {
    match command {
        RaftCommand::ListPeers(args) => list_peers(&args, ui).await,
        RaftCommand::RemovePeer(args) => remove_peer(&args, ui).await,
        RaftCommand::TransferLeader(args) => transfer_leader(&args, ui).await,
    }
}

async fn list_peers(args: &PlainArgs, ui: &mut Ui<'_>) -> Outcome {
    let mut client = ui.client(&args.client)?;
    let found: Result<Configuration, _> = client.fetch(Call::get("operator/raft/configuration")).await;
    let servers = found
        .map_err(|error| {
            Failure(format!(
                "Error getting peers: Failed to retrieve raft configuration: {error}"
            ))
        })?
        .servers;
    let newest = servers
        .iter()
        .find(|server| server.leader)
        .map_or(0, |leader| leader.last_index);
    let head = [
        "Node",
        "ID",
        "Address",
        "State",
        "Voter",
        "RaftProtocol",
        "Commit Index",
        "Trails Leader By",
    ]
    .map(str::to_owned);
    let row = |server: Server| {
        let (state, behind) = if server.leader {
            ("leader", "-".to_owned())
        } else {
            let behind = newest.saturating_sub(server.last_index);
            ("follower", format!("{behind} commits"))
        };
        [
            server.node,
            server.id,
            server.address,
            state.to_owned(),
            server.voter.to_string(),
            server.protocol_version,
            server.last_index.to_string(),
            behind,
        ]
    };
    let rows: Vec<_> = std::iter::once(head)
        .chain(servers.into_iter().map(row))
        .collect();
    table(ui, &rows)?;
    Ok(())
}

async fn remove_peer(args: &RemovePeerArgs, ui: &mut Ui<'_>) -> Outcome {
    let failed = |reason: &dyn std::fmt::Display| Failure(format!("Error removing peer: {reason}"));
    let (by, value) = match (args.address.as_str(), args.id.as_str()) {
        ("", "") => return Err(failed(&"an address or id is required for the peer to remove")),
        (address, "") => ("address", address),
        ("", id) => ("id", id),
        _ => return Err(failed(&"cannot give both an address and id")),
    };
    let call = Call::delete("operator/raft/peer").with(by, value);
    let removed = ui.client(&args.client)?.send(call).await;
    removed.map_err(|error| failed(&error))?;
    ui.line(format_args!("Removed peer with {by} {value:?}"))?;
    Ok(())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Transferred {
    success: bool,
}

async fn transfer_leader(args: &TransferLeaderArgs, ui: &mut Ui<'_>) -> Outcome {
    let id = (!args.id.is_empty()).then_some(args.id.as_str());
    let call = Call::post("operator/raft/transfer-leader").with_some("id", id);
    let done: Result<Transferred, _> = ui.client(&args.client)?.fetch(call).await;
    let done = done.map_err(|error| {
        Failure(format!(
            "Error transfering leadership: Failed to transfer leadership {error}"
        ))
    })?;
    if !done.success {
        return Err(Failure("Error transfering leadership: not done".to_owned()));
    }
    ui.line("Success")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::testing::run;

    #[test]
    fn peers_are_a_table_with_their_distance_to_the_leader() {
        let answer = r#"{"Servers":[
            {"ID":"i-1","Node":"n1","Address":"127.0.0.1:1","Leader":true,"ProtocolVersion":"3","Voter":true,"LastIndex":30},
            {"ID":"i-2","Node":"n2","Address":"127.0.0.1:2","Leader":false,"ProtocolVersion":"3","Voter":false,"LastIndex":26}
            ],"Index":0}"#;
        let ran = run("lictor operator raft list-peers", "", &[(200, answer)]);

        assert_eq!(ran.asked, ["GET /v1/operator/raft/configuration"]);
        let table = "Node  ID   Address      State     Voter  RaftProtocol  Commit Index  Trails Leader By\n\
                     n1    i-1  127.0.0.1:1  leader    true   3             30            -\n\
                     n2    i-2  127.0.0.1:2  follower  false  3             26            4 commits\n";
        assert_eq!(ran.out, table);
    }

    #[test]
    fn a_peer_is_removed_by_address_or_id() {
        let ran = run(
            "lictor operator raft remove-peer -address=127.0.0.1:1",
            "",
            &[(200, "")],
        );
        assert_eq!(ran.asked, ["DELETE /v1/operator/raft/peer?address=127.0.0.1%3A1"]);
        assert_eq!(ran.out, "Removed peer with address \"127.0.0.1:1\"\n");

        for (line, reason) in [
            ("", "an address or id is required for the peer to remove"),
            (" -address=a -id=b", "cannot give both an address and id"),
        ] {
            let ran = run(&format!("lictor operator raft remove-peer{line}"), "", &[]);
            assert_eq!(ran.failed, Some(format!("Error removing peer: {reason}")));
        }
    }

    #[test]
    fn leadership_is_handed_over() {
        let done = r#"{"Success":true}"#;
        let ran = run("lictor operator raft transfer-leader -id=i-2", "", &[(200, done)]);
        assert_eq!(ran.asked, ["POST /v1/operator/raft/transfer-leader?id=i-2"]);
        assert_eq!(ran.out, "Success\n");

        let ran = run(
            "lictor operator raft transfer-leader",
            "",
            &[(500, "cannot find peer")],
        );
        let expected = "Error transfering leadership: Failed to transfer leadership Unexpected response code: 500 (cannot find peer)";
        assert_eq!(ran.failed.as_deref(), Some(expected));
    }
}
