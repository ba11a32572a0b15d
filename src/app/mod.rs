//! The composition root: creates the parts of the program and connects them. It may import every module.

mod command_proxy;
mod known_endpoints;
mod log_output;
mod metrics;
mod program;
mod secrets;
mod service;
mod stores;

pub(crate) use command_proxy::{CommandProxy, CommandProxySettings};
pub(crate) use known_endpoints::EngineMemory;
pub(crate) use log_output::LogOutput;
pub(crate) use program::{App, Parts, StopReport};
pub(crate) use secrets::{SecretFiles, fill_in_env_secrets, fill_in_secrets, fill_in_ui_secrets};
pub(crate) use stores::{WhenUnreachable, ca_folder, open_store, open_store_for_reading, place_name, store_path};
