//! Proxy credentials (RFC 7617 `Basic`): the user name names a rollout, the password is the proxy's token.
//!
//! They are never sent upstream.

use crate::error::{ErrorKind, ProxyError};
use crate::forward::NamedRollout;
use crate::util::secret::Secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};
use percent_encoding::percent_decode_str;

/// Reads the credentials of `headers` into `credentials`, and checks the password against the token if one is set.
pub(super) fn check(token: &Secret, headers: &HeaderMap, credentials: &mut NamedRollout) -> Result<(), ProxyError> {
    let basic = headers.get(header::PROXY_AUTHORIZATION).and_then(|value| basic(value.to_str().ok()?));
    match basic {
        Some((user, password)) => admit(token, &user, &password, credentials),
        None if token.is_empty() => Ok(()),
        None => Err(refused("the request has no proxy credentials")),
    }
}

/// Reads the user name into `credentials` if the password matches the token, or if no token is set.
pub(super) fn admit(
    token: &Secret,
    user: &str,
    password: &str,
    credentials: &mut NamedRollout,
) -> Result<(), ProxyError> {
    if !token.is_empty() && !token.matches(password) {
        return Err(refused("the token is wrong"));
    }
    *credentials = NamedRollout::from_user(user);
    Ok(())
}

fn refused(cause: &str) -> ProxyError {
    ProxyError::new(ErrorKind::ProxyAuthenticationRequired, "", cause)
}

/// User name and password, percent-decoded: some clients send them as written in the proxy URL, some decode them.
fn basic(value: &str) -> Option<(String, String)> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((decoded(user), decoded(password)))
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(token: &str, user_and_password: Option<&str>) -> Result<NamedRollout, ProxyError> {
        let mut headers = HeaderMap::new();
        if let Some(text) = user_and_password {
            let value = format!("Basic {}", STANDARD.encode(text));
            headers.insert(header::PROXY_AUTHORIZATION, value.parse().unwrap());
        }
        let mut credentials = NamedRollout::default();
        check(&Secret::new(token), &headers, &mut credentials).map(|()| credentials)
    }

    #[test]
    fn a_token_is_required_only_if_set() {
        assert!(checked("", None).is_ok());
        assert!(checked("s3cret", None).is_err());
        assert!(checked("s3cret", Some("ro-1.at-1:wrong")).is_err());
        let read = checked("s3cret", Some("ro%2D1.at-1:s3cret")).unwrap();
        assert_eq!(read.rollout, Some("ro-1".into()));
    }
}
