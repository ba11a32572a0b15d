//! Names of the span attributes that Tracewire writes.
//!
//! Sources: the stable HTTP conventions of OpenTelemetry (v1.44.0), its GenAI conventions (v1.41.1, the last tagged
//! version), the names that Agent Lightning's adapters read, and `tracewire.*` where no standard name exists. Names only:
//! `crate::pipeline` decides which value an attribute gets.

/// Schema URL of the attributes on spans that Tracewire creates.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.41.1";

macro_rules! names {
    ($($constant:ident = $name:literal;)*) => {$(
        #[doc = concat!("`", $name, "`")]
        pub const $constant: &str = $name;
    )*};
}

names! {
    HTTP_REQUEST_METHOD = "http.request.method";
    HTTP_REQUEST_METHOD_ORIGINAL = "http.request.method_original";
    HTTP_REQUEST_RESEND_COUNT = "http.request.resend_count";
    HTTP_REQUEST_BODY_SIZE = "http.request.body.size";
    HTTP_RESPONSE_BODY_SIZE = "http.response.body.size";
    HTTP_REQUEST_BODY_CONTENT = "http.request.body.content";
    HTTP_RESPONSE_BODY_CONTENT = "http.response.body.content";
    HTTP_RESPONSE_STATUS_CODE = "http.response.status_code";
    URL_FULL = "url.full";
    SERVER_ADDRESS = "server.address";
    SERVER_PORT = "server.port";
    CLIENT_ADDRESS = "client.address";
    CLIENT_PORT = "client.port";
    NETWORK_PEER_ADDRESS = "network.peer.address";
    NETWORK_PEER_PORT = "network.peer.port";
    NETWORK_PROTOCOL_VERSION = "network.protocol.version";
    NETWORK_IO_DIRECTION = "network.io.direction";
    TLS_PROTOCOL_VERSION = "tls.protocol.version";
    TLS_CIPHER = "tls.cipher";
    TLS_NEXT_PROTOCOL = "tls.next_protocol";
    TLS_SERVER_NAME = "tls.client.server_name";
    ERROR_TYPE = "error.type";
    USER_AGENT_ORIGINAL = "user_agent.original";
    PROCESS_EXIT_CODE = "process.exit.code";
    PROCESS_COMMAND = "process.command";

    GEN_AI_OPERATION_NAME = "gen_ai.operation.name";
    GEN_AI_PROVIDER_NAME = "gen_ai.provider.name";
    GEN_AI_AGENT_ID = "gen_ai.agent.id";
    GEN_AI_AGENT_NAME = "gen_ai.agent.name";
    GEN_AI_CONVERSATION_ID = "gen_ai.conversation.id";
    GEN_AI_OUTPUT_TYPE = "gen_ai.output.type";
    GEN_AI_REQUEST_MODEL = "gen_ai.request.model";
    GEN_AI_REQUEST_STREAM = "gen_ai.request.stream";
    GEN_AI_REQUEST_CHOICE_COUNT = "gen_ai.request.choice.count";
    GEN_AI_REQUEST_SEED = "gen_ai.request.seed";
    GEN_AI_REQUEST_TEMPERATURE = "gen_ai.request.temperature";
    GEN_AI_REQUEST_TOP_P = "gen_ai.request.top_p";
    GEN_AI_REQUEST_TOP_K = "gen_ai.request.top_k";
    GEN_AI_REQUEST_FREQUENCY_PENALTY = "gen_ai.request.frequency_penalty";
    GEN_AI_REQUEST_PRESENCE_PENALTY = "gen_ai.request.presence_penalty";
    GEN_AI_REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens";
    GEN_AI_REQUEST_STOP_SEQUENCES = "gen_ai.request.stop_sequences";
    GEN_AI_REQUEST_ENCODING_FORMATS = "gen_ai.request.encoding_formats";
    GEN_AI_REQUEST_REASONING_LEVEL = "gen_ai.request.reasoning.level";
    GEN_AI_REQUEST_PREVIOUS_RESPONSE_ID = "gen_ai.request.previous_response.id";
    GEN_AI_EMBEDDINGS_DIMENSION_COUNT = "gen_ai.embeddings.dimension.count";
    GEN_AI_RESPONSE_ID = "gen_ai.response.id";
    GEN_AI_RESPONSE_MODEL = "gen_ai.response.model";
    GEN_AI_RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons";
    GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk";
    GEN_AI_USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens";
    GEN_AI_USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens";
    GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS = "gen_ai.usage.cache_read.input_tokens";
    GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS = "gen_ai.usage.cache_creation.input_tokens";
    GEN_AI_USAGE_CACHE_WRITE_INPUT_TOKENS = "gen_ai.usage.cache_write.input_tokens";
    GEN_AI_USAGE_REASONING_OUTPUT_TOKENS = "gen_ai.usage.reasoning.output_tokens";
    GEN_AI_INPUT_MESSAGES = "gen_ai.input.messages";
    GEN_AI_OUTPUT_MESSAGES = "gen_ai.output.messages";
    GEN_AI_SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions";
    GEN_AI_TOOL_DEFINITIONS = "gen_ai.tool.definitions";
    GEN_AI_TOOL_NAME = "gen_ai.tool.name";
    GEN_AI_TOOL_CALL_ID = "gen_ai.tool.call.id";
    GEN_AI_TOOL_CALL_ARGUMENTS = "gen_ai.tool.call.arguments";
    GEN_AI_TOOL_CALL_RESULT = "gen_ai.tool.call.result";
    MCP_METHOD_NAME = "mcp.method.name";
    JSONRPC_REQUEST_ID = "jsonrpc.request.id";

    PROMPT_TOKEN_IDS = "prompt_token_ids";
    RESPONSE_TOKEN_IDS = "response_token_ids";
    RESPONSE_LOGPROBS = "tracewire.response_logprobs";
    ROUTED_EXPERTS = "tracewire.routed_experts";
    ROUTED_EXPERTS_DTYPE = "tracewire.routed_experts.dtype";
    ROUTED_EXPERTS_SHAPE = "tracewire.routed_experts.shape";
    SAMPLING_MASK = "tracewire.sampling_mask";
    SAMPLING_MASK_LENGTHS = "tracewire.sampling_mask.lengths";
    DIALECT = "tracewire.dialect";
    INFERRED = "tracewire.inferred";
    LINK = "tracewire.link";
    TOKENS_STATUS = "tracewire.tokens.status";
    TOKENS_REASONS = "tracewire.tokens.reasons";
    TOKENS_INJECTED = "tracewire.tokens.injected";
    TOKENS_STRIPPED = "tracewire.tokens.stripped";
    POLICY_VERSION = "tracewire.policy.version";
    POLICY_VERSIONS = "tracewire.policy.versions";
    POLICY_VERSION_STARTS = "tracewire.policy.version_starts";
    POLICY_STALENESS = "tracewire.policy.staleness";
    GATEWAY_BACKEND = "tracewire.gateway.backend";
    GATEWAY_BILLING_LINE = "tracewire.gateway.billing_line";
    GATEWAY_CALLED = "tracewire.gateway.called";
    GATEWAY_DROPPED = "tracewire.gateway.dropped";
    GATEWAY_HELD_MS = "tracewire.gateway.held_ms";
    GATEWAY_JOINED = "tracewire.gateway.joined";
    GATEWAY_MODE = "tracewire.gateway.mode";
    GATEWAY_REQUESTED_MODEL = "tracewire.gateway.requested_model";
    GATEWAY_TRANSLATED_FROM = "tracewire.gateway.translated_from";
    GATEWAY_VERSION = "tracewire.gateway.version";
    EVENT_TYPE = "tracewire.event.type";
    EVENT_DATA = "tracewire.event.data";
    SAMPLING = "tracewire.sampling";
    RESPONSE_CHUNKS = "tracewire.response.chunks";
    CHUNK_GAP_P50_MS = "tracewire.response.chunk_gap_p50_ms";
    CHUNK_GAP_MAX_MS = "tracewire.response.chunk_gap_max_ms";
    LLM_UNREAD = "tracewire.llm.unread";

    REQUEST_HEADER_PREFIX = "http.request.header.";
    RESPONSE_HEADER_PREFIX = "http.response.header.";
    REQUEST_TRAILER_PREFIX = "tracewire.request.trailer.";
    RESPONSE_TRAILER_PREFIX = "tracewire.response.trailer.";

    REQUEST_BODY_BASE64 = "tracewire.request.body.base64";
    RESPONSE_BODY_BASE64 = "tracewire.response.body.base64";
    RESPONSE_INFORMATIONAL = "tracewire.response.informational";
    RESPONSE_FRAMES = "tracewire.response.frames";
    OUTCOME = "tracewire.outcome";
    RECORD_DAMAGED = "tracewire.record.damaged";
    PROXY_BYPASSES = "tracewire.proxy.bypasses";
    ABORTED_BY = "tracewire.aborted_by";
    CONNECT_POLICY = "tracewire.connect.policy";
    CONNECT_REASON = "tracewire.connect.reason";
    CONNECTION_ID = "tracewire.connection.id";
    CONNECTION_REUSED = "tracewire.connection.reused";
    DOWNSTREAM_PROTOCOL_VERSION = "tracewire.downstream.protocol.version";
    DOWNSTREAM_TLS_VERSION = "tracewire.downstream.tls.version";
    DOWNSTREAM_TLS_ALPN = "tracewire.downstream.tls.next_protocol";
    TLS_CUT = "tracewire.upstream.tls_cut";
    TLS_UNVERIFIED = "tracewire.upstream.tls_unverified";
    IDENTITY_SOURCE = "tracewire.identity.source";
    IDENTITY_CONFLICT = "tracewire.identity.conflict";
    CAPTURE_REQUEST_TRUNCATED = "tracewire.capture.request_truncated";
    CAPTURE_RESPONSE_TRUNCATED = "tracewire.capture.response_truncated";
    CAPTURE_UNDECODED = "tracewire.capture.undecoded";
    WEBSOCKET_MESSAGE = "tracewire.websocket.message";
    WEBSOCKET_MESSAGES = "tracewire.websocket.messages";
    WEBSOCKET_UNRECORDED = "tracewire.websocket.messages_unrecorded";
    WEBSOCKET_FAULT = "tracewire.websocket.fault";
    WEBSOCKET_OPCODE = "tracewire.websocket.opcode";
    WEBSOCKET_SIZE = "tracewire.websocket.size";
    WEBSOCKET_TEXT = "tracewire.websocket.text";
    WEBSOCKET_BASE64 = "tracewire.websocket.base64";
    WEBSOCKET_CLOSE_CODE = "tracewire.websocket.close_code";
    WEBSOCKET_INCOMPLETE = "tracewire.websocket.incomplete";
    WEBSOCKET_TRUNCATED = "tracewire.websocket.truncated";
    CLIENT_NAME = "tracewire.client.name";
    CLIENT_VERSION = "tracewire.client.version";
    AGENT_PARENT_ID = "tracewire.agent.parent_id";
    CALL_ROLE = "tracewire.call.role";
    CALL_ROLE_SOURCE = "tracewire.call.role_source";
    CLIENT_PROGRAM = "tracewire.client.program";
    CLIENT_ALPN = "tracewire.client.alpn";
    CLIENT_FINGERPRINT = "tracewire.client.ja4";
    CLIENT_ADVICE = "tracewire.client.advice";
    TRACER_NAME = "agentlightning.tracer.name";
    SPAN_UNENDED = "tracewire.span.unended";
    AGENT_ITERATION = "tracewire.agent.iteration";
    AGENT_DECISION = "tracewire.agent.decision";
    AGENT_DECISION_OPTIONS = "tracewire.agent.decision.options";
    AGENT_DECISION_REASON = "tracewire.agent.decision.reason";
    INPUT_SIZE = "tracewire.input.size";
    OUTPUT_SIZE = "tracewire.output.size";
    GEN_AI_TOOL_TYPE = "gen_ai.tool.type";
    GEN_AI_MEMORY_STORE_ID = "gen_ai.memory.store.id";
    GEN_AI_MEMORY_QUERY_TEXT = "gen_ai.memory.query.text";
    GEN_AI_MEMORY_RECORDS = "gen_ai.memory.records";
    REWARD_PREFIX = "agentlightning.reward";
    MESSAGE_BODY = "agentlightning.message.body";
    OBJECT_TYPE = "agentlightning.object.type";
    OBJECT_LITERAL = "agentlightning.object.literal";
    OBJECT_JSON = "agentlightning.object.json";
    OPERATION_NAME = "agentlightning.operation.name";
    OPERATION_INPUT = "agentlightning.operation.input";
    OPERATION_OUTPUT = "agentlightning.operation.output";
    EXCEPTION_TYPE = "exception.type";
    EXCEPTION_MESSAGE = "exception.message";
    EXCEPTION_STACKTRACE = "exception.stacktrace";
    EXCEPTION_ESCAPED = "exception.escaped";

    TIMING_CONNECT_MS = "tracewire.timing.connect_ms";
    TIMING_TLS_MS = "tracewire.timing.tls_ms";
    TIMING_RESPONSE_HEADERS_MS = "tracewire.timing.response_headers_ms";
    TIMING_FIRST_BODY_BYTE_MS = "tracewire.timing.first_body_byte_ms";
}
