//! Consensus: one leader a term, logs that match, states that agree, leases that exclude.

use std::collections::BTreeMap;

use lictor_proto::{LogIndex, Term};

use super::{Breach, Checked, ensure};

/// What all members have shown so far.
#[derive(Debug, Default)]
pub struct Raft {
    leaders: BTreeMap<Term, u64>,
    /// By place and term: the entry's digest and the term of the one before it, where that was seen.
    entries: BTreeMap<(LogIndex, Term), (u32, Option<Term>)>,
    /// What was applied at each place, and what it did: term, digest of the entry, digest of its writes.
    applied: BTreeMap<LogIndex, (Term, u32, u32)>,
    states: BTreeMap<LogIndex, [u8; 32]>,
}

impl Raft {
    /// Election safety.
    ///
    /// # Errors
    /// If another member led in that term.
    pub fn leads(&mut self, member: u64, term: Term) -> Checked {
        let first = *self.leaders.entry(term).or_insert(member);
        ensure(first == member, || {
            format!("two leaders in term {term}: {first} and {member}")
        })
    }

    /// Log matching: entries of one place and term are equal, and follow equal ones.
    ///
    /// # Errors
    /// If another log holds something else.
    pub fn appends(
        &mut self,
        member: u64,
        at: (LogIndex, Term),
        digest: u32,
        before: Option<Term>,
    ) -> Checked {
        let known = self.entries.entry(at).or_insert((digest, before));
        ensure(known.0 == digest, || {
            format!("entry {} of term {} differs on {member}", at.0, at.1)
        })?;
        if let (Some(known), Some(before)) = (known.1, before)
            && known != before
        {
            let (index, term) = at;
            return Err(Breach(format!(
                "entry {index} of term {term} follows term {before} on {member} and term {known} elsewhere"
            )));
        }
        known.1 = known.1.or(before);
        Ok(())
    }

    /// State-machine safety: one entry a place, and one effect.
    ///
    /// # Errors
    /// If another member applied something else there, or it did something else.
    pub fn applies(
        &mut self,
        member: u64,
        index: LogIndex,
        entry: (Term, u32),
        writes: u32,
    ) -> Result<bool, Breach> {
        let now = (entry.0, entry.1, writes);
        let is_first = !self.applied.contains_key(&index);
        let first = *self.applied.entry(index).or_insert(now);
        ensure((first.0, first.1) == entry, || {
            format!("{member} applied another entry at {index}")
        })?;
        ensure(first == now, || {
            format!("entry {index} did something else on {member}")
        })?;
        Ok(is_first)
    }

    /// Equal states at equal places.
    ///
    /// # Errors
    /// If another member's state was different there.
    pub fn state(&mut self, member: u64, index: LogIndex, digest: [u8; 32]) -> Checked {
        let first = *self.states.entry(index).or_insert(digest);
        ensure(first == digest, || {
            format!("the state of {member} differs at {index}")
        })
    }

    /// Nobody leads in a later term than a member that has a lease. Takes of each member its number, its term, whether
    /// it leads and whether it has a lease.
    ///
    /// # Errors
    /// If somebody does.
    pub fn leases(members: &[(u64, Term, bool, bool)]) -> Checked {
        for &(holder, term, _, _) in members.iter().filter(|member| member.3) {
            let rival = members
                .iter()
                .find(|&&(id, later, leads, _)| id != holder && leads && later > term);
            if let Some((rival, later, _, _)) = rival {
                let text = format!("{holder} has a lease in term {term}, but {rival} leads in term {later}");
                return Err(Breach(text));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_leaders_in_a_term_are_seen() {
        let mut raft = Raft::default();

        assert_eq!(raft.leads(1, Term(4)), Ok(()));
        assert_eq!(raft.leads(1, Term(4)), Ok(()));
        assert!(raft.leads(2, Term(4)).is_err());
    }

    #[test]
    fn logs_that_do_not_match_are_seen() {
        let mut raft = Raft::default();
        let at = (LogIndex(7), Term(3));
        assert_eq!(raft.appends(1, at, 11, None), Ok(()));
        assert_eq!(raft.appends(2, at, 11, Some(Term(2))), Ok(()));

        assert!(raft.appends(3, at, 12, None).is_err());
        assert!(raft.appends(3, at, 11, Some(Term(1))).is_err());
    }

    #[test]
    fn members_that_apply_different_things_are_seen() {
        let mut raft = Raft::default();
        let entry = (Term(3), 5);
        assert_eq!(raft.applies(1, LogIndex(7), entry, 1), Ok(true));
        assert_eq!(raft.applies(2, LogIndex(7), entry, 1), Ok(false));

        assert!(raft.applies(3, LogIndex(7), (Term(3), 6), 1).is_err());
        assert!(raft.applies(3, LogIndex(7), (Term(4), 5), 1).is_err());
        assert!(raft.applies(3, LogIndex(7), entry, 2).is_err());
    }

    #[test]
    fn states_that_differ_are_seen() {
        let mut raft = Raft::default();
        assert_eq!(raft.state(1, LogIndex(7), [1; 32]), Ok(()));

        assert!(raft.state(2, LogIndex(7), [2; 32]).is_err());
    }

    #[test]
    fn a_lease_beside_a_later_leader_is_seen() {
        let old = (1, Term(3), true, true);

        assert_eq!(Raft::leases(&[old, (2, Term(3), false, false)]), Ok(()));
        assert!(Raft::leases(&[old, (2, Term(4), true, false)]).is_err());
    }
}
