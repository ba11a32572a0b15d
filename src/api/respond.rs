//! Responses of the API: JSON bodies, and errors in the shapes of the protocols that it serves. OTLP has errors of its own,
//! see `otlp::http`.

use crate::error::{FramingFault, ProxyError};
use crate::query::QueryError;
use crate::rollout::RolloutError;
use crate::store::StoreError;
use crate::util::panics::Panicked;
use crate::wire::redact::Redactor;
use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value as JsonValue, json};
use std::fmt;
use utoipa::ToSchema;

/// The result of a handler.
pub(super) type ApiResult<T = Response> = Result<T, ApiError>;

/// An error of a request. The body has a `detail`, as FastAPI writes it, unless the variant says otherwise.
#[derive(Debug)]
pub(super) enum ApiError {
    /// 422: a value in the body or the query has the wrong type or range. The body names its place.
    Schema(Box<SchemaProblem>),
    /// 400: the request can't be processed as it is. The text says why.
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
    /// 405: the route exists, but not with this method.
    MethodNotAllowed,
    /// 409: the request conflicts with what is stored. The text says how.
    Conflict(String),
    /// 415: the body has a content type of web forms.
    ContentTypeRefused,
    /// 500: a defect of this program.
    Internal,
    /// 500: the store failed. A retry may succeed.
    Store(StoreError),
}

impl ApiError {
    /// A [`Self::Schema`] about this problem.
    pub(super) fn schema(problem: SchemaProblem) -> Self {
        Self::Schema(Box::new(problem))
    }

    /// A [`Self::Schema`] about a value in the body or the query. `place` is the path to it, from `body` or `query` on.
    pub(super) fn of_value(place: &[&str], message: impl Into<String>, found: impl Into<JsonValue>) -> Self {
        let place = place.iter().map(|step| json!(step)).collect();
        Self::schema(SchemaProblem { kind: "value_error", place, message: message.into(), found: found.into() })
    }

    /// A [`Self::Schema`] about the query language in the parameter `q`, with the place of the error in the text, in UTF-16 units
    /// as JavaScript counts them.
    pub(super) fn of_invalid_query(text: &str, error: &QueryError) -> Self {
        let units = |end: usize| text[..end].encode_utf16().count();
        let place = vec![json!("query"), json!("q"), json!(units(error.place.start)), json!(units(error.place.end))];
        Self::schema(SchemaProblem { kind: "value_error", place, message: error.message.clone(), found: text.into() })
    }
}

/// What is wrong with the data of a request, as FastAPI has it.
#[derive(Debug)]
pub(super) struct SchemaProblem {
    /// pydantic's name for the kind of error.
    pub(super) kind: &'static str,
    /// The path to the value that is wrong, from `body` or `query` on.
    pub(super) place: Vec<JsonValue>,
    /// What it should be.
    pub(super) message: String,
    /// What it is.
    pub(super) found: JsonValue,
}

impl fmt::Display for SchemaProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = self.place.iter().map(|step| step.as_str().map_or_else(|| step.to_string(), str::to_owned));
        write!(formatter, "{}: {}", steps.collect::<Vec<_>>().join("."), self.message)
    }
}

impl SchemaProblem {
    /// The element of `detail`. A long value is cut, as its text.
    fn into_json(self) -> JsonValue {
        let Self { kind, place, message, mut found } = self;
        if !matches!(found, JsonValue::Null | JsonValue::Bool(_) | JsonValue::Number(_)) {
            let text = found.as_str().map_or_else(|| found.to_string(), str::to_owned);
            if text.len() > MAX_FOUND_BYTES {
                let end = text.floor_char_boundary(MAX_FOUND_BYTES);
                found = json!(format!("{}…", &text[..end]));
            }
        }
        json!({ "type": kind, "loc": place, "msg": message, "input": found })
    }
}

/// The longest value that an error shows whole.
const MAX_FOUND_BYTES: usize = 1024;

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
            Self::Schema(problem) => (StatusCode::UNPROCESSABLE_ENTITY, ErrorBody::detail(vec![problem.into_json()])),
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
            Self::ContentTypeRefused => {
                let detail = "bodies of this content type are not read; send `Content-Type: application/json`, or \
                              `application/x-protobuf` to OTLP routes";
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorBody::detail(detail))
            }
            Self::Conflict(text) => (StatusCode::CONFLICT, ErrorBody::detail(text)),
            Self::Internal => {
                let error = ProxyError::from(Panicked);
                (error.status(), ErrorBody::detail(format!("{error}; {}", error.fix())))
            }
            Self::Store(error) => {
                tracing::error!(%error, "a request to the API failed because of the store");
                let traceback = Some(error.to_string());
                let detail = ErrorBody::detail("Internal server error");
                let body = ErrorBody { error_type: Some("StoreError"), traceback, ..detail };
                (StatusCode::INTERNAL_SERVER_ERROR, body)
            }
        };
        (status, [(header::CONTENT_TYPE, "application/json")], without_secrets(&body)).into_response()
    }
}

/// The JSON of an error: errors end up in logs.
fn without_secrets(body: &impl Serialize) -> String {
    let text = serde_json::to_string(body).unwrap_or_default();
    Redactor::of_messages().body(Some("application/json"), "", &text).into_owned()
}

/// 200 with a JSON body.
pub(super) fn ok(body: impl Serialize) -> ApiResult {
    Ok(Json(body).into_response())
}

/// 201 with a JSON body.
pub(super) fn created(body: impl Serialize) -> ApiResult {
    Ok((StatusCode::CREATED, Json(body)).into_response())
}
