//! Reads a request: everything about a call that can be known before it may be sent.

use super::body_edits::malformed;
use super::call::{GatewayCall, ResponseState};
use super::error_response::ErrorFormat;
use super::routing::{ApiSurface, Route};
use super::service::Gateway;
use crate::capture::{EditedBytes, HeldBytes, MemoryUse};
use crate::error::{ErrorKind, ProxyError};
use crate::forward::ActiveExchange;
use crate::llm::operation::Operation;
use crate::net::drain::DrainGuard;
use crate::trace::exchange::BodyContent;
use crate::upstream::{Body, Origin};
use crate::wire::encoding::{DecodeError, decode_whole};
use crate::wire::json_edit::Object;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::BodyExt;
use std::error::Error;
use std::sync::Arc;
use tokio::sync::Notify;

/// A request after it was read.
pub(super) enum ReadResult {
    /// A call that needs a backend.
    Call(Box<GatewayCall>),
    /// The gateway answered the request itself: it was for the list of models, or for a stored response.
    Answered(Response<Body>),
}

impl Gateway {
    /// Reads a request. The checks are in the order of Agent Lightning 1.0: the rollout, then the request, then the model.
    pub(super) async fn read_call<B>(
        &self,
        exchange: &ActiveExchange,
        route: Route,
        error_format: ErrorFormat,
        (host, drain): (&Origin, DrainGuard),
        request: Request<B>,
    ) -> Result<ReadResult, ProxyError>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let rollout_id = route.identity.rollout.as_ref().unwrap_or(&exchange.identity.rollout_id);
        let rollout = self.rollouts().enter(rollout_id);
        let registration = match route.surface {
            ApiSurface::V1 => rollout.required_registration(self.lookup()).await?,
            _ => rollout.registration(self.lookup()).await.unwrap_or_default(),
        };
        if let Some(status) = registration.final_status {
            let cause = format!("rollout {rollout_id} has ended ({})", status.as_str());
            return Err(ProxyError::new(ErrorKind::RolloutEnded, "", cause));
        }
        let (parts, body) = request.into_parts();
        if route.api.operation() == Operation::ListModels {
            return self.list_models(exchange, route.api.model.as_deref()).await.map(ReadResult::Answered);
        }
        if let Some(id) = route.api.model.as_deref().filter(|_| route.api.operation() == Operation::StoredResponse) {
            return self.stored_response(exchange, &parts.method, id).await.map(ReadResult::Answered);
        }
        if asks_for_websocket(&parts) {
            let cause = format!("{} is served over HTTP only, not over a WebSocket", route.api.path());
            return Err(ProxyError::new(ErrorKind::WebSocketRefused, "", cause));
        }
        if parts.method != Method::POST {
            return Err(malformed(&format!("the method is {}, but {} takes POST", parts.method, route.api.path())));
        }
        let body = Arc::new(self.read_body(body, &parts.headers).await?);
        let fields = fields_of(&body.to_vec()?)?;
        let requested_model = route.api.model.clone().or(fields.model);
        let model = self.model_for(&route, requested_model.as_deref(), host).inspect_err(|_| {
            exchange.recording.request_body(&EditedBytes::from(Arc::clone(&body)));
        })?;
        let wants_events = route.api.streams_events(&route.query, || fields.streams);
        let mode = route.mode.or(registration.mode);
        exchange.recording.gateway(|facts| {
            facts.mode = mode.map(|mode| mode.as_str().to_owned());
            facts.requested_model = requested_model.filter(|requested| *requested != model);
        });
        let budget = registration.budget.unwrap_or(self.settings().budget);
        Ok(ReadResult::Call(Box::new(GatewayCall {
            exchange: exchange.clone(),
            route,
            error_format,
            headers: parts.headers,
            body,
            rollout: Arc::new(rollout),
            registration,
            mode,
            budget,
            model,
            wants_events,
            stored_responses: self.stored_responses().clone(),
            keepalive_due: Notify::new(),
            response_state: Arc::new(ResponseState::new(error_format, self.open_calls().enter())),
            drain,
        })))
    }

    /// Reads a whole body and decodes its content coding. `max_body_bytes` limits both forms.
    async fn read_body<B>(&self, mut body: B, headers: &HeaderMap) -> Result<HeldBytes, ProxyError>
    where
        B: hyper::body::Body<Data = Bytes> + Send + Unpin,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let max_bytes = self.settings().max_body_bytes;
        let too_large = || {
            let cause = format!("the body is longer than {max_bytes} bytes (gateway.max_body_bytes)");
            ProxyError::new(ErrorKind::CallTooLarge, "", cause)
        };
        let memory = self.forwarder().memory();
        let mut held = HeldBytes::new(memory, MemoryUse::GatewayRequest);
        while let Some(frame) = body.frame().await {
            let incomplete =
                |error: B::Error| ProxyError::new(ErrorKind::HttpRequestIncomplete, "", error.into().to_string());
            let Ok(data) = frame.map_err(incomplete)?.into_data() else { continue };
            if held.len() + data.len() as u64 > max_bytes as u64 {
                return Err(too_large());
            }
            held.push_always(&data);
        }
        if headers.contains_key(header::CONTENT_ENCODING) {
            let decoded = decode_whole(headers, held.to_vec()?, max_bytes).map_err(|error| match error {
                DecodeError::TooLarge(_) => too_large(),
                error => malformed(&error.to_string()),
            })?;
            held = HeldBytes::of(memory, MemoryUse::GatewayRequest, &decoded);
        }
        if held.len() < MAX_BLANK_BYTES && held.to_vec()?.trim_ascii().is_empty() {
            held = HeldBytes::of(memory, MemoryUse::GatewayRequest, b"{}");
        }
        Ok(held)
    }
}

/// A body of white space up to this length, in bytes, counts as none.
const MAX_BLANK_BYTES: u64 = 1024;

/// The fields of a request that the gateway has to know before it selects a backend.
struct RequestFields {
    model: Option<String>,
    streams: bool,
}

/// True for a request that opens a WebSocket, over HTTP/1.1 (RFC 6455) or HTTP/2 (RFC 8441).
fn asks_for_websocket(request: &Parts) -> bool {
    let names_it = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.eq_ignore_ascii_case("websocket"));
    request.method == Method::CONNECT || request.headers.get_all(header::UPGRADE).iter().any(names_it)
}

fn fields_of(body: &[u8]) -> Result<RequestFields, ProxyError> {
    if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_err() {
        return Err(malformed("Invalid JSON in request body"));
    }
    let object = Object::find(body);
    let value = |name: &str| object.as_ref().and_then(|object| object.value(name));
    Ok(RequestFields {
        model: value("model").and_then(|model| serde_json::from_slice(model).ok()),
        streams: value("stream") == Some(b"true"),
    })
}
