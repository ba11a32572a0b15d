//! Parses the command line, starts the runtime, returns the exit code.

use clap::Parser;
use std::process::ExitCode;
use tracewire::cli::Cli;

// Under many threads and short lives it takes half of glibc's time, and gives back what bursts took.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    Cli::parse().run()
}
