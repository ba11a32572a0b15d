//! The URL of a receiver.

use super::settings_error::ExportSettingsError;
use crate::upstream::{Origin, Scheme};
use http::Uri;
use http::uri::PathAndQuery;
use serde::{Deserialize, Serialize};

/// The URL of a receiver, with `http` or `https`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Endpoint(String);

impl Endpoint {
    /// The URL, with a path.
    pub(super) fn uri(&self, default_path: &str) -> Option<Uri> {
        let uri: Uri = self.0.parse().ok()?;
        let has_path = uri.path_and_query().is_some_and(|path| path.as_str() != "/") || self.0.ends_with('/');
        if has_path { Some(uri) } else { format!("{}{default_path}", self.0).parse().ok() }
    }

    /// The URL with `path` in place of its own.
    pub(super) fn at_path(&self, path: &'static str) -> Option<Uri> {
        let mut parts = self.0.parse::<Uri>().ok()?.into_parts();
        parts.path_and_query = Some(PathAndQuery::from_static(path));
        Uri::from_parts(parts).ok()
    }

    /// True if the URL names more than a host and a port.
    pub(super) fn has_path(&self) -> bool {
        self.0.parse::<Uri>().is_ok_and(|uri| uri.path_and_query().is_some_and(|path| path.as_str() != "/"))
    }

    /// Where to connect to.
    pub(super) fn origin(&self) -> Option<Origin> {
        let uri: Uri = self.0.parse().ok()?;
        Some(Origin::new(Scheme::parse(uri.scheme_str()?)?, uri.host()?, uri.port_u16()))
    }

    /// The URL as it was written.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Endpoint {
    type Error = ExportSettingsError;

    fn try_from(text: String) -> Result<Self, ExportSettingsError> {
        let has_user =
            text.parse::<Uri>().is_ok_and(|uri| uri.authority().is_some_and(|one| one.as_str().contains('@')));
        let endpoint = Self(text);
        if endpoint.origin().is_none() || has_user {
            return Err(ExportSettingsError::Endpoint {
                text: if has_user { "…@…".to_owned() } else { endpoint.0 }
            });
        }
        Ok(endpoint)
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_without_a_path_gets_the_default_one() {
        for (text, expected) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("https://a.example/otlp/v1/traces?key=1", "https://a.example/otlp/v1/traces?key=1"),
            ("http://[::1]:4318/", "http://[::1]:4318/"),
        ] {
            let endpoint = Endpoint::try_from(text.to_owned()).unwrap();
            assert_eq!(endpoint.uri("/v1/traces").unwrap().to_string(), expected);
        }
        for wrong in ["collector:4318", "grpc://a:1", "http://", "", "http://user:secret@a/"] {
            let error = Endpoint::try_from(wrong.to_owned()).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
