//! Which rollout a request belongs to: by its URL, its headers, its API key, or else its connection.

use super::rollout_key;
use super::routing::Route;
use super::service::Gateway;
use crate::error::{ErrorKind, ProxyError};
use crate::forward::identity::ROLLOUT_HEADER;
use crate::forward::{ConnectionContext, NamedRollout};
use crate::llm::api::{ApiCall, api_key, api_key_in_query};
use crate::trace::{AttemptId, RolloutId};
use http::{HeaderMap, Request};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::SystemTime;

impl Gateway {
    /// True for a path of the API listener that is an LLM call.
    pub(crate) fn is_call_path(path: &str) -> bool {
        let in_session = || path.strip_prefix("/sessions/").is_some_and(|rest| rest.contains("/v1"));
        path.starts_with("/rollout/")
            || path.starts_with("/proxy/rollout/")
            || in_session()
            || ApiCall::at_gateway(path).is_some()
    }

    /// The rollout that a request to the API listener names; `None` if it names none.
    pub(crate) fn rollout_of<B>(&self, request: &Request<B>) -> Option<String> {
        let path = request.uri().path();
        let in_url = Route::parse(path).map_or_else(|_| Route::identity_in(path), |route| route.identity).rollout;
        let in_header = || request.headers().get(ROLLOUT_HEADER).and_then(|id| id.to_str().ok()).map(Into::into);
        let in_key = || {
            let key = self.key_of(request.headers(), request.uri().query().unwrap_or_default());
            key.ok().flatten().and_then(|identity| identity.rollout)
        };
        let rollout: Option<RolloutId> = in_url.or_else(in_header).or_else(in_key);
        rollout.map(|rollout| rollout.to_string())
    }

    /// The identity in the API key of a request; `None` if it has no key, or one that does not name a rollout. An error if the
    /// key names a rollout but its signature is missing, wrong or expired.
    pub(crate) fn key_of(&self, headers: &HeaderMap, query: &str) -> Result<Option<NamedRollout>, ProxyError> {
        let Some(key) = api_key(headers).or_else(|| api_key_in_query(query)).map(str::trim) else { return Ok(None) };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        rollout_key::parse(key, &self.settings().signing_key, now)
    }

    /// An error if the request has a signed key that is for another rollout than its URL.
    pub(super) fn check_key(&self, connection: &ConnectionContext) -> Result<(), ProxyError> {
        let (Some(in_url), Some(in_key)) = (&connection.prefix.rollout, &connection.key.rollout) else { return Ok(()) };
        if in_url == in_key || self.settings().signing_key.is_empty() {
            return Ok(());
        }
        let cause = format!("the API key is for the rollout {in_key}, but the URL names the rollout {in_url}");
        Err(ProxyError::new(ErrorKind::KeyRefused, "", cause))
    }
}

/// The rollout and attempt of calls that name none: one per connection, derived from the client's address and port.
pub(super) fn fallback_identity(client: SocketAddr) -> (RolloutId, AttemptId) {
    static PROCESS_SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let bits = PROCESS_SEED.hash_one(client);
    let high_bits = (bits >> 32) as u32;
    (RolloutId::from_random(bits), AttemptId::from_random(high_bits))
}
