//! The server behind `lictor agent`.

mod listeners;
mod run;

pub(crate) use run::run;
