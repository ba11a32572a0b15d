//! API keys that name a rollout: `sk-tw-ROLLOUT.ATTEMPT`, and signed, `sk-tw-ROLLOUT.ATTEMPT.v1-EXPIRES-SIGNATURE`.
//!
//! Ids are percent-encoded where they hold anything but letters, digits, `-` and `_`. EXPIRES are Unix seconds, 0 for
//! never; SIGNATURE is HMAC-SHA256 over all before it, in base64url. Pure: the time is passed in.

use super::routing::id_of;
use crate::error::{ErrorKind, ProxyError};
use crate::forward::NamedRollout;
use crate::util::secret::Secret;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What every key of a rollout begins with.
pub const PREFIX: &str = "sk-tw-";

/// A key for an attempt, signed if there is something to sign with.
pub fn write(rollout: &str, attempt: Option<&str>, expires: u64, signing_key: &Secret) -> String {
    let encoded = |id: &str| utf8_percent_encode(id, KEPT).to_string();
    let attempt = attempt.map_or_else(String::new, encoded);
    let key = format!("{PREFIX}{}.{attempt}", encoded(rollout));
    if signing_key.is_empty() {
        return key;
    }
    let signed = format!("{key}.{VERSION}{expires}-");
    let signature = hmac::sign(&signer(signing_key), signed.as_bytes());
    format!("{signed}{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Whom a key names. `None`: it is no key of a rollout. An error: it is, and must not be believed.
pub fn read(given: &str, signing_key: &Secret, now_unix: u64) -> Result<Option<NamedRollout>, ProxyError> {
    let Some(named) = given.strip_prefix(PREFIX) else { return Ok(None) };
    let refused = |cause: &str| Err(ProxyError::new(ErrorKind::KeyRefused, "", cause));
    let (named, signature) = match named.rsplit_once('.') {
        Some((before, last)) if last.starts_with(VERSION) => (before, Some(last)),
        _ => (named, None),
    };
    match signature {
        None if !signing_key.is_empty() => return refused("the API key of this rollout is not signed"),
        Some(signature) if !signing_key.is_empty() => {
            let parts = signature.strip_prefix(VERSION).and_then(|rest| rest.split_once('-'));
            let Some((expires, code)) = parts else { return refused("the API key's signature can't be read") };
            let signed = given.len() - code.len();
            let code = URL_SAFE_NO_PAD.decode(code).unwrap_or_default();
            if hmac::verify(&signer(signing_key), &given.as_bytes()[..signed], &code).is_err() {
                return refused("the API key's signature is wrong");
            }
            match expires.parse::<u64>() {
                Ok(0) => {}
                Ok(expires) if expires > now_unix => {}
                _ => return refused("the API key has expired"),
            }
        }
        _ => {}
    }
    let (rollout, attempt) = named.rsplit_once('.').unwrap_or((named, ""));
    let read = |id: &str| id_of(id).map_err(|error| ProxyError::new(ErrorKind::KeyRefused, "", error.cause));
    let rollout = Some(read(rollout)?.as_str().into());
    let attempt = if attempt.is_empty() { None } else { Some(read(attempt)?.as_str().into()) };
    Ok(Some(NamedRollout { rollout, attempt }))
}

fn signer(key: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes())
}

const VERSION: &str = "v1-";
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(key: &str, signing: &str, now: u64) -> Result<Option<(String, Option<String>)>, String> {
        let read = read(key, &Secret::new(signing), now).map_err(|error| error.cause)?;
        Ok(read.map(|named| {
            (named.rollout.map(|id| id.to_string()).unwrap_or_default(), named.attempt.map(|id| id.to_string()))
        }))
    }

    #[test]
    fn keys_name_rollouts_unless_they_are_forged_or_old() {
        let named = |rollout: &str, attempt: Option<&str>| Ok(Some((rollout.to_owned(), attempt.map(str::to_owned))));
        assert_eq!(names("sk-proj-1", "", 0), Ok(None));
        assert_eq!(names("sk-tw-ro-1.at-2", "", 0), named("ro-1", Some("at-2")));
        assert_eq!(names("sk-tw-ro-1", "", 0), named("ro-1", None));
        assert_eq!(names("sk-tw-ro-1.", "", 0), named("ro-1", None));
        assert!(names("sk-tw-", "", 0).is_err());
        let key = write("a.b/c", Some("0"), 100, &Secret::new("s"));
        assert_eq!(names(&key, "s", 99), named("a.b/c", Some("0")));
        assert_eq!(names(&key, "", 0), named("a.b/c", Some("0")), "nobody checks");
        assert_eq!(names(&key, "s", 100), Err("the API key has expired".to_owned()));
        assert_eq!(names(&key, "other", 0), Err("the API key's signature is wrong".to_owned()));
        assert_eq!(names(&key.replace("-100-", "-900-"), "s", 99), Err("the API key's signature is wrong".to_owned()));
        assert_eq!(names("sk-tw-ro-1.at-2", "s", 0), Err("the API key of this rollout is not signed".to_owned()));
        let forever = write("r", None, 0, &Secret::new("s"));
        assert_eq!(names(&forever, "s", u64::MAX), named("r", None));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(rollout in "[^\\pC]{1,30}", attempt in "[^\\pC]{1,30}", signing in "[a-z]{0,5}") {
            let key = write(&rollout, Some(&attempt), 0, &Secret::new(signing.clone()));
            prop_assert_eq!(names(&key, &signing, 5), Ok(Some((rollout, Some(attempt)))));
        }
    }
}
