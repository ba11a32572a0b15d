//! Why a request or a response can't be translated, and where.

/// A part of a request or a response that can't be translated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {cause}")]
pub(crate) struct Untranslatable {
    /// Its place, such as `messages[2].content[0]`.
    pub(crate) place: String,
    /// Why it can't be translated.
    pub(crate) cause: String,
}

/// The error for a part at `place`.
pub(super) fn untranslatable(place: &str, cause: &str) -> Untranslatable {
    Untranslatable { place: place.to_owned(), cause: cause.to_owned() }
}
