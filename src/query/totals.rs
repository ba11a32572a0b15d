//! What the spans of a rollout add up to. Only short attributes are read, so that outlines of spans are enough.

use super::span_kind::SpanClass;
use crate::trace::semconv as names;
use crate::trace::{Span, Timestamp, Value};
use crate::trajectory::read;
use serde::Serialize;

/// Sums over the spans of a rollout, of all attempts. A span is added once; the order does not matter, except for the last error
/// and the last reward.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct RolloutTotals {
    /// Tokens of prompts, cached ones included.
    pub(crate) input_tokens: u64,
    /// Tokens that models generated, reasoning included.
    pub(crate) output_tokens: u64,
    /// Exchanges other than calls of models.
    pub(crate) exchanges: u64,
    /// Models that were called.
    pub(crate) models: Vec<String>,
    /// The tokens of each of these models.
    pub(crate) tokens_by_model: Vec<ModelTokens>,
    /// Clients and agents that called.
    pub(crate) agents: Vec<String>,
    /// Roles of the calls.
    pub(crate) roles: Vec<String>,
    /// Tools that were called.
    pub(crate) tools: Vec<String>,
    /// Hosts that were asked.
    pub(crate) hosts: Vec<String>,
    /// Types of the errors.
    pub(crate) errors: Vec<String>,
    /// The last reward of each name.
    pub(crate) rewards: Vec<(String, f64)>,
    /// The end of the last span.
    pub(crate) last_end: Option<Timestamp>,
    /// What was counted instead of stored; absent if all was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_stored: Option<NotStoredTotals>,
}

/// Tokens of the calls of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ModelTokens {
    pub(crate) model: String,
    /// Tokens of prompts, cached ones included.
    pub(crate) input: u64,
    /// Those of them that the endpoint had cached.
    pub(crate) cached: u64,
    pub(crate) output: u64,
}

/// Sums over the spans of a rollout that limits or sampling left out. Their tokens are among those of the rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct NotStoredTotals {
    /// All of them.
    pub(crate) spans: u64,
    /// Those with status `Error`.
    pub(crate) errors: u64,
    /// Those of LLM calls.
    pub(crate) llm_calls: u64,
}

impl RolloutTotals {
    /// Adds a span.
    pub(crate) fn add(&mut self, span: &Span) {
        let text = |name: &str| span.attributes.get(name).and_then(Value::as_str);
        let class = SpanClass::of(span);
        self.last_end = self.last_end.max(span.end_time);
        note(&mut self.hosts, text(names::SERVER_ADDRESS));
        note(&mut self.errors, text(names::ERROR_TYPE).filter(|_| span.is_error()));
        match class {
            SpanClass::Llm if !is_copy(span) => self.add_call(span),
            SpanClass::Tool => note(&mut self.tools, text(names::GEN_AI_TOOL_NAME)),
            SpanClass::Reward => self.add_rewards(span),
            _ => {}
        }
        let is_exchange =
            matches!(class, SpanClass::Http | SpanClass::Tool) && text(names::HTTP_REQUEST_METHOD).is_some();
        self.exchanges += u64::from(is_exchange);
        if span.attributes.contains_key(names::NOT_STORED_SPANS) {
            self.add_not_stored(span);
        }
    }

    fn add_not_stored(&mut self, span: &Span) {
        let totals = self.not_stored.get_or_insert_default();
        totals.spans = totals.spans.saturating_add(count(span, names::NOT_STORED_SPANS));
        totals.errors = totals.errors.saturating_add(count(span, names::NOT_STORED_ERRORS));
        totals.llm_calls = totals.llm_calls.saturating_add(count(span, names::NOT_STORED_LLM_CALLS));
        self.add_tokens(span, names::NOT_STORED_INPUT_TOKENS, names::NOT_STORED_OUTPUT_TOKENS);
    }

    fn add_tokens(&mut self, span: &Span, input: &str, output: &str) {
        self.input_tokens = self.input_tokens.saturating_add(count(span, input));
        self.output_tokens = self.output_tokens.saturating_add(count(span, output));
    }

    fn add_call(&mut self, span: &Span) {
        let text = |name: &str| span.attributes.get(name).and_then(Value::as_str);
        self.add_tokens(span, names::GEN_AI_USAGE_INPUT_TOKENS, names::GEN_AI_USAGE_OUTPUT_TOKENS);
        let model = text(names::GEN_AI_RESPONSE_MODEL).or_else(|| text(names::GEN_AI_REQUEST_MODEL));
        note(&mut self.models, model);
        self.add_model_tokens(model.unwrap_or_default(), span);
        note(&mut self.agents, text(names::GEN_AI_AGENT_NAME));
        note(&mut self.agents, text(names::CLIENT_NAME));
        note(&mut self.roles, text(names::CALL_ROLE));
    }

    fn add_model_tokens(&mut self, model: &str, span: &Span) {
        if !self.tokens_by_model.iter().any(|known| known.model == model) {
            if self.tokens_by_model.len() >= MAX_NAMES {
                return;
            }
            self.tokens_by_model.push(ModelTokens { model: model.to_owned(), ..ModelTokens::default() });
        }
        if let Some(tokens) = self.tokens_by_model.iter_mut().find(|known| known.model == model) {
            tokens.input = tokens.input.saturating_add(count(span, names::GEN_AI_USAGE_INPUT_TOKENS));
            tokens.cached = tokens.cached.saturating_add(count(span, names::GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS));
            tokens.output = tokens.output.saturating_add(count(span, names::GEN_AI_USAGE_OUTPUT_TOKENS));
        }
    }

    fn add_rewards(&mut self, span: &Span) {
        for reward in read(std::slice::from_ref(span)).rewards {
            let is_full = self.rewards.len() >= MAX_NAMES;
            match self.rewards.iter_mut().find(|(name, _)| *name == reward.name) {
                Some((_, value)) => *value = reward.value,
                None if !is_full => self.rewards.push((reward.name, reward.value)),
                None => {}
            }
        }
    }

    /// The reward that lists show: the one named `primary`, else the first.
    pub(crate) fn reward(&self) -> Option<f64> {
        let primary = self.rewards.iter().find(|(name, _)| name == "primary");
        primary.or_else(|| self.rewards.first()).map(|(_, value)| *value)
    }
}

/// The number of an attribute; 0 without one.
fn count(span: &Span, name: &str) -> u64 {
    let count = span.attributes.get(name).and_then(Value::as_int);
    count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
}

/// True for the span of another tracer about a call that has a span of ours.
fn is_copy(span: &Span) -> bool {
    let link = |link: &crate::trace::span::Link| {
        let kind = link.attributes.as_ref().and_then(|attributes| attributes.get(names::LINK));
        kind.and_then(Value::as_str) == Some("same_call")
    };
    span.links.iter().any(link)
}

/// Adds a name that is not among `known`, while there is room.
fn note(known: &mut Vec<String>, name: Option<&str>) {
    if let Some(name) = name.filter(|name| known.len() < MAX_NAMES && !known.iter().any(|one| one == name)) {
        known.push(name.to_owned());
    }
}

/// Different names that are kept of each kind. Further ones are left out.
const MAX_NAMES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value as JsonValue, json};

    fn span(attributes: &JsonValue) -> Span {
        let json = json!({"rollout_id": "r", "attempt_id": "a", "sequence_id": 1, "trace_id": "t", "span_id": "s", "parent_id": null,
            "name": "x", "status": {"status_code": "ERROR", "description": null}, "attributes": attributes, "events": [], "links": [],
            "start_time": 1.0, "end_time": 2.0, "context": null, "parent": null, "resource": {"attributes": {}, "schema_url": ""}});
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn spans_add_up() {
        let call = json!({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 3,
            "gen_ai.usage.cache_read.input_tokens": 4,
            "gen_ai.response.model": "m", "tracewire.client.name": "codex", "server.address": "h", "http.request.method": "POST"});
        let mut totals = RolloutTotals::default();
        for attributes in [
            call.clone(),
            call,
            json!({"http.request.method": "GET", "server.address": "world", "error.type": "404"}),
            json!({"tracewire.not_stored.spans": 3, "tracewire.not_stored.errors": 1, "tracewire.not_stored.llm_calls": 2,
                "tracewire.not_stored.input_tokens": 100, "tracewire.not_stored.output_tokens": 50}),
            json!({"agentlightning.reward.0.value": 0.5}),
            json!({"agentlightning.reward.0.value": 1.0}),
        ] {
            totals.add(&span(&attributes));
        }
        assert_eq!((totals.input_tokens, totals.output_tokens, totals.exchanges), (120, 56, 1));
        assert_eq!(totals.not_stored, Some(NotStoredTotals { spans: 3, errors: 1, llm_calls: 2 }));
        assert_eq!(
            (totals.models.as_slice(), totals.agents.as_slice()),
            (&["m".to_owned()][..], &["codex".to_owned()][..])
        );
        assert_eq!((totals.hosts, totals.errors), (vec!["h".to_owned(), "world".to_owned()], vec!["404".to_owned()]));
        assert_eq!(totals.rewards, [("primary".to_owned(), 1.0)]);
        let tokens = ModelTokens { model: "m".to_owned(), input: 20, cached: 8, output: 6 };
        assert_eq!(totals.tokens_by_model, [tokens]);
    }
}
