//! Header fields that change between agent and endpoint: hop-by-hop fields and our routing fields are removed.
//!
//! RFC 9110 §7.6.1. Pure functions on header maps. No `Via` and no `X-Forwarded-*` is added: the endpoint sees what it
//! would see without a proxy.

use super::identity::{ATTEMPT_HEADER, ROLLOUT_HEADER, SEQUENCE_HEADER};
use crate::wire::fields::HOP_BY_HOP;
use crate::wire::framing::head::is_taken;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// What happens to the fields of a protocol upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UpgradeFields {
    /// They are sent on: the message upgrades the connection.
    Keep,
    /// They are removed as other hop-by-hop fields are.
    Remove,
}

/// Removes from a request what was meant for us or for this hop.
pub(crate) fn request(headers: &mut HeaderMap, upgrade: UpgradeFields) {
    for name in [ROLLOUT_HEADER, ATTEMPT_HEADER, SEQUENCE_HEADER] {
        headers.remove(name);
    }
    headers.remove(header::PROXY_AUTHORIZATION);
    hop_by_hop(headers, upgrade);
}

/// Removes from a request to this process's own API listener what was meant for the proxy. The routing fields stay: the
/// gateway reads them.
pub(crate) fn request_to_api(headers: &mut HeaderMap) {
    headers.remove(header::PROXY_AUTHORIZATION);
    hop_by_hop(headers, UpgradeFields::Remove);
}

/// Removes from a response what was meant for this hop.
pub(crate) fn response(headers: &mut HeaderMap, upgrade: UpgradeFields) {
    headers.remove(header::PROXY_AUTHENTICATE);
    hop_by_hop(headers, upgrade);
}

/// The protocol that a request or a 101 upgrades to, unless it is one that is ignored.
pub(super) fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let wants = connection_options(headers).any(|option| option.eq_ignore_ascii_case("upgrade"));
    let named = headers.get(header::UPGRADE).filter(|protocols| is_taken(protocols.as_bytes()));
    if wants { named.cloned() } else { None }
}

fn hop_by_hop(headers: &mut HeaderMap, upgrade: UpgradeFields) {
    let kept_upgrade = if upgrade == UpgradeFields::Keep { upgrade_of(headers) } else { None };
    let wants_trailers = headers.get_all(header::TE).iter().any(|value| {
        value.to_str().is_ok_and(|value| value.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers")))
    });
    let nominated: Vec<HeaderName> = connection_options(headers)
        .filter_map(|option| option.parse().ok())
        // `Connection` must not name end-to-end fields. To remove them would be an attack on the endpoint.
        .filter(|name| !END_TO_END.contains(name))
        .collect();
    for name in nominated {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = kept_upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|option| !option.is_empty())
}

const END_TO_END: [HeaderName; 6] = [
    header::AUTHORIZATION,
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::CONTENT_ENCODING,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap()))
            .collect()
    }

    #[test]
    fn hop_by_hop_and_routing_fields_are_removed_and_others_stay() {
        let mut map = headers(&[
            ("connection", "close, x-hop, Authorization"),
            ("x-hop", "1"),
            ("authorization", "Bearer x"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic x"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-rollout-id", "r"),
            ("x-attempt-id", "a"),
            ("x-sequence-id", "1"),
            ("x-other", "kept"),
        ]);
        request(&mut map, UpgradeFields::Remove);
        assert_eq!(map, headers(&[("authorization", "Bearer x"), ("te", "trailers"), ("x-other", "kept")]));
    }

    #[test]
    fn an_upgrade_keeps_its_fields() {
        let mut map =
            headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "k")]);
        request(&mut map, UpgradeFields::Keep);
        let kept = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "k")];
        assert_eq!(map, headers(&kept));
        assert_eq!(upgrade_of(&headers(&[("upgrade", "websocket")])), None, "not named in Connection");
    }
}
