//! Finds out why traffic is not traced: tries the clients of this machine, and monitors the connections of one command.
//!
//! It diagnoses and explains. The command line runs the programs and prints the results.

pub(crate) mod diagnosis;
pub(crate) mod monitor;
pub(crate) mod probes;
