//! The endpoints, one file per family.

pub(crate) mod acl;
pub(crate) mod kv;
pub(crate) mod session;
pub(crate) mod snapshot;
pub(crate) mod status;
pub(crate) mod txn;
