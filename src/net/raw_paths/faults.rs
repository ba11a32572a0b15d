//! Blocks of HTTP/2 fields that must not pass, and the words for their faults beside the HTTP library.
//!
//! For some of them the library would end the whole connection; others it would let pass (RFC 9113 §8.2 and §8.3).

use crate::error::{FramingFault, FramingRule};
use crate::wire::framing::head::{ASTERISK, CONNECT_WITH_BODY, NO_METHOD, is_token};
use crate::wire::hpack::Field;
use bytes::Bytes;
use http::HeaderValue;

/// A fault and the word that stands for it in the field of a target. No target begins like these words.
pub(super) type Refusal = (&'static str, FramingFault);

pub(super) const NO_URI: Refusal = ("!uri", ambiguous("the request target is not a URI"));
pub(super) const TARGET_TOO_LONG: Refusal =
    ("!target", FramingFault { rule: FramingRule::TargetTooLong, cause: "the request target is over 65534 bytes" });
pub(super) const TOO_LONG: Refusal =
    ("!fields", FramingFault { rule: FramingRule::HeadTooLarge, cause: "the header fields are over 144 KiB" });
const NOT_OPTIONS: Refusal = ("!asterisk", ASTERISK);
const WITH_BODY: Refusal = ("!body", CONNECT_WITH_BODY);
const METHOD: Refusal = ("!method", NO_METHOD);
const USER: Refusal = ("!user", ambiguous("user information in :authority"));
const PROTOCOL: Refusal = ("!protocol", ambiguous("the :protocol is not a token"));
const PSEUDO: Refusal = ("!pseudo", ambiguous("an unknown pseudo-header field"));
const NAME: Refusal = ("!name", ambiguous("a field name is not a token in lower case"));
const VALUE: Refusal = ("!value", ambiguous("a field value has control characters"));
const ALL: [Refusal; 11] =
    [NO_URI, TARGET_TOO_LONG, TOO_LONG, NOT_OPTIONS, WITH_BODY, METHOD, USER, PROTOCOL, PSEUDO, NAME, VALUE];

const fn ambiguous(cause: &'static str) -> FramingFault {
    FramingFault { rule: FramingRule::Ambiguous, cause }
}

/// The fault that a word stands for.
pub(super) fn of_word(word: &HeaderValue) -> Option<FramingFault> {
    ALL.into_iter().find(|(known, _)| known == word).map(|(_, fault)| fault)
}

/// Why a request with these fields is refused, apart from its path.
pub(super) fn of_request(fields: &[Field]) -> Option<Refusal> {
    let value = |name: &[u8]| fields.iter().find(|field| *field.name == *name).map(|field| &*field.value);
    let method = value(b":method").unwrap_or_default();
    if method != b"OPTIONS" && value(b":path") == Some(b"*") {
        return Some(NOT_OPTIONS);
    }
    if method == b"CONNECT" && value(b"content-length").is_some_and(|length| length != b"0") {
        return Some(WITH_BODY);
    }
    fields.iter().find_map(|field| match &*field.name {
        b":method" => (!is_token(&field.value)).then_some(METHOD),
        b":authority" => field.value.contains(&b'@').then_some(USER),
        b":protocol" => (!is_token(&field.value)).then_some(PROTOCOL),
        b":path" | b":scheme" => None,
        // A field of responses, which the library refuses for this request alone.
        b":status" => None,
        [b':', ..] => Some(PSEUDO),
        _ => of_field(field),
    })
}

/// True for trailers that no message may have.
pub(super) fn is_malformed_trailers(fields: &[Field]) -> bool {
    fields.iter().any(|field| field.name.starts_with(b":") || of_field(field).is_some())
}

fn of_field(field: &Field) -> Option<Refusal> {
    if !is_token(&field.name) || field.name.iter().any(u8::is_ascii_uppercase) {
        return Some(NAME);
    }
    field.value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t').then_some(VALUE)
}

/// The fields of a request in place of one that is refused.
pub(super) fn replacement((word, _): Refusal, carrier: &'static str) -> Vec<Field> {
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (carrier, word)];
    fields.map(|(name, value)| field(name, value)).into()
}

/// Trailers that the library refuses for their stream alone: with a field about the connection (RFC 9113 §8.2.2).
pub(super) fn refused_trailers() -> Vec<Field> {
    vec![field("connection", "close")]
}

fn field(name: &'static str, value: &'static str) -> Field {
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    Field { name: bytes(name), value: bytes(value), is_sensitive: true }
}
