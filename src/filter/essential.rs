//! What the span limits never cut: LLM calls, their tokens and messages, rewards, outcomes, and what other parts read.

use crate::llm::recorded::is_llm_call;
use crate::trace::span::{Event, Link};
use crate::trace::{Attributes, Span, semconv as names};

/// The essential attributes of one span.
#[derive(Clone, Copy)]
pub(super) struct Essential {
    /// The span of an LLM call, by whatever convention: its input and output are messages.
    is_call: bool,
}

impl Essential {
    /// The rules for a span with these attributes.
    pub(super) fn of(attributes: &Attributes) -> Self {
        Self { is_call: CALL_PREFIXES.iter().any(|prefix| has_prefix(attributes, prefix)) }
    }

    /// True for an attribute that is neither left out nor cut.
    pub(super) fn is_attribute(self, name: &str) -> bool {
        let is_indexed = |rest: &str| rest.is_empty() || rest.starts_with('.');
        let begins_with = |prefix: &&str| name.starts_with(*prefix);
        PREFIXES.iter().any(begins_with)
            || NAMES.iter().any(|essential| name.strip_prefix(essential).is_some_and(is_indexed))
            || (self.is_call && CALL_CONTENT.iter().any(begins_with))
    }

    /// True for an event that is not left out: the messages of GenAI conventions before v1.37.
    pub(super) fn is_event(event: &Event) -> bool {
        event.name.starts_with("gen_ai.")
    }

    /// True for a link that is not left out: one of Tracewire's own.
    pub(super) fn is_link(link: &Link) -> bool {
        link.attributes.as_ref().is_some_and(|attributes| attributes.contains_key(names::LINK))
    }
}

/// True for the span of an LLM call, by whatever convention: limits leave it out only if settings say so.
pub(super) fn is_call(span: &Span) -> bool {
    let has = |prefix: &&str| has_prefix(&span.attributes, prefix);
    is_llm_call(span) || RESPONSE_PREFIXES.iter().any(has)
}

/// Rewards and annotations of trainers are few, and cost their rollout its use if they are missing.
pub(super) fn is_reward(span: &Span) -> bool {
    let first = span.attributes.range(names::REWARD_PREFIX.to_owned()..).next();
    span.name == "agentlightning.annotation" || first.is_some_and(|(name, _)| name.starts_with(names::REWARD_PREFIX))
}

fn has_prefix(attributes: &Attributes, prefix: &str) -> bool {
    attributes.range(prefix.to_owned()..).next().is_some_and(|(name, _)| name.starts_with(prefix))
}

/// Attributes that only spans of LLM calls have: of AgentOps, OpenLLMetry and OpenInference.
const RESPONSE_PREFIXES: [&str; 4] = ["gen_ai.response.", "gen_ai.completion", "llm.", names::RESPONSE_TOKEN_IDS];
/// Attributes of LLM calls: OpenTelemetry's conventions, and OpenInference's.
const CALL_PREFIXES: [&str; 2] = ["gen_ai.", "llm."];
/// Attributes of any span.
const PREFIXES: [&str; 8] =
    ["gen_ai.", "llm.", "openinference.", "agentlightning.", "tracewire.", "mcp.", "error.", "server."];
/// Attributes of any span, also with an index as in `response_token_ids.1`.
const NAMES: [&str; 7] = [
    names::PROMPT_TOKEN_IDS,
    names::RESPONSE_TOKEN_IDS,
    names::URL_FULL,
    names::HTTP_REQUEST_METHOD,
    names::HTTP_RESPONSE_STATUS_CODE,
    names::EXCEPTION_TYPE,
    "reward",
];
/// OpenInference and Traceloop have messages here.
const CALL_CONTENT: [&str; 4] = ["input.", "output.", "traceloop.entity.input", "traceloop.entity.output"];
