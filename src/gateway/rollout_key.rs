//! API keys that name a rollout: `sk-tw-ROLLOUT.ATTEMPT`, and signed, `sk-tw-ROLLOUT.ATTEMPT.v1-EXPIRES-SIGNATURE`.
//!
//! In ids, everything but letters, digits, `-` and `_` is percent-encoded. EXPIRES is in Unix seconds, 0 for never. SIGNATURE
//! is HMAC-SHA256 over all that precedes it, in base64url. Pure: the time is an argument.

use super::routing::parse_id;
use crate::error::{ErrorKind, ProxyError};
use crate::forward::NamedRollout;
use crate::util::secret::Secret;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The prefix of keys that name a rollout.
pub(crate) const PREFIX: &str = "sk-tw-";

/// A key for a rollout or one of its attempts; signed if there is a signing key. `expires` is in Unix seconds, 0 for never, and
/// has no effect without a signature.
pub(crate) fn issue(rollout: &str, attempt: Option<&str>, expires: u64, signing_key: &Secret) -> String {
    let encoded = |id: &str| utf8_percent_encode(id, ENCODED).to_string();
    let attempt = attempt.map_or_else(String::new, encoded);
    let key = format!("{PREFIX}{}.{attempt}", encoded(rollout));
    if signing_key.is_empty() {
        return key;
    }
    let signed = format!("{key}.{VERSION}{expires}-");
    let signature = hmac::sign(&signer(signing_key), signed.as_bytes());
    format!("{signed}{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The rollout and attempt that a key names. `None`: it is the key of another service. An error: the key names a rollout, but its
/// signature is missing, wrong or expired.
pub(super) fn parse(key: &str, signing_key: &Secret, now_unix: u64) -> Result<Option<NamedRollout>, ProxyError> {
    let Some(ids) = key.strip_prefix(PREFIX) else { return Ok(None) };
    let refused = |cause: &str| Err(ProxyError::new(ErrorKind::KeyRefused, "", cause));
    let (ids, signature) = match ids.rsplit_once('.') {
        // Without the dot between rollout and attempt, it is an attempt that begins like a signature.
        Some((ids, last)) if last.starts_with(VERSION) && ids.contains('.') => (ids, Some(last)),
        _ => (ids, None),
    };
    match signature {
        None if !signing_key.is_empty() => {
            return refused("the API key is not signed, and gateway.signing_key requires it");
        }
        Some(signature) if !signing_key.is_empty() => {
            let parts = signature.strip_prefix(VERSION).and_then(|rest| rest.split_once('-'));
            let Some((expires, tag)) = parts else { return refused("the signature of the API key is malformed") };
            let signed_bytes = key.len() - tag.len();
            let tag = URL_SAFE_NO_PAD.decode(tag).unwrap_or_default();
            if hmac::verify(&signer(signing_key), &key.as_bytes()[..signed_bytes], &tag).is_err() {
                return refused("the signature of the API key is wrong");
            }
            match expires.parse::<u64>() {
                Ok(0) => {}
                Ok(expires) if expires > now_unix => {}
                _ => return refused("the API key has expired"),
            }
        }
        _ => {}
    }
    let (rollout, attempt) = ids.rsplit_once('.').unwrap_or((ids, ""));
    let parse = |id: &str| parse_id(id).map_err(|error| ProxyError::new(ErrorKind::KeyRefused, "", error.cause));
    let rollout = Some(parse(rollout)?.as_str().into());
    let attempt = if attempt.is_empty() { None } else { Some(parse(attempt)?.as_str().into()) };
    Ok(Some(NamedRollout { rollout, attempt }))
}

fn signer(key: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes())
}

const VERSION: &str = "v1-";
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(key: &str, signing: &str, now: u64) -> Result<Option<(String, Option<String>)>, String> {
        let identity = parse(key, &Secret::new(signing), now).map_err(|error| error.cause)?;
        Ok(identity.map(|named| {
            (named.rollout.map(|id| id.to_string()).unwrap_or_default(), named.attempt.map(|id| id.to_string()))
        }))
    }

    #[test]
    fn keys_name_rollouts_unless_they_are_forged_or_expired() {
        let named = |rollout: &str, attempt: Option<&str>| Ok(Some((rollout.to_owned(), attempt.map(str::to_owned))));
        assert_eq!(parsed("sk-proj-1", "", 0), Ok(None));
        assert_eq!(parsed("sk-tw-ro-1.at-2", "", 0), named("ro-1", Some("at-2")));
        assert_eq!(parsed("sk-tw-ro-1", "", 0), named("ro-1", None));
        assert_eq!(parsed("sk-tw-ro-1.", "", 0), named("ro-1", None));
        assert_eq!(parsed("sk-tw-ro-1.v1-2", "", 0), named("ro-1", Some("v1-2")));
        assert!(parsed("sk-tw-", "", 0).is_err());
        let key = issue("a.b/c", Some("0"), 100, &Secret::new("s"));
        assert_eq!(parsed(&key, "s", 99), named("a.b/c", Some("0")));
        assert_eq!(parsed(&key, "", 0), named("a.b/c", Some("0")), "without a signing key no signature is checked");
        assert_eq!(parsed(&key, "s", 100), Err("the API key has expired".to_owned()));
        assert_eq!(parsed(&key, "other", 0), Err("the signature of the API key is wrong".to_owned()));
        assert_eq!(
            parsed(&key.replace("-100-", "-900-"), "s", 99),
            Err("the signature of the API key is wrong".to_owned())
        );
        assert_eq!(
            parsed("sk-tw-ro-1.at-2", "s", 0),
            Err("the API key is not signed, and gateway.signing_key requires it".to_owned())
        );
        let forever = issue("r", None, 0, &Secret::new("s"));
        assert_eq!(parsed(&forever, "s", u64::MAX), named("r", None));
    }

    proptest! {
        #[test]
        fn an_issued_key_is_parsed_to_its_ids(rollout in "[^\\pC]{0,30}\\w", attempt in "[^\\pC]{0,30}\\w", signing in "[a-z]{0,5}") {
            let key = issue(&rollout, Some(&attempt), 0, &Secret::new(signing.clone()));
            prop_assert_eq!(parsed(&key, &signing, 5), Ok(Some((rollout, Some(attempt)))));
        }
    }
}
