//! OpenTelemetry's OTLP: `otlp-json` as its file exporter writes it, a `TracesData` on each line, and `otlp` as protobuf,
//! where the messages of all rollouts together are one message.

use super::conventions::AttributeConventions;
use super::format::{Framing, RecordedRollout, SpanFormat};
use crate::wire::otlp::{OtlpFormat, encoded};

/// `--format otlp-json`
pub(super) struct OtlpJson(pub(super) AttributeConventions);

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

    fn with_open_inference(&self) -> Option<&'static dyn SpanFormat> {
        Some(&Self(AttributeConventions::OpenInference))
    }

    fn encoded(&self, rollout: &RecordedRollout) -> serde_json::Result<Vec<u8>> {
        let mut line = encoded(OtlpFormat::Json, &self.0.of(&rollout.spans))?;
        line.push(b'\n');
        Ok(line)
    }
}

/// `--format otlp`
pub(super) struct OtlpProtobuf(pub(super) AttributeConventions);

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

    fn with_open_inference(&self) -> Option<&'static dyn SpanFormat> {
        Some(&Self(AttributeConventions::OpenInference))
    }

    fn encoded(&self, rollout: &RecordedRollout) -> serde_json::Result<Vec<u8>> {
        encoded(OtlpFormat::Protobuf, &self.0.of(&rollout.spans))
    }
}
