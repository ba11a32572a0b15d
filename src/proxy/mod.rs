//! The proxy listener: absolute-form requests, CONNECT and SOCKS5, plus a help page and the public CA certificate.
//!
//! It decides what happens to a connection; `forward` forwards. It must not name a store or an LLM API.

mod answer;
mod api_relay;
mod auth;
mod certificate_rejections;
mod connect;
mod help;
mod relay;
mod serve;
mod settings;
mod socks;
mod state;
mod tls_alert_observer;
mod tls_tunnel;
mod tunnel;

pub(crate) use auth::KeyCheck;
pub(crate) use certificate_rejections::CertificateRejections;
pub(crate) use serve::serve_connection;
pub(crate) use settings::ProxySettings;
pub(crate) use state::Proxy;
