use lictor_proto::{LogIndex, Term};
use raft::eraftpb::MessageType;

use crate::core::harness::Cluster;
use crate::{Input, LogPosition, Status};

#[test]
fn a_commit_is_told_in_a_lull_or_with_the_next_entries_and_not_by_itself() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 0..1);
    cluster.sent.clear();
    while !cluster.node(1).core.owes_commit() {
        assert!(cluster.step());
    }
    let commit = cluster.node(1).core.status().commit;
    let tells = |cluster: &Cluster, commit: LogIndex| {
        let appends = cluster.sent(MessageType::MsgAppend);
        appends
            .iter()
            .filter(|message| message.commit == commit.0)
            .count()
    };
    assert_eq!(tells(&cluster, commit), 0);

    cluster.propose(1, 1..2);

    assert_eq!(tells(&cluster, commit), 2);
    assert!(!cluster.node(1).core.owes_commit());
    cluster.settle();
    let commit = cluster.node(1).core.status().commit;
    assert_eq!(tells(&cluster, commit), 2, "in a lull, once to each");
    assert_eq!(cluster.node(3).core.status().commit, commit);
}

#[test]
fn word_of_a_commit_counts_only_where_the_log_holds_that_entry() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 0..1);
    cluster.cut_off.insert(3);
    let before = cluster.node(2).core.status().commit;
    while cluster.node(2).core.status().last == before || cluster.node(1).core.status().commit == before {
        assert!(cluster.step());
    }
    let Status { commit, term, .. } = cluster.node(1).core.status();
    assert_eq!(cluster.node(2).core.status().commit, before);
    let other = Term(term.0 + 1);

    cluster.input(
        2,
        Input::Committed(LogPosition {
            index: commit,
            term: other,
        }),
    );
    assert_eq!(
        cluster.node(2).core.status().commit,
        before,
        "another entry of that index"
    );
    cluster.input(3, Input::Committed(LogPosition { index: commit, term }));
    assert_eq!(
        cluster.node(3).core.status().commit,
        before,
        "it does not have it"
    );

    let next = LogIndex(commit.0 + 1);
    cluster.input(2, Input::Committed(LogPosition { index: next, term }));
    assert_eq!(cluster.node(2).core.status().commit, before, "nor does anybody");
    cluster.cut_off.clear();
    cluster.settle();
    assert_eq!(cluster.node(3).core.status().commit, commit);
}

#[test]
fn word_of_a_commit_that_comes_before_the_entry_is_remembered_until_it_is_there() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 0..1);
    let Status { last, term, .. } = cluster.node(1).core.status();

    cluster.input(2, Input::Committed(LogPosition { index: last, term }));
    while cluster.node(2).core.status().last < last {
        assert!(cluster.step());
    }

    assert_eq!(cluster.node(2).core.status().commit, last);
}
