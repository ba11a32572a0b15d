//! Agent Lightning's store protocol (0.3) under `/v1/agl`: its unmodified clients work by changing a URL.
//!
//! Where that server answers 500 to what can't be done, this one answers 404 with the same words: its clients read the
//! words, and don't try again.

mod page;
mod rollouts;
mod service;
mod spans;

use super::ApiState;
use super::access::Access;
use crate::rollout::RolloutError;
use crate::store::StoreError;
use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

/// The routes, without their prefix.
pub(super) fn router() -> Router<ApiState> {
    Router::new()
        .route("/health", get(service::health))
        .route("/statistics", get(service::statistics))
        .route("/queues/rollouts/enqueue", post(rollouts::enqueue))
        .route("/queues/rollouts/dequeue", post(rollouts::dequeue))
        .route("/rollouts", get(rollouts::list).post(rollouts::start))
        .route("/rollouts/search", post(rollouts::search))
        .route("/rollouts/{rollout}", get(rollouts::one).post(rollouts::update))
        .route("/rollouts/{rollout}/attempts", get(rollouts::attempts).post(rollouts::start_attempt))
        .route("/rollouts/{rollout}/attempts/search", post(rollouts::search_attempts))
        .route(
            "/rollouts/{rollout}/attempts/latest",
            get(rollouts::latest_attempt).post(rollouts::update_attempt_latest),
        )
        .route("/rollouts/{rollout}/attempts/{attempt}", post(rollouts::update_attempt))
        .route("/waits/rollouts", post(rollouts::wait))
        .route("/workers", get(service::workers))
        .route("/workers/search", post(service::search_workers))
        .route("/workers/{worker}", get(service::worker).post(service::update_worker))
        .route("/resources", get(service::resources).post(service::add_resources))
        .route("/resources/latest", get(service::latest_resources))
        .route("/resources/{resources}", get(service::one_resources).post(service::update_resources))
        .route("/spans", get(spans::list).post(spans::add))
        .route("/spans/search", post(spans::search))
        .route("/spans/next", post(spans::next))
        .fallback(|| async { Refusal::NotFound("Not Found".to_owned()) })
}

/// What an answer that is no success says.
#[derive(Debug)]
pub(super) enum Refusal {
    /// 422, as FastAPI words it: where, and what is wrong there.
    Schema { place: Vec<String>, message: String },
    /// 400.
    Invalid(String),
    /// 403.
    Forbidden(String),
    /// 404.
    NotFound(String),
    /// 500: the store failed; trying again may help.
    Store(StoreError),
}

type Answer<T = Response> = Result<T, Refusal>;

impl Access {
    /// Refuses what is another rollout's.
    fn check(&self, rollout: &str) -> Answer<()> {
        if self.may(rollout) {
            return Ok(());
        }
        Err(Refusal::Forbidden(format!("this token is not for rollout {rollout}")))
    }
}

impl From<RolloutError> for Refusal {
    fn from(error: RolloutError) -> Self {
        match error {
            RolloutError::NotFound(text) => Self::NotFound(text),
            RolloutError::Store(error) => Self::Store(error),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, body) = match self {
            Self::Schema { place, message } => {
                let problem = json!({ "type": "value_error", "loc": place, "msg": message, "input": null });
                (StatusCode::UNPROCESSABLE_ENTITY, json!({ "detail": [problem] }))
            }
            Self::Invalid(text) => (StatusCode::BAD_REQUEST, json!({ "detail": text })),
            Self::Forbidden(text) => (StatusCode::FORBIDDEN, json!({ "detail": text })),
            Self::NotFound(text) => {
                let traceback = format!("ValueError: {text}");
                (StatusCode::NOT_FOUND, json!({ "detail": text, "error_type": "ValueError", "traceback": traceback }))
            }
            Self::Store(error) => {
                tracing::error!(%error, "a request could not be served");
                let text = error.to_string();
                let body = json!({ "detail": "Internal server error", "error_type": "StoreError", "traceback": text });
                (StatusCode::INTERNAL_SERVER_ERROR, body)
            }
        };
        (status, axum::Json(body)).into_response()
    }
}

/// A body that must be there.
fn read<T: DeserializeOwned>(body: &Bytes) -> Answer<T> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().iter().map(ToString::to_string);
        let place = std::iter::once("body".to_owned()).chain(path).collect();
        Refusal::Schema { place, message: error.into_inner().to_string() }
    })?;
    reader.end().map_err(|error| Refusal::Schema { place: vec!["body".to_owned()], message: error.to_string() })?;
    Ok(read)
}

/// A body with conditions and a page.
fn paged<T: DeserializeOwned>(body: &Bytes) -> Answer<(T, page::Paging)> {
    Ok((read(body)?, read(body)?))
}

/// A body that may be missing or null.
fn read_some<T: DeserializeOwned>(body: &Bytes) -> Answer<Option<T>> {
    if body.is_empty() { Ok(None) } else { read(body) }
}

/// A body's fields, to tell what is null from what is not there.
fn fields(body: &Bytes) -> Answer<serde_json::Map<String, Json>> {
    Ok(read_some(body)?.unwrap_or_default())
}

/// Refuses null where a field must have a value if it is there.
fn refuse_null(fields: &serde_json::Map<String, Json>, names: &[&str]) -> Answer<()> {
    match names.iter().find(|name| fields.get(**name).is_some_and(Json::is_null)) {
        Some(name) => Err(Refusal::Invalid(format!("{name} is invalid; it cannot be a null value."))),
        None => Ok(()),
    }
}

fn ok(value: impl serde::Serialize) -> Answer {
    Ok(axum::Json(value).into_response())
}

fn created(value: impl serde::Serialize) -> Answer {
    Ok((StatusCode::CREATED, axum::Json(value)).into_response())
}
