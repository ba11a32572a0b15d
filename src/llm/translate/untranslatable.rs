//! Why a request or a response can't be translated, and where.

/// Why something has no counterpart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {cause}")]
pub(crate) struct Untranslatable {
    /// Where it stands (`messages[2].content[0]`).
    pub(crate) place: String,
    /// Why.
    pub(crate) cause: String,
}

/// Why something at `place` can't be translated.
pub(super) fn refusal(place: &str, cause: &str) -> Untranslatable {
    Untranslatable { place: place.to_owned(), cause: cause.to_owned() }
}
