//! The one place that every request passes before it touches a resource.
//!
//! Access control lists are off in this release, so the hook lets everything pass; handlers ask it all the same,
//! so that policies can be put behind it without touching them.

use crate::error::ApiError;

/// What a request wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// What a request wants to do it to.
#[derive(Debug, Clone, Copy)]
#[expect(
    dead_code,
    reason = "the names are read, and the rest of the kinds used, once policies exist"
)]
pub(crate) enum Resource<'a> {
    Key(&'a [u8]),
    /// Everything below a prefix.
    KeyPrefix(&'a [u8]),
    /// The sessions of a node.
    Session(&'a str),
    Node(&'a str),
    Service(&'a str),
    /// The agent of a node.
    Agent(&'a str),
    Event(&'a str),
    /// Prepared queries of a name.
    Query(&'a str),
    Operator,
    Acl,
}

/// Decides who may do what.
#[derive(Debug, Default)]
pub(crate) struct Acl {}

impl Acl {
    /// Whether tokens mean anything. Without it a request's token is not even read.
    #[expect(
        clippy::unused_self,
        reason = "the answer comes from the configuration once policies exist"
    )]
    pub(crate) fn is_enabled(&self) -> bool {
        false
    }

    /// Refuses what the token does not allow.
    ///
    /// # Errors
    /// The 403 that the client gets.
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "everything is allowed while lists are off"
    )]
    pub(crate) fn authorize(
        &self,
        token: Option<&str>,
        resource: Resource<'_>,
        access: Access,
    ) -> Result<(), ApiError> {
        let _ = (token, resource, access);
        Ok(())
    }
}
