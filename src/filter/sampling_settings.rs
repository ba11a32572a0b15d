//! `[sampling]` of the settings.

use super::cause::DEFAULT_RULE;
use super::ratio::Ratio;
use super::tail_settings::{RegisteredRollouts, TailSettings, TailSettingsError};
use crate::trace::RolloutMode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// `[sampling]` of the settings: which traces are stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SamplingSettings {
    /// The share of the traces that no rule matches.
    pub(crate) ratio: Ratio,
    /// What is stored whatever the rules say.
    pub(crate) always: Vec<AlwaysStored>,
    /// In order: the first that matches a span decides.
    pub(crate) rules: Vec<SamplingRule>,
    /// Which rollouts keep their spans after their end.
    pub(crate) tail: TailSettings,
}

/// Spans that sampling never leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AlwaysStored {
    /// Spans with status `Error`.
    Errors,
    /// All spans of registered rollouts.
    Registered,
}

/// A share of the traces of some spans.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SamplingRule {
    /// Its name in metrics and spans. By default `rule 1`, by its place in the list.
    #[serde(default)]
    pub(crate) name: String,
    /// Patterns of the endpoints of spans. Empty: all spans, also those without an endpoint.
    #[serde(default, deserialize_with = "crate::util::host_patterns::deserialize")]
    pub(crate) hosts: Vec<String>,
    /// Modes of rollouts. Empty: all rollouts, also those without a mode.
    #[serde(default)]
    pub(crate) modes: Vec<RolloutMode>,
    /// The share of their traces that is stored.
    pub(crate) ratio: Ratio,
}

/// Why rules of sampling can't be used. Each would have no effect, or another than was meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SamplingSettingsError {
    /// The counts of two rules would be added up.
    #[error("two rules have the name `{0}`, so that their counts would be mixed; give each a name of its own")]
    SameName(String),
    /// A rule that no span reaches.
    #[error(
        "rule {unreachable} is never used, because rule {matches_all} before it matches every span; move it up, or remove it"
    )]
    Unreachable {
        /// The place of the rule, from 1.
        unreachable: usize,
        /// The place of the rule before it.
        matches_all: usize,
    },
    /// Only registered rollouts have a mode.
    #[error(
        "rule {0} has `modes`, which only registered rollouts have, but `always` keeps all registered rollouts; set \
         `always = [\"errors\"]`, or remove `modes`"
    )]
    ModesOfKeptRollouts(usize),
    /// Rules of tail sampling.
    #[error(transparent)]
    Tail(#[from] TailSettingsError),
}

impl Default for SamplingSettings {
    fn default() -> Self {
        let always = vec![AlwaysStored::Errors, AlwaysStored::Registered];
        Self { ratio: Ratio::default(), always, rules: Vec::new(), tail: TailSettings::default() }
    }
}

impl SamplingSettings {
    /// Checks what the types cannot.
    pub(crate) fn check(&self) -> Result<(), SamplingSettingsError> {
        let mut names = BTreeSet::from([DEFAULT_RULE.to_owned()]);
        let mut matches_all = None;
        for (place, rule) in (1..).zip(&self.rules) {
            if let Some(matches_all) = matches_all {
                return Err(SamplingSettingsError::Unreachable { unreachable: place, matches_all });
            }
            if !rule.modes.is_empty() && self.always.contains(&AlwaysStored::Registered) {
                return Err(SamplingSettingsError::ModesOfKeptRollouts(place));
            }
            let name = rule.name_at(place);
            if !names.insert(name.clone()) {
                return Err(SamplingSettingsError::SameName(name));
            }
            matches_all = (rule.hosts.is_empty() && rule.modes.is_empty()).then_some(place);
        }
        let is_kept = self.always.contains(&AlwaysStored::Registered);
        self.tail.check(if is_kept { RegisteredRollouts::Kept } else { RegisteredRollouts::Sampled })?;
        Ok(())
    }
}

impl SamplingRule {
    /// Its name, or the one of its place, from 1.
    pub(super) fn name_at(&self, place: usize) -> String {
        if self.name.trim().is_empty() { format!("rule {place}") } else { self.name.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let settings: SamplingSettings = toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        settings.check().map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn rules_without_effect_are_refused() {
        for (text, words) in [
            ("rules = [{ ratio = 0.1 }, { hosts = [\"a\"], ratio = 0.5 }]", "rule 2 is never used"),
            ("rules = [{ modes = [\"val\"], ratio = 0.1 }]", "set `always = [\"errors\"]`"),
            ("rules = [{ name = \"a\", hosts = [\"a\"], ratio = 0.1 }, { name = \"a\", ratio = 0.5 }]", "the name `a`"),
            ("rules = [{ name = \"default\", ratio = 0.1 }]", "the name `default`"),
        ] {
            assert!(error(text).contains(words), "{text}: {}", error(text));
        }
        for text in [
            "",
            "ratio = 0",
            "always = []\nrules = [{ modes = [\"val\"], ratio = 0.0 }, { ratio = 1.0 }]",
            "rules = [{ hosts = [\"*.pypi.org\", \"10.*:8443\"], ratio = 0.25 }]",
        ] {
            assert_eq!(error(text), "", "{text}");
        }
    }

    #[test]
    fn values_without_a_meaning_are_refused() {
        for (text, words) in [
            ("rules = [{ hosts = [\"a b\"], ratio = 0.1 }]", "not a pattern of hosts"),
            ("rules = [{ modes = [\"eval\"], ratio = 0.1 }]", "`train`"),
            ("rules = [{ hosts = [\"a\"] }]", "missing field `ratio`"),
            ("rules = [{ host = \"a\", ratio = 0.1 }]", "unknown field `host`"),
            ("always = [\"all\"]", "`errors`"),
            ("ratio = 2", "from 0.0 (none) to 1.0 (all)"),
        ] {
            let error = toml::from_str::<SamplingSettings>(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
