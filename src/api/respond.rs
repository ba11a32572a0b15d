//! Responses of the API: JSON bodies, errors in the shapes of the protocols that it serves, and request bodies read as
//! JSON. OTLP has errors of its own, see `otlp::http`.

use crate::error::{FramingFault, ProxyError};
use crate::rollout::RolloutError;
use crate::store::StoreError;
use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as JsonValue, json};
use utoipa::ToSchema;

/// The result of a handler.
pub(super) type ApiResult<T = Response> = Result<T, ApiError>;

/// An error of a request. The body has a `detail`, as FastAPI writes it, unless the variant says otherwise.
#[derive(Debug)]
pub(super) enum ApiError {
    /// 422: `place` is the path to the value that is wrong, in the body or the query.
    Schema { place: Vec<String>, message: String },
    /// 400.
    Invalid(String),
    /// 401, with a challenge.
    Unauthorized(String),
    /// 403, with a challenge.
    Forbidden(String),
    /// 404 in the shape of Agent Lightning 0.3. Its server responds with 500 there, after which its clients retry; they
    /// recognise the text.
    NotFound(String),
    /// 404 in the shape of Agent Lightning 1.0, and for unknown routes.
    NotFoundPlain(String),
    /// 404 in the shape of rLLM: the body has an `error`.
    NotFoundRllm(String),
    /// 400: the framing of the request is ambiguous. The connection is closed after the response.
    Framing(Box<ProxyError>),
    /// 400 in the shape of rLLM: the body has an `error`.
    InvalidRllm(String),
    /// 405.
    MethodNotAllowed,
    /// 409.
    Conflict(String),
    /// 500: the store failed. A retry may succeed.
    Store(StoreError),
}

impl ApiError {
    /// A [`Self::Schema`] about one field of `part`, which is `body` or `query`.
    pub(super) fn of_field(part: &str, field: &str, message: impl Into<String>) -> Self {
        Self::Schema { place: vec![part.to_owned(), field.to_owned()], message: message.into() }
    }
}

impl From<RolloutError> for ApiError {
    fn from(error: RolloutError) -> Self {
        match error {
            RolloutError::NotFound(text) => Self::NotFound(text),
            RolloutError::Store(error) => Self::Store(error),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<FramingFault> for ApiError {
    fn from(fault: FramingFault) -> Self {
        Self::Framing(Box::new(fault.of_request()))
    }
}

/// The body of an error.
#[derive(Default, Serialize, ToSchema)]
pub(super) struct ErrorBody {
    /// What went wrong: a text, or a list of problems with their place in the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<JsonValue>,
    /// The same on routes of rLLM's gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The name of an exception, which Agent Lightning's clients expect.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_type: Option<&'static str>,
    /// The exception's text, which Agent Lightning's clients search.
    #[serde(skip_serializing_if = "Option::is_none")]
    traceback: Option<String>,
}

impl ErrorBody {
    fn detail(detail: impl Into<JsonValue>) -> Self {
        Self { detail: Some(detail.into()), ..Self::default() }
    }

    fn error(text: String) -> Self {
        Self { error: Some(text), ..Self::default() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        let (status, body) = match self {
            Self::Unauthorized(text) => {
                return (StatusCode::UNAUTHORIZED, challenge, Json(ErrorBody::detail(text))).into_response();
            }
            Self::Forbidden(text) => {
                return (StatusCode::FORBIDDEN, challenge, Json(ErrorBody::detail(text))).into_response();
            }
            Self::MethodNotAllowed => return StatusCode::METHOD_NOT_ALLOWED.into_response(),
            Self::Schema { place, message } => {
                let problem = json!({ "type": "value_error", "loc": place, "msg": message, "input": null });
                (StatusCode::UNPROCESSABLE_ENTITY, ErrorBody::detail(vec![problem]))
            }
            Self::Invalid(text) => (StatusCode::BAD_REQUEST, ErrorBody::detail(text)),
            Self::Framing(error) => (error.status(), ErrorBody::detail(format!("{error}; {}", error.fix()))),
            Self::InvalidRllm(text) => (StatusCode::BAD_REQUEST, ErrorBody::error(text)),
            Self::NotFound(text) => {
                let traceback = Some(format!("ValueError: {text}"));
                let body = ErrorBody { error_type: Some("ValueError"), traceback, ..ErrorBody::detail(text) };
                (StatusCode::NOT_FOUND, body)
            }
            Self::NotFoundPlain(text) => (StatusCode::NOT_FOUND, ErrorBody::detail(text)),
            Self::NotFoundRllm(text) => (StatusCode::NOT_FOUND, ErrorBody::error(text)),
            Self::Conflict(text) => (StatusCode::CONFLICT, ErrorBody::detail(text)),
            Self::Store(error) => {
                tracing::error!(%error, "a request to the API failed because of the store");
                let traceback = Some(error.to_string());
                let detail = ErrorBody::detail("Internal server error");
                let body = ErrorBody { error_type: Some("StoreError"), traceback, ..detail };
                (StatusCode::INTERNAL_SERVER_ERROR, body)
            }
        };
        (status, Json(body)).into_response()
    }
}

/// 200 with a JSON body.
pub(super) fn ok(body: impl Serialize) -> ApiResult {
    Ok(Json(body).into_response())
}

/// 201 with a JSON body.
pub(super) fn created(body: impl Serialize) -> ApiResult {
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

/// A required JSON body.
pub(super) fn read<T: DeserializeOwned>(body: &Bytes) -> ApiResult<T> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| schema_error("body", error))?;
    reader.end().map_err(|error| ApiError::Schema { place: vec!["body".to_owned()], message: error.to_string() })?;
    Ok(value)
}

/// An optional JSON body; `None` if it is empty. Whether `null` is allowed is decided by `T`.
pub(super) fn read_optional<T: DeserializeOwned>(body: &Bytes) -> ApiResult<Option<T>> {
    if body.is_empty() { Ok(None) } else { read(body) }
}

/// The fields of an optional JSON object, for handlers that distinguish null from absent.
pub(super) fn read_fields(body: &Bytes) -> ApiResult<Map<String, JsonValue>> {
    Ok(read_optional(body)?.unwrap_or_default())
}

/// The error of a value in `part`, which is `body` or `query`, with the path to the value.
pub(super) fn schema_error(part: &str, error: serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let path = error.path().iter().map(ToString::to_string);
    let place = std::iter::once(part.to_owned()).chain(path).collect();
    ApiError::Schema { place, message: error.into_inner().to_string() }
}
