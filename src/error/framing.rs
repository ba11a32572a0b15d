//! Faults of framing: messages on whose end two readers could disagree.
//!
//! It only names them; who finds them is in `wire::framing`.

use super::{ErrorKind, ProxyError};

/// Why a message's framing is refused (RFC 9112 §6): two readers could disagree on where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct FramingFault {
    /// What it becomes.
    pub rule: FramingRule,
    /// The rule that was broken, in words.
    pub cause: &'static str,
}

/// What a framing fault becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingRule {
    /// Not one message to every reader.
    Ambiguous,
    /// More or longer fields than we take.
    HeadTooLarge,
    /// A longer target than we take.
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

    /// The fault that is behind an error, if one is.
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
