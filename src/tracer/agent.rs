//! The steps of an agent, with the names that OpenTelemetry's conventions for generative AI give them.
//!
//! Where the conventions have no name, attributes begin with `tracewire.agent`. Durations are those of the spans; sizes and
//! contents are filled in by [`Operation::record_input`] and [`Operation::record_output`].
//!
//! ```
//! use serde_json::json;
//! use tracewire::tracer::{DummyTracer, Tracer, TracerError, agent};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), TracerError> {
//! let tracer = DummyTracer::new();
//! tracer.init_worker(0)?;
//! tracer
//!     .trace_context("task 7", async {
//!         let call = agent::llm_call("openai", "gpt-4o")?;
//!         call.run(async {
//!             call.record_input(&json!([{ "role": "user", "content": "What is 6 times 7?" }]))?;
//!             call.record_output(&json!([{ "role": "assistant", "content": "42" }]))?;
//!             agent::record_usage(&call, 12, 3);
//!             Ok::<_, TracerError>(())
//!         })
//!         .await
//!     })
//!     .await?;
//! let call = tracer.last_trace()?;
//! assert_eq!(call.find("chat gpt-4o").and_then(|span| span.attributes["gen_ai.usage.input_tokens"].as_int()), Some(12));
//! # Ok(())
//! # }
//! ```

use super::contract::operation;
use super::error::Result;
use super::new_span::NewSpan;
use super::operation::Operation;
use crate::trace::SpanKind;
use crate::trace::semconv as names;
use serde::Serialize;

/// One run of an agent, from its task to its result: `invoke_agent NAME`.
pub fn agent_run(name: &str) -> Result<Operation> {
    let span = step("invoke_agent", name).attribute(names::GEN_AI_AGENT_NAME, name);
    Ok(operation(span)?.with_content(names::GEN_AI_INPUT_MESSAGES, names::GEN_AI_OUTPUT_MESSAGES))
}

/// One turn of an agent's loop, from 1.
pub fn iteration(number: u32) -> Result<Operation> {
    operation(NewSpan::new(format!("iteration {number}")).attribute(names::AGENT_ITERATION, number))
}

/// A call of a model: `chat MODEL`. Input and output are messages. If the proxy records the call too, send the headers of
/// [`Operation::context`] with it, so that its span is below this one, and record the response's id.
pub fn llm_call(provider: &str, model: &str) -> Result<Operation> {
    let span = step("chat", model)
        .kind(SpanKind::Client)
        .attribute(names::GEN_AI_PROVIDER_NAME, provider)
        .attribute(names::GEN_AI_REQUEST_MODEL, model);
    Ok(operation(span)?.with_content(names::GEN_AI_INPUT_MESSAGES, names::GEN_AI_OUTPUT_MESSAGES))
}

/// Records the tokens that an [`llm_call`] used.
pub fn record_usage(call: &Operation, input_tokens: u64, output_tokens: u64) {
    call.record_attributes([
        (names::GEN_AI_USAGE_INPUT_TOKENS, input_tokens),
        (names::GEN_AI_USAGE_OUTPUT_TOKENS, output_tokens),
    ]);
}

/// Records the response's id. Training data then counts a call once that the proxy recorded too.
pub fn record_response_id(call: &Operation, id: &str) {
    call.record(names::GEN_AI_RESPONSE_ID, id);
}

/// Records what a model's response says about itself: the model that answered, and why it stopped (`stop`, `tool_calls`, one
/// for each choice).
pub fn record_response(call: &Operation, model: &str, finish_reasons: &[&str]) {
    let reasons: Vec<String> = finish_reasons.iter().map(|reason| (*reason).to_owned()).collect();
    call.record(names::GEN_AI_RESPONSE_MODEL, model);
    call.record(names::GEN_AI_RESPONSE_FINISH_REASONS, reasons);
}

/// Records the tools that an [`llm_call`] offers to the model, as JSON.
pub fn record_tool_definitions(call: &Operation, tools: &impl Serialize) -> Result<()> {
    call.record(names::GEN_AI_TOOL_DEFINITIONS, serde_json::to_string(tools)?);
    Ok(())
}

/// A call of a tool: `execute_tool NAME`. Input is the arguments, output the result.
pub fn tool_call(name: &str) -> Result<Operation> {
    let span = step("execute_tool", name)
        .attribute(names::GEN_AI_TOOL_NAME, name)
        .attribute(names::GEN_AI_TOOL_TYPE, "function");
    Ok(operation(span)?.with_content(names::GEN_AI_TOOL_CALL_ARGUMENTS, names::GEN_AI_TOOL_CALL_RESULT))
}

/// What is done with an agent's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryOperation {
    /// Look up entries: the input is the query.
    Search,
    /// Add entries: the output is what was added.
    Create,
    /// Change entries.
    Update,
    /// Remove entries.
    Delete,
}

impl MemoryOperation {
    /// The value of `gen_ai.operation.name`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Search => "search_memory",
            Self::Create => "create_memory",
            Self::Update => "update_memory",
            Self::Delete => "delete_memory",
        }
    }
}

/// A use of an agent's memory: `search_memory STORE`, for example. Input is the query, output the entries.
pub fn memory(kind: MemoryOperation, store: &str) -> Result<Operation> {
    let span = step(kind.name(), store).kind(SpanKind::Client).attribute(names::GEN_AI_MEMORY_STORE_ID, store);
    Ok(operation(span)?.with_content(names::GEN_AI_MEMORY_QUERY_TEXT, names::GEN_AI_MEMORY_RECORDS))
}

/// A choice between options, and why: `decision NAME`. It has no duration; the step that led to it has.
pub fn decision(name: &str, chosen: &str, options: &[&str], reason: &str) -> Result<()> {
    let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    let span = NewSpan::new(format!("decision {name}"))
        .attribute(names::AGENT_DECISION, chosen)
        .attribute(names::AGENT_DECISION_OPTIONS, options)
        .attribute(names::AGENT_DECISION_REASON, reason);
    super::contract::create_span(span).map(drop)
}

fn step(operation_name: &str, subject: &str) -> NewSpan {
    NewSpan::new(format!("{operation_name} {subject}")).attribute(names::GEN_AI_OPERATION_NAME, operation_name)
}
