//! Proxy credentials (RFC 7617 `Basic`): the user name names a rollout, the password is the proxy's token, or the signed key of
//! the rollout.
//!
//! They are never sent upstream.

use crate::error::{ErrorKind, ProxyError};
use crate::forward::{ConnectionContext, NamedRollout};
use crate::trace::{AttemptId, RolloutId, check_id};
use crate::util::secret::Secret;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, header};
use percent_encoding::percent_decode_str;
use std::sync::{Arc, PoisonError};

/// The rollout and attempt of a signed key; `None` if the text is none, or is forged or expired. The gateway, which makes the
/// keys, provides it.
pub(crate) type KeyCheck = Arc<dyn Fn(&str) -> Option<NamedRollout> + Send + Sync>;

/// What clients must present.
#[derive(Clone)]
pub(super) struct ProxyAccess {
    token: Secret,
    key_check: Option<KeyCheck>,
}

impl ProxyAccess {
    /// Without a token clients need not present anything.
    pub(super) fn new(token: Secret) -> Self {
        Self { token, key_check: None }
    }

    /// Also accepts signed keys.
    pub(super) fn with_keys(self, key_check: KeyCheck) -> Self {
        Self { key_check: Some(key_check), ..self }
    }

    /// True if clients need not present anything.
    pub(super) fn is_open(&self) -> bool {
        self.token.is_empty()
    }

    /// Reads the credentials in `headers` into the connection. An error if they are needed, and missing or wrong.
    ///
    /// RFC 9110 §11.7.2 wants them in each request, but aiohttp sends them in the first `http://` request of a connection only.
    /// A request without any uses those before it, unless another proxy forwarded it: many clients may share its connections.
    pub(super) fn check(&self, headers: &HeaderMap, connection: &mut ConnectionContext) -> Result<(), ProxyError> {
        let last = Arc::clone(&connection.last_credentials);
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = headers.get(header::PROXY_AUTHORIZATION);
        let is_forwarded = || FORWARDING_FIELDS.iter().any(|name| headers.contains_key(*name));
        let value = sent.or_else(|| last.as_ref().filter(|_| !is_forwarded()));
        match value.and_then(|value| basic(value.to_str().ok()?)) {
            Some((user, password)) => {
                self.admit(&user, &password, connection)?;
                if let Some(sent) = sent.filter(|sent| last.as_ref() != Some(sent)) {
                    // A clone would keep the buffer that the request was read into.
                    *last = HeaderValue::from_bytes(sent.as_bytes()).ok();
                    last.iter_mut().for_each(|value| value.set_sensitive(true));
                }
                Ok(())
            }
            None if self.is_open() => Ok(()),
            None => Err(refused("the request has no proxy credentials")),
        }
    }

    /// Reads user name and password into the connection. An error if the password is needed and wrong.
    pub(super) fn admit(
        &self,
        user: &str,
        password: &str,
        connection: &mut ConnectionContext,
    ) -> Result<(), ProxyError> {
        // Some clients send the password as it is written in the proxy URL, some decode it. What it says may have `%` itself.
        let (decoded_user, decoded_password) = (decoded(user), decoded(password));
        let named = NamedRollout::from_user(&decoded_user);
        let ids = [named.rollout.as_ref().map(RolloutId::as_str), named.attempt.as_ref().map(AttemptId::as_str)];
        if let Some(error) = ids.into_iter().flatten().find_map(|id| check_id(id).err()) {
            return Err(refused(&format!("the user name is not ROLLOUT.ATTEMPT: {error}")));
        }
        let passwords = [password, &decoded_password];
        if !self.is_open() && passwords.iter().any(|password| self.token.matches(password)) {
            (connection.credentials, connection.is_authenticated) = (named, true);
            return Ok(());
        }
        let key = self.key_check.as_ref().and_then(|check| passwords.iter().find_map(|password| check(password)));
        match key {
            Some(key) if key.includes(&named) => {
                connection.limit = Some(key.clone());
                let attempt = key.attempt.or(named.attempt);
                connection.credentials = NamedRollout { attempt, ..key };
                connection.is_authenticated = true;
                Ok(())
            }
            Some(_) => Err(refused("the key is for another rollout or attempt than the user name")),
            None if self.is_open() => {
                connection.credentials = named;
                Ok(())
            }
            None => Err(refused("the token is wrong")),
        }
    }
}

/// The fields that proxies and load balancers add to requests that they forward.
const FORWARDING_FIELDS: [&str; 3] = ["via", "forwarded", "x-forwarded-for"];

fn refused(cause: &str) -> ProxyError {
    ProxyError::new(ErrorKind::ProxyAuthenticationRequired, "", cause)
}

/// User name and password as they were sent.
fn basic(value: &str) -> Option<(String, String)> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::drain::Drain;

    fn checked(access: &ProxyAccess, user_and_password: Option<&str>) -> Result<(NamedRollout, bool), ProxyError> {
        let mut headers = HeaderMap::new();
        if let Some(text) = user_and_password {
            let value = format!("Basic {}", STANDARD.encode(text));
            headers.insert(header::PROXY_AUTHORIZATION, value.parse().unwrap());
        }
        let mut connection = ConnectionContext::new("127.0.0.1:1".parse().unwrap(), None, Drain::new().guard());
        access.check(&headers, &mut connection).map(|()| (connection.credentials, connection.is_authenticated))
    }

    #[test]
    fn a_token_is_required_only_if_set() {
        let open = ProxyAccess::new(Secret::default());
        assert_eq!(checked(&open, None).unwrap(), (NamedRollout::default(), false));
        assert_eq!(checked(&open, Some("ro-1:x")).unwrap(), (NamedRollout::from_user("ro-1"), false));
        let closed = ProxyAccess::new(Secret::new("s3%63ret"));
        assert!(checked(&closed, None).is_err());
        assert!(checked(&closed, Some("ro-1.at-1:wrong")).is_err());
        assert!(checked(&closed, Some("ro-1.at-1:")).is_err());
        for password in ["s3%63ret", "s3%2563ret"] {
            let read = checked(&closed, Some(&format!("ro%2D1.at-1:{password}"))).unwrap();
            assert_eq!(read, (NamedRollout::from_user("ro-1.at-1"), true), "{password}");
        }
    }

    #[test]
    fn a_signed_key_is_a_password_for_its_attempt_only() {
        let key_check: KeyCheck = Arc::new(|key: &str| match key {
            "key" => Some(NamedRollout::from_user("ro-1.at-1")),
            "key%2Fall" => Some(NamedRollout { rollout: Some("ro-1".into()), attempt: None }),
            _ => None,
        });
        for token in ["", "s3cret"] {
            let access = ProxyAccess::new(Secret::new(token)).with_keys(Arc::clone(&key_check));
            let attempt = |attempt: &str| (NamedRollout::from_user(&format!("ro-1.{attempt}")), true);
            assert_eq!(checked(&access, Some("ro-1.at-1:key")).unwrap(), attempt("at-1"));
            assert_eq!(checked(&access, Some("tracewire:key")).unwrap(), attempt("at-1"));
            assert_eq!(checked(&access, Some("ro-1.at-9:key%2Fall")).unwrap(), attempt("at-9"));
            assert_eq!(checked(&access, Some("ro-1.at-9:key%252Fall")).unwrap(), attempt("at-9"));
            for other in ["a\tb:key", "ro-2.at-1:key", "ro-1.at-2:key", "ro-2:key%2Fall"] {
                assert!(checked(&access, Some(other)).is_err(), "{other}");
            }
        }
    }
}
