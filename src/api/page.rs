//! Requests that a web page makes through the browser of a person on this machine. A page of another origin changes nothing,
//! unless `server.cors_origins` has its origin.
//!
//! CORS does not prevent that: it keeps a page from reading responses, but browsers send many requests without asking first.
//! Whether a page may read responses is decided in `router`.

use super::gateway::calls::refusal;
use super::respond::ApiError;
use super::state::ApiState;
use crate::gateway::Gateway;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Passes a request on unless it changes something for a page that may not, or has a body that browsers send for any page.
pub(super) async fn check_page(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    if !changes_something(&request) {
        return next.run(request).await;
    }
    if let Some(page) = foreign_page(request.headers(), &state.cors_origins) {
        let cause = format!("{page} may change nothing here; add its origin to server.cors_origins");
        return if Gateway::is_call_path(request.uri().path()) {
            refusal(&request, StatusCode::FORBIDDEN, &cause)
        } else {
            ApiError::Forbidden(cause).into_response()
        };
    }
    if !Gateway::is_call_path(request.uri().path()) && has_form_of_a_page(request.headers()) {
        return ApiError::ContentTypeRefused.into_response();
    }
    next.run(request).await
}

/// True for header fields that only browsers send: such a request takes the way through the router, and so past
/// [`check_page`].
pub(super) fn is_from_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.contains_key(SEC_FETCH_SITE)
}

fn changes_something(request: &Request) -> bool {
    let is_safe = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    !is_safe || request.headers().contains_key(header::UPGRADE)
}

/// The page that a request is for, if it is of another origin and not allowed. Browsers name the origin with every request
/// that changes something; `Sec-Fetch-Site` tells it of those that do not.
fn foreign_page(headers: &HeaderMap, allowed: &[String]) -> Option<String> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        let site = headers.get(SEC_FETCH_SITE)?.to_str().unwrap_or_default();
        return matches!(site, "cross-site" | "same-site").then(|| "a web page of another origin".to_owned());
    };
    let origin = origin.to_str().unwrap_or_default();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    // What is behind the scheme; `null`, the origin of pages without one, has none.
    let is_ours = origin.split_once("://").is_some_and(|(_, authority)| host == Some(authority));
    let is_allowed = is_ours || allowed.iter().any(|allowed| allowed == "*" || allowed == origin);
    (!is_allowed).then(|| format!("the web page of {origin}"))
}

/// True for the two content types of forms that no other client sends to this API. `curl -d` sends the third.
fn has_form_of_a_page(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    ["text/plain", "multipart/form-data"].iter().any(|form| essence.eq_ignore_ascii_case(form))
}

/// Fetch Metadata: the relation between the page and the requested origin.
const SEC_FETCH_SITE: &str = "sec-fetch-site";

#[cfg(test)]
mod tests {
    use super::*;

    fn page(fields: &[(&'static str, &str)]) -> Option<String> {
        let fields = fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        foreign_page(&HeaderMap::from_iter(fields), &["http://page.test".to_owned()])
    }

    #[test]
    fn only_our_own_and_allowed_pages_change_something() {
        for (fields, is_foreign) in [
            (&[][..], false),
            (&[("host", "127.0.0.1:4747"), ("origin", "http://127.0.0.1:4747")], false),
            (&[("host", "127.0.0.1:4747"), ("origin", "http://127.0.0.1:8080")], true),
            (&[("host", "127.0.0.1:4747"), ("origin", "http://127.0.0.1")], true),
            (&[("host", "traces.test"), ("origin", "https://traces.test")], false),
            (&[("host", "traces.test"), ("origin", "http://page.test")], false),
            (&[("host", "traces.test"), ("origin", "http://page.test.evil.test")], true),
            (&[("host", "null"), ("origin", "null")], true),
            (&[("origin", "")], true),
            (&[("sec-fetch-site", "cross-site")], true),
            (&[("sec-fetch-site", "same-site")], true),
            (&[("sec-fetch-site", "same-origin")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("host", "h"), ("origin", "http://page.test"), ("sec-fetch-site", "cross-site")], false),
        ] {
            assert_eq!(page(fields).is_some(), is_foreign, "{fields:?}");
        }
    }
}
