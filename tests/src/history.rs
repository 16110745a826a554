//! What a client was told, and what it may therefore find after a crash.
//!
//! Each client owns its keys and sessions and sends one request at a time, so at a crash at most one [`Effect`] is
//! undecided. Afterwards the store must show exactly what was acknowledged, with that effect wholly in or wholly
//! out. Locks and counters that clients share have checks of their own: [`Claim::check`] and [`check_counter`].

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail, ensure};

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Value.
    pub value: String,
    /// The session that holds the key.
    pub session: Option<String>,
}

/// A client's part of the store, by key.
pub type Rows = BTreeMap<String, Row>;

/// All that one request changes: together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Effect {
    /// Keys with what they hold afterwards; `None` if they are gone.
    pub rows: Vec<(String, Option<Row>)>,
    /// A session is created, under an id that only the answer tells.
    pub creates_session: bool,
    /// The session that ends.
    pub destroys_session: Option<String>,
}

/// One client's view.
#[derive(Debug, Clone, Default)]
pub struct History {
    rows: Rows,
    sessions: BTreeSet<String>,
    undecided: Option<Effect>,
}

impl History {
    /// What is known to be stored.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The sessions known to live.
    pub fn sessions(&self) -> &BTreeSet<String> {
        &self.sessions
    }

    /// A request with this effect is about to be sent.
    pub fn begin(&mut self, effect: Effect) {
        debug_assert!(self.undecided.is_none(), "one request at a time");
        self.undecided = Some(effect);
    }

    /// The request was answered: its effect counts, and the session it created has this id.
    pub fn acknowledged(&mut self, created: Option<String>) {
        if let Some(effect) = self.undecided.take() {
            apply(&effect, &mut self.rows, &mut self.sessions);
            self.sessions.extend(created);
        }
    }

    /// The request was refused for good: its effect must never be seen.
    pub fn refused(&mut self) {
        self.undecided = None;
    }

    /// Compares with what is stored after a crash, and goes on from there.
    ///
    /// # Errors
    /// When something acknowledged is missing, something refused is there, or an effect is there in part.
    pub fn settle(&mut self, rows: &Rows, sessions: &BTreeSet<String>) -> Result<()> {
        if *rows == self.rows && *sessions == self.sessions {
            self.undecided = None;
            return Ok(());
        }
        let undecided = self.undecided.take();
        if let Some(effect) = &undecided {
            let (mut with_rows, mut with_sessions) = (self.rows.clone(), self.sessions.clone());
            apply(effect, &mut with_rows, &mut with_sessions);
            if effect.creates_session {
                let new: Vec<&String> = sessions.difference(&with_sessions).collect();
                if let [id] = new[..] {
                    with_sessions.insert(id.clone());
                }
            }
            if *rows == with_rows && *sessions == with_sessions {
                (self.rows, self.sessions) = (with_rows, with_sessions);
                return Ok(());
            }
        }
        bail!(
            "stored: {}\nsessions missing {:?}, not asked for {:?}\nundecided: {undecided:?}",
            differences(&self.rows, rows),
            self.sessions.difference(sessions).collect::<Vec<_>>(),
            sessions.difference(&self.sessions).collect::<Vec<_>>(),
        )
    }
}

fn apply(effect: &Effect, rows: &mut Rows, sessions: &mut BTreeSet<String>) {
    for (key, row) in &effect.rows {
        match row {
            Some(row) => rows.insert(key.clone(), row.clone()),
            None => rows.remove(key),
        };
    }
    if let Some(id) = &effect.destroys_session {
        sessions.remove(id);
    }
}

fn differences(expected: &Rows, found: &Rows) -> String {
    let keys: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let lines: Vec<String> = keys
        .into_iter()
        .filter(|&key| expected.get(key) != found.get(key))
        .map(|key| {
            format!(
                "{key}: expected {:?}, found {:?}",
                expected.get(key),
                found.get(key)
            )
        })
        .collect();
    lines.join("; ")
}

/// What a client may say about a lock that it shares with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Its last release was acknowledged, or it never had the lock.
    None,
    /// Its acquisition was acknowledged and no release was sent.
    Held,
    /// An acquisition or a release is undecided.
    Undecided,
}

impl Claim {
    /// Compares all clients' claims, by their session, with who holds the lock.
    ///
    /// # Errors
    /// When two clients were told that they hold it, when one was and does not, or when somebody does who was not.
    pub fn check(claims: &[(String, Self)], holder: Option<&str>) -> Result<()> {
        let held: Vec<&str> = claims
            .iter()
            .filter(|(_, claim)| *claim == Self::Held)
            .map(|(id, _)| id.as_str())
            .collect();
        ensure!(
            held.len() <= 1,
            "several were told that they hold the lock: {held:?}"
        );
        if let Some(&id) = held.first() {
            ensure!(
                holder == Some(id),
                "{id} was told that it holds the lock, but the holder is {holder:?}"
            );
        } else if let Some(holder) = holder {
            let may = claims
                .iter()
                .any(|(id, claim)| id == holder && *claim == Self::Undecided);
            ensure!(may, "{holder} holds the lock, but has released it or never asked");
        }
        Ok(())
    }
}

/// Compares a counter that several clients raised by `cas` with what they were told.
///
/// # Errors
/// When an acknowledged step is missing or one that was refused counts.
pub fn check_counter(value: u64, acknowledged: u64, undecided: u64) -> Result<()> {
    let may = acknowledged..=acknowledged + undecided;
    ensure!(
        may.contains(&value),
        "the counter is at {value}, but {may:?} were its steps"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: &str) -> Row {
        Row {
            value: value.to_owned(),
            session: None,
        }
    }

    fn sets(pairs: &[(&str, &str)]) -> Effect {
        let rows = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Some(row(value))))
            .collect();
        Effect {
            rows,
            ..Effect::default()
        }
    }

    fn stored(pairs: &[(&str, &str)]) -> Rows {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), row(value)))
            .collect()
    }

    fn ids(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    /// Two acknowledged writes, then one of two keys at once that is undecided.
    fn history() -> History {
        let mut history = History::default();
        history.begin(sets(&[("a", "1")]));
        history.acknowledged(None);
        history.begin(sets(&[("b", "1")]));
        history.acknowledged(None);
        history.begin(sets(&[("a", "2"), ("b", "2")]));
        history
    }

    #[test]
    fn an_undecided_effect_may_be_there_or_not() {
        assert!(
            history()
                .settle(&stored(&[("a", "1"), ("b", "1")]), &ids(&[]))
                .is_ok()
        );
        assert!(
            history()
                .settle(&stored(&[("a", "2"), ("b", "2")]), &ids(&[]))
                .is_ok()
        );
    }

    #[test]
    fn half_an_effect_is_a_complaint() {
        assert!(
            history()
                .settle(&stored(&[("a", "2"), ("b", "1")]), &ids(&[]))
                .is_err()
        );
    }

    #[test]
    fn a_lost_write_is_a_complaint() {
        assert!(history().settle(&stored(&[("a", "1")]), &ids(&[])).is_err());
    }

    #[test]
    fn a_refused_write_that_shows_is_a_complaint() {
        let mut history = history();
        history.refused();

        assert!(
            history
                .settle(&stored(&[("a", "2"), ("b", "2")]), &ids(&[]))
                .is_err()
        );
    }

    #[test]
    fn what_was_settled_holds_from_then_on() {
        let mut history = history();
        history
            .settle(&stored(&[("a", "2"), ("b", "2")]), &ids(&[]))
            .unwrap();

        assert!(
            history
                .settle(&stored(&[("a", "1"), ("b", "1")]), &ids(&[]))
                .is_err()
        );
    }

    #[test]
    fn sessions_follow_the_same_rules() {
        let mut history = History::default();
        history.begin(Effect {
            creates_session: true,
            ..Effect::default()
        });
        history.acknowledged(Some("s".to_owned()));
        assert!(
            history.clone().settle(&Rows::new(), &ids(&[])).is_err(),
            "an acknowledged session is lost"
        );
        assert!(
            history.clone().settle(&Rows::new(), &ids(&["s", "t"])).is_err(),
            "a session nobody asked for"
        );

        history.begin(Effect {
            creates_session: true,
            ..Effect::default()
        });
        assert!(
            history.clone().settle(&Rows::new(), &ids(&["s", "t"])).is_ok(),
            "the undecided one"
        );

        history.acknowledged(Some("t".to_owned()));
        history.begin(Effect {
            destroys_session: Some("s".to_owned()),
            ..Effect::default()
        });
        history.acknowledged(None);
        assert!(
            history.settle(&Rows::new(), &ids(&["s", "t"])).is_err(),
            "a session came back"
        );
    }

    #[test]
    fn claims_are_compared_with_the_holder() {
        let claims = |a, b| [("a".to_owned(), a), ("b".to_owned(), b)];

        assert!(Claim::check(&claims(Claim::Held, Claim::None), Some("a")).is_ok());
        assert!(Claim::check(&claims(Claim::None, Claim::Undecided), Some("b")).is_ok());
        assert!(Claim::check(&claims(Claim::None, Claim::Undecided), None).is_ok());
        assert!(
            Claim::check(&claims(Claim::Held, Claim::None), None).is_err(),
            "an acknowledged lock is lost"
        );
        assert!(
            Claim::check(&claims(Claim::Held, Claim::Undecided), Some("b")).is_err(),
            "it passed to another"
        );
        assert!(
            Claim::check(&claims(Claim::Held, Claim::Held), Some("a")).is_err(),
            "two leaders"
        );
        assert!(
            Claim::check(&claims(Claim::None, Claim::None), Some("a")).is_err(),
            "a released lock is back"
        );
    }

    #[test]
    fn a_counter_may_only_count_steps_that_were_asked_for() {
        assert!(check_counter(5, 5, 0).is_ok());
        assert!(check_counter(6, 5, 1).is_ok());
        assert!(check_counter(4, 5, 1).is_err());
        assert!(check_counter(7, 5, 1).is_err());
    }
}
