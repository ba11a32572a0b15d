//! Which rollout a request belongs to: by its URL, its headers, its API key, or else its connection.

use super::rollout_key;
use super::routing::Route;
use super::service::{Gateway, ReroutedCallers};
use crate::error::{ErrorKind, ProxyError};
use crate::forward::{ConnectionContext, NamedRollout};
use crate::llm::api::{ApiCall, api_key, api_key_in_query};
use crate::trace::{AttemptId, RolloutId};
use crate::util::secret::Secret;
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

    /// The rollout and attempt that a request to the API listener names, by the first source that names a rollout.
    pub(crate) fn rollout_of<B>(&self, request: &Request<B>) -> NamedRollout {
        let path = request.uri().path();
        let in_url = Route::parse(path).map_or_else(|_| Route::identity_in(path), |route| route.identity);
        let in_headers = NamedRollout::from_headers(request.headers());
        let in_key = self.key_of(request.headers(), request.uri().query().unwrap_or_default());
        let mut sources = [in_url, in_headers, in_key.ok().flatten().unwrap_or_default()].into_iter();
        let Some(mut named) = sources.find(|named| named.rollout.is_some()) else { return NamedRollout::default() };
        // A later source names the attempt that this one leaves open, if it names the same rollout.
        let mut same = sources.filter(|later| later.rollout == named.rollout);
        named.attempt = named.attempt.or_else(|| same.find_map(|later| later.attempt));
        named
    }

    /// The identity in the API key of a request; `None` if it has no key, or one that does not name a rollout. An error if the
    /// key names a rollout but its signature is missing, wrong or expired.
    pub(super) fn key_of(&self, headers: &HeaderMap, query: &str) -> Result<Option<NamedRollout>, ProxyError> {
        rollout_of_key(&self.settings().signing_key, headers, query)
    }

    /// The identity in the text of a key; `None` if it is the key of another service, or refused.
    pub(crate) fn rollout_of_text(&self, key: &str) -> Option<NamedRollout> {
        rollout_key::parse(key, &self.settings().signing_key, now_unix()).ok().flatten()
    }

    /// An error if the call came through the proxy from a client that presented nothing, and something is needed.
    pub(super) fn check_rerouted<B>(
        &self,
        connection: &ConnectionContext,
        request: &Request<B>,
    ) -> Result<(), ProxyError> {
        let has_signed_key = || {
            let key = self.key_of(request.headers(), request.uri().query().unwrap_or_default());
            !self.settings().signing_key.is_empty() && key.is_ok_and(|key| key.is_some())
        };
        if self.rerouted_callers() == ReroutedCallers::All || connection.is_authenticated || has_signed_key() {
            return Ok(());
        }
        let cause = "calls to this host are rerouted to backends that want a token; put proxy.token or a signed key into the \
                     proxy URL as the password, or send a signed key as the API key";
        Err(ProxyError::new(ErrorKind::KeyRefused, "", cause))
    }

    /// Notes the API key of a call. A signed one limits its holder, unless the proxy's token allows all rollouts.
    pub(super) fn apply_key(&self, key: Option<NamedRollout>, connection: &mut ConnectionContext) {
        let has_token = connection.is_authenticated && connection.limit.is_none();
        if let Some(key) = &key
            && !self.settings().signing_key.is_empty()
            && !has_token
        {
            connection.limit = Some(key.clone());
        }
        connection.key = key.unwrap_or_default();
    }
}

/// The identity in the API key of a request, see [`Gateway::key_of`].
pub(crate) fn rollout_of_key(
    signing_key: &Secret,
    headers: &HeaderMap,
    query: &str,
) -> Result<Option<NamedRollout>, ProxyError> {
    let Some(key) = api_key(headers).or_else(|| api_key_in_query(query)).map(str::trim) else { return Ok(None) };
    rollout_key::parse(key, signing_key, now_unix())
}

fn now_unix() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The rollout and attempt of calls that name none: one per connection, derived from the client's address and port.
pub(super) fn fallback_identity(client: SocketAddr) -> (RolloutId, AttemptId) {
    static PROCESS_SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let bits = PROCESS_SEED.hash_one(client);
    let high_bits = (bits >> 32) as u32;
    (RolloutId::from_random(bits), AttemptId::from_random(high_bits))
}
