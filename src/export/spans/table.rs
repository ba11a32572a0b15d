//! The table of all formats of spans.

use super::conventions::AttributeConventions;
use super::format::SpanFormat;
use super::{atif, chrome_trace, csv, eval, har, html, jaeger, json, markdown, otlp, zipkin};

/// Every format, in the order in which the help text lists them.
pub(crate) const ALL: &[&dyn SpanFormat] = &[
    &json::Json,
    &otlp::OtlpJson(AttributeConventions::GenAi),
    &otlp::OtlpProtobuf(AttributeConventions::GenAi),
    &jaeger::Jaeger,
    &zipkin::Zipkin,
    &chrome_trace::ChromeTrace,
    &har::Har,
    &atif::Atif,
    &eval::Eval,
    &csv::Csv,
    &markdown::Markdown,
    &html::Html,
];
