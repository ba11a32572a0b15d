//! The rules of sampling, as they are applied to a span.

use super::cause::{Cause, DEFAULT_RULE};
use super::ratio::Ratio;
use super::sampling_settings::{AlwaysStored, SamplingSettings};
use crate::trace::{RolloutMode, Span, Value, semconv as names};
use crate::util::glob::any_matches;
use std::sync::Arc;

/// The rules of the settings.
pub(super) struct Sampling {
    rules: Vec<Rule>,
    /// Of the spans that no rule matches.
    otherwise: Rule,
    keeps_errors: bool,
    keeps_registered: bool,
}

struct Rule {
    name: Arc<str>,
    hosts: Vec<String>,
    modes: Vec<RolloutMode>,
    ratio: Ratio,
}

impl Sampling {
    /// The rules of the settings.
    pub(super) fn new(settings: &SamplingSettings) -> Self {
        let rules = (1..).zip(&settings.rules).map(|(place, rule)| Rule {
            name: rule.name_at(place).into(),
            hosts: rule.hosts.clone(),
            modes: rule.modes.clone(),
            ratio: rule.ratio,
        });
        let otherwise = Rule { name: DEFAULT_RULE.into(), hosts: Vec::new(), modes: Vec::new(), ratio: settings.ratio };
        Self {
            rules: rules.collect(),
            otherwise,
            keeps_errors: settings.always.contains(&AlwaysStored::Errors),
            keeps_registered: settings.always.contains(&AlwaysStored::Registered),
        }
    }

    /// False if every span is stored.
    pub(super) fn is_active(&self) -> bool {
        self.all().any(|rule| !rule.ratio.is_all())
    }

    /// The names of the rules that store nothing, besides what is always stored.
    pub(super) fn rules_that_keep_nothing(&self) -> impl Iterator<Item = &str> {
        self.all().filter(|rule| rule.ratio.is_none()).map(|rule| &*rule.name)
    }

    /// True if all spans of registered rollouts are stored.
    pub(super) fn keeps_registered(&self) -> bool {
        self.keeps_registered
    }

    /// True if a decision depends on the mode of the rollout.
    pub(super) fn asks_for_mode(&self) -> bool {
        self.rules.iter().any(|rule| !rule.modes.is_empty())
    }

    /// Why a span of a rollout with this mode is not stored.
    pub(super) fn cause_against(&self, span: &Span, mode: Option<&str>) -> Option<Cause> {
        if self.keeps_errors && span.is_error() {
            return None;
        }
        let rule = self.rules.iter().find(|rule| rule.matches(span, mode)).unwrap_or(&self.otherwise);
        (!rule.ratio.selects(span)).then(|| Cause::Sampling(Arc::clone(&rule.name)))
    }

    fn all(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().chain([&self.otherwise])
    }
}

impl Rule {
    fn matches(&self, span: &Span, mode: Option<&str>) -> bool {
        let has_mode = || mode.is_some_and(|mode| self.modes.iter().any(|one| one.as_str() == mode));
        (self.modes.is_empty() || has_mode()) && (self.hosts.is_empty() || self.has_host(span))
    }

    fn has_host(&self, span: &Span) -> bool {
        let Some(host) = span.attributes.get(names::SERVER_ADDRESS).and_then(Value::as_str) else { return false };
        let port = span.attributes.get(names::SERVER_PORT).and_then(Value::as_int);
        any_matches(&self.hosts, host, port.and_then(|port| u16::try_from(port).ok()).unwrap_or(0))
    }
}
