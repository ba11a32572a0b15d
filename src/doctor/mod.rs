//! Why is something not traced? Clients of this machine tried one by one, and one command watched while it runs.
//!
//! It finds out and explains; running things and printing is the command line's.

pub mod diagnosis;
pub mod probes;
pub mod watch;
