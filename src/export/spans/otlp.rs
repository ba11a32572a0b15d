//! OpenTelemetry's OTLP: `otlp-json` as its file exporter writes it, a `TracesData` on each line, and `otlp` as protobuf,
//! where the messages of all rollouts together are one message.

use super::format::{Framing, RecordedRollout, SpanFormat};
use crate::wire::otlp::{OtlpFormat, encoded};

/// `--format otlp-json`
pub(super) struct OtlpJson;

impl SpanFormat for OtlpJson {
    fn name(&self) -> &'static str {
        "otlp-json"
    }

    fn media_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn framing(&self) -> Framing {
        Framing::NONE
    }

    fn encoded(&self, rollout: &RecordedRollout) -> serde_json::Result<Vec<u8>> {
        let mut line = encoded(OtlpFormat::Json, &rollout.spans)?;
        line.push(b'\n');
        Ok(line)
    }
}

/// `--format otlp`
pub(super) struct OtlpProtobuf;

impl SpanFormat for OtlpProtobuf {
    fn name(&self) -> &'static str {
        "otlp"
    }

    fn media_type(&self) -> &'static str {
        "application/x-protobuf"
    }

    fn framing(&self) -> Framing {
        Framing::NONE
    }

    fn encoded(&self, rollout: &RecordedRollout) -> serde_json::Result<Vec<u8>> {
        encoded(OtlpFormat::Protobuf, &rollout.spans)
    }
}
