//! The server behind `lictor agent`.

mod cluster;
mod demo;
mod listeners;
mod run;

pub(crate) use run::{DEFINITIONS, run};
