//! `[export]` of the settings.

use crate::trace::units::millis;
use crate::upstream::{Origin, Scheme};
use crate::util::secret::Secret;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// `[export]` of the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ExportSettings {
    /// The receivers of spans over OTLP.
    pub otlp: Vec<OtlpSettings>,
    /// The receivers of the ends of rollouts.
    pub webhook: Vec<WebhookSettings>,
}

/// An entry of `[[export.otlp]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OtlpSettings {
    /// The receiver. Over HTTP, `/v1/traces` is its path unless it has one; over gRPC it has none.
    pub endpoint: Endpoint,
    /// The name in metrics and messages, and of the cursor in the store. If empty, the endpoint is the name.
    #[serde(default)]
    pub name: String,
    /// Further header fields of the requests.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// How requests are encoded.
    #[serde(default)]
    pub protocol: Protocol,
    /// How requests are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// How long a request may take, with its response.
    #[serde(default = "default_timeout", rename = "timeout_ms", with = "millis")]
    pub timeout: Duration,
    /// A PEM file with root certificates that verify the receiver, in addition to those of `[tls]`.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
    /// The most spans of a request.
    #[serde(default = "default_batch")]
    pub max_batch_spans: usize,
    /// How often the store is asked for new spans.
    #[serde(default = "default_interval", rename = "interval_ms", with = "millis")]
    pub interval: Duration,
    /// Which spans a new export begins with.
    #[serde(default)]
    pub start: ExportStart,
}

impl OtlpSettings {
    /// An export to `endpoint` with the defaults of everything else.
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            name: String::new(),
            headers: BTreeMap::new(),
            protocol: Protocol::default(),
            compression: Compression::default(),
            timeout: default_timeout(),
            certificate: None,
            max_batch_spans: default_batch(),
            interval: default_interval(),
            start: ExportStart::default(),
        }
    }

    /// The name in metrics and messages.
    pub(super) fn shown_name(&self) -> &str {
        if self.name.is_empty() { &self.endpoint.0 } else { &self.name }
    }

    /// The header fields of the setting `headers`.
    pub(super) fn header_fields(&self) -> Result<HeaderMap, ExportSettingsError> {
        let field = |(name, value): (&String, &Secret)| {
            let parsed = name.parse::<HeaderName>().ok().zip(HeaderValue::from_str(value.expose()).ok());
            let (name, mut value) = parsed.ok_or_else(|| ExportSettingsError::Header { name: name.clone() })?;
            value.set_sensitive(true);
            Ok((name, value))
        };
        self.headers.iter().map(field).collect()
    }
}

/// An entry of `[[export.webhook]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookSettings {
    /// Where ended rollouts are posted to.
    pub url: Endpoint,
    /// The name in metrics and messages, and of the cursor in the store. If empty, the URL is the name.
    #[serde(default)]
    pub name: String,
    /// What requests are signed with: text, or `whsec_` with base64. If empty, they are not signed.
    #[serde(default)]
    pub secret: Secret,
    /// How long a request may take, with its response.
    #[serde(default = "default_timeout", rename = "timeout_ms", with = "millis")]
    pub timeout: Duration,
    /// How long after its end a rollout is read, so that its last spans are stored.
    #[serde(default = "default_delay", rename = "delay_ms", with = "millis")]
    pub delay: Duration,
    /// Which rollouts a new export begins with.
    #[serde(default)]
    pub start: ExportStart,
}

impl WebhookSettings {
    /// The name in metrics and messages.
    pub(super) fn shown_name(&self) -> &str {
        if self.name.is_empty() { &self.url.0 } else { &self.name }
    }
}

/// The encoding of spans, and the protocol that carries them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Protocol {
    /// Protobuf as OTLP defines it, in binary.
    #[default]
    #[serde(rename = "http/protobuf")]
    Protobuf,
    /// Protobuf's JSON mapping.
    #[serde(rename = "http/json")]
    Json,
    /// Protobuf in calls of gRPC.
    #[serde(rename = "grpc")]
    Grpc,
}

/// The compression of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Compression {
    #[default]
    Gzip,
    None,
}

/// What an export begins with that has no cursor in the store yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ExportStart {
    /// What is stored from now on.
    #[default]
    New,
    /// Everything in the store.
    All,
}

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
    fn has_path(&self) -> bool {
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

/// A setting that can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportSettingsError {
    /// No URL that can be sent to.
    #[error("`{text}` is not a URL to send to; write http(s)://HOST[:PORT][/PATH], and credentials as headers")]
    Endpoint {
        /// The text, without what may be a password.
        text: String,
    },
    /// No header field.
    #[error("the header `{name}` has a name or a value that HTTP does not allow")]
    Header {
        /// The name; the value may be a secret.
        name: String,
    },
    /// Metrics and the cursors in the store could not tell the exports apart.
    #[error("two exports are named `{name}`; give one of them another `name`")]
    Twice {
        /// The name.
        name: String,
    },
    /// gRPC has paths of its own.
    #[error(
        "the endpoint `{endpoint}` has a path, which gRPC does not use; write http(s)://HOST:PORT, or another protocol"
    )]
    GrpcPath {
        /// The URL.
        endpoint: String,
    },
    /// A batch without spans would never end.
    #[error("max_batch_spans is 0; the smallest number is 1")]
    EmptyBatch,
}

impl ExportSettings {
    /// Adds an export, unless there is one of its name.
    pub(crate) fn add(&mut self, export: Option<OtlpSettings>) {
        let is_new = |new: &OtlpSettings| self.otlp.iter().all(|known| known.shown_name() != new.shown_name());
        self.otlp.extend(export.filter(is_new));
    }

    /// Checks what the types cannot.
    pub(crate) fn check(&self) -> Result<(), ExportSettingsError> {
        let mut names = std::collections::BTreeSet::new();
        for entry in &self.otlp {
            entry.header_fields()?;
            if entry.protocol == Protocol::Grpc && entry.endpoint.has_path() {
                return Err(ExportSettingsError::GrpcPath { endpoint: entry.endpoint.0.clone() });
            }
            if entry.max_batch_spans == 0 {
                return Err(ExportSettingsError::EmptyBatch);
            }
        }
        let all = self.otlp.iter().map(OtlpSettings::shown_name);
        for name in all.chain(self.webhook.iter().map(WebhookSettings::shown_name)) {
            if !names.insert(name) {
                return Err(ExportSettingsError::Twice { name: name.to_owned() });
            }
        }
        Ok(())
    }
}

fn default_timeout() -> Duration {
    Duration::from_secs(10)
}

fn default_delay() -> Duration {
    Duration::from_secs(1)
}

fn default_batch() -> usize {
    512
}

fn default_interval() -> Duration {
    Duration::from_secs(1)
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
