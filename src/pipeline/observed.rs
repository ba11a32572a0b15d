//! What building spans yields: the spans, and what was observed of the calls in them.

use crate::llm::engine::Engine;
use crate::llm::token_ids::TokenIdIssue;
use crate::trace::span::SpanContext;
use crate::trace::{RolloutId, Span};
use std::collections::BTreeSet;

/// What an exchange became.
#[derive(Debug)]
pub struct BuiltSpans {
    /// The span of the exchange.
    pub span: Span,
    /// Spans of what else it shows: tools, if it carried their results, calls on its WebSocket, spans of an OTLP export.
    pub inferred: Vec<Span>,
    /// The calls of models and tools in it: one of an HTTP exchange, any number of a WebSocket.
    pub calls: Vec<ObservedCall>,
}

/// What was observed of a call, for the state that other modules share.
#[derive(Debug)]
pub struct ObservedCall {
    /// The rollout that the call belongs to.
    pub rollout_id: RolloutId,
    /// The name of its span.
    pub span_name: String,
    /// Its span, by the id of the response. None if the response has no id.
    pub response: Option<(String, SpanContext)>,
    /// The tokens it used, prompt and response. None if it did not come through the gateway.
    pub used_tokens: Option<u64>,
    /// What its response says of the engine at the endpoint.
    pub engine: Option<EngineObservation>,
    /// Why its token ids are not complete.
    pub token_id_issues: BTreeSet<TokenIdIssue>,
}

/// What a response says of the engine at its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineObservation {
    /// The endpoint's host.
    pub host: String,
    /// The endpoint's port.
    pub port: u16,
    /// The detected engine.
    pub engine: Engine,
}
