//! Decodes the body of a request for traces, in either format.

use super::error::OtlpError;
use super::message::ExportedResource;
use super::spans::{DecodedSpan, resource, span};
use super::{from_json, from_protobuf};

/// How an OTLP/HTTP body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OtlpFormat {
    /// Binary protobuf, which most exporters send.
    Protobuf,
    /// Protobuf's JSON mapping, with ids in hexadecimal.
    Json,
}

impl OtlpFormat {
    /// The format that a `Content-Type` names; `None` for any other type.
    pub(crate) fn of_content_type(content_type: &str) -> Option<Self> {
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "application/x-protobuf" => Some(Self::Protobuf),
            "application/json" => Some(Self::Json),
            _ => None,
        }
    }

    /// The `Content-Type` of the format.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

/// The spans of a request. Their rollout and attempt are empty, and their sequence id is 0, until the caller has assigned
/// them by the attribution. An empty body is a request without spans.
pub(crate) fn spans(format: OtlpFormat, body: &[u8]) -> Result<Vec<DecodedSpan>, OtlpError> {
    let resources = match format {
        _ if body.is_empty() => Vec::new(),
        OtlpFormat::Json => from_json::resources(body)?,
        OtlpFormat::Protobuf => from_protobuf::resources(body)?,
    };
    let mut decoded = Vec::new();
    for ExportedResource { attributes, schema_url, spans } in resources {
        let resource = resource(attributes, schema_url);
        decoded.extend(spans.into_iter().map(|message| span(message?, &resource)));
    }
    Ok(decoded)
}
