//! What the response of a receiver means for the spans of a request, by the specification of OTLP/HTTP.
//! `grpc` has the same for OTLP/gRPC.

use super::http::{Reply, Response};
use crate::wire::otlp::{OtlpFormat, PartialSuccess, accepted};
use http::StatusCode;
use std::fmt;
use std::time::Duration;

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The receiver has the spans, but for those that it rejected for what they contain.
    Accepted {
        /// Number of rejected spans.
        rejected: u64,
        /// What the receiver has to say.
        message: String,
    },
    /// The receiver may accept the same request later.
    Later {
        /// When it wants to be asked again.
        after: Option<Duration>,
        /// Why it does not accept now.
        cause: String,
        /// What may have to change until then.
        fault: Fault,
    },
    /// The request is too large.
    TooLarge,
    /// The receiver will never accept this request.
    Refused {
        /// How the spans are counted.
        reason: DropReason,
        /// Why the request was not accepted, for the log and `/readyz`.
        cause: String,
    },
}

/// What keeps a receiver from accepting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The receiver accepts nothing at the moment.
    Receiver,
    /// It fails to process this request; it may accept others.
    Request,
}

/// Why something is never exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DropReason {
    /// It was removed from the store before.
    Removed,
    /// The receiver rejects requests as large as this span.
    TooLarge,
    /// The receiver accepted its request, but not the span.
    Rejected,
    /// The receiver failed to process its request each time.
    GaveUp,
    /// It can't be encoded.
    Encoding,
    /// The receiver rejected the request with this status code.
    Status(u16),
    /// The receiver rejected the request with this status of gRPC, by its name in lower case.
    Grpc(&'static str),
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Removed => f.write_str("removed"),
            Self::TooLarge => f.write_str("too_large"),
            Self::Rejected => f.write_str("rejected"),
            Self::GaveUp => f.write_str("gave_up"),
            Self::Encoding => f.write_str("encoding"),
            Self::Status(code) => write!(f, "http_{code}"),
            Self::Grpc(name) => write!(f, "grpc_{name}"),
        }
    }
}

/// The outcome of a request over OTLP/HTTP.
pub(super) fn of_otlp(reply: Reply) -> Outcome {
    let response = match reply {
        Reply::Failed(cause) => return Outcome::Later { after: None, cause, fault: Fault::Receiver },
        Reply::Response(response) => response,
    };
    if !response.status.is_success() {
        return of_status(&response);
    }
    let format = OtlpFormat::of_content_type(response.content_type());
    // The status says that the receiver has the spans. What can't be read beside it changes nothing.
    let partial = format.and_then(|format| accepted(format, &response.body));
    of_partial_success(partial.unwrap_or_default())
}

/// The outcome of a request that was accepted, perhaps in part.
pub(super) fn of_partial_success(partial: PartialSuccess) -> Outcome {
    let PartialSuccess { rejected_spans, error_message } = partial;
    Outcome::Accepted { rejected: u64::try_from(rejected_spans).unwrap_or_default(), message: error_message }
}

/// The outcome of a request that a status code refuses. Only those that the specification lists are tried again.
pub(super) fn of_status(response: &Response) -> Outcome {
    let (status, cause) = (response.status, response.cause());
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            Outcome::Later { after: response.retry_after(), cause, fault: Fault::Receiver }
        }
        StatusCode::PAYLOAD_TOO_LARGE => Outcome::TooLarge,
        _ => Outcome::Refused { reason: DropReason::Status(status.as_u16()), cause },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue, header};

    fn reply(status: u16, content_type: &'static str, body: &[u8]) -> Reply {
        let fields = [(header::CONTENT_TYPE, content_type), (header::RETRY_AFTER, "7")];
        Reply::Response(Box::new(Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::from_iter(fields.map(|(name, value)| (name, HeaderValue::from_static(value)))),
            body: body.to_vec().into(),
            trailers: None,
        }))
    }

    #[test]
    fn a_status_code_decides_what_becomes_of_spans() {
        for status in [429, 502, 503, 504] {
            let outcome = of_otlp(reply(status, "text/plain", b"busy\x1b[2J"));
            let Outcome::Later { after, cause, .. } = outcome else { panic!("{status}: {outcome:?}") };
            assert_eq!(after, Some(Duration::from_secs(7)));
            assert!(cause.contains("busy") && !cause.contains('\x1b'), "{cause}");
        }
        for status in [301, 400, 401, 403, 404, 500, 501] {
            let outcome = of_otlp(reply(status, "", b""));
            assert!(matches!(outcome, Outcome::Refused { reason: DropReason::Status(code), .. } if code == status));
        }
        assert_eq!(of_otlp(reply(413, "", b"")), Outcome::TooLarge);
        assert!(matches!(of_otlp(Reply::Failed("no route".to_owned())), Outcome::Later { after: None, .. }));
    }

    #[test]
    fn a_partial_success_is_read_in_both_forms() {
        let json = br#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"old"}}"#;
        let protobuf = [&[0x0a, 7, 0x08, 3, 0x12, 3][..], b"old"].concat();
        for (content_type, body) in
            [("application/json; charset=utf-8", &json[..]), ("application/x-protobuf", protobuf.as_slice())]
        {
            let expected = Outcome::Accepted { rejected: 3, message: "old".to_owned() };
            assert_eq!(of_otlp(reply(200, content_type, body)), expected, "{content_type}");
        }
        for (content_type, body) in
            [("application/x-protobuf", &b"\xff\xff"[..]), ("application/json", b"{"), ("", b"ok")]
        {
            let expected = Outcome::Accepted { rejected: 0, message: String::new() };
            assert_eq!(of_otlp(reply(200, content_type, body)), expected, "{content_type}");
        }
    }
}
