//! Whether the token ids of a call are complete and consistent.

use super::arrays;
use super::tokens::TokenIdIssue;
use crate::llm::call::{Choice, LlmCall, UnreadPart};
use crate::trace::SamplerArrays;
use std::collections::BTreeSet;

/// Whether the token ids of a call are complete and consistent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenIdCheck {
    /// How far the ids can be trusted.
    pub status: TokenIdStatus,
    /// Everything that was found wrong.
    pub issues: BTreeSet<TokenIdIssue>,
}

/// The result of the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenIdStatus {
    /// The prompt and every choice have ids, and no issue was found.
    Exact,
    /// There are ids, and at least one issue.
    Partial,
    /// No choice has ids.
    None,
}

impl TokenIdStatus {
    /// The word in the attribute `tracewire.tokens.status`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Partial => "partial",
            Self::None => "none",
        }
    }
}

/// Checks the token ids of a call, and removes those that can't be trusted. `issues`: those that the exchange itself has,
/// such as truncation. `kept`, `wanted`: the arrays that a setting wants recorded, and those that the engine can return.
/// `None`: no ids were requested, and none came.
pub(crate) fn validate(
    call: &mut LlmCall,
    mut issues: BTreeSet<TokenIdIssue>,
    (kept, wanted): (SamplerArrays, SamplerArrays),
) -> Option<TokenIdCheck> {
    arrays::check(call, kept, wanted);
    call.prompt_ids.check();
    // The number of ids of all choices; `None` once one has none.
    let mut output_count = Some(0_usize);
    for choice in &mut call.choices {
        choice.tokens.check();
        choice.prompt_ids.check();
        issues.extend(choice.tokens.issues.iter().chain(&choice.prompt_ids.issues));
        let sampled_nothing = [call.usage.output, choice.usage.output].contains(&Some(0));
        if !sampled_nothing && choice.tokens.ids.as_ref().is_some_and(Vec::is_empty) {
            // An empty list is no complete list of ids.
            choice.tokens.ids = None;
        }
        output_count = output_count.zip(choice.tokens.ids.as_ref()).map(|(sum, ids)| sum + ids.len());
    }
    issues.extend(&call.prompt_ids.issues);
    let has_ids = call.choices.iter().any(|choice| choice.tokens.ids.is_some());
    let prompt = call.choices.iter().find_map(|choice| choice.prompt_ids.ids.as_ref()).or(call.prompt_ids.ids.as_ref());
    let malformed = issues.contains(&TokenIdIssue::IdsMalformed);
    if !has_ids && prompt.is_none() && !malformed && !call.request.wants_token_ids {
        return None;
    }
    if !call.ended {
        issues.insert(TokenIdIssue::NoEnd);
    }
    // As engines say when they stop sampling to update their weights.
    if call.choices.iter().any(|choice| choice.finish_reason.as_deref() == Some("abort")) {
        issues.insert(TokenIdIssue::AbortedByEndpoint);
    }
    if call.error.is_some() {
        issues.insert(TokenIdIssue::EndpointError);
    }
    if call.unread.iter().any(|part| *part != UnreadPart::InvalidUtf8) {
        issues.insert(TokenIdIssue::Unread);
    }
    if call.weight_versions.len() > 1 {
        issues.insert(TokenIdIssue::WeightsChanged);
    }
    // What was not asked for isn't missing.
    let was_asked = !issues.contains(&TokenIdIssue::NotRequested) && !issues.contains(&TokenIdIssue::RequestRejected);
    match output_count.filter(|_| has_ids) {
        // No choice has ids, or one has none.
        None if !was_asked => {}
        None => drop(issues.insert(TokenIdIssue::IdsAbsent)),
        Some(count) => {
            if call.usage.output.is_some_and(|usage| usize::try_from(usage) != Ok(count)) {
                issues.insert(TokenIdIssue::UsageOutput);
            }
        }
    }
    let has_logprobs = |choice: &Choice| choice.tokens.logprobs.is_some();
    let needs_none = |choice: &Choice| choice.tokens.ids.as_ref().is_some_and(Vec::is_empty);
    let expects_logprobs = call.request.wants_logprobs || call.choices.iter().any(has_logprobs);
    if has_ids && expects_logprobs && !call.choices.iter().all(|choice| has_logprobs(choice) || needs_none(choice)) {
        issues.insert(TokenIdIssue::LogprobsAbsent);
    }
    // Either all choices have one prompt, or each has its own: then usage counts all prompts. vLLM counts each prompt once,
    // also if several choices, which follow each other, were sampled from it.
    let prompt_lengths: Vec<usize> =
        call.choices.iter().filter_map(|choice| Some(choice.prompt_ids.ids.as_ref()?.len())).collect();
    let is_counted = |length: usize| call.usage.input.is_none_or(|usage| usize::try_from(usage) == Ok(length));
    match prompt {
        None if !was_asked => {}
        None => drop(issues.insert(TokenIdIssue::PromptIdsAbsent)),
        Some(prompt) => {
            let have_one = prompt_lengths.iter().all(|length| *length == prompt.len()) && is_counted(prompt.len());
            // Engines that count each choice alone count the prompt for each.
            let length_of = |choice: &Choice| choice.prompt_ids.ids.as_ref().unwrap_or(prompt).len();
            let is_counted_alone = |choice: &Choice| {
                choice.usage.input.is_some_and(|usage| usize::try_from(usage) == Ok(length_of(choice)))
            };
            let have_each = !call.choices.is_empty() && call.choices.iter().all(is_counted_alone);
            let have_own = prompt_lengths.len() == call.choices.len() && is_counted(prompt_lengths.iter().sum());
            let per_prompt = call.request.choice_count.and_then(|count| usize::try_from(count).ok());
            let have_shared = per_prompt.filter(|count| *count > 1).is_some_and(|count| {
                let shared = || prompt_lengths.chunks(count);
                prompt_lengths.len() == call.choices.len()
                    && shared().all(|all| all.len() == count && all.iter().all(|length| Some(length) == all.first()))
                    && is_counted(shared().filter_map(|all| all.first()).sum())
            });
            if !have_one && !have_each && !have_own && !have_shared {
                issues.insert(TokenIdIssue::UsagePrompt);
            }
        }
    }
    let status = match (has_ids, issues.is_empty()) {
        (false, _) => TokenIdStatus::None,
        (true, true) => TokenIdStatus::Exact,
        (true, false) => TokenIdStatus::Partial,
    };
    Some(TokenIdCheck { status, issues })
}
