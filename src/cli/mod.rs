//! The command line: one file per subcommand. Together with `main.rs` the only code that prints or sets exit codes.

mod args;
mod ca;
mod client;
mod command_line;
mod demo;
mod demo_agent;
mod diff;
mod doctor;
mod emit;
mod enqueue;
mod env;
mod export;
mod find;
mod import;
mod key;
mod log;
mod mock;
mod recorded;
mod reward;
mod run;
mod run_owner;
mod serve;
mod settings;
mod show;
mod store;
mod tail;
mod terminal;
mod trace;
mod trace_list;
mod trace_show;
mod trajectory;
mod ui;
mod wait;
mod worker;

pub use command_line::Cli;
