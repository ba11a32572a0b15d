//! The gateway as an interceptor of the proxy: LLM calls that agents make to other hosts, if a `[[reroute]]` names the host.

use super::routing::Route;
use super::service::Gateway;
use super::settings::Reroute;
use crate::error::{ErrorKind, ProxyError};
use crate::forward::{ConnectionContext, RequestInterceptor};
use crate::llm::operation::Operation;
use crate::upstream::{Body, Origin};
use crate::util::glob::text_matches;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use std::pin::Pin;

impl RequestInterceptor for Gateway {
    fn may_intercept(&self, origin: &Origin) -> bool {
        Reroute::of_host(&self.reroutes(), origin).is_some()
    }

    fn intercepts(&self, origin: &Origin, request: &Request<Incoming>) -> bool {
        let path = request.uri().path();
        let reroutes = self.reroutes();
        let Some(reroute) = Reroute::of_host(&reroutes, origin) else { return false };
        let takes = match reroute.paths.as_slice() {
            // The list of models stays that of the host, unless `paths` names it.
            [] => Route::parse_rerouted(target_of(request))
                .is_some_and(|route| route.api.operation() != Operation::ListModels),
            // A path that is named but can't be parsed is refused: the host must not get it.
            paths => paths.iter().any(|pattern| text_matches(pattern, path)),
        };
        if !takes && request.method() == Method::POST {
            tracing::info!(
                host = origin.host,
                path,
                "this request to a rerouted host is forwarded to the host: its path is that of no LLM API"
            );
        }
        takes
    }

    fn handle<'a>(
        &'a self,
        connection: &'a ConnectionContext,
        origin: Origin,
        request: Request<Incoming>,
    ) -> Pin<Box<dyn Future<Output = Response<Body>> + Send + 'a>> {
        let unknown = || ProxyError::new(ErrorKind::RouteUnknown, "", "this path is that of no LLM API");
        let route = Route::parse_rerouted(target_of(&request)).ok_or_else(unknown);
        Box::pin(self.serve(connection.clone(), route, origin, request))
    }
}

fn target_of<B>(request: &Request<B>) -> &str {
    request.uri().path_and_query().map_or("/", |target| target.as_str())
}
