//! The kinds of errors: one table that gives each kind its side, its status code, its error type and its fix.
//!
//! A new kind is one row; a row without all four does not compile. Nothing else in the program decides any of them.

use super::side::Side;
use http::StatusCode;

/// What an error kind means on each surface.
struct Meaning {
    side: Side,
    status: StatusCode,
    error_type: &'static str,
    fix: &'static str,
}

/// Makes the enum, the list of all kinds and the exhaustive match from one table.
macro_rules! error_kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident: $side:ident $status:ident $error_type:literal, $fix:literal;)+) => {
        /// What went wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorKind {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl ErrorKind {
            /// Every kind, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)+];

            const fn meaning(self) -> Meaning {
                match self {
                    $(Self::$kind => Meaning {
                        side: Side::$side,
                        status: StatusCode::$status,
                        error_type: $error_type,
                        fix: $fix,
                    },)+
                }
            }
        }
    };
}

error_kinds! {
    // The way to the endpoint.

    /// The resolver knows no address of the host.
    DnsError: Upstream BAD_GATEWAY "dns_error",
        "check the spelling of the host name, and that this machine can resolve it";
    /// The resolver did not respond in time.
    DnsTimeout: Upstream GATEWAY_TIMEOUT "dns_timeout",
        "check the DNS resolver of this machine";
    /// No server listens on the port, or the host is unreachable.
    ConnectionRefused: Upstream BAD_GATEWAY "connection_refused",
        "check that the endpoint runs and that the port is right";
    /// No TCP connection within `upstream.connect_timeout_ms`.
    ConnectionTimeout: Upstream GATEWAY_TIMEOUT "connection_timeout",
        "check the network route to the endpoint, or raise upstream.connect_timeout_ms";
    /// The endpoint closed or reset the connection.
    ConnectionTerminated: Upstream BAD_GATEWAY "connection_terminated",
        "the endpoint closed the connection; its log may say why";
    /// The upstream proxy refused to connect to the endpoint.
    DestinationUnavailable: Upstream BAD_GATEWAY "destination_unavailable",
        "check upstream.proxy (or HTTPS_PROXY and NO_PROXY in Tracewire's own environment)";
    /// The response head did not arrive in time, or the body stalled.
    HttpResponseTimeout: Upstream GATEWAY_TIMEOUT "http_response_timeout",
        "if the endpoint is slow, raise upstream.header_timeout_ms";
    /// The response ended before it was complete.
    HttpResponseIncomplete: Upstream BAD_GATEWAY "http_response_incomplete",
        "the endpoint closed the connection before the end of its response; its log may say why";
    /// The endpoint sent invalid HTTP.
    HttpProtocolError: Upstream BAD_GATEWAY "http_protocol_error",
        "the endpoint sent invalid HTTP; check its port and protocol";
    /// No trusted CA issued the endpoint's certificate.
    TlsCertificateError: Upstream BAD_GATEWAY "tls_certificate_error",
        "if you trust this endpoint, name its CA with --upstream-ca, or the host in tls.insecure_hosts; an agent that verifies nothing does not change what Tracewire verifies";
    /// The endpoint's certificate is outside its validity period, or for another host.
    TlsCertificateInvalid: Upstream BAD_GATEWAY "tls_certificate_error",
        "renew the certificate, or use a name that it has; to accept it as it is, name the host in tls.insecure_hosts; an agent that verifies nothing does not change what Tracewire verifies";
    /// The endpoint's certificate is of an outdated form that rustls does not read.
    TlsCertificateForm: Upstream BAD_GATEWAY "tls_certificate_error",
        "renew the certificate; until then name the host in tls.insecure_hosts, or in proxy.passthrough";
    /// The endpoint has no TLS version or cipher suite that we have, or requires a client certificate.
    TlsNothingInCommon: Upstream BAD_GATEWAY "tls_alert_received",
        "if it wants a client certificate, set one in tls.client_certificates; if it has no TLS 1.3 and no TLS 1.2 with ECDHE and AES-GCM or ChaCha20, only proxy.passthrough helps";
    /// The endpoint rejected our side of the TLS handshake.
    TlsAlertReceived: Upstream BAD_GATEWAY "tls_alert_received",
        "if the endpoint requires a client certificate, set one in tls.client_certificates";
    /// The TLS handshake with the endpoint failed for another reason.
    TlsProtocolError: Upstream BAD_GATEWAY "tls_protocol_error",
        "check that the endpoint supports TLS 1.2 or 1.3 on this port";

    // Requests that the proxy does not forward.

    /// The target is one of Tracewire's own listeners.
    ProxyLoopDetected: Downstream FORBIDDEN "proxy_loop_detected",
        "the target is Tracewire itself; add its host, without a port, to NO_PROXY";
    /// The process has no file descriptors left.
    DescriptorsExhausted: Internal SERVICE_UNAVAILABLE "proxy_internal_error",
        "Tracewire reached its limit of open sockets; raise it (ulimit -n)";
    /// The capture queue or memory is full, or the body too large, and this request exists only to be recorded.
    CaptureFull: Internal SERVICE_UNAVAILABLE "proxy_internal_error",
        "try again; if this continues, raise capture.queue_exchanges, memory_budget_bytes or max_body_bytes";
    /// `proxy.block` names the target, or an address that it resolves to.
    HttpRequestDenied: Downstream FORBIDDEN "http_request_denied",
        "the setting proxy.block names this host, or an address that it resolves to";
    /// The proxy credentials are missing or wrong.
    ProxyAuthenticationRequired: Downstream PROXY_AUTHENTICATION_REQUIRED "proxy_authentication_required",
        "use http://ROLLOUT.ATTEMPT:TOKEN@HOST:PORT as the proxy URL, with the token of the setting proxy.token";
    /// The request is not one that a forward proxy accepts.
    HttpRequestError: Downstream BAD_REQUEST "http_request_error",
        "the proxy accepts absolute-form requests and CONNECT HOST:PORT";
    /// Two servers could disagree on where the request ends.
    HttpRequestMalformed: Downstream BAD_REQUEST "http_request_error",
        "servers could disagree on where this request ends; correct the client (RFC 9112 section 6)";
    /// The request has too many header fields, or too long ones.
    HttpRequestHeadersTooLarge: Downstream REQUEST_HEADER_FIELDS_TOO_LARGE "http_request_error",
        "send fewer or shorter header fields";
    /// The request target is too long.
    HttpRequestTargetTooLong: Downstream URI_TOO_LONG "http_request_error",
        "send the data in a body";
    /// The agent closed the connection while it sent its request.
    HttpRequestIncomplete: Downstream BAD_REQUEST "http_request_incomplete",
        "the agent closed the connection before the end of its request";
    /// The agent rejected our certificate, or ended the TLS handshake.
    ClientTlsError: Downstream BAD_REQUEST "client_tls_error",
        "the client must trust the CA certificate at the path that `tracewire ca path` prints";
    /// The agent has no TLS version, cipher suite or curve that we have.
    ClientTlsIncompatible: Downstream BAD_REQUEST "client_tls_incompatible",
        "update the client, or name the host in proxy.passthrough; Tracewire has TLS 1.3, and TLS 1.2 with ECDHE and AES-GCM or ChaCha20";
    /// A defect of Tracewire.
    ProxyInternalError: Internal INTERNAL_SERVER_ERROR "proxy_internal_error",
        "this is a defect of Tracewire; its log has the details";

    // The gateway.

    /// No backend is registered for the model.
    NoBackend: Upstream SERVICE_UNAVAILABLE "no_backend",
        "register a model server with POST /api/models or in [[gateway.backends]]";
    /// The gateway is paused, and `gateway.pause` is `reject`.
    GatewayPaused: Internal TOO_MANY_REQUESTS "gateway_paused",
        "try again after POST /proxy/resume; with gateway.pause = \"hold\" calls wait instead";
    /// The call waited for `gateway.hold_timeout_ms` while the gateway was paused.
    HoldTimeout: Internal SERVICE_UNAVAILABLE "gateway_hold_timeout",
        "resume the gateway sooner, or raise gateway.hold_timeout_ms";
    /// The route accepts registered rollouts only, and this one is not registered.
    RolloutUnknown: Downstream NOT_FOUND "rollout_unknown",
        "register the rollout first, or call through /rollout/{id}/attempt/{id}/v1, which creates it";
    /// The rollout is in a final state.
    RolloutEnded: Downstream CONFLICT "rollout_ended",
        "an ended rollout makes no more calls; start another attempt or rollout";
    /// The rollout has used up its budget of calls, tokens or seconds.
    BudgetSpent: Downstream TOO_MANY_REQUESTS "budget_spent",
        "raise gateway.budget, or metadata.budget of the rollout";
    /// The policy is too many versions ahead of the one that the rollout began with.
    PolicyStale: Downstream CONFLICT "policy_stale",
        "start a new rollout, raise gateway.max_staleness, or set gateway.staleness = \"tag\"";
    /// The gateway has no such route.
    RouteUnknown: Downstream NOT_FOUND "route_unknown",
        "docs/gateway.md lists the routes of the gateway";
    /// A call to a rerouted host that the gateway does not serve, and that must not reach the host.
    RerouteRefused: Downstream NOT_FOUND "reroute_refused",
        "set strict = false in the [[reroute]] to send such calls to the host";
    /// The API key is missing, wrong, forged or expired.
    KeyRefused: Downstream UNAUTHORIZED "key_refused",
        "use a token of server.tokens, or a key that `tracewire key` signed";
    /// A part of the request has no equivalent in the backend's API.
    Untranslatable: Downstream BAD_REQUEST "untranslatable",
        "remove this part of the request, or register a backend that supports the client's API";
    /// The request continues a response, or refers to an item, that the gateway does not remember.
    PreviousResponseNotFound: Downstream BAD_REQUEST "previous_response_not_found",
        "send the whole input, name the rollout in every call, or raise gateway.stored_responses or stored_response_bytes";
    /// The gateway does not remember the response that is to be read or deleted.
    ResponseUnknown: Downstream NOT_FOUND "response_unknown",
        "name the rollout of the response, or raise gateway.stored_responses or stored_response_bytes";
    /// The body is not a request of this API.
    CallMalformed: Downstream BAD_REQUEST "call_malformed",
        "send a JSON object as the documentation of the API describes";
    /// The agent asks for a WebSocket, and the gateway has this API over HTTP only.
    WebSocketRefused: Downstream UPGRADE_REQUIRED "websocket_refused",
        "send the request by POST; clients that prefer WebSockets do so by themselves";
    /// The body is longer than `gateway.max_body_bytes`.
    CallTooLarge: Downstream PAYLOAD_TOO_LARGE "call_too_large",
        "send a shorter request, or raise gateway.max_body_bytes";
    /// Tracewire is shutting down.
    ShuttingDown: Internal SERVICE_UNAVAILABLE "shutting_down",
        "try again when Tracewire has restarted, or raise shutdown.drain_timeout_ms";
    /// The store did not return the state of the rollout, which the call depends on.
    StoreSilent: Internal SERVICE_UNAVAILABLE "store_silent",
        "try again; Tracewire's log names the problem of the store";
    /// The backend's response is not one of its API.
    BackendAnswerUnread: Upstream BAD_GATEWAY "backend_answer_unread",
        "check that the backend serves the API it was registered with; its log may say more";
}

impl ErrorKind {
    /// True if no connection to the endpoint was made: it is away, and nothing was sent to it.
    pub const fn is_unreachable(self) -> bool {
        matches!(
            self,
            Self::DnsError
                | Self::DnsTimeout
                | Self::ConnectionRefused
                | Self::ConnectionTimeout
                | Self::DestinationUnavailable
        )
    }

    /// Who caused it.
    pub const fn side(self) -> Side {
        self.meaning().side
    }

    /// The status code of the response that the client gets.
    pub const fn status(self) -> StatusCode {
        self.meaning().status
    }

    /// The error type of attributes, logs, metrics and the `Proxy-Status` field: that of RFC 9209 where it has one.
    pub const fn as_str(self) -> &'static str {
        self.meaning().error_type
    }

    /// What the reader can do about it.
    pub const fn fix(self) -> &'static str {
        self.meaning().fix
    }

    /// The fix for an error type. `None` if it is unknown, or if kinds with different fixes have it.
    pub(crate) fn fix_of(error_type: &str) -> Option<&'static str> {
        let mut fixes = Self::ALL.iter().filter(|kind| kind.as_str() == error_type).map(|kind| kind.fix());
        let fix = fixes.next()?;
        fixes.all(|other| other == fix).then_some(fix)
    }
}

#[cfg(test)]
mod tests {
    use super::ErrorKind;

    #[test]
    fn the_documentation_lists_every_error_type_with_its_status() {
        let page = include_str!("../../docs/errors.md");
        for kind in ErrorKind::ALL {
            let (error_type, status) = (kind.as_str(), kind.status());
            let mut rows = page.lines().filter(|line| line.starts_with(&format!("| `{error_type}` |")));
            // A dash: the client is gone, or has its status code already.
            let has_status = |row: &str| row.contains(" – ") || row.contains(status.as_str());
            assert!(rows.any(has_status), "docs/errors.md has no row for {error_type} with status {status}");
        }
    }
}
