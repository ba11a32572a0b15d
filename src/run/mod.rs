//! Running a command behind the proxy: its certificates, its environment, its process.
//!
//! It must not know about proxies beyond their URL, nor print.

pub mod bundle;
pub mod child;
pub mod environment;
pub mod runtime;
