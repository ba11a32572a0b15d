//! Token ids and logprobs as an endpoint sent them.
//!
//! What is wrong is noted, never repaired: a logprob that does not belong to its id is worse than none.

use crate::wire::json::Json;
use std::collections::BTreeSet;

/// What was sampled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tokens {
    /// The ids, where the endpoint sent some.
    pub ids: Option<Vec<u32>>,
    /// A logprob for each.
    pub logprobs: Option<Vec<f32>>,
    /// What was wrong with them.
    pub faults: BTreeSet<TokenIdIssue>,
}

/// Why token ids are not proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenIdIssue {
    /// There are none, though they were asked for.
    IdsAbsent,
    /// An id is negative, has a fraction, is too large or no number.
    IdsMalformed,
    /// A choice has other ids than its events had together.
    IdsDiffer,
    /// The prompt's are not there.
    PromptIdsAbsent,
    /// A choice has ids but no logprobs, though others have or they were asked for.
    LogprobsAbsent,
    /// As many logprobs as ids are needed.
    LogprobsCount,
    /// A logprob is not finite, or -9999, by which engines mean none.
    LogprobNotFinite,
    /// `usage` counts other output tokens.
    UsageOutput,
    /// `usage` counts other prompt tokens.
    UsagePrompt,
    /// The end of the answer was not seen.
    NoEnd,
    /// The record was cut.
    Truncated,
    /// The agent left before the end.
    AbortedByAgent,
    /// The endpoint left before the end.
    AbortedByEndpoint,
    /// The weights changed while it answered.
    WeightsChanged,
    /// The endpoint broke off with an error.
    EndpointError,
    /// A part of the answer could not be read.
    Unread,
}

impl TokenIdIssue {
    /// As attributes and counters spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IdsAbsent => "ids_absent",
            Self::IdsMalformed => "ids_malformed",
            Self::IdsDiffer => "ids_differ",
            Self::PromptIdsAbsent => "prompt_ids_absent",
            Self::LogprobsAbsent => "logprobs_absent",
            Self::LogprobsCount => "logprobs_count",
            Self::LogprobNotFinite => "logprob_not_finite",
            Self::UsageOutput => "usage_output_tokens",
            Self::UsagePrompt => "usage_prompt_tokens",
            Self::NoEnd => "no_end",
            Self::Truncated => "truncated",
            Self::AbortedByAgent => "aborted_by_agent",
            Self::AbortedByEndpoint => "aborted_by_endpoint",
            Self::WeightsChanged => "weights_changed",
            Self::EndpointError => "endpoint_error",
            Self::Unread => "unread",
        }
    }

    /// All of them, for counters.
    pub const ALL: &'static [Self] = &[
        Self::IdsAbsent,
        Self::IdsMalformed,
        Self::IdsDiffer,
        Self::PromptIdsAbsent,
        Self::LogprobsAbsent,
        Self::LogprobsCount,
        Self::LogprobNotFinite,
        Self::UsageOutput,
        Self::UsagePrompt,
        Self::NoEnd,
        Self::Truncated,
        Self::AbortedByAgent,
        Self::AbortedByEndpoint,
        Self::WeightsChanged,
        Self::EndpointError,
        Self::Unread,
    ];
}

impl Tokens {
    /// How many there are, as far as is known.
    pub fn count(&self) -> usize {
        let length = |ids: Option<usize>| ids.unwrap_or_default();
        length(self.ids.as_ref().map(Vec::len)).max(length(self.logprobs.as_ref().map(Vec::len)))
    }

    /// More ids. A list with something else in it is kept out as a whole: a gap would shift what follows.
    pub fn push_ids(&mut self, ids: &Json<'_>) {
        let Json::List(elements) = ids else {
            if !ids.is_null() {
                self.faults.insert(TokenIdIssue::IdsMalformed);
            }
            return;
        };
        let ids = elements.iter().map(|id| if let Json::Int(id) = id { u32::try_from(*id).ok() } else { None });
        match ids.collect::<Option<Vec<u32>>>() {
            Some(mut ids) => match &mut self.ids {
                Some(known) => known.append(&mut ids),
                None => self.ids = Some(ids),
            },
            None => drop(self.faults.insert(TokenIdIssue::IdsMalformed)),
        }
    }

    /// One more logprob.
    pub fn push_logprob(&mut self, logprob: &Json<'_>) {
        #[expect(clippy::cast_possible_truncation, reason = "engines compute them as f32")]
        let logprob = logprob.float().map_or(f32::NAN, |number| number as f32);
        if !logprob.is_finite() || logprob <= NONE {
            self.faults.insert(TokenIdIssue::LogprobNotFinite);
        }
        self.logprobs.get_or_insert_default().push(logprob);
    }

    /// One more id that a token's text names: `token_id:<number>`.
    pub fn push_named_id(&mut self, token: &str) -> bool {
        let Some(id) = token.strip_prefix("token_id:") else { return false };
        match id.parse() {
            Ok(id) => self.ids.get_or_insert_default().push(id),
            Err(_) => drop(self.faults.insert(TokenIdIssue::IdsMalformed)),
        }
        true
    }

    /// Checks what belongs together; logprobs that can't be trusted go.
    pub(super) fn check(&mut self) {
        if self.faults.contains(&TokenIdIssue::IdsMalformed) {
            // What is left of them would be shifted.
            self.ids = None;
        }
        if let (Some(ids), Some(logprobs)) = (&self.ids, &self.logprobs)
            && ids.len() != logprobs.len()
        {
            self.faults.insert(TokenIdIssue::LogprobsCount);
        }
        if self.faults.iter().any(|fault| matches!(fault, TokenIdIssue::LogprobsCount | TokenIdIssue::LogprobNotFinite))
        {
            self.logprobs = None;
        }
    }
}

/// vLLM's "no value".
const NONE: f32 = -9999.0;
