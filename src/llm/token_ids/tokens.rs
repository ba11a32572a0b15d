//! Token ids and logprobs as an endpoint sent them.
//!
//! What is wrong is noted, never repaired: a logprob that does not belong to its id is worse than none.

use crate::trace::SamplerArray;
use crate::wire::json::Json;
use crate::wire::json_builder::number_array;
use crate::wire::json_value::{Column, Packed, Table};
use crate::wire::number_array::NumberArray;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The tokens of a prompt or a choice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tokens {
    /// The ids; `None` where the endpoint sent none.
    pub ids: Option<Vec<u32>>,
    /// The logprobs, in the order of the tokens; `None` where the endpoint sent none.
    pub logprobs: Option<Vec<f32>>,
    /// The experts that each token was routed to, of prompt and choice together; `None` where the endpoint sent none.
    pub routed_experts: Option<Arc<NumberArray>>,
    /// The ids that each token was sampled from; `None` where the endpoint sent none.
    pub sampling_mask: Option<Arc<NumberArray>>,
    /// What is wrong with them.
    pub issues: BTreeSet<TokenIdIssue>,
}

/// A reason why the token ids of a call are not complete or not consistent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenIdIssue {
    /// A choice has no ids, though they were requested or other choices have them.
    IdsAbsent,
    /// An id is no number from 0 to 2^32 - 1.
    IdsMalformed,
    /// The ids that a choice has as a whole differ from those of its events.
    IdsDiffer,
    /// The engine was not asked: in this combination of parameters it would fail, or return other text.
    NotRequested,
    /// The endpoint rejects requests that ask for ids.
    RequestRejected,
    /// The prompt has no ids.
    PromptIdsAbsent,
    /// A choice has ids without logprobs, though they were requested or other choices have them.
    LogprobsAbsent,
    /// A choice has more or fewer logprobs than ids.
    LogprobsCount,
    /// A logprob is not finite, or not above -9999, which engines send for "no value".
    LogprobNotFinite,
    /// `usage` has another number of output tokens.
    UsageOutput,
    /// `usage` has another number of prompt tokens.
    UsagePrompt,
    /// The end of the response was not seen.
    NoEnd,
    /// A body was not recorded whole.
    Truncated,
    /// The agent closed the connection before the end.
    AbortedByAgent,
    /// The endpoint closed the connection before the end, or aborted the sampling.
    AbortedByEndpoint,
    /// The weights changed during the response.
    WeightsChanged,
    /// The endpoint reported an error.
    EndpointError,
    /// A part of the exchange could not be read.
    Unread,
    /// A setting wants routed experts, and a choice has none.
    ExpertsAbsent,
    /// Routed experts are no array, or have another shape than the tokens.
    ExpertsMalformed,
    /// A setting wants sampling masks, and a choice has none.
    MasksAbsent,
    /// Sampling masks are no lists of ids, or not one for each token.
    MasksMalformed,
}

impl TokenIdIssue {
    /// The word in attributes and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IdsAbsent => "ids_absent",
            Self::IdsMalformed => "ids_malformed",
            Self::IdsDiffer => "ids_differ",
            Self::NotRequested => "not_requested",
            Self::RequestRejected => "request_rejected",
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
            Self::ExpertsAbsent => "experts_absent",
            Self::ExpertsMalformed => "experts_malformed",
            Self::MasksAbsent => "masks_absent",
            Self::MasksMalformed => "masks_malformed",
        }
    }

    /// All issues, for metrics.
    pub const ALL: &'static [Self] = &[
        Self::IdsAbsent,
        Self::IdsMalformed,
        Self::IdsDiffer,
        Self::NotRequested,
        Self::RequestRejected,
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
        Self::ExpertsAbsent,
        Self::ExpertsMalformed,
        Self::MasksAbsent,
        Self::MasksMalformed,
    ];
}

impl Tokens {
    /// The number of tokens: of ids or of logprobs, whichever are more.
    pub fn count(&self) -> usize {
        let (ids, logprobs) = (self.ids.as_ref().map_or(0, Vec::len), self.logprobs.as_ref().map_or(0, Vec::len));
        ids.max(logprobs)
    }

    /// Adds ids. A list with anything else in it is left out as a whole: a gap would shift what follows.
    pub fn push_ids(&mut self, ids: &Json<'_>) {
        match ids_of(ids) {
            Some(ids) => match &mut self.ids {
                Some(known) => known.extend_from_slice(&ids),
                None => self.ids = Some(ids.into_owned()),
            },
            None if ids.is_null() => {}
            None => drop(self.issues.insert(TokenIdIssue::IdsMalformed)),
        }
    }

    /// Adds a list of logprobs.
    pub(in crate::llm) fn push_logprobs(&mut self, logprobs: &Json<'_>) {
        match logprobs {
            Json::Packed(Packed::Floats(numbers)) => numbers.iter().for_each(|number| self.push_number(*number)),
            Json::Packed(packed) => {
                packed.clone().into_elements().iter().for_each(|logprob| self.push_logprob(logprob));
            }
            other => other.list().iter().for_each(|logprob| self.push_logprob(logprob)),
        }
    }

    /// Adds the logprobs in a column of a table.
    pub(in crate::llm) fn push_column(&mut self, table: &Table, logprobs: Option<&Column>) {
        match logprobs {
            Some(Column::Numbers(numbers)) => numbers.iter().for_each(|number| self.push_number(*number)),
            column => (0..table.rows()).for_each(|row| {
                self.push_logprob(&column.map(|column| column.get(row)).unwrap_or_default());
            }),
        }
    }

    /// Adds a logprob; NaN for what is no number.
    pub fn push_logprob(&mut self, logprob: &Json<'_>) {
        self.push_number(logprob.float().unwrap_or(f64::NAN));
    }

    fn push_number(&mut self, number: f64) {
        #[expect(clippy::cast_possible_truncation, reason = "engines compute them as f32")]
        let logprob = number as f32;
        if !logprob.is_finite() || logprob <= NO_VALUE {
            self.issues.insert(TokenIdIssue::LogprobNotFinite);
        }
        self.logprobs.get_or_insert_default().push(logprob);
    }

    /// Adds routed experts, or the sampling masks of further tokens. Null is none.
    pub(in crate::llm) fn push_array(&mut self, array: SamplerArray, value: &Json<'_>) {
        let (known, issue) = match array {
            SamplerArray::RoutedExperts => (&mut self.routed_experts, TokenIdIssue::ExpertsMalformed),
            SamplerArray::SamplingMask => (&mut self.sampling_mask, TokenIdIssue::MasksMalformed),
        };
        let fits = match (number_array(value), known) {
            (Ok(None), _) => true,
            (Ok(Some(newer)), Some(known)) => Arc::make_mut(known).append(&newer),
            (Ok(newer), known) => {
                *known = newer;
                true
            }
            (Err(_), _) => false,
        };
        if !fits {
            self.issues.insert(issue);
        }
    }

    /// The bytes of memory in use.
    pub(in crate::llm) fn memory_bytes(&self) -> usize {
        let (ids, logprobs) =
            (self.ids.as_ref().map_or(0, Vec::capacity), self.logprobs.as_ref().map_or(0, Vec::capacity));
        let arrays = [&self.routed_experts, &self.sampling_mask].into_iter().flatten();
        let arrays = arrays.map(|array| array.memory_bytes()).sum::<usize>();
        ids * size_of::<u32>() + logprobs * size_of::<f32>() + arrays
    }

    /// Adds the id that a token's text names as `token_id:NUMBER`. False: it names none.
    pub fn push_named_id(&mut self, token: &str) -> bool {
        let Some(id) = token.strip_prefix("token_id:") else { return false };
        match id.parse() {
            Ok(id) => self.ids.get_or_insert_default().push(id),
            Err(_) => drop(self.issues.insert(TokenIdIssue::IdsMalformed)),
        }
        true
    }

    /// Checks ids and logprobs against each other. Ids and logprobs that can't be trusted are removed.
    pub(super) fn check(&mut self) {
        if self.issues.contains(&TokenIdIssue::IdsMalformed) {
            // Those that are left would be shifted.
            self.ids = None;
        }
        if let (Some(ids), Some(logprobs)) = (&self.ids, &self.logprobs)
            && ids.len() != logprobs.len()
        {
            self.issues.insert(TokenIdIssue::LogprobsCount);
        }
        if self.issues.iter().any(|issue| matches!(issue, TokenIdIssue::LogprobsCount | TokenIdIssue::LogprobNotFinite))
        {
            self.logprobs = None;
        }
    }
}

/// The ids in a list. `None`: it is no list, or has anything else in it.
fn ids_of<'a>(list: &'a Json<'_>) -> Option<Cow<'a, [u32]>> {
    match list {
        Json::Packed(Packed::Ids(ids)) => Some(Cow::Borrowed(ids)),
        Json::List(elements) => {
            let ids = elements.iter().map(|id| if let Json::Int(id) = id { u32::try_from(*id).ok() } else { None });
            ids.collect::<Option<Vec<u32>>>().map(Cow::Owned)
        }
        _ => None,
    }
}

/// What vLLM sends for "no value".
const NO_VALUE: f32 = -9999.0;
