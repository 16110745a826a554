//! The endpoints, one file per family.

pub(crate) mod acl;
pub(crate) mod agent;
pub(crate) mod catalog;
pub(crate) mod coordinate;
pub(crate) mod demo;
pub(crate) mod event;
pub(crate) mod health;
pub(crate) mod kv;
pub(crate) mod kv_watch;
pub(crate) mod locks;
pub(crate) mod modules;
pub(crate) mod operator;
pub(crate) mod prepared;
mod read_facts;
pub(crate) mod session;
pub(crate) mod snapshot;
pub(crate) mod status;
pub(crate) mod txn;
pub(crate) mod usage;

/// The words for true and false of Go's `strconv.ParseBool`.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}
