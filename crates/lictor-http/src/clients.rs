//! Counts connections per client address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// How many connections each address has. Addresses without any are not kept.
#[derive(Debug)]
pub(crate) struct Clients {
    /// 0 means no limit.
    limit: u32,
    /// Held for one update of a counter.
    open: Mutex<HashMap<IpAddr, u32>>,
}

/// One counted connection; dropping it frees its place.
#[derive(Debug)]
pub(crate) struct Slot {
    clients: Arc<Clients>,
    address: IpAddr,
}

impl Clients {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            limit,
            open: Mutex::new(HashMap::new()),
        }
    }

    /// A place for one more connection; `None` at the limit.
    pub(crate) fn enter(clients: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        if clients.limit != 0 {
            let mut open = clients.open.lock();
            let count = open.entry(address).or_insert(0);
            if *count >= clients.limit {
                return None;
            }
            *count += 1;
        }
        Some(Slot {
            clients: Arc::clone(clients),
            address,
        })
    }
}

impl Slot {
    /// Whose connection it is.
    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.clients.limit == 0 {
            return;
        }
        let mut open = self.clients.open.lock();
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_limit_and_closing_frees_a_place() {
        let clients = Arc::new(Clients::new(2));
        let [a, b] = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2])];

        let first = Clients::enter(&clients, a).unwrap();
        let _second = Clients::enter(&clients, a).unwrap();

        assert!(Clients::enter(&clients, a).is_none());
        assert!(Clients::enter(&clients, b).is_some());
        drop(first);
        assert!(Clients::enter(&clients, a).is_some());
        assert_eq!(clients.open.lock().len(), 1);
    }

    #[test]
    fn a_limit_of_zero_is_none() {
        let clients = Arc::new(Clients::new(0));
        let slots: Vec<_> = (0..1000)
            .map(|_| Clients::enter(&clients, IpAddr::from([127, 0, 0, 1])))
            .collect();

        assert!(slots.iter().all(Option::is_some));
    }
}
