//! Our metrics as OTLP: an `ExportMetricsServiceRequest`, as protobuf and as protobuf's JSON mapping. Sums are cumulative.

use super::decode::OtlpFormat;
use super::message::{Any, AnyValue, KeyValue, Resource, Scope};
use crate::trace::metric::{Distribution, Histogram, MetricLabel, MetricLabels};
use crate::trace::{Timestamp, semconv};
use prost::{Message, Oneof};
use serde_json::{Value as JsonValue, json};

/// Histograms of this program at `now`; `instance` tells it from others with the same name.
pub(crate) fn encoded_metrics(
    format: OtlpFormat,
    histograms: &[Histogram],
    now: Timestamp,
    instance: &str,
) -> serde_json::Result<Vec<u8>> {
    let resource = resource(instance);
    match format {
        OtlpFormat::Protobuf => {
            let metrics = histograms.iter().map(|histogram| metric(histogram, now)).collect();
            let scope_metrics = vec![ScopeMetrics { scope: Some(Scope::ours()), metrics }];
            let schema_url = semconv::SCHEMA_URL.to_owned();
            let resource_metrics = vec![ResourceMetrics { resource: Some(resource), scope_metrics, schema_url }];
            Ok(MetricsRequest { resource_metrics }.encode_to_vec())
        }
        OtlpFormat::Json => {
            let metrics: Vec<JsonValue> = histograms.iter().map(|histogram| json_metric(histogram, now)).collect();
            serde_json::to_vec(&json!({ "resourceMetrics": [{
                "resource": { "attributes": resource.attributes },
                "scopeMetrics": [{ "scope": Scope::ours(), "metrics": metrics }],
                "schemaUrl": semconv::SCHEMA_URL,
            }] }))
        }
    }
}

fn resource(instance: &str) -> Resource {
    let fields = [
        ("service.name", env!("CARGO_PKG_NAME")),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", instance),
    ];
    let attributes = fields.map(|(name, value)| key_value(name, &MetricLabel::Text(value.to_owned())));
    Resource { attributes: attributes.to_vec() }
}

fn key_value(name: &str, value: &MetricLabel) -> KeyValue {
    let value = match value {
        MetricLabel::Text(text) => Any::Text(text.clone().into_bytes()),
        MetricLabel::Int(number) => Any::Int(*number),
    };
    KeyValue { key: name.as_bytes().to_vec(), value: Some(AnyValue { value: Some(value) }) }
}

fn key_values(labels: &MetricLabels) -> Vec<KeyValue> {
    labels.iter().map(|(name, value)| key_value(name, value)).collect()
}

fn metric(histogram: &Histogram, now: Timestamp) -> MetricMessage {
    let kind = histogram.kind;
    let point = |(labels, values): &(MetricLabels, Distribution)| DataPoint {
        start_time_unix_nano: histogram.since.unix_nanos,
        time_unix_nano: now.unix_nanos,
        count: values.count,
        sum: Some(values.sum),
        bucket_counts: values.buckets.clone(),
        explicit_bounds: kind.bounds.to_vec(),
        attributes: key_values(labels),
        min: Some(values.min),
        max: Some(values.max),
    };
    let data_points = histogram.points.iter().map(point).collect();
    MetricMessage {
        name: kind.name.to_owned(),
        description: kind.description.to_owned(),
        unit: kind.unit.to_owned(),
        data: Some(Data::Histogram(HistogramMessage { data_points, aggregation_temporality: CUMULATIVE })),
    }
}

fn json_metric(histogram: &Histogram, now: Timestamp) -> JsonValue {
    let kind = histogram.kind;
    let point = |(labels, values): &(MetricLabels, Distribution)| {
        let buckets: Vec<String> = values.buckets.iter().map(u64::to_string).collect();
        json!({
            "attributes": key_values(labels),
            "startTimeUnixNano": histogram.since.unix_nanos.to_string(),
            "timeUnixNano": now.unix_nanos.to_string(),
            "count": values.count.to_string(),
            "sum": values.sum,
            "bucketCounts": buckets,
            "explicitBounds": kind.bounds,
            "min": values.min,
            "max": values.max,
        })
    };
    let points: Vec<JsonValue> = histogram.points.iter().map(point).collect();
    json!({
        "name": kind.name,
        "description": kind.description,
        "unit": kind.unit,
        "histogram": { "dataPoints": points, "aggregationTemporality": CUMULATIVE },
    })
}

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`
const CUMULATIVE: i32 = 2;

/// `ExportMetricsServiceRequest`
#[derive(Clone, PartialEq, Message)]
struct MetricsRequest {
    #[prost(message, repeated, tag = "1")]
    resource_metrics: Vec<ResourceMetrics>,
}

/// `ResourceMetrics`
#[derive(Clone, PartialEq, Message)]
struct ResourceMetrics {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_metrics: Vec<ScopeMetrics>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

/// `ScopeMetrics`
#[derive(Clone, PartialEq, Message)]
struct ScopeMetrics {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<MetricMessage>,
}

/// `Metric`
#[derive(Clone, PartialEq, Message)]
struct MetricMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    description: String,
    #[prost(string, tag = "3")]
    unit: String,
    #[prost(oneof = "Data", tags = "9")]
    data: Option<Data>,
}

/// The values of a [`MetricMessage`].
#[derive(Clone, PartialEq, Oneof)]
enum Data {
    #[prost(message, tag = "9")]
    Histogram(HistogramMessage),
}

/// `Histogram`
#[derive(Clone, PartialEq, Message)]
struct HistogramMessage {
    #[prost(message, repeated, tag = "1")]
    data_points: Vec<DataPoint>,
    #[prost(int32, tag = "2")]
    aggregation_temporality: i32,
}

/// `HistogramDataPoint`
#[derive(Clone, PartialEq, Message)]
struct DataPoint {
    #[prost(fixed64, tag = "2")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "3")]
    time_unix_nano: u64,
    #[prost(fixed64, tag = "4")]
    count: u64,
    #[prost(double, optional, tag = "5")]
    sum: Option<f64>,
    #[prost(fixed64, repeated, tag = "6")]
    bucket_counts: Vec<u64>,
    #[prost(double, repeated, tag = "7")]
    explicit_bounds: Vec<f64>,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(double, optional, tag = "11")]
    min: Option<f64>,
    #[prost(double, optional, tag = "12")]
    max: Option<f64>,
}
