//! The export that OpenTelemetry's variables configure (`OTEL_EXPORTER_OTLP_*`), as SDKs read them.
//!
//! A variable for traces has precedence over the one for all signals. Numbers and words that can't be used are errors, because a
//! default in their place would send spans elsewhere than the user believes.

use super::settings::{Compression, Endpoint, ExportSettingsError, OtlpSettings, Protocol};
use crate::util::secret::Secret;
use http::Uri;
use std::collections::BTreeMap;
use std::time::Duration;

/// A variable that can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvironmentError {
    /// The value of `variable` is none that it may have.
    #[error(
        "{variable} is `{value}`, which is {problem}; correct it, or set OTEL_TRACES_EXPORTER=none to export nothing"
    )]
    Value {
        /// Name of the variable.
        variable: &'static str,
        /// What it is.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The URL can't be used.
    #[error("{variable}: {cause}")]
    Endpoint {
        /// Name of the variable.
        variable: &'static str,
        /// What is wrong with it.
        cause: ExportSettingsError,
    },
}

/// The export of the environment; `None` if no endpoint is set, or `OTEL_TRACES_EXPORTER` excludes OTLP.
pub(crate) fn otlp_of_environment(
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<OtlpSettings>, EnvironmentError> {
    // OpenTelemetry treats an empty variable as one that is not set.
    let set = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    let is_excluded = set(EXPORTER).is_some_and(|names| names.split(',').all(|name| name.trim() != "otlp"));
    let is_disabled = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if is_excluded || is_disabled {
        return Ok(None);
    }
    let first = |[traces, all]: [&'static str; 2]| {
        set(traces).map(|value| (traces, value)).or_else(|| set(all).map(|value| (all, value)))
    };
    let wrong =
        |(variable, value): (&'static str, String), problem| EnvironmentError::Value { variable, value, problem };
    let protocol = match first(PROTOCOL) {
        None => Protocol::default(),
        Some(found) => match found.1.as_str() {
            "http/protobuf" => Protocol::Protobuf,
            "http/json" => Protocol::Json,
            "grpc" => Protocol::Grpc,
            _ => return Err(wrong(found, "none of the protocols grpc, http/protobuf and http/json")),
        },
    };
    let (variable, url) = match (set(TRACES_ENDPOINT), set(ENDPOINT)) {
        (Some(url), _) => (TRACES_ENDPOINT, url),
        (None, Some(base)) if protocol == Protocol::Grpc => (ENDPOINT, base),
        (None, Some(base)) => (ENDPOINT, format!("{}/v1/traces", base.trim_end_matches('/'))),
        (None, None) => return Ok(None),
    };
    let url = match protocol {
        Protocol::Grpc => {
            let is_insecure = first(INSECURE).is_some_and(|(_, value)| value.eq_ignore_ascii_case("true"));
            grpc_url(&url, if is_insecure { "http" } else { "https" })
        }
        Protocol::Protobuf | Protocol::Json => url,
    };
    let endpoint = Endpoint::try_from(url).map_err(|cause| EnvironmentError::Endpoint { variable, cause })?;
    let mut settings = OtlpSettings { protocol, ..OtlpSettings::new(endpoint) };
    if let Some(found) = first(COMPRESSION) {
        settings.compression = match found.1.as_str() {
            "gzip" => Compression::Gzip,
            "none" => Compression::None,
            _ => return Err(wrong(found, "neither gzip nor none")),
        };
    }
    if let Some(found) = first(TIMEOUT) {
        let millis = found.1.parse::<u64>().map_err(|_| wrong(found, "not a number of milliseconds"))?;
        settings.timeout = Duration::from_millis(millis);
    }
    if let Some(found) = first(HEADERS) {
        let fields = headers(&found.1);
        // The value may be a secret.
        settings.headers = fields.ok_or_else(|| wrong((found.0, "…".to_owned()), "not a list of NAME=VALUE"))?;
    }
    settings.certificate = first(CERTIFICATE).map(|(_, path)| path.into());
    Ok(Some(settings))
}

/// The URL of a receiver over gRPC, without a path, as SDKs read it.
fn grpc_url(text: &str, default_scheme: &str) -> String {
    let url = if text.contains("://") { text.to_owned() } else { format!("{default_scheme}://{text}") };
    let uri = url.parse::<Uri>().ok();
    let parts = uri.as_ref().and_then(|uri| uri.scheme_str().zip(uri.authority()));
    parts.map(|(scheme, authority)| format!("{scheme}://{authority}")).unwrap_or(url)
}

/// The fields of a list such as `a=1,b=2`, with values in percent-encoding (W3C Baggage).
fn headers(list: &str) -> Option<BTreeMap<String, Secret>> {
    let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let field = |entry: &str| {
        let (name, value) = entry.split_once('=')?;
        let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8().ok()?;
        Some((name.trim().to_owned(), Secret::new(value)))
    };
    entries.map(field).collect()
}

const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const PROTOCOL: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const COMPRESSION: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"];
const TIMEOUT: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
const HEADERS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
const INSECURE: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE"];
const CERTIFICATE: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Option<OtlpSettings>, EnvironmentError> {
        otlp_of_environment(&|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn variables_are_read_as_sdks_read_them() {
        let all = of(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c.example:4318/base/"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b, x-other=2"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "250"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/c.pem"),
        ]);
        let settings = all.unwrap().unwrap();
        assert_eq!(settings.endpoint.as_str(), "https://c.example:4318/base/v1/traces");
        assert_eq!(settings.header_fields().unwrap()["x-key"], "a b");
        assert_eq!((settings.timeout, settings.compression), (Duration::from_millis(250), Compression::None));
        assert_eq!((settings.protocol, settings.certificate), (Protocol::Json, Some("/c.pem".into())));
        let traces =
            of(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a:1/x"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://b")]);
        assert_eq!(traces.unwrap().unwrap().endpoint.as_str(), "http://a:1/x");
    }

    #[test]
    fn an_endpoint_over_grpc_is_a_host_and_a_port() {
        for (variable, url, insecure, expected) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c.example:4317", "", "http://c.example:4317"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c.example:4317/", "true", "https://c.example:4317"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4317/v1/traces", "", "http://c:4317"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317", "", "https://localhost:4317"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317", "true", "http://localhost:4317"),
        ] {
            let protocol = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc");
            let settings = of(&[protocol, (variable, url), ("OTEL_EXPORTER_OTLP_INSECURE", insecure)]);
            let settings = settings.unwrap().unwrap();
            assert_eq!((settings.endpoint.as_str(), settings.protocol), (expected, Protocol::Grpc));
        }
    }

    #[test]
    fn nothing_is_exported_unless_an_endpoint_is_set() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318");
        assert!(of(&[endpoint, ("OTEL_TRACES_EXPORTER", "console,otlp")]).unwrap().is_some());
        for none in [
            vec![],
            vec![("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
            vec![("OTEL_EXPORTER_OTLP_TIMEOUT", "5")],
            vec![endpoint, ("OTEL_TRACES_EXPORTER", "none")],
            vec![endpoint, ("OTEL_SDK_DISABLED", "true")],
        ] {
            assert_eq!(of(&none).unwrap(), None, "{none:?}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318");
        for (name, value, word) in [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "a:4318", "not a URL"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "smoke", "grpc, http/protobuf and http/json"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "neither"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "5s", "milliseconds"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2", "NAME=VALUE"),
        ] {
            let error = of(&[endpoint, (name, value)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(word) && !error.contains("hunter2"), "{error}");
        }
    }
}
