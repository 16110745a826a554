//! The tables that the state consists of, and what keeps their derived tables in step.

use std::sync::Arc;

use lictor_proto::SessionId;
use lictor_proto::v1::{
    CheckRow, KvTtlRow, LockDelayRow, NodeRow, PreparedQueryRow, ServiceRow, SessionRow, TableIndexes,
};

use crate::key::{Key, fold_name};
use crate::line::LineTables;
use crate::row::{Entry, KvRow, Mark};
use crate::tree::{Row, Tree};

/// KV rows and what belongs to them.
#[derive(Clone, Debug, Default)]
pub(crate) struct KvTables {
    pub(crate) rows: Tree<KvRow>,
    /// Deleted key -> index of the delete.
    pub(crate) tombstones: Tree<Mark>,
    /// Prefix of a recursive delete -> its index.
    pub(crate) tree_marks: Tree<Mark>,
    /// (index, kind, key) of all tombstones and tree marks.
    pub(crate) reap: Tree<Mark>,
    /// (session, key) of all held keys.
    pub(crate) held: Tree<Mark>,
    /// Key -> lock-delay.
    pub(crate) lock_delays: Tree<Entry<LockDelayRow>>,
    /// Key -> its TTL.
    pub(crate) ttls: Tree<Entry<KvTtlRow>>,
    /// Who waits for the locks of keys.
    pub(crate) lines: LineTables,
}

/// Sessions by id, by (node, id), and by (node, check, id).
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionTables {
    pub(crate) rows: Tree<Entry<SessionRow>>,
    pub(crate) by_node: Tree<Entry<SessionRow>>,
    pub(crate) by_check: Tree<Mark>,
}

impl SessionTables {
    pub(crate) fn get(&self, id: SessionId) -> Option<&Arc<SessionRow>> {
        self.rows.get(&id.0).map(|entry| &entry.row)
    }

    /// Adds a session; answers the one with the same id that it replaced.
    pub(crate) fn add(&mut self, row: &Arc<SessionRow>) -> Option<Arc<SessionRow>> {
        self.by_node.insert(Entry::new(
            &Key::name(&row.node).and_bytes(&row.id),
            Arc::clone(row),
        ));
        for check in bound_checks(row) {
            self.by_check.insert(Mark::new(&Self::check_key(row, check), 0));
        }
        self.rows
            .insert(Entry::new(&row.id, Arc::clone(row)))
            .map(|entry| entry.row)
    }

    pub(crate) fn remove(&mut self, id: SessionId) -> Option<Arc<SessionRow>> {
        let row = self.rows.remove(&id.0)?.row;
        self.by_node.remove(&Key::name(&row.node).and_bytes(&row.id));
        for check in bound_checks(&row) {
            self.by_check.remove(&Self::check_key(&row, check));
        }
        Some(row)
    }

    /// The sessions of a node.
    pub(crate) fn of_node(&self, node: &str) -> Vec<SessionId> {
        self.by_node
            .prefix(&Key::name(node))
            .filter_map(|entry| SessionId::from_slice(&entry.row.id))
            .collect()
    }

    /// The sessions that are bound to a check.
    pub(crate) fn of_check(&self, node: &str, check: &str) -> Vec<SessionId> {
        let prefix = Key::name(node).and_name(check);
        self.by_check
            .prefix(&prefix)
            .filter_map(|row| SessionId::from_slice(&row.key()[prefix.len()..]))
            .collect()
    }

    fn check_key(row: &SessionRow, check: &str) -> Key {
        Key::name(&row.node).and_name(check).and_bytes(&row.id)
    }
}

/// The ids of all checks that a session depends on, in the order in which they are looked at.
pub(crate) fn bound_checks(row: &SessionRow) -> impl Iterator<Item = &str> {
    let lists = [&row.node_checks, &row.service_checks_legacy, &row.checks];
    let listed = lists.into_iter().flatten().flat_map(|list| &list.items);
    listed
        .chain(row.service_checks.iter().map(|check| &check.id))
        .map(String::as_str)
}

/// Prepared queries by id, by name, and by (session, id).
#[derive(Clone, Debug, Default)]
pub(crate) struct QueryTables {
    pub(crate) rows: Tree<Entry<PreparedQueryRow>>,
    /// By folded name, those of a template that has none included.
    pub(crate) by_name: Tree<Entry<PreparedQueryRow>>,
    pub(crate) by_session: Tree<Mark>,
}

impl QueryTables {
    pub(crate) fn get(&self, id: &[u8]) -> Option<&Arc<PreparedQueryRow>> {
        self.rows.get(id).map(|entry| &entry.row)
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Arc<PreparedQueryRow>> {
        self.by_name.get(&fold_name(name)).map(|entry| &entry.row)
    }

    /// The template with the longest name that `name` begins with.
    pub(crate) fn template_for(&self, name: &str) -> Option<&Arc<PreparedQueryRow>> {
        let name = fold_name(name);
        let mut key = &name[..];
        loop {
            let found = self.by_name.floor(key)?;
            let shared = key.iter().zip(found.key()).take_while(|(a, b)| a == b).count();
            let is_prefix = shared == found.key().len();
            if is_prefix && found.row.is_template {
                return Some(&found.row);
            }
            // No name that `key` begins with is longer than what it shares with the one before it.
            key = &key[..if is_prefix { shared.checked_sub(1)? } else { shared }];
        }
    }

    /// Adds a query; answers the one with the same id that it replaced.
    pub(crate) fn add(&mut self, row: &Arc<PreparedQueryRow>) -> Option<Arc<PreparedQueryRow>> {
        let old = self.remove(&row.id);
        if has_name(row) {
            self.by_name
                .insert(Entry::new(&fold_name(&row.name), Arc::clone(row)));
        }
        if let Some(session) = SessionId::parse(&row.session) {
            let key = Key::session(session).and_bytes(&row.id);
            self.by_session.insert(Mark::new(&key, 0));
        }
        self.rows.insert(Entry::new(&row.id, Arc::clone(row)));
        old
    }

    pub(crate) fn remove(&mut self, id: &[u8]) -> Option<Arc<PreparedQueryRow>> {
        let row = self.rows.remove(id)?.row;
        if has_name(&row) {
            self.by_name.remove(&fold_name(&row.name));
        }
        if let Some(session) = SessionId::parse(&row.session) {
            self.by_session.remove(&Key::session(session).and_bytes(id));
        }
        Some(row)
    }

    /// The ids of the queries that are bound to a session.
    pub(crate) fn of_session(&self, session: SessionId) -> Vec<Vec<u8>> {
        let prefix = Key::session(session);
        let marks = self.by_session.prefix(&prefix);
        marks.map(|mark| mark.key()[prefix.len()..].to_vec()).collect()
    }
}

/// A template answers for a name even if its own is empty.
fn has_name(row: &PreparedQueryRow) -> bool {
    row.is_template || !row.name.is_empty()
}

/// Nodes, services and checks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Catalog {
    /// By name.
    pub(crate) nodes: Tree<Entry<NodeRow>>,
    /// By the node's id, of those that have one.
    pub(crate) nodes_by_id: Tree<Entry<NodeRow>>,
    /// By (node, id).
    pub(crate) services: Tree<Entry<ServiceRow>>,
    /// By (name, node, id).
    pub(crate) services_by_name: Tree<Entry<ServiceRow>>,
    /// By (node, check).
    pub(crate) checks: Tree<Entry<CheckRow>>,
    /// By (node, service id, check), node-level checks under the service id "".
    pub(crate) checks_by_service: Tree<Entry<CheckRow>>,
    /// Service name -> index of the last change of an instance, its checks or its node.
    pub(crate) service_indexes: Tree<Mark>,
    /// Node name -> index of the last change of the node, its services or its checks.
    pub(crate) node_indexes: Tree<Mark>,
}

impl Catalog {
    pub(crate) fn node(&self, name: &str) -> Option<&Arc<NodeRow>> {
        self.nodes.get(&Key::name(name)).map(|entry| &entry.row)
    }

    pub(crate) fn node_by_id(&self, id: &str) -> Option<&Arc<NodeRow>> {
        self.nodes_by_id.get(&Key::name(id)).map(|entry| &entry.row)
    }

    pub(crate) fn service(&self, node: &str, id: &str) -> Option<&Arc<ServiceRow>> {
        self.services
            .get(&Key::name(node).and_name(id))
            .map(|entry| &entry.row)
    }

    pub(crate) fn check(&self, node: &str, id: &str) -> Option<&Arc<CheckRow>> {
        self.checks
            .get(&Key::name(node).and_name(id))
            .map(|entry| &entry.row)
    }

    pub(crate) fn services_of_node(&self, node: &str) -> Vec<Arc<ServiceRow>> {
        below(&self.services, &Key::name(node))
    }

    pub(crate) fn checks_of_node(&self, node: &str) -> Vec<Arc<CheckRow>> {
        below(&self.checks, &Key::name(node))
    }

    pub(crate) fn checks_of_service(&self, node: &str, id: &str) -> Vec<Arc<CheckRow>> {
        below(&self.checks_by_service, &Key::name(node).and_name(id))
    }

    pub(crate) fn has_service(&self, name: &str) -> bool {
        self.services_by_name.prefix(&Key::name(name)).next().is_some()
    }

    /// Puts a node in; answers the one that it replaced.
    pub(crate) fn add_node(&mut self, row: &Arc<NodeRow>) -> Option<Arc<NodeRow>> {
        let old = self
            .nodes
            .insert(Entry::new(&Key::name(&row.node), Arc::clone(row)))
            .map(|entry| entry.row);
        if let Some(old) = old.as_ref().filter(|old| !old.id.is_empty()) {
            self.nodes_by_id.remove(&Key::name(&old.id));
        }
        if !row.id.is_empty() {
            self.nodes_by_id
                .insert(Entry::new(&Key::name(&row.id), Arc::clone(row)));
        }
        old
    }

    pub(crate) fn remove_node(&mut self, name: &str) -> Option<Arc<NodeRow>> {
        let row = self.nodes.remove(&Key::name(name))?.row;
        if !row.id.is_empty() {
            self.nodes_by_id.remove(&Key::name(&row.id));
        }
        Some(row)
    }

    /// Puts a service in; answers the one that it replaced.
    pub(crate) fn add_service(&mut self, row: &Arc<ServiceRow>) -> Option<Arc<ServiceRow>> {
        let key = Key::name(&row.node).and_name(&row.id);
        let old = self
            .services
            .insert(Entry::new(&key, Arc::clone(row)))
            .map(|entry| entry.row);
        if let Some(old) = &old {
            self.services_by_name.remove(&service_key(old));
        }
        self.services_by_name
            .insert(Entry::new(&service_key(row), Arc::clone(row)));
        old
    }

    pub(crate) fn remove_service(&mut self, node: &str, id: &str) -> Option<Arc<ServiceRow>> {
        let row = self.services.remove(&Key::name(node).and_name(id))?.row;
        self.services_by_name.remove(&service_key(&row));
        Some(row)
    }

    /// Puts a check in; answers the one that it replaced.
    pub(crate) fn add_check(&mut self, row: &Arc<CheckRow>) -> Option<Arc<CheckRow>> {
        let key = Key::name(&row.node).and_name(&row.check_id);
        let old = self
            .checks
            .insert(Entry::new(&key, Arc::clone(row)))
            .map(|entry| entry.row);
        if let Some(old) = &old {
            self.checks_by_service.remove(&check_key(old));
        }
        self.checks_by_service
            .insert(Entry::new(&check_key(row), Arc::clone(row)));
        old
    }

    pub(crate) fn remove_check(&mut self, node: &str, id: &str) -> Option<Arc<CheckRow>> {
        let row = self.checks.remove(&Key::name(node).and_name(id))?.row;
        self.checks_by_service.remove(&check_key(&row));
        Some(row)
    }

    /// After a start nobody knows what was removed from a service or node, so that each takes the highest index
    /// of the catalog: later than it was, never earlier.
    pub(crate) fn rebuild_indexes(&mut self, indexes: &TableIndexes) {
        let latest = indexes.nodes.max(indexes.services).max(indexes.checks);
        let names = self
            .services_by_name
            .iter()
            .map(|entry| Key::name(&entry.row.service));
        self.service_indexes = marks(names, latest);
        self.node_indexes = marks(self.nodes.iter().map(|entry| Key::name(&entry.row.node)), latest);
    }
}

fn below<T>(tree: &Tree<Entry<T>>, prefix: &[u8]) -> Vec<Arc<T>> {
    tree.prefix(prefix).map(|entry| Arc::clone(&entry.row)).collect()
}

fn marks(keys: impl Iterator<Item = Key>, index: u64) -> Tree<Mark> {
    let mut tree = Tree::default();
    for key in keys {
        tree.insert(Mark::new(&key, index));
    }
    tree
}

fn service_key(row: &ServiceRow) -> Key {
    Key::name(&row.service).and_name(&row.node).and_name(&row.id)
}

fn check_key(row: &CheckRow) -> Key {
    Key::name(&row.node)
        .and_name(&row.service_id)
        .and_name(&row.check_id)
}
