//! The exports that OpenTelemetry's variables configure (`OTEL_EXPORTER_OTLP_*`), as SDKs read them: one of traces, one of metrics.
//!
//! A variable for one signal has precedence over the one for all. Numbers and words that can't be used are errors, because a
//! default in their place would send spans elsewhere than the user believes.

use super::endpoint::Endpoint;
use super::otlp_settings::{Compression, OtlpSettings, Protocol, Signal};
use super::settings_error::ExportSettingsError;
use crate::util::secret::Secret;
use http::Uri;
use std::collections::BTreeMap;
use std::time::Duration;

/// A variable that can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvironmentError {
    /// The value of `variable` is none that it may have.
    #[error("{variable} is `{value}`, which is {problem}; correct it, or set {exporter}=none to export nothing")]
    Value {
        /// Name of the variable.
        variable: &'static str,
        /// What it is.
        value: String,
        /// What is wrong with it.
        problem: &'static str,
        /// Name of the variable that ends the export.
        exporter: &'static str,
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

/// The exports of the environment: of traces if an endpoint is set, of metrics if `OTEL_METRICS_EXPORTER` or an endpoint of their own
/// asks for it, because not each receiver of traces takes them.
pub(crate) fn otlp_of_environment(
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<OtlpSettings>, EnvironmentError> {
    // OpenTelemetry treats an empty variable as one that is not set.
    let set = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    if set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(Vec::new());
    }
    let is_named = |exporter: &str| set(exporter).map(|names| names.split(',').any(|name| name.trim() == "otlp"));
    let mut exports = Vec::new();
    if is_named(TRACES.exporter).unwrap_or(true) {
        exports.extend(export(Signal::Traces, &TRACES, &set)?);
    }
    if is_named(METRICS.exporter).unwrap_or_else(|| set(METRICS.endpoint).is_some())
        && let Some(mut metrics) = export(Signal::Metrics, &METRICS, &set)?
    {
        // Over gRPC, both have the same endpoint.
        metrics.name = format!("{} metrics", metrics.endpoint.as_str());
        metrics.metrics_interval = match set(METRICS_INTERVAL) {
            None => metrics.metrics_interval,
            Some(text) => millis(&METRICS, METRICS_INTERVAL, text)?,
        };
        exports.push(metrics);
    }
    Ok(exports)
}

/// The export of a signal; `None` if no endpoint is set.
fn export(
    signal: Signal,
    variables: &Variables,
    set: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<OtlpSettings>, EnvironmentError> {
    let first = |[one, all]: [&'static str; 2]| {
        set(one).map(|value| (one, value)).or_else(|| set(all).map(|value| (all, value)))
    };
    let wrong = |found: (&'static str, String), problem| variables.wrong(found, problem);
    let protocol = match first(variables.protocol) {
        None => Protocol::default(),
        Some(found) => match found.1.as_str() {
            "http/protobuf" => Protocol::Protobuf,
            "http/json" => Protocol::Json,
            "grpc" => Protocol::Grpc,
            _ => return Err(wrong(found, "none of the protocols grpc, http/protobuf and http/json")),
        },
    };
    let (variable, url) = match (set(variables.endpoint), set(ENDPOINT)) {
        (Some(url), _) => (variables.endpoint, url),
        (None, Some(base)) if protocol == Protocol::Grpc => (ENDPOINT, base),
        (None, Some(base)) => (ENDPOINT, format!("{}{}", base.trim_end_matches('/'), variables.path)),
        (None, None) => return Ok(None),
    };
    let url = match protocol {
        Protocol::Grpc => {
            let is_insecure = first(variables.insecure).is_some_and(|(_, value)| value.eq_ignore_ascii_case("true"));
            grpc_url(&url, if is_insecure { "http" } else { "https" })
        }
        Protocol::Protobuf | Protocol::Json => url,
    };
    let endpoint = Endpoint::try_from(url).map_err(|cause| EnvironmentError::Endpoint { variable, cause })?;
    let mut settings = OtlpSettings { protocol, signals: vec![signal], ..OtlpSettings::new(endpoint) };
    if let Some(found) = first(variables.compression) {
        settings.compression = match found.1.as_str() {
            "gzip" => Compression::Gzip,
            "none" => Compression::None,
            _ => return Err(wrong(found, "neither gzip nor none")),
        };
    }
    if let Some(found) = first(variables.timeout) {
        settings.timeout = millis(variables, found.0, found.1)?;
    }
    if let Some(found) = first(variables.headers) {
        let fields = headers(&found.1);
        // The value may be a secret.
        settings.headers = fields.ok_or_else(|| wrong((found.0, "…".to_owned()), "not a list of NAME=VALUE"))?;
    }
    settings.certificate = first(variables.certificate).map(|(_, path)| path.into());
    Ok(Some(settings))
}

/// A number of milliseconds above zero.
fn millis(variables: &Variables, variable: &'static str, text: String) -> Result<Duration, EnvironmentError> {
    match text.parse::<u64>() {
        Ok(millis) if millis > 0 => Ok(Duration::from_millis(millis)),
        _ => Err(variables.wrong((variable, text), "not a number of milliseconds above 0")),
    }
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

/// The names of the variables of a signal; in pairs with those for all signals.
struct Variables {
    exporter: &'static str,
    endpoint: &'static str,
    /// What is added to the endpoint for all signals over HTTP.
    path: &'static str,
    protocol: [&'static str; 2],
    compression: [&'static str; 2],
    timeout: [&'static str; 2],
    headers: [&'static str; 2],
    insecure: [&'static str; 2],
    certificate: [&'static str; 2],
}

impl Variables {
    fn wrong(&self, (variable, value): (&'static str, String), problem: &'static str) -> EnvironmentError {
        EnvironmentError::Value { variable, value, problem, exporter: self.exporter }
    }
}

macro_rules! variables {
    ($signal:literal, $path:literal) => {
        Variables {
            exporter: concat!("OTEL_", $signal, "_EXPORTER"),
            endpoint: concat!("OTEL_EXPORTER_OTLP_", $signal, "_ENDPOINT"),
            path: $path,
            protocol: [concat!("OTEL_EXPORTER_OTLP_", $signal, "_PROTOCOL"), "OTEL_EXPORTER_OTLP_PROTOCOL"],
            compression: [concat!("OTEL_EXPORTER_OTLP_", $signal, "_COMPRESSION"), "OTEL_EXPORTER_OTLP_COMPRESSION"],
            timeout: [concat!("OTEL_EXPORTER_OTLP_", $signal, "_TIMEOUT"), "OTEL_EXPORTER_OTLP_TIMEOUT"],
            headers: [concat!("OTEL_EXPORTER_OTLP_", $signal, "_HEADERS"), "OTEL_EXPORTER_OTLP_HEADERS"],
            insecure: [concat!("OTEL_EXPORTER_OTLP_", $signal, "_INSECURE"), "OTEL_EXPORTER_OTLP_INSECURE"],
            certificate: [concat!("OTEL_EXPORTER_OTLP_", $signal, "_CERTIFICATE"), "OTEL_EXPORTER_OTLP_CERTIFICATE"],
        }
    };
}

const TRACES: Variables = variables!("TRACES", "/v1/traces");
const METRICS: Variables = variables!("METRICS", "/v1/metrics");
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const METRICS_INTERVAL: &str = "OTEL_METRIC_EXPORT_INTERVAL";

#[cfg(test)]
mod tests {
    use super::*;

    fn all_of(pairs: &[(&str, &str)]) -> Result<Vec<OtlpSettings>, EnvironmentError> {
        otlp_of_environment(&|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    /// The export of traces, if there is one.
    fn of(pairs: &[(&str, &str)]) -> Result<Option<OtlpSettings>, EnvironmentError> {
        Ok(all_of(pairs)?.into_iter().find(|export| export.sends(Signal::Traces)))
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
    fn metrics_are_exported_if_a_variable_asks_for_them() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318");
        let signals = |pairs: &[(&str, &str)]| -> Vec<Signal> {
            all_of(pairs).unwrap().into_iter().flat_map(|export| export.signals).collect()
        };
        let (traces, metrics) = (Signal::Traces, Signal::Metrics);
        assert_eq!(signals(&[endpoint]), [traces]);
        let asked = ("OTEL_METRICS_EXPORTER", "otlp");
        assert_eq!(signals(&[endpoint, asked]), [traces, metrics]);
        assert_eq!(signals(&[endpoint, asked, ("OTEL_TRACES_EXPORTER", "none")]), [metrics]);
        assert_eq!(signals(&[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m:1/x")]), [metrics]);
        let own = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m:1/x");
        assert_eq!(signals(&[own, ("OTEL_METRICS_EXPORTER", "none")]), []);
        let grpc = [endpoint, asked, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), (METRICS_INTERVAL, "250")];
        let exports = all_of(&grpc).unwrap();
        assert_ne!(exports[0].shown_name(), exports[1].shown_name());
        assert_eq!(exports[1].metrics_interval, Duration::from_millis(250));
        let error = all_of(&[endpoint, asked, (METRICS_INTERVAL, "0")]).unwrap_err().to_string();
        assert!(error.contains("OTEL_METRIC_EXPORT_INTERVAL is `0`"), "{error}");
        assert!(error.contains("OTEL_METRICS_EXPORTER=none"), "{error}");
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
