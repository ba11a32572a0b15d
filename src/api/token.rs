//! The tokens of the settings, and what each allows.

use crate::util::secret::Secret;
use serde::{Deserialize, Serialize};

/// One of `[[server.tokens]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Token {
    /// What the caller shows, as `Authorization: Bearer …` or `x-api-key`.
    pub token: Secret,
    /// What it allows.
    #[serde(default = "read_and_write")]
    pub scopes: Vec<Scope>,
    /// The rollouts it is for (patterns with `*`); none: all.
    #[serde(default)]
    pub rollouts: Vec<String>,
}

fn read_and_write() -> Vec<Scope> {
    vec![Scope::Read, Scope::Write]
}

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    /// To look.
    Read,
    /// To change rollouts and add spans.
    Write,
    /// Everything.
    Admin,
}

impl Scope {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}
