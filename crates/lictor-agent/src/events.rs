//! User events: a short memory of what was fired, for whoever lists or waits.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

/// How many events are remembered (Consul: the size of its event buffer).
const EVENTS_MAX: usize = 256;

/// An event as it was fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// A uuid.
    pub id: Uuid,
    /// What clients look for.
    pub name: String,
    /// Any bytes.
    pub payload: Bytes,
    /// A regular expression of node names, empty for all.
    pub node_filter: String,
    /// A regular expression of service names, empty for all.
    pub service_filter: String,
    /// A regular expression of tags, empty for all.
    pub tag_filter: String,
    /// The order of arrival; 0 in the answer to whoever fired it.
    pub ltime: u64,
}

/// The events that reached this agent.
#[derive(Debug)]
pub struct Events {
    received: Mutex<Received>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Received {
    events: VecDeque<Event>,
    ltime: u64,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            received: Mutex::default(),
            changed: watch::channel(0).0,
        }
    }
}

impl Events {
    /// Takes an event in.
    pub fn receive(&self, mut event: Event) {
        let ltime = {
            let mut received = self.received.lock();
            received.ltime += 1;
            event.ltime = received.ltime;
            if received.events.len() == EVENTS_MAX {
                received.events.pop_front();
            }
            received.events.push_back(event);
            received.ltime
        };
        self.changed.send_replace(ltime);
    }

    /// The remembered events of a name, oldest first; all for the empty name.
    pub fn list(&self, name: &str) -> Vec<Event> {
        let received = self.received.lock();
        received
            .events
            .iter()
            .filter(|event| name.is_empty() || event.name == name)
            .cloned()
            .collect()
    }

    /// Resolves with each event that comes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

impl Event {
    /// A number made of the id: what Consul shows as the index of a list whose newest event this is.
    pub fn index(&self) -> u64 {
        let (high, low) = self.id.as_u64_pair();
        (high ^ low).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str) -> Event {
        Event {
            id: Uuid::new_v4(),
            name: name.into(),
            payload: Bytes::new(),
            node_filter: String::new(),
            service_filter: String::new(),
            tag_filter: String::new(),
            ltime: 0,
        }
    }

    #[test]
    fn the_newest_events_are_remembered_in_order() {
        let events = Events::default();
        let watch = events.watch();

        for at in 0..300 {
            events.receive(event(if at % 2 == 0 { "even" } else { "odd" }));
        }

        let all = events.list("");
        assert_eq!(all.len(), EVENTS_MAX);
        assert!(all.is_sorted_by_key(|event| event.ltime));
        assert_eq!(all[0].ltime, 45);
        assert_eq!(events.list("odd").len(), EVENTS_MAX / 2);
        assert!(events.list("none").is_empty());
        assert!(watch.has_changed().unwrap());
    }
}
