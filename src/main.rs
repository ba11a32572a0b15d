//! Parses the command line, starts the runtime, returns the exit code.

use clap::Parser;
use std::process::ExitCode;
use tracewire::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
