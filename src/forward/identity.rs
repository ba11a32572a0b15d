//! Which rollout a request belongs to: the first source that names one wins, and a source that disagrees is recorded.
//!
//! Order: gateway URL prefix, request headers, API key, proxy credentials, the listener's binding, a rollout for the
//! connection alone.

use super::connection_context::{ConnectionContext, NamedRollout};
use crate::error::{ErrorKind, ProxyError};
use crate::trace::exchange::{Identity, IdentitySource};
use crate::trace::{AttemptId, RolloutId, check_id};
use http::HeaderMap;

/// Names the rollout of a request.
pub(crate) const ROLLOUT_HEADER: &str = "x-rollout-id";
/// Names the attempt of a request.
pub(crate) const ATTEMPT_HEADER: &str = "x-attempt-id";
/// Names the sequence id of a request.
pub(crate) const SEQUENCE_HEADER: &str = "x-sequence-id";
/// Agent Lightning marks its own traffic with it; the value is `true`.
pub(crate) const OWN_TRAFFIC_HEADER: &str = "x-agentlightning-client";

/// A source, and the rollout and attempt that it names.
type Claim = (IdentitySource, RolloutId, Option<AttemptId>);

/// The identity of a request, with sequence id 0, and the sequence id that the request names.
pub(super) fn identify(connection: &ConnectionContext, headers: &HeaderMap) -> (Identity, Option<u64>) {
    let claims = claims(connection, headers);
    let named_id = text(headers, SEQUENCE_HEADER).and_then(|digits| digits.parse().ok());
    let Some((source, rollout_id, attempt)) = claims.first().cloned() else {
        let (rollout_id, attempt_id) = connection.fallback_identity.clone();
        let source = IdentitySource::Connection;
        return (Identity { rollout_id, attempt_id, sequence_id: 0, source, conflict: None }, named_id);
    };
    // A later source may name the attempt that this one leaves open, if it names the same rollout.
    let same = claims.iter().filter(|(_, rollout, _)| *rollout == rollout_id);
    let attempt_id = attempt
        .or_else(|| same.into_iter().find_map(|(_, _, attempt)| attempt.clone()))
        .unwrap_or_else(|| AttemptId::default_of(&rollout_id));
    let conflict = claims[1..].iter().find_map(|(source, rollout, attempt)| {
        let differs = *rollout != rollout_id || attempt.as_ref().is_some_and(|attempt| *attempt != attempt_id);
        let attempt = attempt.as_ref().map_or("", |attempt| attempt.as_str());
        differs.then(|| format!("{}={rollout}/{attempt}", source.as_str()))
    });
    (Identity { rollout_id, attempt_id, sequence_id: 0, source, conflict }, named_id)
}

fn claims(connection: &ConnectionContext, headers: &HeaderMap) -> Vec<Claim> {
    let mut claims = Vec::with_capacity(3);
    // What a signed key is not for is refused, and its record must not get into the other rollout.
    let is_allowed = |named: &NamedRollout| connection.limit.as_ref().is_none_or(|limit| limit.includes(named));
    let mut claim = |source, named: &NamedRollout| {
        if let Some(rollout) = named.rollout.as_ref().filter(|_| is_allowed(named)) {
            claims.push((source, rollout.clone(), named.attempt.clone()));
        }
    };
    claim(IdentitySource::Url, &connection.prefix);
    claim(IdentitySource::Headers, &NamedRollout::from_headers(headers));
    claim(IdentitySource::Key, &connection.key);
    claim(IdentitySource::Credentials, &connection.credentials);
    if let Some((rollout, attempt)) = &connection.binding {
        claims.push((IdentitySource::Binding, rollout.clone(), Some(attempt.clone())));
    }
    claims
}

impl NamedRollout {
    /// The rollout and attempt in the header fields of a request. Invalid ids name none; [`check_named`] refuses them.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        let id = |name: &str| text(headers, name).filter(|id| check_id(id).is_ok());
        Self { rollout: id(ROLLOUT_HEADER).map(Into::into), attempt: id(ATTEMPT_HEADER).map(Into::into) }
    }
}

/// An error if a header field has an invalid id, or if a request names another rollout or attempt than the client's signed key
/// is for.
pub(crate) fn check_named(connection: &ConnectionContext, headers: &HeaderMap) -> Result<(), ProxyError> {
    check_headers(headers)?;
    let Some(limit) = &connection.limit else { return Ok(()) };
    let places = [("URL", &connection.prefix), ("request", &NamedRollout::from_headers(headers))];
    let Some((place, named)) = places.into_iter().find(|(_, named)| !limit.includes(named)) else { return Ok(()) };
    let cause = match (&limit.rollout, &named.rollout, &limit.attempt, &named.attempt) {
        (Some(key), Some(named), ..) if key != named => {
            format!("the API key is for the rollout {key}, but the {place} names the rollout {named}")
        }
        (.., Some(key), Some(named)) => {
            format!("the API key is for the attempt {key}, but the {place} names the attempt {named}")
        }
        _ => format!("the API key is for another rollout than the {place} names"),
    };
    Err(ProxyError::new(ErrorKind::KeyRefused, "", cause))
}

/// An error if a header field has an invalid id.
fn check_headers(headers: &HeaderMap) -> Result<(), ProxyError> {
    for name in [ROLLOUT_HEADER, ATTEMPT_HEADER].into_iter().filter(|name| headers.contains_key(*name)) {
        let checked = text(headers, name).map(check_id);
        let problem = match checked {
            Some(Ok(())) => continue,
            Some(Err(error)) => error.to_string(),
            None => "an id must be UTF-8".to_owned(),
        };
        return Err(ProxyError::new(ErrorKind::HttpRequestError, "", format!("{name}: {problem}")));
    }
    Ok(())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    std::str::from_utf8(headers.get(name)?.as_bytes()).ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::drain::Drain;

    fn connection(user: &str, binding: Option<(&str, &str)>) -> ConnectionContext {
        let binding = binding.map(|(rollout, attempt)| (rollout.into(), attempt.into()));
        let mut connection = ConnectionContext::new("127.0.0.1:1".parse().unwrap(), binding, Drain::new().guard());
        connection.credentials = NamedRollout::from_user(user);
        connection
    }

    const BOUND: Option<(&str, &str)> = Some(("ro-bound", "at-bound"));

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_first_source_wins_and_a_conflict_is_recorded() {
        let named = headers(&[(ROLLOUT_HEADER, "ro-h"), (ATTEMPT_HEADER, "at-h"), (SEQUENCE_HEADER, "9")]);
        let (identity, named_id) = identify(&connection("ro-c.at-c", BOUND), &named);
        assert_eq!((identity.rollout_id.as_str(), identity.attempt_id.as_str(), named_id), ("ro-h", "at-h", Some(9)));
        assert_eq!(identity.source, IdentitySource::Headers);
        assert_eq!(identity.conflict.as_deref(), Some("credentials=ro-c/at-c"));

        let (identity, _) = identify(&connection("ro-bound", BOUND), &HeaderMap::new());
        assert_eq!(identity.source, IdentitySource::Credentials);
        assert_eq!((identity.attempt_id.as_str(), identity.conflict), ("at-bound", None));

        let (identity, _) = identify(&connection("", BOUND), &HeaderMap::new());
        assert_eq!(identity.source, IdentitySource::Binding);
    }

    #[test]
    fn a_request_without_identity_gets_the_rollout_of_its_connection() {
        let connection = connection("", None);
        let (first, _) = identify(&connection, &HeaderMap::new());
        let (second, _) = identify(&connection, &HeaderMap::new());
        assert_eq!(first, second);
        assert_eq!(first.source, IdentitySource::Connection);
    }

    #[test]
    fn a_signed_key_limits_what_headers_may_name() {
        let mut connection = connection("ro-k.at-k", None);
        connection.limit = Some(connection.credentials.clone());
        let named = |rollout, attempt| headers(&[(ROLLOUT_HEADER, rollout), (ATTEMPT_HEADER, attempt)]);
        for (named, words) in [
            (HeaderMap::new(), ""),
            (named("ro-k", "at-k"), ""),
            (headers(&[(ROLLOUT_HEADER, "ro-k")]), ""),
            (headers(&[(ATTEMPT_HEADER, "ignored")]), ""),
            (named("ro-other", "at-k"), "for the rollout ro-k, but the request names the rollout ro-other"),
            (named("ro-k", "at-other"), "for the attempt at-k, but the request names the attempt at-other"),
        ] {
            let error = check_named(&connection, &named).err().map(|error| error.cause).unwrap_or_default();
            assert_eq!(error.is_empty(), words.is_empty(), "{error}");
            assert!(error.contains(words), "{error}");
            // The record of a refused request is its own rollout's.
            let (identity, _) = identify(&connection, &named);
            assert_eq!((identity.rollout_id.as_str(), identity.attempt_id.as_str()), ("ro-k", "at-k"));
        }
    }

    #[test]
    fn an_invalid_id_is_refused_and_names_nothing() {
        let long: &'static str = "x".repeat(1025).leak();
        for (value, words) in [("", "empty"), (" ", "empty"), ("a\tb", "control"), (long, "1024"), ("ü", "")] {
            for name in [ROLLOUT_HEADER, ATTEMPT_HEADER] {
                let mut named = HeaderMap::new();
                named.insert(name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
                let error = check_headers(&named).err().map(|error| error.cause).unwrap_or_default();
                assert_eq!(error.is_empty(), words.is_empty(), "{value:?}: {error}");
                assert!(error.contains(words), "{value:?}: {error}");
                let read = NamedRollout::from_headers(&named);
                assert_eq!(read == NamedRollout::default(), !words.is_empty(), "{value:?}");
            }
        }
        let bytes = http::HeaderValue::from_bytes(b"\xff").unwrap();
        assert!(check_headers(&HeaderMap::from_iter([(ROLLOUT_HEADER.parse().unwrap(), bytes)])).is_err());
    }

    #[test]
    fn a_rollout_alone_has_one_attempt() {
        let named = headers(&[(ROLLOUT_HEADER, "ro-h")]);
        let (identity, _) = identify(&connection("", None), &named);
        assert_eq!(identity.attempt_id, AttemptId::default_of(&"ro-h".into()));
    }
}
