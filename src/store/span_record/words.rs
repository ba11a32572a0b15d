//! The texts that records have numbers for: names of attributes, and values that many spans have.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::LazyLock;

/// The number of this text; `None` if it has none.
pub(super) fn number_of_word(text: &str) -> Option<u64> {
    // Most other texts are longer.
    if text.len() > MAX_WORD_BYTES { None } else { NUMBERS.get(text).copied() }
}

static NUMBERS: LazyLock<HashMap<&str, u64, BuildHasherDefault<WordHasher>>> =
    LazyLock::new(|| WORDS.iter().copied().zip(0..).collect());

/// Hashes a text by its length and 24 of its bytes. It need not resist an attacker: the keys of the map never change.
#[derive(Default)]
struct WordHasher(u64);

impl Hasher for WordHasher {
    fn write(&mut self, bytes: &[u8]) {
        let mut add = |word: u64| self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(MULTIPLIER);
        add(bytes.len() as u64);
        let middle = bytes.get(bytes.len() / 2..).and_then(|rest| rest.first_chunk());
        match (bytes.first_chunk(), bytes.last_chunk()) {
            (Some(first), Some(last)) => {
                add(u64::from_le_bytes(*first));
                add(u64::from_le_bytes(*last));
                if let Some(middle) = middle {
                    add(u64::from_le_bytes(*middle));
                }
            }
            _ => add(bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))),
        }
    }

    /// The end of a text, which its length tells.
    fn write_u8(&mut self, _: u8) {}

    fn finish(&self) -> u64 {
        // The map takes the lowest and the highest bits.
        self.0 ^ (self.0 >> 32)
    }
}

/// Odd, with bits everywhere: 2⁶⁴ divided by the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Bytes of the longest word.
const MAX_WORD_BYTES: usize = 47;

/// By number. Stored records have these numbers: words are only added, at the end.
#[rustfmt::skip]
pub(super) const WORDS: &[&str] = &[
    "http.request.method", "http.request.method_original", "http.request.resend_count", "http.request.body.size",
    "http.response.body.size", "http.request.body.content", "http.response.body.content", "http.response.status_code",
    "url.full", "server.address", "server.port", "client.address", "client.port", "network.peer.address",
    "network.peer.port", "network.protocol.version", "network.io.direction", "tls.protocol.version", "tls.cipher",
    "tls.next_protocol", "tls.client.server_name", "error.type", "user_agent.original", "process.exit.code",
    "process.command", "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.agent.id", "gen_ai.agent.name",
    "gen_ai.conversation.id", "gen_ai.output.type", "gen_ai.request.model", "gen_ai.request.stream",
    "gen_ai.request.choice.count", "gen_ai.request.seed", "gen_ai.request.temperature", "gen_ai.request.top_p",
    "gen_ai.request.top_k", "gen_ai.request.frequency_penalty", "gen_ai.request.presence_penalty",
    "gen_ai.request.max_tokens", "gen_ai.request.stop_sequences", "gen_ai.request.encoding_formats",
    "gen_ai.request.reasoning.level", "gen_ai.request.previous_response.id", "gen_ai.embeddings.dimension.count",
    "gen_ai.response.id", "gen_ai.response.model", "gen_ai.response.finish_reasons",
    "gen_ai.response.time_to_first_chunk", "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens",
    "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_write.input_tokens", "gen_ai.usage.reasoning.output_tokens", "gen_ai.input.messages",
    "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.definitions", "gen_ai.tool.name",
    "gen_ai.tool.call.id", "gen_ai.tool.call.arguments", "gen_ai.tool.call.result", "mcp.method.name",
    "jsonrpc.request.id", "prompt_token_ids", "response_token_ids", "tracewire.response_logprobs",
    "tracewire.routed_experts", "tracewire.routed_experts.dtype", "tracewire.routed_experts.shape",
    "tracewire.sampling_mask", "tracewire.sampling_mask.lengths", "tracewire.dialect", "tracewire.inferred",
    "tracewire.link", "tracewire.tokens.status", "tracewire.tokens.reasons", "tracewire.tokens.injected",
    "tracewire.tokens.stripped", "tracewire.policy.version", "tracewire.policy.versions",
    "tracewire.policy.version_starts", "tracewire.policy.staleness", "tracewire.gateway.backend",
    "tracewire.gateway.billing_line", "tracewire.gateway.called", "tracewire.gateway.dropped",
    "tracewire.gateway.held_ms", "tracewire.gateway.joined", "tracewire.gateway.mode",
    "tracewire.gateway.requested_model", "tracewire.gateway.translated_from", "tracewire.gateway.version",
    "tracewire.event.type", "tracewire.event.data", "tracewire.sampling", "tracewire.response.chunks",
    "tracewire.response.chunk_gap_p50_ms", "tracewire.response.chunk_gap_max_ms", "tracewire.llm.unread",
    "tracewire.request.body.base64", "tracewire.response.body.base64", "tracewire.response.informational",
    "tracewire.response.frames", "tracewire.outcome", "tracewire.record.damaged", "tracewire.proxy.bypasses",
    "tracewire.aborted_by", "tracewire.connect.policy", "tracewire.connect.reason", "tracewire.connection.id",
    "tracewire.connection.reused", "tracewire.downstream.protocol.version", "tracewire.downstream.tls.version",
    "tracewire.downstream.tls.next_protocol", "tracewire.upstream.tls_cut", "tracewire.upstream.tls_unverified",
    "tracewire.identity.source", "tracewire.identity.conflict", "tracewire.capture.request_truncated",
    "tracewire.capture.response_truncated", "tracewire.capture.undecoded", "tracewire.websocket.message",
    "tracewire.websocket.messages", "tracewire.websocket.messages_unrecorded", "tracewire.websocket.fault",
    "tracewire.websocket.opcode", "tracewire.websocket.size", "tracewire.websocket.text",
    "tracewire.websocket.base64", "tracewire.websocket.close_code", "tracewire.websocket.incomplete",
    "tracewire.websocket.truncated", "tracewire.client.name", "tracewire.client.version", "tracewire.agent.parent_id",
    "tracewire.call.role", "tracewire.call.role_source", "tracewire.client.program", "tracewire.client.alpn",
    "tracewire.client.ja4", "tracewire.client.advice", "tracewire.timing.connect_ms", "tracewire.timing.tls_ms",
    "tracewire.timing.response_headers_ms", "tracewire.timing.first_body_byte_ms", "http.request.header.accept",
    "http.request.header.accept-encoding", "http.request.header.authorization", "http.request.header.connection",
    "http.request.header.content-length", "http.request.header.content-type", "http.request.header.host",
    "http.request.header.user-agent", "http.request.header.x-api-key", "http.request.header.accept-language",
    "http.request.header.x-stainless-arch", "http.request.header.x-stainless-lang",
    "http.request.header.x-stainless-os", "http.request.header.x-stainless-package-version",
    "http.request.header.x-stainless-retry-count", "http.request.header.x-stainless-runtime",
    "http.request.header.x-stainless-runtime-version", "http.request.header.anthropic-version",
    "http.request.header.anthropic-beta", "http.request.header.traceparent", "http.request.header.x-stainless-async",
    "http.request.header.x-stainless-read-timeout", "http.response.header.content-type",
    "http.response.header.content-length", "http.response.header.date", "http.response.header.server",
    "http.response.header.transfer-encoding", "http.response.header.connection", "http.response.header.cache-control",
    "http.response.header.vary", "http.response.header.x-request-id", "http.response.header.content-encoding",
    "service.name", "tracewire", "unknown_service", "telemetry.sdk.name", "telemetry.sdk.language",
    "telemetry.sdk.version", "opentelemetry", "python", "agentlightning.rollout_id", "agentlightning.attempt_id",
    "agentlightning.span_sequence_id", "agentlightning.reward.0.name", "agentlightning.reward.0.value",
    "agentlightning.operation.name", "agentlightning.operation.input", "agentlightning.operation.output",
    "agentlightning.message.body", "agentlightning.object.type", "agentlightning.object.json",
    "agentlightning.annotation", "agentlightning.reward", "agentlightning.message", "agentlightning.object",
    "agentlightning.operation", "exception", "exception.type", "exception.message", "exception.stacktrace",
    "event.name", "primary", "llm.hosted_vllm.prompt_token_ids", "llm.hosted_vllm.response_token_ids",
    "traceloop.span.kind", "traceloop.entity.name", "agentops.span.kind", "GET", "POST", "PUT", "DELETE", "PATCH",
    "HEAD", "OPTIONS", "CONNECT", "1.0", "1.1", "1.2", "1.3", "2", "h2", "http/1.1", "127.0.0.1", "localhost", "chat",
    "embeddings", "text_completion", "generate_content", "execute_tool", "invoke_agent", "openai", "anthropic",
    "gcp.gemini", "openai.chat", "openai.responses", "openai.completions", "openai.embeddings", "anthropic.messages",
    "gemini.generate_content", "stop", "length", "tool_calls", "content_filter", "end_turn", "tool_use", "max_tokens",
    "complete", "aborted", "error", "exact", "partial", "none", "text", "json", "main", "title", "subagent",
    "compaction", "probe", "assumed", "binding", "header", "key", "url", "client", "same_call", "application/json",
    "text/event-stream", "keep-alive", "identity", "gzip", "REDACTED", "Bearer REDACTED", "AES_256_GCM_SHA384", "AES_128_GCM_SHA256",
    "CHACHA20_POLY1305_SHA256", "int16", "uint8", "int32", "train", "val", "test",
    "https://opentelemetry.io/schemas/1.41.1",
];
