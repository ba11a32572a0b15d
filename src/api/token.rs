//! `[[server.tokens]]` of the settings: what a token allows, and which tokens can never be used as they were meant.

use crate::trace::check_id;
use crate::util::secret::Secret;
use axum::http::Method;
use serde::{Deserialize, Serialize};

/// One of `[[server.tokens]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "TokenSettings")]
pub(crate) struct Token {
    /// The secret that callers present, in a header that an LLM API has for keys: `Authorization: Bearer …`, `x-api-key` …
    pub(crate) token: Secret,
    /// What the token allows.
    pub(crate) scopes: Vec<Scope>,
    /// The rollouts that the token is for, in the settings a list of patterns with `*`. An empty list means all.
    pub(crate) rollouts: RolloutScope,
}

/// A token as the settings have it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenSettings {
    token: Secret,
    scopes: Option<Vec<Scope>>,
    #[serde(default)]
    rollouts: RolloutScope,
}

impl From<TokenSettings> for Token {
    /// A token without scopes has all of them: Agent Lightning has one key for its trainer, its runners and its agents. One for
    /// some rollouts reads and writes these.
    fn from(TokenSettings { token, scopes, rollouts }: TokenSettings) -> Self {
        let scopes = scopes.unwrap_or_else(|| match rollouts {
            RolloutScope::All => vec![Scope::Admin],
            RolloutScope::Rollouts(_) => vec![Scope::Read, Scope::Write],
        });
        Self { token, scopes, rollouts }
    }
}

/// Why a token of the settings can never be used as it was meant.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum TokenError {
    /// Every request without a token would match it.
    #[error("has an empty token; set its `token`, or remove the entry")]
    Empty,
    /// No client can send it.
    #[error("has a token with a line break or another control character; remove it")]
    Control,
    /// It may do nothing.
    #[error("has an empty list of scopes; leave `scopes` out for all, or name \"read\", \"write\" or \"admin\"")]
    NoScopes,
    /// It may do something with no rollout.
    #[error("has the pattern {0:?} for rollouts, which no id matches; write an id, or a part of one with `*`")]
    Pattern(String),
    /// Only one of the entries would count.
    #[error("has the same token as another entry; give each its own")]
    Repeated,
}

impl Token {
    /// A token that allows everything.
    pub(crate) fn admin(token: Secret) -> Self {
        Self { token, scopes: vec![Scope::Admin], rollouts: RolloutScope::All }
    }

    /// Checks what the types cannot.
    pub(crate) fn check(&self, others: &[Self]) -> Result<(), TokenError> {
        let text = self.token.expose();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        if text.chars().any(char::is_control) {
            return Err(TokenError::Control);
        }
        if self.scopes.is_empty() {
            return Err(TokenError::NoScopes);
        }
        if let RolloutScope::Rollouts(patterns) = &self.rollouts
            && let Some(pattern) = patterns.iter().find(|pattern| check_id(pattern).is_err())
        {
            return Err(TokenError::Pattern(pattern.clone()));
        }
        if others.iter().any(|other| other.token == self.token) { Err(TokenError::Repeated) } else { Ok(()) }
    }
}

/// A kind of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    /// Requests that change nothing.
    Read,
    /// Requests that change rollouts and spans, and LLM calls. Does not include [`Self::Read`].
    Write,
    /// Every request, whatever scope its route needs: also where calls go, whether they wait, and what is deleted.
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

    /// The scope that a request needs by its method alone.
    pub(super) fn of_method(method: &Method) -> Self {
        if *method == Method::GET || *method == Method::HEAD { Self::Read } else { Self::Write }
    }
}

/// The rollouts that a caller may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub(crate) enum RolloutScope {
    /// Every rollout, and requests that concern no rollout or all of them.
    #[default]
    All,
    /// The rollouts that match one of these patterns with `*`, and nothing else.
    Rollouts(Vec<String>),
}

impl From<Vec<String>> for RolloutScope {
    fn from(patterns: Vec<String>) -> Self {
        if patterns.is_empty() { Self::All } else { Self::Rollouts(patterns) }
    }
}

impl From<RolloutScope> for Vec<String> {
    fn from(scope: RolloutScope) -> Self {
        match scope {
            RolloutScope::All => Self::new(),
            RolloutScope::Rollouts(patterns) => patterns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Token {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_token_without_scopes_has_all_unless_it_is_for_some_rollouts() {
        assert_eq!(token(r#"{"token": "t"}"#).scopes, [Scope::Admin]);
        assert_eq!(token(r#"{"token": "t", "rollouts": ["ro-*"]}"#).scopes, [Scope::Read, Scope::Write]);
        assert_eq!(token(r#"{"token": "t", "scopes": ["read"]}"#).scopes, [Scope::Read]);
        let unknown = serde_json::from_str::<Token>(r#"{"token": "t", "scopes": ["root"]}"#).unwrap_err().to_string();
        assert!(unknown.contains("unknown variant `root`") && unknown.contains("`admin`"), "{unknown}");
    }

    #[test]
    fn a_token_that_can_do_nothing_is_refused() {
        let earlier = [token(r#"{"token": "a"}"#)];
        let long = "x".repeat(1025);
        for (text, expected) in [
            (r#"{"token": ""}"#.to_owned(), TokenError::Empty),
            (r#"{"token": "a\nb"}"#.to_owned(), TokenError::Control),
            (r#"{"token": "b", "scopes": []}"#.to_owned(), TokenError::NoScopes),
            (r#"{"token": "b", "rollouts": ["ro-1", ""]}"#.to_owned(), TokenError::Pattern(String::new())),
            (r#"{"token": "b", "rollouts": ["a\tb"]}"#.to_owned(), TokenError::Pattern("a\tb".to_owned())),
            (format!(r#"{{"token": "b", "rollouts": ["{long}"]}}"#), TokenError::Pattern(long)),
            (r#"{"token": "a", "scopes": ["read"]}"#.to_owned(), TokenError::Repeated),
        ] {
            assert_eq!(token(&text).check(&earlier), Err(expected), "{text}");
        }
        assert_eq!(token(r#"{"token": "b", "rollouts": ["ro-*"]}"#).check(&earlier), Ok(()));
    }
}
