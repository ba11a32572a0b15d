//! How requests are translated, where there is a choice.

use super::chat_request::Turns;
use serde::{Deserialize, Serialize};

/// How requests are translated, where there is a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TranslationOptions {
    /// Which messages become one.
    pub(crate) turns: Turns,
    /// What happens to tools that a model service would run itself.
    pub(crate) server_tools: ServerTools,
}

/// What happens to tools that a model service runs itself, such as web search. A backend has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ServerTools {
    /// They are left out, and the span says so.
    #[default]
    Drop,
    /// The call is refused.
    Refuse,
}
