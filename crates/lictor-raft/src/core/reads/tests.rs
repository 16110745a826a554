use raft::eraftpb::MessageType;

use crate::core::harness::Cluster;
use crate::{Input, ReadId};

#[test]
fn a_leased_round_costs_two_messages_and_is_a_full_one_without_the_lease() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 0..3);
    cluster.settle();
    cluster.tick_until(|cluster| cluster.has_lease(1));
    cluster.settle();
    let commit = cluster.node(1).core.status().commit;
    let heartbeats = |cluster: &Cluster| cluster.sent(MessageType::MsgHeartbeat).len();
    cluster.sent.clear();

    cluster.input(
        2,
        Input::ReadIndex {
            id: ReadId(1),
            leased: true,
        },
    );
    cluster.settle();
    assert_eq!(cluster.node(2).reads, [(ReadId(1), commit)]);
    assert_eq!((cluster.sent.len(), heartbeats(&cluster)), (2, 0));

    cluster.input(
        2,
        Input::ReadIndex {
            id: ReadId(2),
            leased: false,
        },
    );
    cluster.settle();
    assert_eq!(cluster.node(2).reads.len(), 2);
    assert_eq!(heartbeats(&cluster), 2);

    // Its clock goes on, and nobody answers it: the lease runs out.
    cluster.node(1).clock += 100_000;
    cluster.sent.clear();
    cluster.input(
        3,
        Input::ReadIndex {
            id: ReadId(1),
            leased: true,
        },
    );
    cluster.settle();
    assert_eq!(cluster.node(3).reads.len(), 1);
    assert!(heartbeats(&cluster) >= 2);
}
