//! The conditions of a query: fields, how each is compared, and what it means for a rollout.

use super::facts::{RolloutFacts, task_text};
use crate::trace::{RolloutStatus, Timestamp, Word};
use crate::util::glob::name_matches;

/// One condition.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    /// A word without a field: in the id, the name, the task, a model, an agent or an error.
    Word(String),
    Status(Vec<RolloutStatus>),
    Text(TextField, String),
    /// Words that follow each other in a message.
    Phrase(Vec<Word>),
    Verdict(VerdictValue),
    Number(NumberField, Comparison, f64),
    /// Started at this time or later.
    Since(Timestamp),
    /// Started before this time.
    Until(Timestamp),
}

/// A condition, or its opposite.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Term {
    pub(super) condition: Condition,
    pub(super) is_negated: bool,
}

/// What a verdict has to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum VerdictValue {
    Sound,
    Unsound,
    /// A reason against training with this name, or with a name that fits this pattern.
    Reason(String),
}

/// Fields with texts: a pattern with `*` has to match the whole text, another one a part of it, in upper or lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextField {
    Id,
    Name,
    Task,
    Mode,
    Model,
    Agent,
    Role,
    Tool,
    Host,
    Error,
}

/// Fields with numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumberField {
    Tokens,
    Input,
    Output,
    Calls,
    Exchanges,
    Spans,
    Errors,
    Attempts,
    Reward,
    Cost,
    Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Less,
    AtMost,
    Equal,
    AtLeast,
    More,
}

/// The names of fields with texts.
pub(super) const TEXT_FIELDS: &[(&str, TextField)] = &[
    ("id", TextField::Id),
    ("name", TextField::Name),
    ("task", TextField::Task),
    ("mode", TextField::Mode),
    ("model", TextField::Model),
    ("agent", TextField::Agent),
    ("role", TextField::Role),
    ("tool", TextField::Tool),
    ("host", TextField::Host),
    ("error", TextField::Error),
];

/// The names of fields with numbers.
pub(super) const NUMBER_FIELDS: &[(&str, NumberField)] = &[
    ("tokens", NumberField::Tokens),
    ("in", NumberField::Input),
    ("out", NumberField::Output),
    ("calls", NumberField::Calls),
    ("http", NumberField::Exchanges),
    ("spans", NumberField::Spans),
    ("errors", NumberField::Errors),
    ("attempts", NumberField::Attempts),
    ("reward", NumberField::Reward),
    ("cost", NumberField::Cost),
    ("duration", NumberField::Duration),
];

impl Term {
    /// True if the condition is about the verdict.
    pub(super) fn is_of_verdict(&self) -> bool {
        matches!(self.condition, Condition::Verdict(_))
    }

    /// True if the rollout meets the condition, or does not meet it if it is negated. A verdict or a cost that is not known meets neither.
    pub(super) fn matches(&self, facts: &RolloutFacts<'_>) -> bool {
        let is_unknown = match self.condition {
            Condition::Verdict(_) => facts.verdict.is_none(),
            Condition::Number(NumberField::Cost, ..) => facts.cost.is_none(),
            _ => false,
        };
        if is_unknown {
            return false;
        }
        self.condition.matches(facts) != self.is_negated
    }
}

impl Condition {
    /// True if the condition is about what the spans add up to.
    pub(super) fn needs_totals(&self) -> bool {
        match self {
            Self::Word(_) => true,
            Self::Status(_) | Self::Since(_) | Self::Until(_) | Self::Phrase(_) | Self::Verdict(_) => false,
            Self::Text(field, _) => {
                !matches!(field, TextField::Id | TextField::Name | TextField::Task | TextField::Mode)
            }
            Self::Number(field, ..) => matches!(
                field,
                NumberField::Tokens
                    | NumberField::Input
                    | NumberField::Output
                    | NumberField::Exchanges
                    | NumberField::Reward
                    | NumberField::Cost
            ),
        }
    }

    /// True if the rollout meets the condition.
    pub(super) fn matches(&self, facts: &RolloutFacts<'_>) -> bool {
        match self {
            Self::Word(word) => {
                let fields = [
                    TextField::Id,
                    TextField::Name,
                    TextField::Task,
                    TextField::Model,
                    TextField::Agent,
                    TextField::Error,
                ];
                fields.iter().any(|field| field.matches(word, facts))
            }
            Self::Status(statuses) => statuses.contains(&facts.rollout.status),
            Self::Text(field, pattern) => field.matches(pattern, facts),
            Self::Phrase(words) => {
                facts.phrases.get(words).is_some_and(|rollouts| rollouts.contains(&facts.rollout.rollout_id))
            }
            Self::Verdict(wanted) => facts.verdict.is_some_and(|reasons| match wanted {
                VerdictValue::Sound => reasons.is_empty(),
                VerdictValue::Unsound => !reasons.is_empty(),
                VerdictValue::Reason(pattern) => reasons.iter().any(|reason| name_matches(pattern, reason)),
            }),
            Self::Number(field, comparison, wanted) => {
                field.value(facts).is_some_and(|value| comparison.holds(value, *wanted))
            }
            Self::Since(time) => facts.rollout.start_time >= *time,
            Self::Until(time) => facts.rollout.start_time < *time,
        }
    }
}

impl TextField {
    fn matches(self, pattern: &str, facts: &RolloutFacts<'_>) -> bool {
        let is_match = |text: &str| {
            if pattern.contains('*') { name_matches(pattern, text) } else { contains(text, pattern) }
        };
        let any = |texts: &[String]| texts.iter().any(|text| is_match(text));
        match self {
            Self::Id => is_match(facts.rollout.rollout_id.as_str()),
            Self::Name => facts.rollout.name().is_some_and(is_match),
            Self::Task => is_match(&task_text(&facts.rollout.input)),
            Self::Mode => facts.rollout.mode.as_deref().is_some_and(is_match),
            Self::Model => any(&facts.totals.models),
            Self::Agent => any(&facts.totals.agents),
            Self::Role => any(&facts.totals.roles),
            Self::Tool => any(&facts.totals.tools),
            Self::Host => any(&facts.totals.hosts),
            Self::Error => any(&facts.totals.errors),
        }
    }
}

/// True if `text` has `part`, in upper or lower case.
fn contains(text: &str, part: &str) -> bool {
    text.to_lowercase().contains(&part.to_lowercase())
}

impl NumberField {
    fn value(self, facts: &RolloutFacts<'_>) -> Option<f64> {
        let totals = facts.totals;
        let count = |number: u64| Some(number as f64);
        match self {
            Self::Tokens => count(totals.input_tokens.saturating_add(totals.output_tokens)),
            Self::Input => count(totals.input_tokens),
            Self::Output => count(totals.output_tokens),
            Self::Calls => count(facts.llm_calls),
            Self::Exchanges => count(totals.exchanges),
            Self::Spans => count(facts.spans),
            Self::Errors => count(facts.errors),
            Self::Attempts => count(facts.attempts),
            Self::Reward => totals.reward(),
            Self::Cost => facts.cost,
            Self::Duration => Some(facts.duration_secs()),
        }
    }
}

impl Comparison {
    fn holds(self, value: f64, wanted: f64) -> bool {
        match self {
            Self::Less => value < wanted,
            Self::AtMost => value <= wanted,
            // Both are decimal numbers that were written down: equal ones are the same.
            Self::Equal => value.total_cmp(&wanted).is_eq() || (value - wanted).abs() < f64::EPSILON,
            Self::AtLeast => value >= wanted,
            Self::More => value > wanted,
        }
    }
}
