//! Whether a rollout is complete and sound enough to train on, with the reasons against it.

use super::breaks::BreakCause;
use super::call::{Call, Exclusion, is_side_call};
use super::network::violation;
use super::not_stored::{missing, pruned};
use super::read::AttemptRecord;
use super::tree::Trajectory;
use super::verdict_settings::VerdictSettings;
use crate::llm::clients::CallRole;
use crate::trace::semconv as names;
use crate::trace::{Attempt, AttemptStatus, Span, Value};
use serde::Serialize;

/// Reasons against training on a rollout; none if it is sound.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verdict {
    /// One for each finding. Several may have the same name.
    pub reasons: Vec<Reason>,
}

impl Verdict {
    /// True if nothing speaks against training.
    pub fn is_sound(&self) -> bool {
        self.reasons.is_empty()
    }

    /// The names of the reasons, each once: a mask column each.
    pub fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = self.reasons.iter().map(|reason| reason.name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// A reason against training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reason {
    /// The kind of reason, such as `no_calls`; docs/trajectories.md lists all.
    pub name: &'static str,
    /// The span that shows it. `None` if it is about the whole rollout.
    pub span_id: Option<String>,
    /// What was found, in words.
    pub detail: String,
}

/// Judges an attempt. `attempt`: the store's record of it, if there is one.
pub fn verdict(
    attempt: Option<&Attempt>,
    spans: &[Span],
    record: &AttemptRecord,
    tree: &Trajectory,
    settings: &VerdictSettings,
) -> Verdict {
    let mut verdict = Verdict::default();
    let mut add = |name, span_id: Option<&str>, detail: String| {
        verdict.reasons.push(Reason { name, span_id: span_id.map(str::to_owned), detail });
    };
    match attempt.map(|attempt| attempt.status) {
        Some(AttemptStatus::Preparing | AttemptStatus::Running) => {
            add("running", None, "the attempt has not ended".to_owned());
        }
        Some(AttemptStatus::Timeout | AttemptStatus::Unresponsive) => {
            add("timeout", None, "the attempt ran out of time".to_owned());
        }
        _ => {}
    }
    if tree.calls.is_empty() {
        add("no_calls", None, "no LLM call was recorded".to_owned());
    }
    for call in &tree.calls {
        let span = Some(call.span_id.as_str());
        match call.exclusion {
            Some(Exclusion::NoTokenIds) => {
                add("missing_token_ids", span, why(call, "the call has no token ids"));
            }
            Some(Exclusion::Unproved) => {
                add("unproved_token_ids", span, why(call, "the token ids are not proved to be complete and right"));
            }
            None if call.is_retokenized => {
                add("retokenized", span, "a tokenizer made the token ids; the engine may have had others".to_owned());
            }
            None if call.logprobs.is_none() => add("missing_logprobs", span, "the call has no logprobs".to_owned()),
            _ => {}
        }
    }
    let work = || tree.calls.iter().filter(|call| !is_side_call(call.role));
    if let Some(last) = work().next_back()
        && let Some(Exclusion::Aborted | Exclusion::Failed) = last.exclusion
    {
        add("last_call_incomplete", Some(&last.span_id), "the last call has no complete answer".to_owned());
    }
    for (call, node) in tree.calls.iter().zip(&tree.nodes) {
        if let Some(found) = &node.diagnosis
            && call.role == CallRole::Main
            && matches!(found.cause, BreakCause::Retokenized | BreakCause::Template)
        {
            let detail = format!("{} at token {}", found.cause.as_str(), found.position);
            add("unlinked_call", Some(&call.span_id), detail);
        }
        if node.parent_is_ambiguous {
            add("ambiguous_parent", Some(&call.span_id), "two calls with the same answer may be continued".to_owned());
        }
    }
    let numbers = work().flat_map(|call| &call.versions).filter_map(|start| start.version.parse::<i64>().ok());
    let (least, most) = numbers.fold((i64::MAX, i64::MIN), |(least, most), one| (least.min(one), most.max(one)));
    if most.saturating_sub(least) > settings.max_version_spread && least <= most {
        add("version_spread", None, format!("the weights changed from version {least} to {most}"));
    }
    let last_end = work().filter(|call| call.exclusion.is_none()).filter_map(|call| call.end_time).max();
    if let Some(reward) = record.rewards.iter().rfind(|reward| reward.call.is_none())
        && reward.time.zip(last_end).is_some_and(|(given, end)| given < end)
    {
        add("early_reward", None, "the reward was given before the last call ended".to_owned());
    }
    if record.invalid_rewards > 0 {
        add("invalid_reward", None, "a reward is no finite number".to_owned());
    }
    let removed = attempt.and_then(|attempt| pruned(attempt.pruned()));
    for (name, detail) in missing(spans).into_iter().chain(removed) {
        add(name, None, detail);
    }
    for span in spans {
        if let Some(detail) = capture_gap(span) {
            add("capture_gap", Some(&span.span_id), detail);
        }
        if let Some(Value::Strings(bypasses)) = span.attributes.get(names::PROXY_BYPASSES) {
            add("bypassed_proxy", Some(&span.span_id), bypasses.join(", "));
        }
        if let Some((name, detail)) = violation(span, settings) {
            add(name, Some(&span.span_id), detail);
        }
    }
    verdict
}

/// What is wrong with the ids of a call: what a tokenizer found, or else what is known without one.
fn why(call: &Call, otherwise: &str) -> String {
    call.token_issue.clone().unwrap_or_else(|| otherwise.to_owned())
}

fn capture_gap(span: &Span) -> Option<String> {
    if let Some(Value::Strings(parts)) = span.attributes.get(names::RECORD_DAMAGED) {
        return Some(format!("the record is damaged: {}", parts.join(", ")));
    }
    let gaps = [names::CAPTURE_REQUEST_TRUNCATED, names::CAPTURE_RESPONSE_TRUNCATED, names::CAPTURE_UNDECODED];
    let gap = gaps.into_iter().find(|name| span.attributes.contains_key(*name))?;
    // Of other traffic, bodies are not needed.
    span.attributes.contains_key(names::DIALECT).then(|| gap.to_owned())
}
