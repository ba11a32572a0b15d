//! `[sampling.tail]` of the settings.

use super::cause::DEFAULT_RULE;
use super::ratio::Ratio;
use crate::query::{Query, QueryError};
use crate::trace::{RolloutId, Timestamp, units::millis};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// `[sampling.tail]` of the settings: which rollouts keep their spans after their end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TailSettings {
    /// The share of the rollouts that no rule matches.
    pub(crate) ratio: Ratio,
    /// How long after the end of a registered rollout, or after the last span of another, the rules decide on it.
    #[serde(rename = "delay_ms", with = "millis")]
    pub(crate) delay: Duration,
    /// In order: the first that matches a rollout decides.
    pub(crate) rules: Vec<TailRule>,
}

/// A share of some rollouts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TailRule {
    /// Its name in metrics and spans. By default `rule 1`, by its place in the list.
    #[serde(default)]
    pub(crate) name: String,
    /// Which rollouts, in the language of lists. Empty: all.
    #[serde(default)]
    pub(crate) query: String,
    /// Only rollouts with this verdict on their latest attempt. `None`: whatever the verdict is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sound: Option<bool>,
    /// The share of these rollouts that keep their spans.
    pub(crate) ratio: Ratio,
}

/// Why rules of tail sampling can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TailSettingsError {
    /// The counts of two rules would be added up.
    #[error(
        "two rules of `tail` have the name `{0}`, so that their counts would be mixed; give each a name of its own"
    )]
    SameName(String),
    /// A rule that no rollout reaches.
    #[error("rule {0} of `tail` matches every rollout, so that those after it would have no effect; put it at the end")]
    Unreachable(usize),
    /// A query has an error.
    #[error(
        "the query `{query}` of rule {number} of `tail` can't be used: {message}; write it as for `tracewire trace list`"
    )]
    Query {
        /// The place of the rule, from 1.
        number: usize,
        /// As it was written.
        query: String,
        /// What is wrong with it.
        message: String,
    },
    /// Only registered rollouts have a mode.
    #[error(
        "rule {0} of `tail` asks for the mode, which only registered rollouts have, but `always` keeps all registered \
         rollouts; set `always = [\"errors\"]`, or remove `mode`"
    )]
    ModesOfKeptRollouts(usize),
}

impl Default for TailSettings {
    fn default() -> Self {
        Self { ratio: Ratio::default(), delay: Duration::from_secs(600), rules: Vec::new() }
    }
}

impl TailSettings {
    /// False if every rollout is kept.
    pub(crate) fn is_active(&self) -> bool {
        !self.ratio.is_all() || self.rules.iter().any(|rule| !rule.ratio.is_all())
    }

    /// The names of the rules that keep no rollout, besides those that are always kept.
    pub(super) fn rules_that_keep_nothing(&self) -> Vec<String> {
        let named = (1..).zip(&self.rules).filter(|(_, rule)| rule.ratio.is_none());
        let default = self.ratio.is_none().then(|| DEFAULT_RULE.to_owned());
        named.map(|(place, rule)| rule.name_at(place)).chain(default).collect()
    }

    /// The rules in their order, with queries that count from `now`; the last one matches every rollout. A query that can't be parsed
    /// was refused before.
    pub(crate) fn rules_at(&self, now: Timestamp) -> Vec<ParsedTailRule> {
        let rules = (1..).zip(&self.rules).filter_map(|(place, rule)| {
            let (name, query) = (rule.name_at(place).into(), rule.parsed(now).ok()?);
            Some(ParsedTailRule { name, query, sound: rule.sound, ratio: rule.ratio })
        });
        let (name, query, ratio) = (DEFAULT_RULE.into(), Query::default(), self.ratio);
        rules.chain([ParsedTailRule { name, query, sound: None, ratio }]).collect()
    }

    /// Checks what the types cannot.
    pub(super) fn check(&self, registered: RegisteredRollouts) -> Result<(), TailSettingsError> {
        let mut names = BTreeSet::from([DEFAULT_RULE.to_owned()]);
        for (place, rule) in (1..).zip(&self.rules) {
            let query = rule.parsed(Timestamp::default()).map_err(|error| TailSettingsError::Query {
                number: place,
                query: rule.query.clone(),
                message: error.message,
            })?;
            if let Some(message) = query.refusal_in_rules() {
                let message = message.to_owned();
                return Err(TailSettingsError::Query { number: place, query: rule.query.clone(), message });
            }
            if query.is_empty() && rule.sound.is_none() && place < self.rules.len() {
                return Err(TailSettingsError::Unreachable(place));
            }
            if query.needs_mode() && registered == RegisteredRollouts::Kept {
                return Err(TailSettingsError::ModesOfKeptRollouts(place));
            }
            let name = rule.name_at(place);
            if !names.insert(name.clone()) {
                return Err(TailSettingsError::SameName(name));
            }
        }
        Ok(())
    }
}

/// Whether registered rollouts are kept whatever the rules say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RegisteredRollouts {
    Kept,
    Sampled,
}

impl TailRule {
    /// Its name, or the one of its place, from 1.
    fn name_at(&self, place: usize) -> String {
        if self.name.trim().is_empty() { format!("rule {place}") } else { self.name.clone() }
    }

    fn parsed(&self, now: Timestamp) -> Result<Query, QueryError> {
        Query::parse(&self.query, now)
    }
}

/// A rule with its parsed query.
pub(crate) struct ParsedTailRule {
    pub(crate) name: Arc<str>,
    pub(crate) query: Query,
    pub(crate) sound: Option<bool>,
    ratio: Ratio,
}

impl ParsedTailRule {
    /// True if a rollout that it matches is in its share.
    pub(crate) fn keeps(&self, rollout: &RolloutId) -> bool {
        self.ratio.selects_id(rollout.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str, registered: RegisteredRollouts) -> String {
        let settings: TailSettings = toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        settings.check(registered).map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn rules_without_effect_are_refused() {
        for (text, words) in [
            (
                "rules = [{ ratio = 0.1 }, { query = \"reward>0\", ratio = 1.0 }]",
                "rule 1 of `tail` matches every rollout",
            ),
            ("rules = [{ query = \"mode:val\", ratio = 0.1 }]", "set `always = [\"errors\"]`"),
            ("rules = [{ query = \"colour:red\", ratio = 0.1 }]", "`colour:red` of rule 1 of `tail`"),
            ("rules = [{ name = \"default\", ratio = 0.1 }]", "the name `default`"),
        ] {
            let error = error(text, RegisteredRollouts::Kept);
            assert!(error.contains(words), "{text}: {error}");
        }
        for text in [
            "",
            "ratio = 0",
            "delay_ms = 0\nrules = [{ query = \"mode:val\", ratio = 0.1 }, { sound = false, ratio = 1.0 }, { ratio = 0 }]",
        ] {
            assert_eq!(error(text, RegisteredRollouts::Sampled), "", "{text}");
        }
    }

    #[test]
    fn the_last_rule_is_the_ratio_of_the_section() {
        let settings: TailSettings =
            toml::from_str("ratio = 0.0\nrules = [{ query = \"reward>0\", ratio = 1.0 }]").unwrap();
        assert!(settings.is_active() && !TailSettings::default().is_active());
        assert_eq!(settings.rules_that_keep_nothing(), ["default"]);
        let rules = settings.rules_at(Timestamp::default());
        assert_eq!(rules.iter().map(|rule| &*rule.name).collect::<Vec<_>>(), ["rule 1", "default"]);
        assert!(rules[0].keeps(&"ro-1".into()) && !rules[1].keeps(&"ro-1".into()));
    }
}
