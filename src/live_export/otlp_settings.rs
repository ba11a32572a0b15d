//! `[[export.otlp]]` of the settings.

use super::cursor::ExportStart;
use super::endpoint::Endpoint;
use super::settings_error::ExportSettingsError;
use crate::export::spans::AttributeConventions;
use crate::trace::units::millis;
use crate::util::secret::Secret;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

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
    /// What is sent.
    #[serde(default = "default_signals")]
    pub signals: Vec<Signal>,
    /// By which conventions spans name what they hold of calls.
    #[serde(default)]
    pub attributes: AttributeConventions,
    /// How often metrics are sent.
    #[serde(default = "default_metrics_interval", rename = "metrics_interval_ms", with = "millis")]
    pub metrics_interval: Duration,
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
            signals: default_signals(),
            attributes: AttributeConventions::default(),
            metrics_interval: default_metrics_interval(),
            max_batch_spans: default_batch(),
            interval: default_interval(),
            start: ExportStart::default(),
        }
    }

    /// The name in metrics and messages.
    pub(super) fn shown_name(&self) -> &str {
        if self.name.is_empty() { self.endpoint.as_str() } else { &self.name }
    }

    /// The name of its metrics, where they are not all that it sends.
    pub(super) fn metrics_name(&self) -> String {
        if self.sends(Signal::Traces) { format!("{} metrics", self.shown_name()) } else { self.shown_name().to_owned() }
    }

    /// True if the setting `signals` names it.
    pub(super) fn sends(&self, signal: Signal) -> bool {
        self.signals.contains(&signal)
    }

    /// The URL of requests; `None` if it is none. `/v1/traces` at the end of the endpoint is `/v1/metrics` for metrics.
    pub(super) fn uri(&self, signal: Signal) -> Option<Uri> {
        let endpoint = &self.endpoint;
        match (self.protocol, signal) {
            (Protocol::Grpc, Signal::Traces) => endpoint.at_path(EXPORT_TRACES),
            (Protocol::Grpc, Signal::Metrics) => endpoint.at_path(EXPORT_METRICS),
            (_, Signal::Traces) => endpoint.uri(TRACES_PATH),
            (_, Signal::Metrics) => match endpoint.as_str().strip_suffix(TRACES_PATH) {
                Some(base) => format!("{base}{METRICS_PATH}").parse().ok(),
                None => endpoint.uri(METRICS_PATH),
            },
        }
    }

    /// Checks what the types cannot.
    pub(super) fn check(&self) -> Result<(), ExportSettingsError> {
        self.header_fields()?;
        let endpoint = || self.endpoint.as_str().to_owned();
        if self.protocol == Protocol::Grpc && self.endpoint.has_path() {
            return Err(ExportSettingsError::GrpcPath { endpoint: endpoint() });
        }
        if self.max_batch_spans == 0 {
            return Err(ExportSettingsError::EmptyBatch);
        }
        if self.signals.is_empty() {
            return Err(ExportSettingsError::NoSignals { endpoint: endpoint() });
        }
        if self.metrics_interval.is_zero() {
            return Err(ExportSettingsError::NoMetricsInterval);
        }
        let is_ambiguous = self.endpoint.has_path() && !self.endpoint.as_str().ends_with(TRACES_PATH);
        if is_ambiguous && self.sends(Signal::Traces) && self.sends(Signal::Metrics) {
            return Err(ExportSettingsError::OnePath { endpoint: endpoint() });
        }
        Ok(())
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

/// What OTLP carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Signal {
    /// Spans, as they are stored.
    Traces,
    /// The histograms of model calls.
    Metrics,
}

/// The compression of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Compression {
    #[default]
    Gzip,
    None,
}

const TRACES_PATH: &str = "/v1/traces";
const METRICS_PATH: &str = "/v1/metrics";
const EXPORT_TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const EXPORT_METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

fn default_signals() -> Vec<Signal> {
    vec![Signal::Traces]
}

fn default_metrics_interval() -> Duration {
    Duration::from_secs(60)
}

/// For a request with its response.
pub(super) fn default_timeout() -> Duration {
    Duration::from_secs(10)
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
    fn each_signal_has_a_url() {
        let entry = |endpoint: &str, protocol| {
            let endpoint = Endpoint::try_from(endpoint.to_owned()).unwrap();
            OtlpSettings { protocol, signals: vec![Signal::Traces, Signal::Metrics], ..OtlpSettings::new(endpoint) }
        };
        for (endpoint, protocol, traces, metrics) in [
            ("http://c:1", Protocol::Protobuf, "http://c:1/v1/traces", "http://c:1/v1/metrics"),
            ("http://c:1/a/v1/traces", Protocol::Json, "http://c:1/a/v1/traces", "http://c:1/a/v1/metrics"),
            (
                "https://c:1",
                Protocol::Grpc,
                "https://c:1/opentelemetry.proto.collector.trace.v1.TraceService/Export",
                "https://c:1/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            ),
        ] {
            let entry = entry(endpoint, protocol);
            assert!(entry.check().is_ok(), "{endpoint}");
            let uri = |signal| entry.uri(signal).unwrap().to_string();
            assert_eq!((uri(Signal::Traces), uri(Signal::Metrics)), (traces.to_owned(), metrics.to_owned()));
        }
        let one = entry("http://c:1/ingest", Protocol::Protobuf);
        assert!(one.check().unwrap_err().to_string().contains("an entry for each of the two"));
        let only = OtlpSettings { signals: vec![Signal::Metrics], ..one };
        assert!(only.check().is_ok());
        assert_eq!(only.uri(Signal::Metrics).unwrap().to_string(), "http://c:1/ingest");
        for (settings, words) in [
            (OtlpSettings { signals: Vec::new(), ..only.clone() }, "has no signals"),
            (OtlpSettings { metrics_interval: Duration::ZERO, ..only }, "metrics_interval_ms is 0"),
        ] {
            assert!(settings.check().unwrap_err().to_string().contains(words), "{words}");
        }
    }
}
