//! gRPC: the framing of the one message of a unary call, and its status.

use crate::wire::encoding::gzip;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flate2::read::MultiGzDecoder;
use http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode;
use prost::Message;
use std::borrow::Cow;
use std::io::{self, Read};
use std::time::Duration;
use tonic::Code;

/// How a message is compressed, by the names of the field `grpc-encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageEncoding {
    /// Not at all.
    Identity,
    Gzip,
}

/// A message with its prefix: a byte that tells whether it is compressed, and four with its length.
///
/// # Errors
/// The compressed message does not fit into the length.
pub(crate) fn framed(message: Vec<u8>, encoding: MessageEncoding) -> io::Result<Vec<u8>> {
    let (is_compressed, message) = match encoding {
        MessageEncoding::Identity => (PLAIN, message),
        MessageEncoding::Gzip => (COMPRESSED, gzip(&message)?),
    };
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    Ok([&[is_compressed], &length.to_be_bytes()[..], &message].concat())
}

/// The message of a body, of which at most `max_bytes` are decompressed. `None` if the body is no whole message. The compression is
/// gzip: a server uses no other than its client has offered.
pub(crate) fn unframed(body: &[u8], max_bytes: u64) -> Option<Cow<'_, [u8]>> {
    let (&flag, rest) = body.split_first()?;
    let (length, rest) = rest.split_first_chunk()?;
    let message = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    if flag == PLAIN {
        return Some(Cow::Borrowed(message));
    }
    let mut plain = Vec::new();
    MultiGzDecoder::new(message).take(max_bytes).read_to_end(&mut plain).ok()?;
    Some(Cow::Owned(plain))
}

/// The status of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallStatus {
    pub(crate) code: Code,
    /// For people; may be empty.
    pub(crate) message: String,
    /// A `google.rpc.Status`; empty if there is none, or it can't be read.
    details: Vec<u8>,
}

impl CallStatus {
    /// The status in trailers, or in the header fields of a response without a message. `None` without one.
    ///
    /// tonic's `Status` reads the same fields, and panics if the details are not base64.
    pub(crate) fn of(fields: &HeaderMap) -> Option<Self> {
        let bytes = |name: &str| fields.get(name).map(HeaderValue::as_bytes);
        let code = std::str::from_utf8(bytes("grpc-status")?).ok().and_then(|code| code.parse().ok());
        let message = percent_decode(bytes("grpc-message").unwrap_or_default()).decode_utf8_lossy().into_owned();
        let details = bytes("grpc-status-details-bin").unwrap_or_default();
        let details = BASE64.decode(details).unwrap_or_default();
        Some(Self { code: code.map_or(Code::Unknown, Code::from_i32), message, details })
    }

    /// The pause of `google.rpc.RetryInfo`; `None` without one.
    pub(crate) fn retry_delay(&self) -> Option<Duration> {
        let status = StatusDetails::decode(&self.details[..]).ok()?;
        let info = status.details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
        let delay = RetryInfo::decode(&info.value[..]).ok()?.retry_delay.unwrap_or_default();
        let seconds = Duration::from_secs(u64::try_from(delay.seconds).unwrap_or_default());
        Some(seconds.saturating_add(Duration::from_nanos(u64::try_from(delay.nanos).unwrap_or_default())))
    }
}

/// Base64 with or without padding: gRPC's libraries accept both.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
const PLAIN: u8 = 0;
const COMPRESSED: u8 = 1;

/// `google.rpc.Status`, of which only the details are read.
#[derive(Clone, PartialEq, Message)]
struct StatusDetails {
    #[prost(message, repeated, tag = "3")]
    details: Vec<AnyMessage>,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, Message)]
struct AnyMessage {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<DurationMessage>,
}

/// `google.protobuf.Duration`
#[derive(Clone, PartialEq, Message)]
struct DurationMessage {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    use http::HeaderName;

    #[test]
    fn a_message_keeps_its_bytes_in_both_encodings() {
        let message = b"message ".repeat(100);
        for encoding in [MessageEncoding::Identity, MessageEncoding::Gzip] {
            let body = framed(message.clone(), encoding).unwrap();
            assert_eq!(unframed(&body, 10_000).as_deref(), Some(&message[..]));
            assert_eq!(unframed(&body[..body.len() - 1], 10_000), None);
        }
        assert_eq!(framed(b"ab".to_vec(), MessageEncoding::Identity).unwrap(), b"\0\0\0\0\x02ab");
        assert_eq!(unframed(&framed(message, MessageEncoding::Gzip).unwrap(), 10).map(|plain| plain.len()), Some(10));
        for broken in [&b""[..], b"\0", b"\0\0\0\0", b"\0\xff\xff\xff\xffab", b"\x01\0\0\0\x02ab"] {
            assert_eq!(unframed(broken, 100), None, "{broken:?}");
        }
    }

    fn status(fields: &[(&'static str, &str)]) -> Option<CallStatus> {
        let field = |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().unwrap());
        CallStatus::of(&fields.iter().map(field).collect())
    }

    #[test]
    fn a_status_of_any_form_is_read() {
        let read =
            status(&[("grpc-status", "8"), ("grpc-message", "too%20much %ff"), ("grpc-status-details-bin", "*")]);
        let read = read.unwrap();
        assert_eq!((read.code, read.message.as_str()), (Code::ResourceExhausted, "too much \u{fffd}"));
        assert_eq!(read.retry_delay(), None);
        for (code, expected) in
            [("0", Code::Ok), ("16", Code::Unauthenticated), ("99", Code::Unknown), ("", Code::Unknown)]
        {
            assert_eq!(status(&[("grpc-status", code)]).unwrap().code, expected, "{code}");
        }
        assert_eq!(status(&[("grpc-message", "x")]), None);
    }

    #[test]
    fn the_pause_of_a_status_is_read() {
        let delay = |type_url: &str, seconds, nanos| {
            let info = RetryInfo { retry_delay: Some(DurationMessage { seconds, nanos }) };
            let detail = AnyMessage { type_url: type_url.to_owned(), value: info.encode_to_vec() };
            let details = StatusDetails { details: vec![AnyMessage::default(), detail] }.encode_to_vec();
            let [padded, plain] = [BASE64.encode(&details), STANDARD_NO_PAD.encode(&details)]
                .map(|text| status(&[("grpc-status", "8"), ("grpc-status-details-bin", &text)]).unwrap().retry_delay());
            assert_eq!(padded, plain);
            padded
        };
        let name = "type.googleapis.com/google.rpc.RetryInfo";
        assert_eq!(delay(name, 2, 500_000_000), Some(Duration::from_millis(2500)));
        assert_eq!(delay(name, -1, -5), Some(Duration::ZERO));
        assert!(delay(name, i64::MAX, 999_999_999).is_some());
        assert_eq!(delay("type.googleapis.com/google.rpc.Help", 2, 0), None);
    }
}
