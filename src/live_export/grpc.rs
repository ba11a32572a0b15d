//! OTLP over gRPC: the header fields of a unary call, and what its status means by the specification of OTLP/gRPC.
//!
//! The calls go over the connections of `upstream`, so that they use its TLS and proxies. Messages are framed and compressed
//! where they are encoded, not on the threads of the traffic, which a client of tonic would do.

use super::http::{Reply, Response, quoted};
use super::otlp_settings::Compression;
use super::outcome::{DropReason, Fault, Outcome, of_partial_success, of_status};
use super::retry::MAX_RETRY_AFTER;
use crate::wire::grpc::{CallStatus, unframed};
use crate::wire::otlp::{OtlpFormat, accepted};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::time::Duration;
use tonic::Code;

/// The header fields of a call.
pub(super) fn call_headers(compression: Compression, timeout: Duration) -> HeaderMap {
    let encoding = match compression {
        Compression::Gzip => "gzip",
        Compression::None => "identity",
    };
    let fields = [
        (header::CONTENT_TYPE, "application/grpc"),
        (header::TE, "trailers"),
        (HeaderName::from_static("grpc-encoding"), encoding),
        (HeaderName::from_static("grpc-accept-encoding"), "identity,gzip"),
    ];
    let mut headers = HeaderMap::from_iter(fields.map(|(name, value)| (name, HeaderValue::from_static(value))));
    // At most eight digits.
    let timeout = format!("{}m", timeout.as_millis().min(99_999_999));
    if let Ok(timeout) = HeaderValue::from_str(&timeout) {
        headers.insert(GRPC_TIMEOUT, timeout);
    }
    headers
}

/// The outcome of a call.
pub(super) fn of_grpc(reply: Reply) -> Outcome {
    let response = match reply {
        Reply::Failed(cause) => return Outcome::Later { after: None, cause, fault: Fault::Receiver },
        Reply::Response(response) => response,
    };
    // A response without a message has its status among the header fields.
    let trailers = response.trailers.as_ref().unwrap_or(&response.headers);
    match CallStatus::of(trailers).or_else(|| CallStatus::of(&response.headers)) {
        Some(status) if status.code == Code::Ok => {
            // The status says that the receiver has the spans. What can't be read beside it changes nothing.
            let message = unframed(&response.body, MAX_MESSAGE_BYTES);
            let partial = message.and_then(|message| accepted(OtlpFormat::Protobuf, &message));
            of_partial_success(partial.unwrap_or_default())
        }
        Some(status) => of_error(&status),
        None if response.status.is_success() => without_status(&response),
        None => of_status(&response),
    }
}

/// The outcome of a call that ended with an error. The specification lists the codes that are tried again.
fn of_error(status: &CallStatus) -> Outcome {
    let (code, words) = (status.code, quoted(&status.message));
    let name = name_of(code);
    if matches!(code, Code::ResourceExhausted | Code::OutOfRange) && is_about_size(&words) {
        return Outcome::TooLarge;
    }
    let after = status.retry_delay().map(|delay| delay.min(MAX_RETRY_AFTER));
    let divider = if words.is_empty() { "" } else { ": " };
    let cause = format!("it responds {}{divider}{words}{}", name.to_uppercase(), fix_of(code));
    match code {
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Aborted => {
            Outcome::Later { after, cause, fault: Fault::Receiver }
        }
        Code::ResourceExhausted if after.is_some() => Outcome::Later { after, cause, fault: Fault::Receiver },
        // They may be about what this request contains.
        Code::OutOfRange | Code::DataLoss => Outcome::Later { after, cause, fault: Fault::Request },
        _ => Outcome::Refused { reason: DropReason::Grpc(name), cause },
    }
}

/// A response that broke off, or is none of gRPC. The receiver may not have the spans.
fn without_status(response: &Response) -> Outcome {
    let cause = if response.content_type().starts_with("application/grpc") {
        "its response broke off before the status".to_owned()
    } else {
        let kind = quoted(response.content_type());
        format!(
            "it responds {} without a status of gRPC (content-type: {kind}); \
             check that the endpoint is the gRPC port of an OTLP receiver, often 4317",
            response.status
        )
    };
    Outcome::Later { after: None, cause, fault: Fault::Receiver }
}

/// True for the words of gRPC's libraries about a message that is too large. The code alone does not say so: grpc-go and gRPC's C core
/// ("received message larger than max"), Java and .NET ("exceeds maximum size", "exceeds the maximum"), tonic ("message length
/// too large").
fn is_about_size(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    ["larger than max", "larger than the max", "exceeds max", "exceeds the max", "length too large"]
        .iter()
        .any(|known| words.contains(known))
}

/// What to do about a code, as the end of a sentence.
fn fix_of(code: Code) -> &'static str {
    match code {
        Code::Unauthenticated | Code::PermissionDenied => "; check the `headers` of the export",
        Code::Unimplemented => "; check that the endpoint is an OTLP receiver that takes traces",
        _ => "",
    }
}

/// The name of a code in lower case.
fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Of a response, decompressed.
const MAX_MESSAGE_BYTES: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http::StatusCode;

    fn reply(
        headers: &[(&'static str, &str)],
        body: &'static [u8],
        trailers: Option<&[(&'static str, &str)]>,
    ) -> Reply {
        let map = |fields: &[(&'static str, &str)]| {
            let field = |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().unwrap());
            HeaderMap::from_iter(fields.iter().map(field))
        };
        let body = Bytes::from_static(body);
        let (headers, trailers) = (map(headers), trailers.map(map));
        Reply::Response(Box::new(Response { status: StatusCode::OK, headers, body, trailers }))
    }

    fn error(code: &str, words: &str, details: &str) -> Outcome {
        let trailers = [("grpc-status", code), ("grpc-message", words), ("grpc-status-details-bin", details)];
        of_grpc(reply(&[], b"", Some(&trailers)))
    }

    #[test]
    fn the_status_of_the_trailers_decides() {
        let content_type = ("content-type", "application/grpc");
        let accepted = |rejected: u64, message: &str| Outcome::Accepted { rejected, message: message.to_owned() };
        let ok: &[_] = &[("grpc-status", "0")];
        assert_eq!(of_grpc(reply(&[content_type], b"\0\0\0\0\0", Some(ok))), accepted(0, ""));
        let partial = b"\0\0\0\0\x09\x0a\x07\x08\x03\x12\x03old";
        assert_eq!(of_grpc(reply(&[content_type], partial, Some(ok))), accepted(3, "old"));
        for unread in [&b""[..], b"garbage", b"\x01\0\0\0\x02ab"] {
            assert_eq!(of_grpc(reply(&[content_type], unread, Some(ok))), accepted(0, ""), "{unread:?}");
        }
        // Without a message, the status is among the header fields.
        let only = reply(&[content_type, ("grpc-status", "16"), ("grpc-message", "no%20key")], b"", None);
        let Outcome::Refused { reason, cause } = of_grpc(only) else { panic!() };
        assert_eq!(reason.to_string(), "grpc_unauthenticated");
        assert!(cause.contains("UNAUTHENTICATED: no key; check the `headers`"), "{cause}");
        // Without a status, nothing is known.
        for (headers, words) in [(&[content_type][..], "broke off"), (&[("content-type", "text/html")], "text/html")] {
            let outcome = of_grpc(reply(headers, b"<html>", None));
            let Outcome::Later { cause, after: None, .. } = outcome else { panic!("{outcome:?}") };
            assert!(cause.contains(words), "{cause}");
        }
    }

    #[test]
    fn the_codes_of_the_specification_are_tried_again() {
        for code in ["1", "4", "10", "11", "14", "15"] {
            assert!(matches!(error(code, "", ""), Outcome::Later { after: None, .. }), "{code}");
        }
        for code in ["2", "3", "5", "6", "7", "8", "9", "12", "13", "16", "99"] {
            assert!(matches!(error(code, "", ""), Outcome::Refused { reason: DropReason::Grpc(_), .. }), "{code}");
        }
        // `google.rpc.Status` with a `RetryInfo` of three seconds.
        let details = "GjAKKHR5cGUuZ29vZ2xlYXBpcy5jb20vZ29vZ2xlLnJwYy5SZXRyeUluZm8SBAoCCAM";
        for code in ["8", "14"] {
            let outcome = error(code, "busy", details);
            let Outcome::Later { after, fault: Fault::Receiver, .. } = outcome else { panic!("{code}: {outcome:?}") };
            assert_eq!(after, Some(Duration::from_secs(3)));
        }
    }

    #[test]
    fn a_message_that_is_too_large_is_recognized() {
        for (code, words) in [
            ("8", "grpc: received message larger than max (5000000 vs. 4194304)"),
            ("8", "CLIENT: Received message larger than max (5000000 vs. 4194304)"),
            ("8", "gRPC message exceeds maximum size 4194304: 5000000"),
            ("8", "Received message exceeds the maximum configured message size."),
            ("11", "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes"),
        ] {
            assert_eq!(error(code, words, ""), Outcome::TooLarge, "{words}");
        }
        assert!(matches!(error("8", "quota exceeded", ""), Outcome::Refused { .. }));
    }
}
