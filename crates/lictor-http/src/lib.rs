//! The Consul-compatible HTTP API: sockets, routes, requests, answers and blocking queries.
//!
//! It does not decide anything about data: writes become commands of `lictor-node`, reads are made on a snapshot
//! of `lictor-state`, on the connection's own task, without a hop to another thread.
//!
//! ```text
//! server ── accept, limits ──> conn ── hyper ──> service ── clean, look up, method ──> route
//!                                                   │                                   │
//!                             one key, no waiting ──┘              routes/* ── Ctx ──> handler
//!                                   │                                                   │
//!                                 reply <──── headers, gzip, layout ──── Reply or ApiError
//! ```
//!
//! A blocking query waits in [`blocking`](blocking/index.html) and holds neither hyper's buffers nor a thread.

mod acl;
mod answer;
mod blocking;
mod body;
mod clients;
mod conn;
mod cors;
mod ctx;
mod decode;
mod error;
mod events;
mod extras;
mod filter;
mod framing;
mod glob;
mod head;
mod json;
mod list;
mod metrics;
mod page;
mod path;
mod query;
mod relay;
mod reply;
mod route;
mod routes;
mod rows;
mod scope;
mod server;
mod service;
#[cfg(test)]
mod tests;
mod timed;
mod trace;
mod upstream;
mod wire;
mod workers;

pub use cors::Cors;
pub use ipnet::IpNet;
pub use server::{Api, Handle, Limits, Listener, Monitor, Options, serve};
