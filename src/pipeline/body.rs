//! The recorded bodies of an exchange: decoded, and as redacted text or base64 on its span.

use super::options::SpanOptions;
use crate::capture::BegunCall;
use crate::llm::formats::BegunResponse;
use crate::trace::Span;
use crate::trace::exchange::{Body, RawEnd, RecordedForm, Truncation};
use crate::trace::semconv as names;
use crate::wire::encoding::{DecodeError, Decoded, decode};
use crate::wire::stream_decoder::StreamDecoder;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};
use std::borrow::Cow;
use std::io;

/// The attribute of a body that is text, of one that is not, and of one that is cut.
pub(super) type BodyAttributes = (&'static str, &'static str, &'static str);

pub(super) const REQUEST: BodyAttributes =
    (names::HTTP_REQUEST_BODY_CONTENT, names::REQUEST_BODY_BASE64, names::CAPTURE_REQUEST_TRUNCATED);
pub(super) const RESPONSE: BodyAttributes =
    (names::HTTP_RESPONSE_BODY_CONTENT, names::RESPONSE_BODY_BASE64, names::CAPTURE_RESPONSE_TRUNCATED);

/// The response of an exchange, as a call is read from it.
pub(super) enum ResponseContent {
    /// All of it, decoded.
    Whole(Decoded),
    /// A call that was begun to be read while it passed, now read to its end.
    Begun(Box<BegunResponse>),
    /// Too long to be held in memory: it is decoded and read piece by piece.
    Pieces(StreamDecoder),
}

impl ResponseContent {
    /// The recorded bytes of a response. What can't be read back is noted on the body.
    pub(super) fn of(body: &mut Body, begun: Option<BegunCall>, headers: &HeaderMap) -> Self {
        if let Some(begun) = begun {
            let (response, read) = begun.finish(body);
            note_unreadable(body, read);
            return Self::Begun(response);
        }
        let is_long = body.content.as_ref().is_some_and(|content| content.len() > MAX_WHOLE_BYTES);
        match StreamDecoder::of(headers).filter(|_| is_long) {
            Some(decoder) => Self::Pieces(decoder),
            None => Self::Whole(decoded(body, headers)),
        }
    }
}

/// All recorded bytes of a body, decoded.
pub(super) fn decoded(body: &mut Body, headers: &HeaderMap) -> Decoded {
    let bytes = recorded_bytes(body, u64::MAX);
    decoded_bytes(body, headers, bytes, MAX_DECODED_BYTES)
}

/// Recorded bytes without the content coding that they still have.
fn decoded_bytes(body: &Body, headers: &HeaderMap, bytes: Vec<u8>, max_bytes: usize) -> Decoded {
    match body.form {
        RecordedForm::AsTransferred => decode(headers, bytes, max_bytes),
        RecordedForm::Decoded => Decoded { bytes, ..Decoded::default() },
    }
}

/// The first recorded bytes of a body.
fn recorded_bytes(body: &mut Body, max_bytes: u64) -> Vec<u8> {
    let Some(content) = &body.content else { return Vec::new() };
    let length = usize::try_from(content.len().min(max_bytes)).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(length);
    let read = content.read_from(0, &mut |piece| {
        let room = length - bytes.len();
        bytes.extend_from_slice(&piece[..piece.len().min(room)]);
    });
    note_unreadable(body, read);
    bytes
}

fn note_unreadable(body: &mut Body, read: io::Result<()>) {
    if let Err(error) = read {
        tracing::error!(%error, "a recorded body can't be read back from the spill file; its span is marked");
        body.truncated = Some(Truncation::Spill);
    }
}

/// A longer response is read piece by piece.
const MAX_WHOLE_BYTES: u64 = 1 << 20;
/// The most that a body may become without its content coding.
const MAX_DECODED_BYTES: usize = 64 << 20;

/// Adds a recorded body to its span, decoded, up to the limit.
pub(super) fn describe(
    span: &mut Span,
    (text_name, binary_name, truncated_name): BodyAttributes,
    body: &mut Body,
    headers: &HeaderMap,
    target: &str,
    options: &SpanOptions,
) {
    let limit = RawEnd { at: options.max_body_bytes as u64, why: Truncation::BodyLimit };
    let RawEnd { at: end, why } = body.raw_end.filter(|end| end.at < limit.at).unwrap_or(limit);
    let bytes = recorded_bytes(body, end);
    let mut decoded = decoded_bytes(body, headers, bytes, options.max_body_bytes);
    decoded.truncated |= end < body.size_bytes;
    if decoded.bytes.is_empty() {
        return;
    }
    if body.truncated.is_none() && decoded.truncated {
        span.set(truncated_name, why.as_str());
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if let Some(error) = decoded.error.as_ref().filter(|_| body.truncated.is_none() && !decoded.truncated) {
        span.set(names::CAPTURE_UNDECODED, error.to_string());
    }
    match text_or_bytes(content_type, decoded, body) {
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
/// text with replacement characters. Of a body that was cut, half a character at its end is dropped.
fn text_or_bytes(content_type: Option<&str>, decoded: Decoded, body: &Body) -> Result<String, Vec<u8>> {
    let Decoded { mut bytes, truncated, error } = decoded;
    // A body with an unknown coding can't be searched for secrets, so it is not shown as text.
    if matches!(error, Some(DecodeError::Unknown(_) | DecodeError::TooMany)) {
        return Err(bytes);
    }
    let is_cut = body.truncated.is_some() || !body.complete || truncated || error.is_some();
    if is_cut {
        bytes.truncate(whole_characters(&bytes).len());
    }
    let bytes = match String::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => error.into_bytes(),
    };
    let lower = content_type.unwrap_or_default().to_ascii_lowercase();
    let kind = lower.split(';').next().unwrap_or_default().trim();
    let is_text = kind.starts_with("text/")
        || lower.contains("charset=")
        || ["json", "xml", "yaml", "x-ndjson", "x-www-form-urlencoded"].iter().any(|end| kind.ends_with(end));
    if is_text { Ok(String::from_utf8_lossy(&bytes).into_owned()) } else { Err(bytes) }
}

/// `bytes` without a character at the end that a truncation left incomplete.
pub(super) fn whole_characters(bytes: &[u8]) -> &[u8] {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => &bytes[..error.valid_up_to()],
        _ => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_cut_body_loses_half_a_character_at_its_end() {
        let whole = || Body { complete: true, ..Body::default() };
        let truncated = || Body { truncated: Some(Truncation::BodyLimit), ..whole() };
        let decoded = |error| Decoded { bytes: b"caf\xc3".to_vec(), truncated: false, error };
        let damaged = || Some(DecodeError::Damaged("gzip"));
        let text = Some("text/plain");
        for (body, error) in [(truncated(), None), (Body::default(), None), (whole(), damaged())] {
            assert_eq!(text_or_bytes(None, decoded(error), &body), Ok("caf".to_owned()));
        }
        let cut_by_decoding = Decoded { truncated: true, ..decoded(None) };
        assert_eq!(text_or_bytes(None, cut_by_decoding, &whole()), Ok("caf".to_owned()));
        assert_eq!(text_or_bytes(text, decoded(None), &whole()), Ok("caf\u{fffd}".to_owned()));
        assert_eq!(text_or_bytes(None, decoded(None), &whole()), Err(b"caf\xc3".to_vec()));
        let opaque = decoded(Some(DecodeError::Unknown("x".to_owned())));
        assert_eq!(text_or_bytes(text, opaque, &truncated()), Err(b"caf\xc3".to_vec()));
    }
}
