//! Nodes, services and checks.

use std::sync::Arc;

use bytes::Bytes;
use lictor_proto::v1::{self, CheckRow, NodeRow, ServiceRow};

use super::Apply;
use super::session::CRITICAL;
use crate::key::Key;
use crate::row::Mark;
use crate::{ApplyError, Area, Write};

/// The check that says whether a node is alive.
const SERF_HEALTH: &str = "serfHealth";

impl Apply<'_> {
    /// Writes a node, and what the command holds of a service and checks on it.
    pub(super) fn register(&mut self, register: &v1::Register) -> Result<(), ApplyError> {
        let node = register.node.as_ref().ok_or(ApplyError::MissingNode)?;
        let known = self.state.catalog.node(&node.node).is_some();
        if !(known && register.skip_node_update) {
            self.ensure_node(node)?;
        }
        if let Some(service) = &register.service {
            self.ensure_service(service)?;
        }
        register
            .checks
            .iter()
            .try_for_each(|check| self.ensure_check(check))
    }

    /// Removes a check, a service, or a node with all on it; nothing that is not there.
    pub(super) fn deregister(&mut self, deregister: &v1::Deregister) {
        let node = &deregister.node;
        if !deregister.check_id.is_empty() {
            self.delete_check(node, &deregister.check_id);
        } else if !deregister.service_id.is_empty() {
            self.delete_service(node, &deregister.service_id);
        } else {
            self.delete_node(node);
        }
    }

    /// Writes a node. One that comes with the id of a node of another name is that node under a new name: the
    /// old name goes with all that was registered under it.
    pub(super) fn ensure_node(&mut self, row: &NodeRow) -> Result<(), ApplyError> {
        let mut row = row.clone();
        let named = self.state.catalog.node(&row.node).cloned();
        if let Some(named) = &named {
            if row.id.is_empty() {
                row.id.clone_from(&named.id);
            }
            // Only the agent itself says that it is one; others register services on its node.
            if row.client.is_none() {
                row.client.clone_from(&named.client);
            }
            self.check_name_is_free(&row, named)?;
        }
        let same_id = self
            .state
            .catalog
            .node_by_id(&row.id)
            .filter(|_| !row.id.is_empty())
            .cloned();
        let renamed = same_id.filter(|old| !same_name(&old.node, &row.node));
        if let Some(old) = &renamed {
            self.delete_node(&old.node);
        }
        let old = named.or(renamed);
        row.create_index = old.as_ref().map_or(self.index, |old| old.create_index);
        row.modify_index = self.index;
        if old.is_some_and(|old| {
            *old == NodeRow {
                modify_index: old.modify_index,
                ..row.clone()
            }
        }) {
            return Ok(());
        }
        let row = Arc::new(row);
        self.state.catalog.add_node(&row);
        self.node_changed(&row.node);
        self.touch_services_of(&row.node);
        self.write(Write::Node(row));
        Ok(())
    }

    /// A name belongs to the id that it was registered with, as long as that node is alive.
    fn check_name_is_free(&self, row: &NodeRow, named: &NodeRow) -> Result<(), ApplyError> {
        if named.id.is_empty() || named.id.eq_ignore_ascii_case(&row.id) {
            return Ok(());
        }
        let alive = self
            .state
            .catalog
            .check(&named.node, SERF_HEALTH)
            .is_some_and(|c| c.status != CRITICAL);
        if !alive {
            return Ok(());
        }
        let (name, holder, address) = (&row.node, &named.id, &named.address);
        Err(ApplyError::Other(format!(
            "failed inserting node: Node name {name} is reserved by node {holder} with name {} ({address})",
            named.node
        )))
    }

    /// Writes a service on a registered node.
    pub(super) fn ensure_service(&mut self, row: &ServiceRow) -> Result<(), ApplyError> {
        let node = self
            .state
            .catalog
            .node(&row.node)
            .ok_or(ApplyError::MissingNode)?;
        let mut row = ServiceRow {
            node: node.node.clone(),
            ..row.clone()
        };
        let old = self.state.catalog.service(&row.node, &row.id).cloned();
        row.create_index = old.as_ref().map_or(self.index, |old| old.create_index);
        row.modify_index = self.index;
        if let Some(old) = &old {
            if **old
                == (ServiceRow {
                    modify_index: old.modify_index,
                    ..row.clone()
                })
            {
                return Ok(());
            }
            self.touch_name(Area::Service, &old.service);
        }
        let row = Arc::new(row);
        self.state.catalog.add_service(&row);
        self.service_changed(&row);
        self.write(Write::Service(row));
        Ok(())
    }

    /// Writes a check on a registered node, and ends the sessions that depend on it if it is critical.
    pub(super) fn ensure_check(&mut self, row: &CheckRow) -> Result<(), ApplyError> {
        let catalog = &self.state.catalog;
        let node = catalog.node(&row.node).ok_or(ApplyError::MissingNode)?;
        let mut row = CheckRow {
            node: node.node.clone(),
            ..row.clone()
        };
        if row.status.is_empty() {
            CRITICAL.clone_into(&mut row.status);
        }
        if row.service_id.is_empty() {
            row.service_name.clear();
            row.service_tags.clear();
        } else {
            let service = catalog.service(&row.node, &row.service_id).ok_or_else(|| {
                let (service, check) = (&row.service_id, &row.check_id);
                ApplyError::Other(format!("Unknown service ID '{service}' for check ID '{check}'"))
            })?;
            row.service_name.clone_from(&service.service);
            row.service_tags.clone_from(&service.tags);
        }
        let old = catalog.check(&row.node, &row.check_id).cloned();
        row.create_index = old.as_ref().map_or(self.index, |old| old.create_index);
        row.modify_index = self.index;
        if let Some(old) = &old {
            if **old
                == (CheckRow {
                    modify_index: old.modify_index,
                    ..row.clone()
                })
            {
                return Ok(());
            }
            self.check_changed(old);
        }
        let row = Arc::new(row);
        self.state.catalog.add_check(&row);
        self.check_changed(&row);
        if row.status == CRITICAL {
            self.end_sessions_of_check(&row.node, &row.check_id);
        }
        self.write(Write::Check(row));
        Ok(())
    }

    /// Removes a node with its services and checks, and ends its sessions.
    pub(super) fn delete_node(&mut self, node: &str) {
        let Some(row) = self.state.catalog.node(node).cloned() else {
            return;
        };
        for service in self.state.catalog.services_of_node(node) {
            self.delete_service(node, &service.id);
        }
        for check in self.state.catalog.checks_of_node(node) {
            self.delete_check(node, &check.check_id);
        }
        self.end_sessions_of_node(node);
        self.state.catalog.remove_node(node);
        self.node_changed(&row.node);
        self.write(Write::NodeGone(row.node.clone()));
    }

    /// Removes a service with its checks.
    pub(super) fn delete_service(&mut self, node: &str, id: &str) {
        for check in self.state.catalog.checks_of_service(node, id) {
            self.delete_check(node, &check.check_id);
        }
        if let Some(row) = self.state.catalog.remove_service(node, id) {
            self.service_changed(&row);
            self.write(Write::ServiceGone(row.node.clone(), row.id.clone()));
        }
    }

    /// Removes a check and ends the sessions that depend on it.
    pub(super) fn delete_check(&mut self, node: &str, id: &str) {
        if let Some(row) = self.state.catalog.remove_check(node, id) {
            self.check_changed(&row);
            self.write(Write::CheckGone(row.node.clone(), row.check_id.clone()));
            self.end_sessions_of_check(node, id);
        }
    }

    fn node_changed(&mut self, node: &str) {
        self.state.indexes.nodes = self.index;
        self.touch_name(Area::Node, node);
        self.touch(Area::Nodes, Bytes::new());
    }

    fn service_changed(&mut self, row: &ServiceRow) {
        self.state.indexes.services = self.index;
        self.touch_name(Area::Node, &row.node);
        self.touch_name(Area::Service, &row.service);
        self.touch(Area::Services, Bytes::new());
    }

    /// A check of a service concerns that service, a check of the node all services on it.
    fn check_changed(&mut self, row: &CheckRow) {
        self.state.indexes.checks = self.index;
        self.touch_name(Area::Node, &row.node);
        self.touch(Area::Checks, Bytes::new());
        if row.service_id.is_empty() {
            self.touch_services_of(&row.node);
        } else {
            self.touch_name(Area::Service, &row.service_name);
        }
    }

    fn touch_services_of(&mut self, node: &str) {
        for service in self.state.catalog.services_of_node(node) {
            self.touch_name(Area::Service, &service.service);
        }
    }

    /// Raises the index of a service, or forgets it with its last instance: the table's index is as high.
    pub(super) fn raise_service(&mut self, folded: &[u8]) {
        let name = String::from_utf8_lossy(folded);
        let key = Key::name(&name);
        if self.state.catalog.has_service(&name) {
            self.state
                .catalog
                .service_indexes
                .insert(Mark::new(&key, self.index));
        } else {
            self.state.catalog.service_indexes.remove(&key);
        }
    }

    /// Raises the index of a node, or forgets it with the node.
    pub(super) fn raise_node(&mut self, folded: &[u8]) {
        let name = String::from_utf8_lossy(folded);
        let key = Key::name(&name);
        if self.state.catalog.node(&name).is_some() {
            self.state
                .catalog
                .node_indexes
                .insert(Mark::new(&key, self.index));
        } else {
            self.state.catalog.node_indexes.remove(&key);
        }
    }
}

fn same_name(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}
