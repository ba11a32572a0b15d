//! A table of the LLM calls as CSV (RFC 4180), a row for each call.
//!
//! A text that a spreadsheet would take for a formula gets an apostrophe in front: texts come from the network.

use super::format::{Framing, RecordedRollout, SpanFormat};
use super::span_facts::{Times, rfc3339, value_text};
use crate::llm::recorded::is_llm_call;
use crate::trace::semconv as names;
use crate::trace::{Span, Value};

/// `--format csv`
pub(super) struct Csv;

impl SpanFormat for Csv {
    fn name(&self) -> &'static str {
        "csv"
    }

    fn media_type(&self) -> &'static str {
        "text/csv; charset=utf-8"
    }

    fn framing(&self) -> Framing {
        Framing { start: HEADER, separator: "", end: "" }
    }

    fn encoded(&self, recorded: &RecordedRollout) -> serde_json::Result<Vec<u8>> {
        let times = Times::of_all(&recorded.spans);
        let calls = recorded.spans.iter().zip(times).filter(|(span, _)| is_llm_call(span));
        Ok(calls.map(|(span, times)| row(span, times)).collect::<String>().into_bytes())
    }
}

const HEADER: &str = "rollout_id,attempt_id,sequence_id,trace_id,span_id,start_time,duration_ms,time_to_first_chunk_s,\
    role,operation,provider,request_model,response_model,response_id,stream,input_tokens,cached_input_tokens,\
    output_tokens,reasoning_tokens,finish_reasons,policy_version,http_status,status,error_type,url\r\n";

/// The columns after the times, each an attribute.
const ATTRIBUTES: &[&str] = &[
    names::GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK,
    names::CALL_ROLE,
    names::GEN_AI_OPERATION_NAME,
    names::GEN_AI_PROVIDER_NAME,
    names::GEN_AI_REQUEST_MODEL,
    names::GEN_AI_RESPONSE_MODEL,
    names::GEN_AI_RESPONSE_ID,
    names::GEN_AI_REQUEST_STREAM,
    names::GEN_AI_USAGE_INPUT_TOKENS,
    names::GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS,
    names::GEN_AI_USAGE_OUTPUT_TOKENS,
    names::GEN_AI_USAGE_REASONING_OUTPUT_TOKENS,
    names::GEN_AI_RESPONSE_FINISH_REASONS,
    names::POLICY_VERSION,
    names::HTTP_RESPONSE_STATUS_CODE,
];

fn row(span: &Span, times: Times) -> String {
    let start = span.start_time.map(rfc3339).unwrap_or_default();
    let duration = if times.are_known { format!("{:.3}", times.millis()) } else { String::new() };
    let attribute = |name: &str| span.attributes.get(name).map(cell).unwrap_or_default();
    let status = serde_json::to_value(span.status.status_code).unwrap_or_default();
    let mut cells = vec![
        text_cell(span.rollout_id.as_str()),
        text_cell(span.attempt_id.as_str()),
        span.sequence_id.to_string(),
        text_cell(&span.trace_id),
        text_cell(&span.span_id),
        start,
        duration,
    ];
    cells.extend(ATTRIBUTES.iter().map(|name| attribute(name)));
    cells.extend([
        status.as_str().unwrap_or_default().to_lowercase(),
        attribute(names::ERROR_TYPE),
        attribute(names::URL_FULL),
    ]);
    format!("{}\r\n", cells.join(","))
}

fn cell(value: &Value) -> String {
    match value {
        Value::Strings(list) => text_cell(&list.join(" ")),
        Value::Int(_) | Value::Float(_) | Value::Bool(_) => value_text(value),
        other => text_cell(&value_text(other)),
    }
}

/// A text, in quotes if it needs them.
fn text_cell(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if is_formula { format!("'{text}") } else { text.to_owned() };
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}
