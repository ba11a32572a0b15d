//! Settings of the verdict.

use serde::{Deserialize, Serialize};

/// The section `[verdict]`: limits, and what exchanges of a rollout may reach. An agent that reaches something else may have
/// found the answer to its task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VerdictSettings {
    /// The largest difference between the versions of the weights of one rollout.
    pub max_version_spread: i64,
    /// Patterns of the only hosts that may be reached, besides those of LLM calls. Empty: all.
    pub allow_hosts: Vec<String>,
    /// Patterns of URLs that must not be reached, as `https://github.com/org/repo*`.
    pub deny_urls: Vec<String>,
    /// Texts that must not appear in the URL or the recorded bodies of an exchange that is no LLM call.
    pub deny_text: Vec<String>,
}

impl Default for VerdictSettings {
    fn default() -> Self {
        Self { max_version_spread: 1, allow_hosts: Vec::new(), deny_urls: Vec::new(), deny_text: Vec::new() }
    }
}
