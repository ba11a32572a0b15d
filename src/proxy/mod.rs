//! The proxy listener: absolute-form requests, CONNECT and SOCKS5, plus a help page and the public CA certificate.
//!
//! It decides what happens to a connection; `forward` forwards. It must not name a store or an LLM API.

mod answer;
mod api_relay;
mod auth;
mod certificate_rejections;
mod connect;
mod help;
mod serve;
mod settings;
mod socks;
mod state;
mod tls_alert_observer;
mod tunnel;

pub use crate::util::secret::Secret;
pub use certificate_rejections::{Advise, CertificateRejections};
pub use serve::serve_connection;
pub use settings::ProxySettings;
pub use state::Proxy;
