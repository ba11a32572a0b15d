//! Requests that are answered elsewhere than at the endpoint they name.

use super::connection_context::ConnectionContext;
use crate::upstream::{Body, Origin};
use http::{Request, Response};
use hyper::body::Incoming;
use std::pin::Pin;

/// Answers requests in place of the endpoint they name. The gateway is one; `app` passes it in.
pub(crate) trait RequestInterceptor: Send + Sync {
    /// True when requests to `origin` may be intercepted: it need not be reachable then.
    fn may_intercept(&self, origin: &Origin) -> bool;

    /// True when this request is intercepted.
    fn intercepts(&self, origin: &Origin, request: &Request<Incoming>) -> bool;

    /// Answers an intercepted request, and records it.
    fn handle<'a>(
        &'a self,
        connection: &'a ConnectionContext,
        origin: Origin,
        request: Request<Incoming>,
    ) -> Pin<Box<dyn Future<Output = Response<Body>> + Send + 'a>>;
}
