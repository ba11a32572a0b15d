//! The changes to a response: which of its fields are removed, or get another value.

/// What happens to a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The field is removed, with one of the commas beside it.
    Remove,
    /// Its value becomes null.
    Null,
    /// Its value becomes an empty list.
    Empty,
    /// Its value becomes 0.
    Zero,
}

impl Change {
    /// The text in place of the value. `None`: the field is removed.
    pub(super) fn replacement(self) -> Option<&'static [u8]> {
        match self {
            Self::Remove => None,
            Self::Null => Some(b"null"),
            Self::Empty => Some(b"[]"),
            Self::Zero => Some(b"0"),
        }
    }
}

/// What happens to the fields of a response of OpenAI's shape: those of its root, or of the `response` that an event
/// brings, those of every object in its `choices`, and those of llama.cpp's `generation_settings`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The changes of fields of the root, by name.
    pub root: Vec<(&'static str, Change)>,
    /// The changes of fields of each choice, by name.
    pub choice: Vec<(&'static str, Change)>,
    /// The changes of fields of `generation_settings`, by name.
    pub settings: Vec<(&'static str, Change)>,
    /// What happens to the last event of a stream, which has the usage and no choices.
    pub usage_event: UsageEvent,
}

/// What happens to the event of a stream that has the usage and no choices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UsageEvent {
    /// It passes unchanged.
    #[default]
    Kept,
    /// It is removed as a whole, because only Tracewire asked for it.
    Removed,
}

impl Changes {
    /// The length of the longest of the names as a key: with its quotes, and every letter escaped (`\u0061`).
    pub(super) fn max_key_bytes(&self) -> usize {
        let names = self.root.iter().chain(&self.choice).chain(&self.settings).map(|(name, _)| name.len());
        6 * names.chain([RESPONSE.len(), CHOICES.len(), SETTINGS.len()]).max().unwrap_or_default() + 2
    }
}

pub(super) const RESPONSE: &str = "response";
pub(super) const CHOICES: &str = "choices";
pub(super) const SETTINGS: &str = "generation_settings";
