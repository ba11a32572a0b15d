//! ATIF 1.8 (Agent Trajectory Interchange Format), which Harbor and others write and read: a trajectory on each line, of
//! the latest attempt of a rollout.
//!
//! The conversation of the agent is the trajectory. Conversations beside it (sub-agents, titles, judges) are embedded in
//! it. Of several choices a step has the first.

use super::atif_steps::{Steps, final_metrics, tool_definitions};
use super::format::{Framing, RecordedRollout, SpanFormat};
use super::span_facts::text;
use super::transcript::Transcript;
use crate::trace::AttemptScope;
use crate::trace::semconv as names;
use serde_json::{Value as JsonValue, json};

/// `--format atif`
pub(super) struct Atif;

impl SpanFormat for Atif {
    fn name(&self) -> &'static str {
        "atif"
    }

    fn media_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn framing(&self) -> Framing {
        Framing::NONE
    }

    fn scope(&self) -> AttemptScope {
        AttemptScope::Latest
    }

    fn encoded(&self, recorded: &RecordedRollout) -> serde_json::Result<Vec<u8>> {
        let transcript = Transcript::of(&recorded.spans);
        let mut conversations = transcript.conversations();
        if conversations.is_empty() {
            return Ok(Vec::new());
        }
        let is_main = |calls: &Vec<usize>| text(transcript.calls[calls[0]].span, names::CALL_ROLE) == Some("main");
        let main = conversations.remove(conversations.iter().position(is_main).unwrap_or_default());
        let mut trajectory = trajectory(&transcript, &main);
        let span = transcript.calls[main[0]].span;
        trajectory["session_id"] = span.rollout_id.as_str().into();
        trajectory["trajectory_id"] = span.attempt_id.as_str().into();
        let others: Vec<JsonValue> = conversations.iter().map(|calls| embedded(&transcript, calls)).collect();
        if !others.is_empty() {
            trajectory["subagent_trajectories"] = others.into();
        }
        let mut line = serde_json::to_vec(&trajectory)?;
        line.push(b'\n');
        Ok(line)
    }
}

/// A conversation beside that of the agent. Its id is the span of its first call.
fn embedded(transcript: &Transcript<'_>, calls: &[usize]) -> JsonValue {
    let span = transcript.calls[calls[0]].span;
    let mut trajectory = trajectory(transcript, calls);
    trajectory["session_id"] = span.rollout_id.as_str().into();
    trajectory["trajectory_id"] = span.span_id.as_str().into();
    trajectory["extra"]["role"] = text(span, names::CALL_ROLE).into();
    trajectory
}

fn trajectory(transcript: &Transcript<'_>, calls: &[usize]) -> JsonValue {
    let span = transcript.calls[calls[0]].span;
    let name = text(span, names::GEN_AI_AGENT_NAME).or_else(|| text(span, names::CLIENT_NAME)).unwrap_or("unknown");
    let mut agent = json!({ "name": name, "version": text(span, names::CLIENT_VERSION).unwrap_or("unknown") });
    if let Some(model) = text(span, names::GEN_AI_REQUEST_MODEL) {
        agent["model_name"] = model.into();
    }
    let tools = tool_definitions(span);
    if !tools.is_empty() {
        agent["tool_definitions"] = tools.into();
    }
    let mut steps = Steps::default();
    calls.iter().for_each(|at| steps.add_call(&transcript.calls[*at]));
    let steps = steps.finish();
    json!({
        "schema_version": "ATIF-v1.8",
        "agent": agent,
        "final_metrics": final_metrics(transcript, calls, steps.len()),
        "steps": steps,
        "extra": { "rollout_id": span.rollout_id, "attempt_id": span.attempt_id },
    })
}
