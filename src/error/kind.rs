//! The kinds of errors, and what each means on each surface: whose fault, status, word, and what to do.

use super::Side;
use http::StatusCode;

/// What went wrong, by its RFC 9209 error type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// The host name has no address.
    DnsError,
    /// The resolver did not answer in time.
    DnsTimeout,
    /// Nothing listens there, or no route leads there.
    ConnectionRefused,
    /// No TCP connection in time.
    ConnectionTimeout,
    /// The endpoint closed or reset the connection.
    ConnectionTerminated,
    /// The proxy before the endpoint does not lead there.
    DestinationUnavailable,
    /// The response head did not come in time, or its body stalled.
    HttpResponseTimeout,
    /// The response ended before it was whole.
    HttpResponseIncomplete,
    /// The endpoint did not speak HTTP as it should.
    HttpProtocolError,
    /// The endpoint's certificate is not trusted, not valid now, or not for this host.
    TlsCertificateError,
    /// The endpoint refused our side of TLS.
    TlsAlertReceived,
    /// The TLS handshake failed for another reason.
    TlsProtocolError,
    /// The target is this proxy.
    ProxyLoopDetected,
    /// No more files or sockets can be opened.
    DescriptorsExhausted,
    /// No room to record what is only recorded.
    CaptureFull,
    /// A setting forbids the target.
    HttpRequestDenied,
    /// The proxy credentials are missing or wrong.
    ProxyAuthenticationRequired,
    /// The agent's request can't be forwarded as it stands.
    HttpRequestError,
    /// The agent's request is not one message to every reader.
    HttpRequestMalformed,
    /// The agent's request has more or longer fields than we take.
    HttpRequestHeadersTooLarge,
    /// The agent's request has a longer target than we take.
    HttpRequestTargetTooLong,
    /// The agent went away while it sent its request.
    HttpRequestIncomplete,
    /// The agent did not trust our certificate, or broke off the TLS handshake.
    ClientTlsError,
    /// Our own fault.
    ProxyInternalError,
    /// The gateway: there is no backend for the model.
    NoBackend,
    /// The gateway: it is paused.
    GatewayPaused,
    /// The gateway: it was paused for longer than callers wait.
    HoldTimeout,
    /// The gateway: nobody registered the rollout, and this route wants that.
    RolloutUnknown,
    /// The gateway: the rollout has ended.
    RolloutEnded,
    /// The gateway: the rollout has spent what it may.
    BudgetSpent,
    /// The gateway: the weights have moved on too far since the rollout began.
    PolicyStale,
    /// The gateway: no route leads there.
    RouteUnknown,
    /// The gateway: the key is missing, wrong, forged or expired.
    KeyRefused,
    /// The gateway: what the request says has no counterpart in the backend's dialect.
    Untranslatable,
    /// The gateway: the request is no call that it can read.
    CallMalformed,
    /// The gateway: the request's body is too long.
    CallTooLarge,
    /// The gateway: it is being shut down.
    ShuttingDown,
    /// The gateway: the store does not say what must be known of the rollout.
    StoreSilent,
    /// The gateway: the backend's answer is not what its dialect has.
    BackendAnswerUnread,
}

/// What an error kind means on each surface. The only place where side, status and word are decided.
pub(super) struct Meaning {
    pub(super) side: Side,
    pub(super) status: StatusCode,
    pub(super) word: &'static str,
    pub(super) hint: &'static str,
}

impl ErrorKind {
    pub(super) fn meaning(self) -> Meaning {
        let of = |side, status, word, hint| Meaning { side, status, word, hint };
        use Side::{Downstream, Internal, Upstream};
        match self {
            Self::DnsError => of(
                Upstream,
                StatusCode::BAD_GATEWAY,
                "dns_error",
                "check the host's spelling, and that this machine can resolve it",
            ),
            Self::DnsTimeout => {
                of(Upstream, StatusCode::GATEWAY_TIMEOUT, "dns_timeout", "check this machine's resolver")
            }
            Self::ConnectionRefused => of(
                Upstream,
                StatusCode::BAD_GATEWAY,
                "connection_refused",
                "check that the endpoint runs and that the port is right",
            ),
            Self::ConnectionTimeout => of(
                Upstream,
                StatusCode::GATEWAY_TIMEOUT,
                "connection_timeout",
                "check the route to the endpoint, or raise upstream.connect_timeout_ms",
            ),
            Self::ConnectionTerminated => of(
                Upstream,
                StatusCode::BAD_GATEWAY,
                "connection_terminated",
                "the endpoint closed the connection; look at its log",
            ),
            Self::DestinationUnavailable => of(
                Upstream,
                StatusCode::BAD_GATEWAY,
                "destination_unavailable",
                "check upstream.proxy (or HTTPS_PROXY and NO_PROXY in Tracewire's own environment)",
            ),
            Self::HttpResponseTimeout => of(
                Upstream,
                StatusCode::GATEWAY_TIMEOUT,
                "http_response_timeout",
                "raise upstream.header_timeout_ms if the endpoint is just slow",
            ),
            Self::HttpResponseIncomplete => of(
                Upstream,
                StatusCode::BAD_GATEWAY,
                "http_response_incomplete",
                "the endpoint broke off its answer; look at its log",
            ),
            Self::HttpProtocolError => of(
                Upstream,
                StatusCode::BAD_GATEWAY,
                "http_protocol_error",
                "the endpoint did not answer in valid HTTP",
            ),
            Self::TlsCertificateError => of(
                Upstream,
                StatusCode::BAD_GATEWAY,
                "tls_certificate_error",
                "if you trust this endpoint, name its CA with --upstream-ca or the host in tls.insecure_hosts",
            ),
            Self::TlsAlertReceived => of(
                Upstream,
                StatusCode::BAD_GATEWAY,
                "tls_alert_received",
                "if the endpoint wants a client certificate, name one in tls.client_certificates",
            ),
            Self::TlsProtocolError => of(
                Upstream,
                StatusCode::BAD_GATEWAY,
                "tls_protocol_error",
                "check that the endpoint speaks TLS 1.2 or 1.3 on this port",
            ),
            Self::ProxyLoopDetected => of(
                Downstream,
                StatusCode::FORBIDDEN,
                "proxy_loop_detected",
                "the target is Tracewire itself; add its address to NO_PROXY",
            ),
            Self::DescriptorsExhausted => of(
                Internal,
                StatusCode::SERVICE_UNAVAILABLE,
                "proxy_internal_error",
                "Tracewire may open no more sockets; raise its limit (ulimit -n)",
            ),
            Self::CaptureFull => of(
                Internal,
                StatusCode::SERVICE_UNAVAILABLE,
                "proxy_internal_error",
                "try again; if it stays so, raise capture.queue_exchanges",
            ),
            Self::HttpRequestDenied => {
                of(Downstream, StatusCode::FORBIDDEN, "http_request_denied", "proxy.block names this host")
            }
            Self::ProxyAuthenticationRequired => of(
                Downstream,
                StatusCode::PROXY_AUTHENTICATION_REQUIRED,
                "proxy_authentication_required",
                "use http://ROLLOUT.ATTEMPT:TOKEN@HOST:PORT as proxy URL, with the token that is set as proxy.token",
            ),
            Self::HttpRequestError => of(
                Downstream,
                StatusCode::BAD_REQUEST,
                "http_request_error",
                "this door takes absolute-form requests and CONNECT HOST:PORT",
            ),
            Self::HttpRequestMalformed => of(
                Downstream,
                StatusCode::BAD_REQUEST,
                "http_request_error",
                "servers could disagree on where this request ends; mend what sends it (RFC 9112 section 6)",
            ),
            Self::HttpRequestHeadersTooLarge => of(
                Downstream,
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "http_request_error",
                "send fewer or shorter header fields",
            ),
            Self::HttpRequestTargetTooLong => {
                of(Downstream, StatusCode::URI_TOO_LONG, "http_request_error", "send the data in a body")
            }
            Self::HttpRequestIncomplete => {
                of(Downstream, StatusCode::BAD_REQUEST, "http_request_incomplete", "the agent broke off its request")
            }
            Self::ClientTlsError => of(
                Downstream,
                StatusCode::BAD_REQUEST,
                "client_tls_error",
                "the client must trust the CA that `tracewire ca path` names",
            ),
            Self::ProxyInternalError => of(
                Internal,
                StatusCode::INTERNAL_SERVER_ERROR,
                "proxy_internal_error",
                "this is a fault of Tracewire; its log says more",
            ),
            _ => self.meaning_at_gateway(),
        }
    }

    /// What goes wrong at the gateway only.
    fn meaning_at_gateway(self) -> Meaning {
        let of = |side, status, word, hint| Meaning { side, status, word, hint };
        use Side::{Downstream, Internal, Upstream};
        match self {
            Self::NoBackend => of(
                Upstream,
                StatusCode::SERVICE_UNAVAILABLE,
                "no_backend",
                "register a model server with POST /api/models or under [[gateway.backends]]",
            ),
            Self::GatewayPaused => of(
                Internal,
                StatusCode::TOO_MANY_REQUESTS,
                "gateway_paused",
                "try again after POST /proxy/resume; gateway.pause = \"hold\" lets callers wait",
            ),
            Self::HoldTimeout => of(
                Internal,
                StatusCode::SERVICE_UNAVAILABLE,
                "gateway_hold_timeout",
                "resume the gateway sooner, or raise gateway.hold_timeout_ms",
            ),
            Self::RolloutUnknown => of(
                Downstream,
                StatusCode::NOT_FOUND,
                "rollout_unknown",
                "register the rollout first, or call through /rollout/{id}/attempt/{id}/v1, which creates it",
            ),
            Self::RolloutEnded => of(
                Downstream,
                StatusCode::CONFLICT,
                "rollout_ended",
                "an ended rollout calls no models; start another attempt or rollout",
            ),
            Self::BudgetSpent => of(
                Downstream,
                StatusCode::TOO_MANY_REQUESTS,
                "budget_spent",
                "raise gateway.budget, or metadata.budget of the rollout",
            ),
            Self::PolicyStale => of(
                Downstream,
                StatusCode::CONFLICT,
                "policy_stale",
                "start a new rollout, raise gateway.max_staleness, or set gateway.staleness = \"tag\"",
            ),
            Self::RouteUnknown => of(
                Downstream,
                StatusCode::NOT_FOUND,
                "route_unknown",
                "docs/gateway.md lists the routes of the gateway",
            ),
            Self::KeyRefused => of(
                Downstream,
                StatusCode::UNAUTHORIZED,
                "key_refused",
                "use a token of server.tokens, or a key that `tracewire key` signs",
            ),
            Self::Untranslatable => of(
                Downstream,
                StatusCode::BAD_REQUEST,
                "untranslatable",
                "leave it out, or register a backend that speaks the client's dialect",
            ),
            Self::CallTooLarge => of(
                Downstream,
                StatusCode::PAYLOAD_TOO_LARGE,
                "call_too_large",
                "send less, or raise gateway.max_body_bytes",
            ),
            Self::ShuttingDown => of(
                Internal,
                StatusCode::SERVICE_UNAVAILABLE,
                "shutting_down",
                "call again when it is back, or raise shutdown.drain_timeout_ms",
            ),
            Self::StoreSilent => of(
                Internal,
                StatusCode::SERVICE_UNAVAILABLE,
                "store_silent",
                "try again; Tracewire's log says what the store has",
            ),
            Self::BackendAnswerUnread => of(
                Upstream,
                StatusCode::BAD_GATEWAY,
                "backend_answer_unread",
                "check that the backend serves the API that its registration says, and look at its log",
            ),
            _ => of(
                Downstream,
                StatusCode::BAD_REQUEST,
                "call_malformed",
                "send a JSON object as the API's documentation has it",
            ),
        }
    }

    /// The word for attributes, logs, metrics and `Proxy-Status`.
    pub fn as_str(self) -> &'static str {
        self.meaning().word
    }
}
