//! The parts of an exchange that can be unreadable.

/// A part of an exchange that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnreadPart {
    /// The body of the request is no JSON.
    Request,
    /// The body of the response is no JSON.
    Response,
    /// An event of the response is no JSON, or its framing is broken.
    ResponseEvent,
    /// The response is JSON without choices.
    ResponseShape,
    /// Text is not UTF-8, or has half of a surrogate pair; it was read with replacement characters. The ids of tokens are
    /// as they were sent.
    InvalidUtf8,
    /// There are more choices than any request asks for.
    Choices,
    /// Two choices have the same index.
    ChoiceIndex,
    /// The format failed on its input.
    Fault,
}

impl UnreadPart {
    /// The word in the attribute `tracewire.llm.unread`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Response => "response",
            Self::ResponseEvent => "response_event",
            Self::ResponseShape => "response_shape",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::Choices => "choices",
            Self::ChoiceIndex => "choice_index",
            Self::Fault => "fault",
        }
    }
}
