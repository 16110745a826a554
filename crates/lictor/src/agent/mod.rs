//! The server behind `lictor agent`.

mod cluster;
mod listeners;
mod run;

pub(crate) use run::run;
