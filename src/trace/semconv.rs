//! The attribute names we write, and the versions of the conventions they come from.
//!
//! OpenTelemetry's stable HTTP conventions (v1.44.0), and our own `tracewire.*` names where there is none. Names only:
//! what value goes where is decided in `pipeline`.

/// The schema of the attributes on our spans.
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

    REQUEST_HEADER_PREFIX = "http.request.header.";
    RESPONSE_HEADER_PREFIX = "http.response.header.";
    REQUEST_TRAILER_PREFIX = "tracewire.request.trailer.";
    RESPONSE_TRAILER_PREFIX = "tracewire.response.trailer.";

    REQUEST_BODY_BASE64 = "tracewire.request.body.base64";
    RESPONSE_BODY_BASE64 = "tracewire.response.body.base64";
    RESPONSE_INFORMATIONAL = "tracewire.response.informational";
    RESPONSE_FRAMES = "tracewire.response.frames";
    OUTCOME = "tracewire.outcome";
    ABORTED_BY = "tracewire.aborted_by";
    CONNECT_POLICY = "tracewire.connect.policy";
    CONNECTION_ID = "tracewire.connection.id";
    CONNECTION_REUSED = "tracewire.connection.reused";
    DOWNSTREAM_PROTOCOL_VERSION = "tracewire.downstream.protocol.version";
    DOWNSTREAM_TLS_VERSION = "tracewire.downstream.tls.version";
    DOWNSTREAM_TLS_ALPN = "tracewire.downstream.tls.next_protocol";
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
    CLIENT_PROGRAM = "tracewire.client.program";
    CLIENT_ALPN = "tracewire.client.alpn";
    CLIENT_FINGERPRINT = "tracewire.client.ja4";
    CLIENT_ADVICE = "tracewire.client.advice";
    TIMING_CONNECT_MS = "tracewire.timing.connect_ms";
    TIMING_TLS_MS = "tracewire.timing.tls_ms";
    TIMING_RESPONSE_HEADERS_MS = "tracewire.timing.response_headers_ms";
    TIMING_FIRST_BODY_BYTE_MS = "tracewire.timing.first_body_byte_ms";
}
