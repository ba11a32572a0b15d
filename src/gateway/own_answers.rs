//! Requests that the gateway answers itself: for a stored response. The list of models is in `models`.

use super::service::Gateway;
use crate::error::{ErrorKind, ProxyError};
use crate::forward::ActiveExchange;
use crate::llm::operation::Operation;
use crate::llm::translate::NOT_REMEMBERED;
use crate::trace::exchange::{Outcome, ResponseHead};
use crate::upstream::{Body, body};
use http::{HeaderValue, Method, Response, Version, header};
use serde_json::json;

impl Gateway {
    /// Responds with a stored response of the same rollout, or forgets it.
    pub(super) async fn stored_response(
        &self,
        exchange: &ActiveExchange,
        method: &Method,
        id: &str,
    ) -> Result<Response<Body>, ProxyError> {
        // What OpenAI has below a response is not served.
        if !Operation::StoredResponse.takes(method) || id.contains('/') {
            let cause = format!("no LLM API takes {method} at this path");
            return Err(ProxyError::new(ErrorKind::RouteUnknown, "", cause));
        }
        let (stored, rollout) = (self.stored_responses(), &exchange.identity.rollout_id);
        let text = if *method == Method::DELETE {
            let deleted = json!({ "id": id, "object": "response", "deleted": true }).to_string();
            stored.delete(rollout, id).then_some(deleted)
        } else {
            stored.read(rollout, id)
        };
        let unknown = || ProxyError::new(ErrorKind::ResponseUnknown, "", format!("the response {id} {NOT_REMEMBERED}"));
        Ok(answered(exchange, text.ok_or_else(unknown)?).await)
    }
}

/// A response with this JSON, recorded.
pub(super) async fn answered(exchange: &ActiveExchange, json: String) -> Response<Body> {
    let mut response = Response::new(body::full(json));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let (status, headers) = (response.status(), response.headers().clone());
    exchange.recording.response(ResponseHead { status, version: Version::HTTP_11, headers });
    exchange.recording.outcome(Outcome::Complete);
    exchange.recording.finish_and_wait().await;
    response
}
