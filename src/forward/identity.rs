//! Who an exchange belongs to: the first carrier that is present wins, and one that disagrees is recorded.
//!
//! Order: gateway URL prefix, request headers, API key, proxy credentials, the door's binding, a rollout of the connection's own.

use super::connection::{ConnectionContext, NamedRollout};
use crate::trace::exchange::{Identity, IdentitySource};
use crate::trace::{AttemptId, RolloutId};
use http::HeaderMap;

/// The rollout.
pub const ROLLOUT_HEADER: &str = "x-rollout-id";
/// The attempt.
pub const ATTEMPT_HEADER: &str = "x-attempt-id";
/// The sequence id.
pub const SEQUENCE_HEADER: &str = "x-sequence-id";
/// Agent Lightning's own calls carry it with the value `true`.
pub const OWN_TRAFFIC_HEADER: &str = "x-agentlightning-client";

type Claim = (IdentitySource, RolloutId, Option<AttemptId>);

/// The identity of a request, its sequence id still 0, and the sequence id it asks for.
pub fn identify(conversation: &ConnectionContext, headers: &HeaderMap) -> (Identity, Option<u64>) {
    let claims = claims(conversation, headers);
    let given = text(headers, SEQUENCE_HEADER).and_then(|digits| digits.parse().ok());
    let Some((source, rollout_id, attempt)) = claims.first().cloned() else {
        let (rollout_id, attempt_id) = conversation.own.clone();
        let source = IdentitySource::Connection;
        return (Identity { rollout_id, attempt_id, sequence_id: 0, source, conflict: None }, given);
    };
    // A carrier further down may know the attempt that this one left open, if it means the same rollout.
    let same = claims.iter().filter(|(_, rollout, _)| *rollout == rollout_id);
    let attempt_id = attempt
        .or_else(|| same.into_iter().find_map(|(_, _, attempt)| attempt.clone()))
        .unwrap_or_else(|| AttemptId::default_of(&rollout_id));
    let conflict = claims[1..].iter().find_map(|(source, rollout, attempt)| {
        let differs = *rollout != rollout_id || attempt.as_ref().is_some_and(|attempt| *attempt != attempt_id);
        let attempt = attempt.as_ref().map_or("", |attempt| attempt.as_str());
        differs.then(|| format!("{}={rollout}/{attempt}", source.as_str()))
    });
    (Identity { rollout_id, attempt_id, sequence_id: 0, source, conflict }, given)
}

fn claims(conversation: &ConnectionContext, headers: &HeaderMap) -> Vec<Claim> {
    let mut claims = Vec::with_capacity(3);
    let mut claim = |source, named: &NamedRollout| {
        if let Some(rollout) = &named.rollout {
            claims.push((source, rollout.clone(), named.attempt.clone()));
        }
    };
    claim(IdentitySource::Url, &conversation.prefix);
    let headers = NamedRollout {
        rollout: text(headers, ROLLOUT_HEADER).map(Into::into),
        attempt: text(headers, ATTEMPT_HEADER).map(Into::into),
    };
    claim(IdentitySource::Headers, &headers);
    claim(IdentitySource::Key, &conversation.key);
    claim(IdentitySource::NamedRollout, &conversation.credentials);
    if let Some((rollout, attempt)) = &conversation.binding {
        claims.push((IdentitySource::Binding, rollout.clone(), Some(attempt.clone())));
    }
    claims
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::drain::Drain;

    fn conversation(user: &str, bound: bool) -> ConnectionContext {
        let binding = bound.then(|| ("ro-bound".into(), "at-bound".into()));
        let mut conversation = ConnectionContext::new("127.0.0.1:1".parse().unwrap(), binding, Drain::new().guard());
        conversation.credentials = NamedRollout::from_user(user);
        conversation
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_first_carrier_wins_and_a_conflict_is_kept() {
        let named = headers(&[(ROLLOUT_HEADER, "ro-h"), (ATTEMPT_HEADER, "at-h"), (SEQUENCE_HEADER, "9")]);
        let (identity, given) = identify(&conversation("ro-c.at-c", true), &named);
        assert_eq!((identity.rollout_id.as_str(), identity.attempt_id.as_str(), given), ("ro-h", "at-h", Some(9)));
        assert_eq!(identity.source, IdentitySource::Headers);
        assert_eq!(identity.conflict.as_deref(), Some("credentials=ro-c/at-c"));

        let (identity, _) = identify(&conversation("ro-bound", true), &HeaderMap::new());
        assert_eq!(identity.source, IdentitySource::NamedRollout);
        assert_eq!((identity.attempt_id.as_str(), identity.conflict), ("at-bound", None));

        let (identity, _) = identify(&conversation("", true), &HeaderMap::new());
        assert_eq!(identity.source, IdentitySource::Binding);
    }

    #[test]
    fn nobodys_exchange_gets_the_connections_own_rollout() {
        let conversation = conversation("", false);
        let (first, _) = identify(&conversation, &HeaderMap::new());
        let (second, _) = identify(&conversation, &HeaderMap::new());
        assert_eq!(first, second);
        assert_eq!(first.source, IdentitySource::Connection);
    }

    #[test]
    fn a_rollout_alone_has_one_attempt() {
        let named = headers(&[(ROLLOUT_HEADER, "ro-h")]);
        let (identity, _) = identify(&conversation("", false), &named);
        assert_eq!(identity.attempt_id, AttemptId::default_of(&"ro-h".into()));
    }
}
