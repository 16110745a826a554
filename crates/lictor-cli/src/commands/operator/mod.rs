//! `operator`.

mod autopilot;
mod raft;
mod usage;

use super::{Failure, Outcome, Ui};
use crate::args::operator::OperatorCommand;

pub(crate) async fn run(command: OperatorCommand, ui: &mut Ui<'_>) -> Outcome {
    match command {
        OperatorCommand::Autopilot(command) => autopilot::run(command, ui).await,
        OperatorCommand::Raft(command) => raft::run(command, ui).await,
        OperatorCommand::Usage(command) => usage::run(command, ui).await,
    }
}
