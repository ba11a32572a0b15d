//! Whether the token ids of a call are complete and consistent.

use super::tokens::TokenIdIssue;
use crate::llm::call::LlmCall;
use std::collections::BTreeSet;

/// How far token ids are proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenIdCheck {
    /// `exact`: prompt and every choice have theirs, and nothing speaks against them. `none`: there are none.
    pub status: &'static str,
    /// What speaks against them.
    pub faults: BTreeSet<TokenIdIssue>,
}

/// Checks a call's token ids (`faults` begins with what the exchange itself says). `None`: nobody asked for any, and
/// none came.
pub fn validate(call: &mut LlmCall, mut faults: BTreeSet<TokenIdIssue>) -> Option<TokenIdCheck> {
    call.prompt_ids.check();
    let mut output = Some(0_usize);
    for choice in &mut call.choices {
        choice.tokens.check();
        choice.prompt_ids.check();
        faults.extend(choice.tokens.faults.iter().chain(&choice.prompt_ids.faults));
        if call.usage.output != Some(0) && choice.tokens.ids.as_ref().is_some_and(Vec::is_empty) {
            // No ids at all are none, not a whole list of them.
            choice.tokens.ids = None;
        }
        output = output.zip(choice.tokens.ids.as_ref()).map(|(sum, ids)| sum + ids.len());
    }
    faults.extend(&call.prompt_ids.faults);
    let has_ids = call.choices.iter().any(|choice| choice.tokens.ids.is_some());
    let prompt = call.choices.iter().find_map(|choice| choice.prompt_ids.ids.as_ref()).or(call.prompt_ids.ids.as_ref());
    let malformed = faults.contains(&TokenIdIssue::IdsMalformed);
    if !has_ids && prompt.is_none() && !malformed && !call.request.wants_token_ids {
        return None;
    }
    if !call.ended {
        faults.insert(TokenIdIssue::NoEnd);
    }
    if call.error.is_some() {
        faults.insert(TokenIdIssue::EndpointError);
    }
    if !call.unread.is_empty() {
        faults.insert(TokenIdIssue::Unread);
    }
    if call.weight_versions.len() > 1 {
        faults.insert(TokenIdIssue::WeightsChanged);
    }
    match (has_ids, output) {
        (false, _) => drop(faults.insert(TokenIdIssue::IdsAbsent)),
        // Some choices have ids and others have none.
        (true, None) => drop(faults.insert(TokenIdIssue::IdsAbsent)),
        (true, Some(output)) => {
            if call.usage.output.is_some_and(|usage| usize::try_from(usage) != Ok(output)) {
                faults.insert(TokenIdIssue::UsageOutput);
            }
        }
    }
    let with_logprobs = call.choices.iter().filter(|choice| choice.tokens.logprobs.is_some()).count();
    let unasked = with_logprobs == 0 && !call.request.wants_logprobs;
    let sampled_nothing = output == Some(0);
    if has_ids && !unasked && !sampled_nothing && with_logprobs < call.choices.len() {
        faults.insert(TokenIdIssue::LogprobsAbsent);
    }
    // All choices of one prompt, or each of a prompt of its own: then usage counts all of them.
    let own: Vec<usize> =
        call.choices.iter().filter_map(|choice| Some(choice.prompt_ids.ids.as_ref()?.len())).collect();
    let counts = |length: usize| call.usage.input.is_none_or(|usage| usize::try_from(usage) == Ok(length));
    match prompt {
        None => drop(faults.insert(TokenIdIssue::PromptIdsAbsent)),
        Some(prompt) => {
            let one = own.iter().all(|length| *length == prompt.len()) && counts(prompt.len());
            let each = own.len() == call.choices.len() && counts(own.iter().sum());
            if !one && !each {
                faults.insert(TokenIdIssue::UsagePrompt);
            }
        }
    }
    let status = match (has_ids, faults.is_empty()) {
        (false, _) => "none",
        (true, true) => "exact",
        (true, false) => "partial",
    };
    Some(TokenIdCheck { status, faults })
}
