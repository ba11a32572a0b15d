//! `tracewire emit`: records rewards, notes and spans of the rollout that a command runs in, for shells and any language.

mod args;
mod destination;
mod emitted;
mod subcommand;

pub(super) use args::EmitArgs;
pub(super) use emitted::{PRIMARY, emitted_span, finite_number, send_span};
pub(super) use subcommand::run;
