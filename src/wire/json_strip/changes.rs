//! What is taken out of JSON text.

/// What happens to a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is removed.
    Remove,
    /// Its value becomes null.
    Null,
    /// Its value becomes an empty list.
    Empty,
}

impl Change {
    /// The text in place of the value. `None`: the field is removed.
    pub(super) fn replacement(self) -> Option<&'static [u8]> {
        match self {
            Self::Remove => None,
            Self::Null => Some(b"null"),
            Self::Empty => Some(b"[]"),
        }
    }
}

/// What happens to the fields of a response of OpenAI's shape: those of its root, or of the `response` that an event
/// brings, and those of every object in its `choices`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// By their names at the root.
    pub root: Vec<(&'static str, Change)>,
    /// By their names in a choice.
    pub choice: Vec<(&'static str, Change)>,
    /// What happens to the last event of a stream, which has the usage and no choices.
    pub usage_event: UsageEvent,
}

/// What happens to the event of a stream that has the usage and no choices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UsageEvent {
    /// It stays.
    #[default]
    Kept,
    /// It is left out.
    Removed,
}

impl Changes {
    /// The most bytes that a key takes which is one of the names: with its quotes, and all letters escaped (`\u0061`).
    pub(super) fn max_key_bytes(&self) -> usize {
        let names = self.root.iter().chain(&self.choice).map(|(name, _)| name.len());
        6 * names.chain([RESPONSE.len(), CHOICES.len()]).max().unwrap_or_default() + 2
    }
}

pub(super) const RESPONSE: &str = "response";
pub(super) const CHOICES: &str = "choices";
