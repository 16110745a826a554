//! Fair queues, lines for the locks of keys, and TTLs of keys: order, one holder, nothing before its time.
//!
//! Times are the observer's, in milliseconds, while servers' clocks run up to [`DRIFT_PERCENT`](super::locks::DRIFT_PERCENT)
//! off.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::locks::at_least;
use super::{Breach, Checked, ensure};

/// What is known of queues and of keys with a TTL.
#[derive(Debug, Default)]
pub struct Queues {
    /// Those who stand there, the holders of fair locks included: by name and place.
    standing: BTreeMap<Bytes, BTreeMap<u64, Place>>,
    /// Leases that clients rely on, by place.
    leases: BTreeMap<u64, Lease>,
    /// Of each line the entry that gave the lock last, and to whom.
    last: BTreeMap<Bytes, (u64, String)>,
    /// By key: when its TTL was set, and how long it is.
    ttls: BTreeMap<Bytes, (u64, u64)>,
}

#[derive(Debug)]
struct Place {
    /// Who gets the lock; "" for a place of a fair lock.
    session: String,
    holds: bool,
}

#[derive(Debug, Default)]
struct Lease {
    good_until: u64,
    /// Its client has asked for its end.
    is_given_up: bool,
    /// When it left its queue.
    gone: Option<u64>,
}

impl Queues {
    /// An entry came into a queue or line. `session` gets the lock of a line.
    ///
    /// # Errors
    /// If it came before one that stands there.
    pub fn entered(&mut self, name: &Bytes, place: u64, session: &str) -> Checked {
        let line = self.standing.entry(name.clone()).or_default();
        let last = line.last_key_value().map(|(place, _)| *place);
        let (session, holds) = (session.to_owned(), false);
        line.insert(place, Place { session, holds });
        ensure(last.is_none_or(|last| last < place), || {
            format!("{place} came to {name:?} before {last:?}")
        })
    }

    /// Whether an entry is known to stand there.
    pub fn stands(&self, name: &Bytes, place: u64) -> bool {
        self.standing
            .get(name)
            .is_some_and(|line| line.contains_key(&place))
    }

    /// An entry of a fair queue was given the lock.
    ///
    /// # Errors
    /// If it is not the first.
    pub fn holds(&mut self, name: &Bytes, place: u64) -> Checked {
        let line = self.standing.entry(name.clone()).or_default();
        let first = line.first_key_value().map(|(first, _)| *first);
        let was_first = first == Some(place);
        if let Some(entry) = line.get_mut(&place) {
            entry.holds = true;
        }
        let holders = line.values().filter(|entry| entry.holds).count();
        ensure(was_first && holders == 1, || {
            format!("{place} holds {name:?}, {first:?} is the first, {holders} hold it")
        })
    }

    /// A place in the line for a key's lock was given it, by the entry at `index`.
    ///
    /// # Errors
    /// If others come before, but for places of the session that was just given it.
    pub fn granted(&mut self, name: &Bytes, place: u64, index: u64) -> Checked {
        let line = self.standing.entry(name.clone()).or_default();
        let first = line.first_key_value().map(|(first, _)| *first);
        let Some(session) = line.get(&place).map(|entry| entry.session.clone()) else {
            return Err(Breach(format!("{place} got {name:?}, but does not stand there")));
        };
        let now = (index, session);
        let is_same = self.last.get(name) == Some(&now);
        self.last.insert(name.clone(), now);
        ensure(first == Some(place) || is_same, || {
            format!("{place} got {name:?} before {first:?}")
        })
    }

    /// A lock that was free was taken by somebody who does not stand in line.
    ///
    /// # Errors
    /// If others do.
    pub fn taken_past(&self, name: &Bytes) -> Checked {
        let line = self.standing.get(name).filter(|line| !line.is_empty());
        ensure(line.is_none(), || {
            format!("{name:?} was taken past {line:?}, who stand in line")
        })
    }

    /// An entry left its queue.
    ///
    /// # Errors
    /// If its client still relies on it.
    pub fn gone(&mut self, place: u64, now: u64) -> Checked {
        for line in self.standing.values_mut() {
            line.remove(&place);
        }
        let lease = self.leases.entry(place).or_default();
        lease.gone.get_or_insert(now);
        lease.check(place)
    }

    /// A renewal of `ttl_ms`, sent at `sent`, was acknowledged.
    ///
    /// # Errors
    /// If the entry was taken out too early.
    pub fn renewed(&mut self, place: u64, ttl_ms: u64, sent: u64) -> Checked {
        let lease = self.leases.entry(place).or_default();
        lease.good_until = lease.good_until.max(sent + at_least(ttl_ms));
        lease.check(place)
    }

    /// Its client relies on no renewal so far.
    pub fn forgotten(&mut self, place: u64) {
        self.leases.entry(place).or_default().good_until = 0;
    }

    /// Its client asks for its end.
    pub fn given_up(&mut self, place: u64) {
        self.leases.entry(place).or_default().is_given_up = true;
    }

    /// A key was written with a TTL.
    pub fn ttl_set(&mut self, key: &Bytes, ttl_ms: u64, now: u64) {
        self.ttls.insert(key.clone(), (now, ttl_ms));
    }

    /// A key was deleted because its TTL was over.
    ///
    /// # Errors
    /// If it was not.
    pub fn ttl_over(&mut self, key: &Bytes, now: u64) -> Checked {
        let set = self.ttls.remove(key);
        let early = set.is_none_or(|(set, ttl_ms)| now < set + at_least(ttl_ms));
        ensure(!early, || format!("{key:?} went at {now}, its TTL is {set:?}"))
    }
}

impl Lease {
    fn check(&self, place: u64) -> Checked {
        match self.gone {
            Some(gone) if !self.is_given_up && gone < self.good_until => Err(Breach(format!(
                "{place} was taken out at {gone}, its client relies on it until {}",
                self.good_until
            ))),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> Bytes {
        Bytes::from_static(b"n")
    }

    fn line(places: &[(u64, &str)]) -> Queues {
        let mut queues = Queues::default();
        for (place, session) in places {
            queues.entered(&name(), *place, session).unwrap();
        }
        queues
    }

    #[test]
    fn whoever_comes_before_another_is_seen() {
        assert!(line(&[(5, "")]).entered(&name(), 4, "").is_err());
        assert_eq!(line(&[(5, "")]).entered(&name(), 6, ""), Ok(()));
    }

    #[test]
    fn a_fair_lock_that_passes_somebody_over_is_seen() {
        assert!(line(&[(5, ""), (6, "")]).holds(&name(), 6).is_err());
        assert_eq!(line(&[(5, ""), (6, "")]).holds(&name(), 5), Ok(()));
    }

    #[test]
    fn two_holders_of_a_fair_lock_are_seen() {
        let mut queues = line(&[(5, ""), (6, "")]);
        queues.holds(&name(), 5).unwrap();

        assert!(queues.holds(&name(), 6).is_err());
        queues.gone(5, 0).unwrap();
        assert_eq!(queues.holds(&name(), 6), Ok(()));
    }

    #[test]
    fn a_line_that_is_not_served_in_order_is_seen() {
        let places = [(5, "a"), (6, "b"), (7, "a"), (8, "c")];

        assert!(line(&places).granted(&name(), 6, 20).is_err());
        let mut queues = line(&places);
        assert_eq!(queues.granted(&name(), 5, 20), Ok(()));
        assert_eq!(queues.gone(5, 0), Ok(()));
        assert_eq!(queues.granted(&name(), 7, 20), Ok(()), "the same session's");
        queues.gone(7, 0).unwrap();
        assert!(queues.granted(&name(), 8, 21).is_err());
        assert!(queues.granted(&name(), 5, 22).is_err(), "it is gone");
    }

    #[test]
    fn a_lock_that_was_taken_past_the_line_is_seen() {
        let mut queues = line(&[(5, "a")]);
        assert!(queues.taken_past(&name()).is_err());

        queues.gone(5, 0).unwrap();

        assert_eq!(queues.taken_past(&name()), Ok(()));
    }

    #[test]
    fn an_entry_that_lapses_early_is_seen_even_if_its_renewal_is_acknowledged_later() {
        let lapsed = |gone| {
            let mut queues = line(&[(5, "")]);
            queues.renewed(5, 1050, 100).unwrap();
            queues.gone(5, gone)
        };
        assert!(lapsed(1099).is_err());
        assert_eq!(lapsed(1100), Ok(()));
        let mut late = line(&[(5, "")]);
        late.gone(5, 500).unwrap();
        assert!(late.renewed(5, 1050, 100).is_err());

        let mut shortened = line(&[(5, "")]);
        shortened.renewed(5, 1050, 100).unwrap();
        shortened.forgotten(5);
        assert_eq!(shortened.gone(5, 200), Ok(()));
        let mut released = line(&[(5, "")]);
        released.renewed(5, 1050, 100).unwrap();
        released.given_up(5);
        assert_eq!(released.gone(5, 200), Ok(()));
    }

    #[test]
    fn a_key_that_goes_before_its_ttl_is_seen() {
        let gone = |now| {
            let mut queues = Queues::default();
            queues.ttl_set(&name(), 10, 0);
            queues.ttl_set(&name(), 1050, 100);
            queues.ttl_over(&name(), now)
        };

        assert!(gone(1099).is_err(), "the later write counts");
        assert_eq!(gone(1100), Ok(()));
        assert!(Queues::default().ttl_over(&name(), 9_999).is_err(), "it has none");
    }
}
