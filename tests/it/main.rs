//! One integration binary: behaviour through the public doors, with real clients. Ports are always 0.

mod cli;
mod clients;
mod door;
mod durability;
mod store_suite;
mod support;
mod upstream_faults;
