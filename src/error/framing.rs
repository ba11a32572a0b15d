//! Framing errors: HTTP/1 messages with an ambiguous end.
//!
//! This file defines the error; `wire::framing` detects it.

use super::kind::ErrorKind;
use super::proxy_error::ProxyError;

/// Why a message's framing is rejected (RFC 9112 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct FramingFault {
    /// Decides the status code of the response.
    pub rule: FramingRule,
    /// The rule that was broken, in words.
    pub cause: &'static str,
}

/// The class of a framing fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingRule {
    /// Two readers could disagree on where the message ends.
    Ambiguous,
    /// Header fields exceed `wire::framing`'s limits in number or size.
    HeadTooLarge,
    /// The request target exceeds `wire::framing`'s limit.
    TargetTooLong,
}

impl FramingFault {
    /// The fault as an error of a request.
    pub fn of_request(self) -> ProxyError {
        let kind = match self.rule {
            FramingRule::Ambiguous => ErrorKind::HttpRequestMalformed,
            FramingRule::HeadTooLarge => ErrorKind::HttpRequestHeadersTooLarge,
            FramingRule::TargetTooLong => ErrorKind::HttpRequestTargetTooLong,
        };
        ProxyError::new(kind, "", self.cause)
    }

    /// The fault as an error of a response.
    pub fn of_response(self) -> ProxyError {
        ProxyError::new(ErrorKind::HttpProtocolError, "", self.cause)
    }

    /// The framing fault among the sources of `error`; `None` when there is none.
    pub fn behind(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            if let Some(fault) = inner.and_then(|inner| inner.downcast_ref::<Self>()) {
                return Some(*fault);
            }
            next = error.source();
        }
        None
    }
}

impl From<FramingFault> for std::io::Error {
    fn from(fault: FramingFault) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, fault)
    }
}
