//! Asks an endpoint for its list of models, which shows the engine that serves there.

use crate::tls::Offer;
use crate::upstream::{Origin, PoolKey, Upstream, body};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};

/// A list of models.
#[derive(Debug)]
pub(crate) struct ModelList {
    /// The status of the response.
    pub status: StatusCode,
    /// Its body; empty if it is longer than [`MAX_RESPONSE_BYTES`] or broke off.
    pub body: Bytes,
}

/// The response to `GET path`. `None`: there is none, or the path makes no valid URL.
pub(crate) async fn model_list(
    upstream: &Upstream,
    key: &PoolKey,
    origin: &Origin,
    path: &str,
    credential: Option<(HeaderName, HeaderValue)>,
) -> Option<ModelList> {
    let scheme = if origin.tls { "https" } else { "http" };
    let uri = format!("{scheme}://{}{path}", origin.url_authority());
    let mut request = Request::new(body::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = uri.parse().ok()?;
    request.headers_mut().extend(credential);
    let offer = if origin.tls { Offer::Http2OrHttp1 } else { Offer::Http1 };
    let sent = upstream.send(request, key, origin, offer).await.ok()?;
    let status = sent.response.status();
    let body = Limited::new(sent.response.into_body(), MAX_RESPONSE_BYTES).collect().await;
    Some(ModelList { status, body: body.map(|body| body.to_bytes()).unwrap_or_default() })
}

/// A longer list counts as an empty one.
const MAX_RESPONSE_BYTES: usize = 1 << 20;
