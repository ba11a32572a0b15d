//! `[[server.tokens]]` of the settings: what a token allows, and which tokens can never be used as they were meant.

use crate::gateway::KEY_PREFIX;
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
    /// The rollouts that the token is for, in the settings a list of patterns with `*`. No list means all.
    pub(crate) rollouts: RolloutScope,
}

/// A token as the settings have it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenSettings {
    token: Secret,
    scopes: Option<Vec<Scope>>,
    rollouts: Option<Vec<String>>,
}

impl From<TokenSettings> for Token {
    /// A token without scopes has all of them: Agent Lightning has one key for its trainer, its runners and its agents. One for
    /// some rollouts reads and writes these.
    fn from(TokenSettings { token, scopes, rollouts }: TokenSettings) -> Self {
        let scopes = scopes.unwrap_or_else(|| match rollouts {
            None => vec![Scope::Admin],
            Some(_) => vec![Scope::Read, Scope::Write],
        });
        Self { token, scopes, rollouts: rollouts.into() }
    }
}

/// Why a token of the settings can never be used as it was meant.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum TokenError {
    /// Every request without a token would match it.
    #[error("has an empty token; set its `token`, or remove the entry")]
    Empty,
    /// No client can send it.
    #[error("has a token that no client can send; use visible ASCII characters, without spaces at the ends")]
    Unsendable,
    /// It would be read as a key of a rollout.
    #[error("has a token that begins with `{KEY_PREFIX}`, as API keys of rollouts do; use another one")]
    Key,
    /// It may do nothing.
    #[error("has an empty list of scopes; leave `scopes` out for all, or name \"read\", \"write\" or \"admin\"")]
    NoScopes,
    /// It is for no rollout.
    #[error("has an empty list of rollouts; leave `rollouts` out for all, or write ids or patterns with `*`")]
    NoRollouts,
    /// It may do something with no rollout.
    #[error("has the pattern {0:?} for rollouts, which no id matches; write an id, or a part of one with `*`")]
    Pattern(String),
    /// It looks as if it could do what concerns all rollouts, and is refused there.
    #[error(
        "has the scope \"admin\" and a list of rollouts; what needs `admin` concerns all rollouts: leave `rollouts` out, or \
         use the scopes \"read\" and \"write\", with which it may also delete its rollouts"
    )]
    AdminOfSome,
    /// Only one of the entries would count.
    #[error("has the same token as another entry; give each its own")]
    Repeated,
}

impl Token {
    /// A token that allows everything.
    pub(crate) fn admin(token: Secret) -> Self {
        Self { token, scopes: vec![Scope::Admin], rollouts: RolloutScope::All }
    }

    /// A token that allows reading everything.
    pub(crate) fn reader(token: Secret) -> Self {
        Self { token, scopes: vec![Scope::Read], rollouts: RolloutScope::All }
    }

    /// Checks what the types cannot.
    pub(crate) fn check(&self, others: &[Self]) -> Result<(), TokenError> {
        let text = self.token.expose();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        if text.trim() != text || text.bytes().any(|byte| !byte.is_ascii_graphic() && byte != b' ') {
            return Err(TokenError::Unsendable);
        }
        if text.starts_with(KEY_PREFIX) {
            return Err(TokenError::Key);
        }
        if self.scopes.is_empty() {
            return Err(TokenError::NoScopes);
        }
        if let RolloutScope::Rollouts(patterns) = &self.rollouts {
            if patterns.is_empty() {
                return Err(TokenError::NoRollouts);
            }
            if let Some(pattern) = patterns.iter().find(|pattern| check_id(pattern).is_err()) {
                return Err(TokenError::Pattern(pattern.clone()));
            }
            if self.scopes.contains(&Scope::Admin) {
                return Err(TokenError::AdminOfSome);
            }
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "Option<Vec<String>>")]
pub(crate) enum RolloutScope {
    /// Every rollout, and requests that concern no rollout or all of them.
    All,
    /// The rollouts that match one of these patterns with `*`, and nothing else.
    Rollouts(Vec<String>),
}

impl From<Option<Vec<String>>> for RolloutScope {
    /// A pattern of `*` alone covers every rollout, as no list does.
    fn from(patterns: Option<Vec<String>>) -> Self {
        let covers_all = |pattern: &String| !pattern.is_empty() && pattern.bytes().all(|byte| byte == b'*');
        match patterns {
            Some(patterns) if !patterns.iter().any(covers_all) => Self::Rollouts(patterns),
            _ => Self::All,
        }
    }
}

impl From<RolloutScope> for Option<Vec<String>> {
    fn from(scope: RolloutScope) -> Self {
        match scope {
            RolloutScope::All => None,
            RolloutScope::Rollouts(patterns) => Some(patterns),
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
    fn no_list_of_rollouts_and_a_pattern_of_everything_mean_all() {
        for (text, expected) in [
            (r#"{"token": "t"}"#, RolloutScope::All),
            (r#"{"token": "t", "rollouts": ["ro-1", "*"]}"#, RolloutScope::All),
            (r#"{"token": "t", "rollouts": ["**"]}"#, RolloutScope::All),
            (r#"{"token": "t", "rollouts": ["ro-1"]}"#, RolloutScope::Rollouts(vec!["ro-1".to_owned()])),
            (r#"{"token": "t", "rollouts": []}"#, RolloutScope::Rollouts(Vec::new())),
        ] {
            let read = token(text);
            assert_eq!(read.rollouts, expected, "{text}");
            assert_eq!(token(&serde_json::to_string(&read).unwrap()), read, "{text}");
        }
        let everything = token(r#"{"token": "t", "rollouts": ["*"]}"#);
        assert_eq!(everything.scopes, [Scope::Read, Scope::Write]);
    }

    #[test]
    fn a_token_that_can_do_nothing_is_refused() {
        let earlier = [token(r#"{"token": "a"}"#)];
        let long = "x".repeat(1025);
        for (text, expected) in [
            (r#"{"token": ""}"#.to_owned(), TokenError::Empty),
            (r#"{"token": "a\nb"}"#.to_owned(), TokenError::Unsendable),
            (r#"{"token": "b "}"#.to_owned(), TokenError::Unsendable),
            (r#"{"token": "bü"}"#.to_owned(), TokenError::Unsendable),
            (r#"{"token": "sk-tw-b"}"#.to_owned(), TokenError::Key),
            (r#"{"token": "b", "rollouts": []}"#.to_owned(), TokenError::NoRollouts),
            (r#"{"token": "b", "scopes": []}"#.to_owned(), TokenError::NoScopes),
            (r#"{"token": "b", "rollouts": ["ro-1", ""]}"#.to_owned(), TokenError::Pattern(String::new())),
            (r#"{"token": "b", "rollouts": ["a\tb"]}"#.to_owned(), TokenError::Pattern("a\tb".to_owned())),
            (format!(r#"{{"token": "b", "rollouts": ["{long}"]}}"#), TokenError::Pattern(long)),
            (r#"{"token": "b", "scopes": ["admin"], "rollouts": ["ro-*"]}"#.to_owned(), TokenError::AdminOfSome),
            (r#"{"token": "a", "scopes": ["read"]}"#.to_owned(), TokenError::Repeated),
        ] {
            assert_eq!(token(&text).check(&earlier), Err(expected), "{text}");
        }
        assert_eq!(token(r#"{"token": "b", "rollouts": ["ro-*"]}"#).check(&earlier), Ok(()));
    }
}
