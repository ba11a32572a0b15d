//! `tracewire store`: what a store takes, what of it is no longer needed, and the space that this gives back.

mod prune;
mod report;
mod stats;
mod subcommand;
mod vacuum;

pub(super) use subcommand::{StoreCommandArgs, run};
