//! Arguments of `emit`.

use super::emitted::finite_number;
use crate::cli::args::{StoreArgs, id};
use crate::trace::Attributes;
use crate::tracer::emit::spans::flattened;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value as JsonValue;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Arguments of `emit`.
#[derive(Args)]
#[command(after_help = "Examples, within `tracewire run` or `tracewire worker`:
  tracewire emit reward 0.75
  tracewire emit reward task=1 style=0.5
  tracewire emit message 'tests passed'
  tracewire emit object '{\"passed\": 7}'
  tracewire emit annotation '{\"tests\": {\"passed\": 7}}'
  tracewire emit exception 'disk full' --type OSError
  tracewire emit span compile --duration 2.5 --attributes '{\"target\": \"wasm\"}'

Elsewhere, name the rollout:
  tracewire emit reward 1 --rollout ro-0123456789ab --attempt at-01234567 --server http://127.0.0.1:4747")]
pub(crate) struct EmitArgs {
    #[command(subcommand)]
    pub(super) emission: Emission,
    #[command(flatten)]
    pub(super) target: TargetArgs,
}

/// The rollout, and where its spans are stored.
#[derive(Args)]
pub(super) struct TargetArgs {
    /// The rollout [default: TRACEWIRE_ROLLOUT_ID]
    #[arg(long, global = true, value_name = "ID", value_parser = id)]
    pub(super) rollout: Option<String>,
    /// The attempt [default: TRACEWIRE_ATTEMPT_ID]
    #[arg(long, global = true, value_name = "ID", value_parser = id)]
    pub(super) attempt: Option<String>,
    /// The API server [default: the store of the run, or the server of AGL_EVENT_URL]
    #[arg(long, global = true, value_name = "URL", conflicts_with = "store")]
    pub(super) server: Option<String>,
    /// The token of the server [default: TRACEWIRE_TOKEN, or AGL_KEY]
    #[arg(long, global = true)]
    pub(super) token: Option<String>,
    #[command(flatten)]
    pub(super) store: StoreArgs,
    /// The settings file
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// A tag of the span; may be given several times
    #[arg(long = "tag", global = true, value_name = "TAG")]
    pub(super) tags: Vec<String>,
    /// The span that this one is about: `span_id=ID`, or another attribute and its value
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub(super) about: Option<Subject>,
    /// More attributes of the span, a JSON object
    #[arg(long, global = true, value_name = "JSON", value_parser = attributes)]
    pub(super) attributes: Option<Attributes>,
}

#[derive(Subcommand)]
pub(super) enum Emission {
    /// Give the rollout a reward, or rewards by name: the first one is the primary reward
    Reward {
        /// The reward, a finite number; `NAME=VALUE` for several
        #[arg(required = true, allow_negative_numbers = true, value_name = "VALUE|NAME=VALUE")]
        rewards: Vec<NamedReward>,
    },
    /// Record a note
    Message {
        /// The text
        #[arg(allow_hyphen_values = true)]
        text: String,
    },
    /// Record a value
    Object {
        /// The value as JSON; `-` reads stdin
        #[arg(allow_hyphen_values = true)]
        json: String,
    },
    /// Record attributes of the rollout
    Annotation {
        /// A JSON object, which is flattened; `-` reads stdin
        json: String,
    },
    /// Record an error
    Exception {
        /// The error's text
        #[arg(allow_hyphen_values = true)]
        message: String,
        /// The error's type
        #[arg(long = "type", value_name = "NAME", default_value = "Error")]
        type_name: String,
        /// Where it happened
        #[arg(long, value_name = "TEXT")]
        stacktrace: Option<String>,
    },
    /// Record a span that ends now
    Span {
        /// The name of the span
        name: String,
        /// How long it took, in seconds
        #[arg(long, value_name = "SECONDS", value_parser = crate::cli::args::seconds)]
        duration: Option<Duration>,
        /// Whether the operation succeeded
        #[arg(long, value_enum, default_value_t = SpanOutcome::Unset)]
        status: SpanOutcome,
    },
}

/// The status of a span.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum SpanOutcome {
    Unset,
    Ok,
    Error,
}

/// A reward with or without a name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NamedReward {
    pub(super) name: Option<String>,
    pub(super) value: f64,
}

/// An attribute and its value, which name a span.
#[derive(Clone)]
pub(super) struct Subject {
    pub(super) key: String,
    pub(super) value: String,
}

impl FromStr for Subject {
    type Err = NoAttributes;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pair = text.split_once('=').filter(|(key, value)| !key.is_empty() && !value.is_empty());
        let (key, value) =
            pair.ok_or_else(|| NoAttributes("write KEY=VALUE, for example span_id=0123456789abcdef".to_owned()))?;
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

impl FromStr for NamedReward {
    type Err = super::emitted::NotFinite;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = match text.rsplit_once('=') {
            Some((name, value)) => (Some(name.to_owned()), value),
            None => (None, text),
        };
        Ok(Self { name, value: finite_number(value)? })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NoAttributes(String);

fn attributes(text: &str) -> Result<Attributes, NoAttributes> {
    let json: JsonValue =
        serde_json::from_str(text).map_err(|error| NoAttributes(format!("not valid JSON: {error}")))?;
    flattened(&json).map_err(|error| NoAttributes(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewards_have_names_or_none() {
        let read = |text: &str| text.parse::<NamedReward>().ok().map(|reward| (reward.name, reward.value));
        assert_eq!(read("-0.5"), Some((None, -0.5)));
        assert_eq!(read("style=1"), Some((Some("style".to_owned()), 1.0)));
        assert_eq!(read("a=b=2"), Some((Some("a=b".to_owned()), 2.0)));
        assert_eq!([read("good"), read("style=NaN"), read("=")], [None, None, None]);
    }
}
