//! Secrets of the settings, which are never printed.

use serde::{Deserialize, Serialize};

/// A secret text. `Debug` shows only whether there is one.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    /// Wraps a secret; an empty text means that there is none.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// True when there is no secret.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text itself, for the code that must send or write it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Compares in constant time.
    pub(crate) fn matches(&self, candidate: &str) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.0.as_bytes(), candidate.as_bytes()).is_ok()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "REDACTED" })
    }
}
