//! The server behind `lictor agent`.

mod run;

pub(crate) use run::run;
