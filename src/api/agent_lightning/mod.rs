//! Agent Lightning's store protocol (0.3) under `/v1/agl`: its unmodified clients work by changing a URL.
//!
//! Where that server answers 500 to what can't be done, this one answers 404 with the same words: its clients read the
//! words, and don't try again.

mod extra;
mod openapi;
mod page;
mod rollouts;
mod route;
mod service;
mod spans;

use super::access::Access;
use crate::api::state::ApiState;
use crate::rollout::RolloutError;
use crate::store::StoreError;
use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use route::{Operation, Route};
use serde::de::DeserializeOwned;
use serde_json::{Value as JsonValue, json};

/// The routes, without their prefix.
pub(super) fn router() -> Router<ApiState> {
    let routes = routes();
    let document = openapi::document(&routes);
    routes
        .into_iter()
        .fold(Router::new(), |router, route| router.route(route.path, route.methods))
        .route("/openapi.json", get(move || std::future::ready(axum::Json(document.clone()))))
        .fallback(|| async { Refusal::NotFound("Not Found".to_owned()) })
}

/// One row a route: it is served as it is described.
fn routes() -> Vec<Route> {
    macro_rules! route {
        ($path:literal, $methods:expr, $(($method:ident, $summary:literal, $body:literal, $status:literal, $answer:literal)),+) => {
            Route {
                path: $path,
                methods: $methods,
                operations: &[$(Operation {
                    method: stringify!($method),
                    summary: $summary,
                    body: $body,
                    status: $status,
                    answer: $answer,
                }),+],
            }
        };
    }
    vec![
        route!("/health", get(service::health), (get, "Is it there?", "", 200, "Object")),
        route!("/statistics", get(service::statistics), (get, "Counts of everything", "", 200, "Object")),
        route!(
            "/queues/rollouts/enqueue",
            post(rollouts::enqueue),
            (post, "Put new rollouts at the queue's tail", "Enqueue", 201, "List of Rollout")
        ),
        route!(
            "/queues/rollouts/dequeue",
            post(rollouts::dequeue),
            (
                post,
                "Take rollouts from the queue's head, each with a new attempt",
                "Dequeue",
                200,
                "List of AttemptedRollout"
            )
        ),
        route!(
            "/rollouts",
            get(rollouts::list).post(rollouts::start),
            (get, "List rollouts", "", 200, "Page of AttemptedRollout"),
            (post, "Start a rollout at once", "NewRollout", 201, "AttemptedRollout")
        ),
        route!(
            "/rollouts/search",
            post(rollouts::search),
            (post, "List rollouts", "Conditions", 200, "Page of AttemptedRollout")
        ),
        route!(
            "/rollouts/{rollout}",
            get(rollouts::one).post(rollouts::update),
            (get, "One rollout", "", 200, "AttemptedRollout"),
            (post, "Change a rollout", "RolloutChange", 200, "Rollout")
        ),
        route!(
            "/rollouts/{rollout}/attempts",
            get(rollouts::attempts).post(rollouts::start_attempt),
            (get, "List a rollout's attempts", "", 200, "Page of Attempt"),
            (post, "Start one more attempt", "Whose", 201, "AttemptedRollout")
        ),
        route!(
            "/rollouts/{rollout}/attempts/search",
            post(rollouts::search_attempts),
            (post, "List a rollout's attempts", "Conditions", 200, "Page of Attempt")
        ),
        route!(
            "/rollouts/{rollout}/attempts/latest",
            get(rollouts::latest_attempt).post(rollouts::update_attempt_latest),
            (get, "The latest attempt", "", 200, "Attempt or null"),
            (post, "Change the latest attempt", "AttemptChange", 200, "Attempt")
        ),
        route!(
            "/rollouts/{rollout}/attempts/{attempt}",
            post(rollouts::update_attempt),
            (post, "Change an attempt; its rollout and worker follow", "AttemptChange", 200, "Attempt")
        ),
        route!(
            "/waits/rollouts",
            post(rollouts::wait),
            (post, "Wait for rollouts to end", "Wait", 200, "List of Rollout")
        ),
        route!("/workers", get(service::workers), (get, "List workers", "", 200, "Page of Worker")),
        route!(
            "/workers/search",
            post(service::search_workers),
            (post, "List workers", "Conditions", 200, "Page of Worker")
        ),
        route!(
            "/workers/{worker}",
            get(service::worker).post(service::update_worker),
            (get, "One worker", "", 200, "Worker or null"),
            (post, "A worker's heartbeat", "WorkerChange", 200, "Worker")
        ),
        route!(
            "/resources",
            get(service::resources).post(service::add_resources),
            (get, "List sets of resources", "", 200, "Page of ResourcesUpdate"),
            (post, "Add a set of resources", "NamedResources", 201, "ResourcesUpdate")
        ),
        route!(
            "/resources/latest",
            get(service::latest_resources),
            (get, "The set that was changed last", "", 200, "ResourcesUpdate or null")
        ),
        route!(
            "/resources/{resources}",
            get(service::one_resources).post(service::update_resources),
            (get, "One set of resources", "", 200, "ResourcesUpdate or null"),
            (post, "The next version of a set", "NamedResources", 200, "ResourcesUpdate")
        ),
        route!(
            "/spans",
            get(spans::list).post(spans::add),
            (get, "List a rollout's spans", "", 200, "Page of Span"),
            (post, "Add a span; null for one that is there", "Span", 201, "Span or null")
        ),
        route!(
            "/spans/search",
            post(spans::search),
            (post, "List a rollout's spans", "Conditions", 200, "Page of Span")
        ),
        route!(
            "/spans/next",
            post(spans::next),
            (post, "The next sequence id of a rollout", "NextId", 200, "SequenceId")
        ),
    ]
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
    /// 404 as Agent Lightning 1.0 says it.
    Absent(String),
    /// 409.
    Conflict(String),
    /// 500: the store failed; trying again may help.
    Store(StoreError),
}

pub(super) type Answer<T = Response> = Result<T, Refusal>;

impl Access {
    /// Refuses what is another rollout's.
    pub(super) fn check(&self, rollout: &str) -> Answer<()> {
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
            Self::Absent(text) => (StatusCode::NOT_FOUND, json!({ "detail": text })),
            Self::Conflict(text) => (StatusCode::CONFLICT, json!({ "detail": text })),
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
pub(super) fn read<T: DeserializeOwned>(body: &Bytes) -> Answer<T> {
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
pub(super) fn read_some<T: DeserializeOwned>(body: &Bytes) -> Answer<Option<T>> {
    if body.is_empty() { Ok(None) } else { read(body) }
}

/// A body's fields, to tell what is null from what is not there.
pub(super) fn fields(body: &Bytes) -> Answer<serde_json::Map<String, JsonValue>> {
    Ok(read_some(body)?.unwrap_or_default())
}

/// Refuses null where a field must have a value if it is there.
fn refuse_null(fields: &serde_json::Map<String, JsonValue>, names: &[&str]) -> Answer<()> {
    match names.iter().find(|name| fields.get(**name).is_some_and(JsonValue::is_null)) {
        Some(name) => Err(Refusal::Invalid(format!("{name} is invalid; it cannot be a null value."))),
        None => Ok(()),
    }
}

pub(super) fn ok(value: impl serde::Serialize) -> Answer {
    Ok(axum::Json(value).into_response())
}

pub(super) fn created(value: impl serde::Serialize) -> Answer {
    Ok((StatusCode::CREATED, axum::Json(value)).into_response())
}
