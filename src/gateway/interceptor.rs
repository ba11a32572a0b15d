//! The gateway as an interceptor of the proxy: it handles the LLM calls to hosts that a `[[reroute]]` names.

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
        if reroute.keeps_from(origin, path) {
            return true;
        }
        let takes = match reroute.paths.as_slice() {
            // The list of models stays that of the host, unless `paths` names it.
            [] => Route::parse_rerouted(target_of(request))
                .map(|route| route.api.operation())
                .is_some_and(|operation| operation != Operation::ListModels && operation.takes(request.method())),
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
        let path = request.uri().path();
        let refused = || {
            let path: String = path.chars().take(MAX_PATH_CHARS).collect();
            let cause = format!("the gateway does not serve {path}, and calls to {} are rerouted to it", origin.host);
            ProxyError::new(ErrorKind::RerouteRefused, "", cause)
        };
        let is_served = |route: &Route| route.api.operation().takes(request.method());
        let route = Route::parse_rerouted(target_of(&request)).filter(is_served).ok_or_else(refused);
        let route = route.and_then(|route| self.check_rerouted(connection, &request).map(|()| route));
        Box::pin(self.serve(connection.clone(), route, origin, request))
    }
}

/// The most characters of a path that an error message quotes.
const MAX_PATH_CHARS: usize = 100;

fn target_of<B>(request: &Request<B>) -> &str {
    request.uri().path_and_query().map_or("/", |target| target.as_str())
}
