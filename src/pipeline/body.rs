//! The recorded bodies of an exchange: decoded, and as redacted text or base64 on its span.

use super::options::SpanOptions;
use crate::trace::Span;
use crate::trace::exchange::Body;
use crate::trace::semconv as names;
use crate::wire::encoding::{DecodeError, Decoded, decode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};
use std::borrow::Cow;
use std::string::FromUtf8Error;

/// The attribute of a body that is text, and of one that is not.
pub(super) type BodyAttributes = (&'static str, &'static str);

pub(super) const REQUEST: BodyAttributes = (names::HTTP_REQUEST_BODY_CONTENT, names::REQUEST_BODY_BASE64);
pub(super) const RESPONSE: BodyAttributes = (names::HTTP_RESPONSE_BODY_CONTENT, names::RESPONSE_BODY_BASE64);

/// Takes the recorded bytes out of a body and undoes their content coding.
pub(super) fn take_decoded(body: &mut Body, headers: &HeaderMap, options: &SpanOptions) -> Decoded {
    decode(headers, std::mem::take(&mut body.buffer).into_bytes(), options.max_body_bytes)
}

/// Adds a decoded body to its span.
pub(super) fn describe(
    span: &mut Span,
    (text_name, binary_name): BodyAttributes,
    decoded: Decoded,
    body: &Body,
    headers: &HeaderMap,
    target: &str,
    options: &SpanOptions,
) {
    if decoded.bytes.is_empty() {
        return;
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if let Some(error) = decoded.error.as_ref().filter(|_| body.truncated.is_none()) {
        span.set(names::CAPTURE_UNDECODED, error.to_string());
    }
    // A body with an unknown coding can't be searched for secrets, so it is not shown as text.
    let is_opaque = matches!(decoded.error, Some(DecodeError::Unknown(_) | DecodeError::TooMany));
    let text = if is_opaque { Err(decoded.bytes) } else { textual(content_type, decoded.bytes) };
    match text {
        Ok(text) => {
            let redacted = match options.redactor.body(content_type, target, &text) {
                Cow::Owned(redacted) => Some(redacted),
                Cow::Borrowed(_) => None,
            };
            span.set(text_name, redacted.unwrap_or(text));
        }
        Err(bytes) => span.set(binary_name, STANDARD.encode(bytes)),
    }
}

/// UTF-8 is text whatever the type says, so that secrets in it are found. A body of a text type that is not all UTF-8 is
/// text with replacement characters.
fn textual(content_type: Option<&str>, bytes: Vec<u8>) -> Result<String, Vec<u8>> {
    let error = match String::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => error,
    };
    let cut = error.utf8_error();
    let mut bytes = error.into_bytes();
    if cut.error_len().is_none() {
        bytes.truncate(cut.valid_up_to());
        return String::from_utf8(bytes).map_err(FromUtf8Error::into_bytes);
    }
    let lower = content_type.unwrap_or_default().to_ascii_lowercase();
    let kind = lower.split(';').next().unwrap_or_default().trim();
    let is_text = kind.starts_with("text/")
        || lower.contains("charset=")
        || ["json", "xml", "yaml", "x-ndjson", "x-www-form-urlencoded"].iter().any(|end| kind.ends_with(end));
    if is_text { Ok(String::from_utf8_lossy(whole_characters(&bytes)).into_owned()) } else { Err(bytes) }
}

/// `bytes` without a character at the end that a truncation left incomplete.
pub(super) fn whole_characters(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        _ => bytes,
    }
}
