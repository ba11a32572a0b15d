//! `tracewire worker -- CMD`: takes rollouts from a server, runs the command once for each, and reports the result.
//!
//! Every rollout taken is accounted for: results that the server does not accept are printed, and the exit code is 1.

mod agent_key;
mod args;
mod environment;
mod jobs;
mod process;
mod report;
mod rewards;
mod shutdown;
mod source;
mod subcommand;
mod task;
mod v03;
mod v10;

pub(super) use args::WorkerArgs;
pub(super) use subcommand::run;
