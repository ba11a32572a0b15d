//! Parses the command line, starts the runtime, returns the exit code.

use std::process::ExitCode;
use tracewire::Cli;

// What 2,000 streams took goes back to the system when they have ended; its settings are in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match Cli::from_arguments() {
        Ok(cli) => cli.run(),
        Err(code) => code,
    }
}
