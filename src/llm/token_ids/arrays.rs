//! Whether the arrays that a sampler returned beside the ids fit those.

use super::tokens::TokenIdIssue;
use crate::llm::call::LlmCall;
use crate::trace::SamplerArrays;
use crate::wire::number_array::NumberArray;
use std::collections::BTreeSet;
use std::sync::Arc;

/// How one of the arrays is checked.
struct ArrayCheck {
    is_kept: bool,
    is_wanted: bool,
    absent: TokenIdIssue,
    malformed: TokenIdIssue,
}

/// Checks the arrays of every choice against its tokens. Those that are not `kept`, or do not fit, are removed; one that is
/// `wanted` and missing is an issue.
pub(super) fn check(call: &mut LlmCall, kept: SamplerArrays, wanted: SamplerArrays) {
    let experts = ArrayCheck {
        is_kept: kept.routed_experts,
        is_wanted: wanted.routed_experts,
        absent: TokenIdIssue::ExpertsAbsent,
        malformed: TokenIdIssue::ExpertsMalformed,
    };
    let masks = ArrayCheck {
        is_kept: kept.sampling_masks,
        is_wanted: wanted.sampling_masks,
        absent: TokenIdIssue::MasksAbsent,
        malformed: TokenIdIssue::MasksMalformed,
    };
    let shared_prompt = call.prompt_ids.ids.as_ref().map(Vec::len);
    let skipped = call.request.first_expert_row.and_then(|row| usize::try_from(row).ok()).unwrap_or(0);
    for choice in &mut call.choices {
        let prompt = choice.prompt_ids.ids.as_ref().map(Vec::len).or(shared_prompt);
        let tokens = &mut choice.tokens;
        let sampled = tokens.ids.as_ref().map(Vec::len);
        let total = prompt.zip(sampled).map(|(prompt, sampled)| (prompt + sampled).saturating_sub(skipped));
        experts.apply(&mut tokens.routed_experts, &mut tokens.issues, |array| with_rows(array, total));
        let has_lists = |array: &NumberArray| match array.lengths() {
            Some(lengths) => sampled.is_none_or(|sampled| sampled == lengths.len()),
            None => array.len() == 0 && sampled.is_none_or(|sampled| sampled == 0),
        };
        masks
            .apply(&mut tokens.sampling_mask, &mut tokens.issues, |array| Some(array).filter(|array| has_lists(array)));
    }
}

impl ArrayCheck {
    /// `fitting` gives the array as it fits the tokens; `None`: it does not.
    fn apply(
        &self,
        array: &mut Option<Arc<NumberArray>>,
        issues: &mut BTreeSet<TokenIdIssue>,
        fitting: impl Fn(Arc<NumberArray>) -> Option<Arc<NumberArray>>,
    ) {
        let sent = array.take();
        if !self.is_kept {
            issues.remove(&self.malformed);
            return;
        }
        let is_readable = !issues.contains(&self.malformed);
        match sent {
            Some(sent) => match fitting(sent).filter(|_| is_readable) {
                Some(fitting) => *array = Some(fitting),
                None => drop(issues.insert(self.malformed)),
            },
            None if self.is_wanted && is_readable => drop(issues.insert(self.absent)),
            None => {}
        }
    }
}

/// The experts with a row for each token of the prompt and the answer, or for each but the last, which is no input of the
/// model. An array of one dimension is divided so. `total`: the number of tokens, if it is known.
fn with_rows(experts: Arc<NumberArray>, total: Option<usize>) -> Option<Arc<NumberArray>> {
    let Some(total) = total else { return Some(experts) };
    let counts = [total.saturating_sub(1), total];
    if experts.dimensions().is_some_and(|lengths| lengths.len() == 1) {
        return counts.into_iter().find_map(|rows| experts.divided(rows)).map(Arc::new);
    }
    Some(experts).filter(|experts| counts.contains(&experts.rows()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::call::Choice;
    use crate::trace::SamplerArray;
    use crate::wire::json::parse;

    const ALL: SamplerArrays = SamplerArrays { routed_experts: true, sampling_masks: true };
    const NONE: SamplerArrays = SamplerArrays { routed_experts: false, sampling_masks: false };

    /// A call with a prompt of two tokens and an answer of two.
    fn call(experts: &str, masks: &str) -> LlmCall {
        let mut call = LlmCall { choices: vec![Choice::default()], ..LlmCall::default() };
        let ids = parse(b"[1,2]").unwrap();
        call.prompt_ids.push_ids(&ids);
        let tokens = &mut call.choices[0].tokens;
        tokens.push_ids(&ids);
        tokens.push_array(SamplerArray::RoutedExperts, &parse(experts.as_bytes()).unwrap());
        tokens.push_array(SamplerArray::SamplingMask, &parse(masks.as_bytes()).unwrap());
        call
    }

    #[test]
    fn arrays_must_have_a_row_for_each_token() {
        use TokenIdIssue::{ExpertsAbsent, ExpertsMalformed, MasksAbsent, MasksMalformed};
        for (experts, masks, expected) in [
            ("[[[1,2]],[[3,4]],[[5,6]]]", "[[1,2],[3]]", &[][..]),
            ("[[[1]],[[2]],[[3]],[[4]]]", "[[1],[3]]", &[]),
            ("\"AQAAAAIAAAADAAAA\"", "[[],[]]", &[]),
            ("[[[1]],[[2]]]", "[[1]]", &[ExpertsMalformed, MasksMalformed]),
            ("\"no array\"", "[1,2]", &[ExpertsMalformed, MasksMalformed]),
            ("null", "null", &[ExpertsAbsent, MasksAbsent]),
        ] {
            let mut wanting = call(experts, masks);
            check(&mut wanting, ALL, ALL);
            let tokens = &wanting.choices[0].tokens;
            assert_eq!(tokens.issues.iter().copied().collect::<Vec<_>>(), expected, "{experts} {masks}");
            assert_eq!(tokens.routed_experts.is_some(), expected.is_empty());
            let mut ignoring = call(experts, masks);
            check(&mut ignoring, NONE, NONE);
            let tokens = &ignoring.choices[0].tokens;
            assert!(tokens.issues.is_empty() && tokens.routed_experts.is_none() && tokens.sampling_mask.is_none());
        }
        let mut later = call("[[[3]]]", "null");
        later.request.first_expert_row = Some(2);
        check(&mut later, ALL, NONE);
        assert!(later.choices[0].tokens.issues.is_empty());
    }

    #[test]
    fn masks_of_events_are_joined() {
        let mut call = call("null", "[[1,2]]");
        call.choices[0].tokens.push_array(SamplerArray::SamplingMask, &parse(b"[[70000]]").unwrap());
        check(&mut call, ALL, ALL);
        let mask = call.choices[0].tokens.sampling_mask.clone().unwrap();
        assert_eq!((mask.numbers().collect::<Vec<_>>(), mask.lengths()), (vec![1, 2, 70000], Some(&[2, 1][..])));
    }
}
