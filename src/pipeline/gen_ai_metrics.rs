//! Metrics of model calls by OpenTelemetry's GenAI conventions (v1.41.1), from the spans of calls that were recorded.
//!
//! Only calls that this program observed are counted: what other tracers sent has its own metrics. Bound: [`MAX_SERIES`]
//! combinations of attributes for each metric; further ones are counted together, as OpenTelemetry's SDKs do it.

use crate::trace::metric::{Distribution, Histogram, HistogramKind, MetricLabel, MetricLabels};
use crate::trace::semconv as names;
use crate::trace::{Span, Timestamp, Value};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// The histograms of all calls since the start.
#[derive(Debug)]
pub(crate) struct GenAiMetrics {
    since: Timestamp,
    // In the order of [`KINDS`].
    series: Mutex<[Series; KINDS.len()]>,
}

type Series = BTreeMap<MetricLabels, Distribution>;

impl Default for GenAiMetrics {
    fn default() -> Self {
        Self { since: SystemTime::now().into(), series: Mutex::default() }
    }
}

impl GenAiMetrics {
    /// Counts the call of a span; a span that is no call of a model changes nothing.
    pub(super) fn observe(&self, span: &Span) {
        let text = |name: &str| span.attributes.get(name).and_then(Value::as_str);
        let Some(operation) = text(names::GEN_AI_OPERATION_NAME).filter(|name| *name != EXECUTE_TOOL) else { return };
        // Spans of other tracers have no dialect.
        if text(names::DIALECT).is_none() {
            return;
        }
        let mut labels: MetricLabels = vec![(names::GEN_AI_OPERATION_NAME, MetricLabel::Text(operation.to_owned()))];
        for name in [
            names::GEN_AI_PROVIDER_NAME,
            names::GEN_AI_REQUEST_MODEL,
            names::GEN_AI_RESPONSE_MODEL,
            names::SERVER_ADDRESS,
        ] {
            labels.extend(text(name).map(|text| (name, MetricLabel::Text(text.to_owned()))));
        }
        let int = |name: &str| span.attributes.get(name).and_then(Value::as_int);
        labels.extend(int(names::SERVER_PORT).map(|port| (names::SERVER_PORT, MetricLabel::Int(port))));
        let with = |name: &'static str, value: &str| {
            let mut labels = labels.clone();
            labels.push((name, MetricLabel::Text(value.to_owned())));
            labels
        };
        let seconds = span.start_time.zip(span.end_time).map(|(start, end)| end.since(start).as_secs_f64());
        let first = span.attributes.get(names::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK).and_then(Value::as_float);
        let output = int(names::GEN_AI_USAGE_OUTPUT_TOKENS);
        let error = text(names::ERROR_TYPE);
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let mut add = |metric: usize, labels: MetricLabels, value: Option<f64>| {
            if let Some(value) = value.filter(|value| value.is_finite() && *value >= 0.0) {
                observe(&mut series[metric], KINDS[metric], labels, value);
            }
        };
        let input = int(names::GEN_AI_USAGE_INPUT_TOKENS);
        add(TOKENS, with(TOKEN_TYPE, "input"), input.map(|tokens| tokens as f64));
        add(TOKENS, with(TOKEN_TYPE, "output"), output.map(|tokens| tokens as f64));
        add(DURATION, error.map_or_else(|| labels.clone(), |error| with(names::ERROR_TYPE, error)), seconds);
        add(FIRST_CHUNK, labels.clone(), first);
        let after_first = output.filter(|tokens| *tokens > 1 && error.is_none()).map(|tokens| (tokens - 1) as f64);
        let per_token = seconds.zip(first).zip(after_first).map(|((all, first), tokens)| (all - first) / tokens);
        add(PER_TOKEN, labels, per_token);
    }

    /// The histograms that have values.
    pub(crate) fn snapshot(&self) -> Vec<Histogram> {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let histograms = KINDS.into_iter().zip(series).filter(|(_, series)| !series.is_empty());
        histograms
            .map(|(kind, series)| Histogram { kind, since: self.since, points: series.into_iter().collect() })
            .collect()
    }
}

fn observe(series: &mut Series, kind: &'static HistogramKind, labels: MetricLabels, value: f64) {
    let is_full = series.len() >= MAX_SERIES && !series.contains_key(&labels);
    let labels = if is_full { vec![(OVERFLOW, MetricLabel::Text("true".to_owned()))] } else { labels };
    series.entry(labels).or_insert_with(|| Distribution::of(kind)).add(kind, value);
}

const KINDS: [&HistogramKind; 4] = [
    &HistogramKind {
        name: "gen_ai.client.token.usage",
        description: "Number of input and output tokens of calls",
        unit: "{token}",
        bounds: &[
            1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0,
            67108864.0,
        ],
    },
    &HistogramKind {
        name: "gen_ai.client.operation.duration",
        description: "From the request of a call to the end of its response",
        unit: "s",
        bounds: &SECONDS,
    },
    &HistogramKind {
        name: "gen_ai.client.operation.time_to_first_chunk",
        description: "From the request of a streamed call to the first chunk of its response",
        unit: "s",
        bounds: &SECONDS,
    },
    &HistogramKind {
        name: "gen_ai.server.time_per_output_token",
        description: "Time per output token after the first chunk of a streamed call",
        unit: "s",
        bounds: &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5],
    },
];
const TOKENS: usize = 0;
const DURATION: usize = 1;
const FIRST_CHUNK: usize = 2;
const PER_TOKEN: usize = 3;
const SECONDS: [f64; 14] = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const TOKEN_TYPE: &str = "gen_ai.token.type";
/// The attribute of what is counted together for lack of room.
const OVERFLOW: &str = "otel.metric.overflow";
const EXECUTE_TOOL: &str = "execute_tool";
/// The default limit of OpenTelemetry's SDKs.
const MAX_SERIES: usize = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    fn call(model: &str) -> Span {
        let json = serde_json::json!({
            "rollout_id": "ro-1", "attempt_id": "at-1", "sequence_id": 1, "trace_id": "t", "span_id": "s", "parent_id": null,
            "name": "chat", "status": { "status_code": "UNSET", "description": null }, "attributes": {}, "events": [],
            "links": [], "start_time": 0.0, "end_time": 1.5, "context": null, "parent": null,
            "resource": { "attributes": {}, "schema_url": "" },
        });
        let mut span: Span = serde_json::from_value(json).unwrap();
        span.set(names::DIALECT, "openai.chat");
        span.set(names::GEN_AI_OPERATION_NAME, "chat");
        span.set(names::GEN_AI_PROVIDER_NAME, "openai");
        span.set(names::GEN_AI_REQUEST_MODEL, model);
        span.set(names::SERVER_PORT, 443);
        span.set(names::GEN_AI_USAGE_INPUT_TOKENS, 100);
        span.set(names::GEN_AI_USAGE_OUTPUT_TOKENS, 11);
        span.set(names::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK, 0.5);
        span
    }

    #[test]
    fn a_call_is_counted_in_each_histogram() {
        let metrics = GenAiMetrics::default();
        metrics.observe(&call("m"));
        let histograms = metrics.snapshot();
        let sums: Vec<(&str, Vec<f64>)> = histograms
            .iter()
            .map(|one| (one.kind.name, one.points.iter().map(|(_, values)| values.sum).collect()))
            .collect();
        let expected = [
            ("gen_ai.client.token.usage", vec![100.0, 11.0]),
            ("gen_ai.client.operation.duration", vec![1.5]),
            ("gen_ai.client.operation.time_to_first_chunk", vec![0.5]),
            ("gen_ai.server.time_per_output_token", vec![0.1]),
        ];
        assert_eq!(sums, expected);
        let labels = &histograms[0].points[0].0;
        assert!(labels.contains(&(TOKEN_TYPE, MetricLabel::Text("input".to_owned()))), "{labels:?}");
        assert!(labels.contains(&(names::SERVER_PORT, MetricLabel::Int(443))), "{labels:?}");
    }

    #[test]
    fn errors_are_apart_and_other_spans_are_not_counted() {
        let metrics = GenAiMetrics::default();
        let mut failed = call("m");
        failed.set(names::ERROR_TYPE, "500");
        let mut tool = call("m");
        tool.set(names::GEN_AI_OPERATION_NAME, EXECUTE_TOOL);
        let mut foreign = call("m");
        foreign.attributes.remove(names::DIALECT);
        [failed, tool, foreign, call("m")].iter().for_each(|span| metrics.observe(span));
        let histograms = metrics.snapshot();
        let counts: Vec<u64> = histograms[DURATION].points.iter().map(|(_, values)| values.count).collect();
        assert_eq!(counts, [1, 1]);
        // What failed has no speed.
        assert_eq!(histograms[PER_TOKEN].points[0].1.count, 1);
    }

    #[test]
    fn names_without_end_are_counted_together() {
        let metrics = GenAiMetrics::default();
        for number in 0..MAX_SERIES + 50 {
            metrics.observe(&call(&number.to_string()));
        }
        let histograms = metrics.snapshot();
        for histogram in &histograms {
            assert_eq!(histogram.points.len(), MAX_SERIES + 1, "{}", histogram.kind.name);
        }
        let total: u64 = histograms[DURATION].points.iter().map(|(_, values)| values.count).sum();
        assert_eq!(total as usize, MAX_SERIES + 50);
    }
}
