//! hudsucker, recording nothing.

use crate::tls::Ca;
use anyhow::Result;
use hudsucker::Proxy;
use hudsucker::certificate_authority::RcgenAuthority;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::net::TcpListener;

/// Serves for ever; prints its address first.
pub async fn serve(ca: &Ca, http2: bool) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    crate::say_ready(listener.local_addr()?);
    let authority = RcgenAuthority::new(ca.issuer()?, 1000, hudsucker::rustls::crypto::aws_lc_rs::default_provider());
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    // Its own choice of protocols, over settings that believe the benchmark's endpoint.
    let mut config = (*crate::tls::client(&[], true)?).clone();
    config.alpn_protocols.clear();
    let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
    // The same protocol on both sides, as the others have it.
    let connector = match http2 {
        true => connector.enable_all_versions().wrap_connector(http),
        false => connector.enable_http1().wrap_connector(http),
    };
    let proxy = Proxy::builder().with_listener(listener).with_ca(authority).with_http_connector(connector);
    proxy.build()?.start().await?;
    Ok(())
}
