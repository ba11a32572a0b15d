//! The API key that a command gets: one for its own attempt, never the worker's token, which can do more.

use super::task::Task;
use crate::cli::client::ServerClient;
use anyhow::{Context, Result};
use http::Method;
use percent_encoding::percent_decode;
use serde_json::{Value as JsonValue, json};
use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

/// Where the keys of commands come from.
pub(super) enum AgentKeys {
    /// The server makes one for each attempt.
    Issued {
        /// Signed keys authenticate the command, and may expire. Others only name the attempt.
        signed: bool,
    },
    /// All commands get this one.
    Fixed(String),
}

impl AgentKeys {
    /// By what `/v1/tracewire/info` says, which other servers than `tracewire serve` do not have.
    pub(super) fn of_server(info: &JsonValue, requested: Option<&str>) -> Self {
        match (requested, info) {
            (Some(key), _) => Self::Fixed(key.to_owned()),
            (None, JsonValue::Null) => Self::Fixed(PLACEHOLDER_KEY.to_owned()),
            (None, info) => Self::Issued { signed: info["signed_keys"] == true },
        }
    }

    /// True if the keys authenticate, also at the proxy.
    pub(super) fn are_signed(&self) -> bool {
        matches!(self, Self::Issued { signed: true })
    }

    /// True if commands get a key that no server accepts that asks for one.
    pub(super) fn are_placeholders(&self) -> bool {
        matches!(self, Self::Fixed(key) if key == PLACEHOLDER_KEY)
    }

    /// The key of a task's command, which must end within `limit`.
    pub(super) async fn key(&self, server: &ServerClient, task: &Task, limit: Option<Duration>) -> Result<String> {
        let signed = match self {
            Self::Fixed(key) => return Ok(key.clone()),
            Self::Issued { signed } => *signed,
        };
        // Without a limit it holds as long as the rollout, and its calls end with the rollout.
        let expires = limit.filter(|_| signed).map_or(0, |limit| (limit + GRACE).as_secs());
        let request = json!({ "rollout_id": task.rollout, "attempt_id": task.attempt, "expires_in_seconds": expires });
        let response = server.call_with_retries(Method::POST, "/v1/tracewire/keys", Some(&request)).await?;
        let response = response.into_success().context("cannot get an API key for the rollout")?;
        Ok(response.body["key"].as_str().context("the server returned no key for the rollout")?.to_owned())
    }
}

/// The names of the variables that hold the worker's token, or its proxy's: commands must not inherit them.
pub(super) fn secret_variables(
    environment: impl Iterator<Item = (OsString, OsString)>,
    token: Option<&str>,
) -> Vec<String> {
    let token = token.map(str::as_bytes).filter(|token| !token.is_empty());
    // A short token is part of many values by chance.
    let contains = |value: &[u8]| {
        token.is_some_and(|token| match token.len() {
            0..MIN_SEARCHED_BYTES => value == token,
            _ => value.windows(token.len()).any(|part| part == token),
        })
    };
    let holds = |value: &OsStr| {
        let value = value.as_encoded_bytes();
        // URLs have it percent-encoded.
        contains(value) || contains(&Cow::from(percent_decode(value)))
    };
    let names = environment.filter(|(_, value)| holds(value)).filter_map(|(name, _)| name.into_string().ok());
    names.chain(TOKEN_VARIABLES.map(str::to_owned)).collect()
}

/// What [`crate::cli::client`] and the worker read tokens from.
const TOKEN_VARIABLES: [&str; 2] = ["TRACEWIRE_TOKEN", "TRACEWIRE_PROXY_TOKEN"];
const MIN_SEARCHED_BYTES: usize = 8;
/// Commands that are stopped at their limit may still send a reward.
const GRACE: Duration = Duration::from_secs(600);
/// For a server without tokens: SDKs do not start without an API key.
const PLACEHOLDER_KEY: &str = "tracewire";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_hold_the_token_are_found() {
        let found = |token: Option<&str>| {
            let environment = [
                ("A", "long-secret"),
                ("B", "Bearer long-secret"),
                ("C", "x"),
                ("D", "xy"),
                ("E", ""),
                ("F", "http://u:long%2Dsecret@h"),
                ("G", "http://u:%6Cong%2dsecret@h"),
            ];
            let environment = environment.map(|(name, value)| (name.into(), value.into()));
            let mut names = secret_variables(environment.into_iter(), token);
            assert_eq!(names.split_off(names.len() - 2), TOKEN_VARIABLES);
            names
        };
        assert_eq!(found(Some("long-secret")), ["A", "B", "F", "G"]);
        assert_eq!(found(Some("x")), ["C"]);
        assert!(found(Some("")).is_empty() && found(None).is_empty());
    }
}
