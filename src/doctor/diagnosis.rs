//! Explains observations: those of a probe's call, and those of a monitored command.
//!
//! Pure functions: it must not run, read or print anything.

use super::monitor::{Observations, ObservedConnections};
use crate::net::peer::Transport;
use crate::run::runtime::{ProgramOrigin, advice, bypass_advice};
use crate::trace::failure::failure;
use crate::trace::semconv as names;
use crate::trace::{Span, SpanKind, Value};
use crate::util::panics::PanicPlace;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The result for one client of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// The name of the client.
    pub client: &'static str,
    /// The version; `None` if the client is not installed.
    pub version: Option<String>,
    /// The result of its call.
    pub verdict: Verdict,
    /// The cause and the fix; `None` if the client works or is not installed.
    pub advice: Option<String>,
}

/// The result of a client's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// The call was recorded.
    Works,
    /// The client rejected our certificate.
    #[serde(rename = "distrusts")]
    RejectsCertificate,
    /// No connection reached the proxy.
    NotSeen,
    /// The call reached the proxy and failed.
    Fails,
    /// The client is not installed.
    #[serde(rename = "not_here")]
    NotInstalled,
}

/// Returns the verdict on a probe and the advice, given the spans of its call. `output` is what `program` printed.
pub(crate) fn judge(program: &str, spans: &[Span], output: &str) -> (Verdict, Option<String>) {
    if spans.iter().any(is_exchange) {
        return (Verdict::Works, None);
    }
    let last_words =
        output.lines().rfind(|line| !line.trim().is_empty()).map(|line| format!("; its last output: {}", line.trim()));
    let last_words = last_words.unwrap_or_default();
    if let Some(advice) = spans.iter().find_map(|span| text(span, names::CLIENT_ADVICE)) {
        return (Verdict::RejectsCertificate, Some(format!("it rejects the certificate: {advice}")));
    }
    match spans.iter().find(|span| span.kind == Some(SpanKind::Client) && span.is_error()) {
        Some(span) => (Verdict::Fails, Some(format!("{}{last_words}", error_of(span)))),
        None => (Verdict::NotSeen, Some(format!("{}{last_words}", bypass_advice(program, ProgramOrigin::Unknown)))),
    }
}

/// The diagnosis of a monitored command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Diagnosis {
    /// The command's exit code.
    pub exit_code: i32,
    /// The number of recorded exchanges.
    pub exchanges: usize,
    /// The hosts of the recorded exchanges.
    pub hosts: BTreeSet<String>,
    /// Calls that reached the proxy and failed.
    pub failures: Vec<FailedCalls>,
    /// Connections that did not go through the proxy.
    pub bypasses: Vec<Bypass>,
    /// Clients that rejected our certificate.
    #[serde(rename = "distrusts")]
    pub rejections: Vec<RejectedHost>,
    /// Hosts with connections that were relayed without decryption: by a setting, or because they were not HTTP.
    pub unopened: BTreeSet<String>,
    /// Where Tracewire itself panicked.
    pub panics: Vec<PanicPlace>,
    /// Notes about the command's environment.
    pub notes: Vec<String>,
}

/// Calls of a host that failed for the same reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FailedCalls {
    /// The host that was called, as the agent named it.
    pub host: String,
    /// The number of calls.
    pub calls: usize,
    /// The cause and the fix.
    pub cause: String,
}

/// Connections that bypass the proxy, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Bypass {
    /// Their program, their peer and their number.
    #[serde(flatten)]
    pub connections: ObservedConnections,
    /// True when a setting of the user, or a protocol other than HTTP, explains it.
    pub expected: bool,
    /// The cause and the fix.
    pub advice: String,
}

/// A host and a client that rejected our certificate for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RejectedHost {
    /// The host that presented the rejected certificate.
    pub host: String,
    /// The client's user agent, or else its program.
    pub client: String,
    /// The number of rejected connections.
    pub connections: usize,
    /// True when the certificates for other hosts were accepted, which suggests that the client pins this one.
    pub pinned: bool,
    /// How the client can be made to trust the CA.
    pub advice: String,
}

impl Diagnosis {
    /// Explains the recorded spans and the observed connections. `no_proxy` is the command's NO_PROXY.
    pub(crate) fn new(
        exit_code: i32,
        spans: &[Span],
        observed: Observations,
        no_proxy: &str,
        (notes, panics): (Vec<String>, Vec<PanicPlace>),
    ) -> Self {
        let hosts: BTreeSet<String> = spans.iter().filter(|span| is_exchange(span)).filter_map(host_of).collect();
        let unopened = |span: &&Span| text(span, names::CONNECT_POLICY) == Some("tunnel");
        Self {
            exit_code,
            exchanges: spans.iter().filter(|span| is_exchange(span)).count(),
            failures: failures(spans),
            rejections: rejections(spans, &hosts, &observed),
            bypasses: observed.bypasses.into_iter().map(|connections| explain(connections, no_proxy)).collect(),
            unopened: spans.iter().filter(unopened).filter_map(host_of).collect(),
            hosts,
            panics,
            notes,
        }
    }

    /// True when exchanges were recorded, and all traffic that should be traced was.
    pub(crate) fn is_healthy(&self) -> bool {
        self.exchanges > 0
            && self.failures.is_empty()
            && self.rejections.is_empty()
            && self.panics.is_empty()
            && self.bypasses.iter().all(|bypass| bypass.expected)
    }
}

/// The bypasses that neither a setting of the user nor another protocol explains. `no_proxy` is the command's NO_PROXY.
pub(crate) fn unexpected_bypasses(observed: &Observations, no_proxy: &str) -> Vec<ObservedConnections> {
    let all = observed.bypasses.iter().map(|connections| explain(connections.clone(), no_proxy));
    all.filter(|bypass| !bypass.expected).map(|bypass| bypass.connections).collect()
}

fn explain(connections: ObservedConnections, no_proxy: &str) -> Bypass {
    let remote = connections.remote;
    let named = |entry: &str| {
        let entry = entry.trim().trim_matches(['[', ']']);
        entry == "*" || entry == remote.ip().to_string() || (remote.ip().is_loopback() && entry == "localhost")
    };
    let service = OTHER_PROTOCOLS.iter().find(|(port, _)| *port == remote.port()).map(|(_, service)| service);
    let excluded = no_proxy.split(',').any(named);
    let advice = if let Some(service) = service {
        format!("the port is that of {service}, which is not HTTP and not traced")
    } else if connections.protocol == Transport::Udp {
        "it speaks HTTP/3, which proxies do not carry: disable HTTP/3 (QUIC) in it".to_owned()
    } else if connections.environment_lost {
        "it was started without Tracewire's HTTPS_PROXY: pass the environment on (use sudo -E, not `env -i`; set no other \
         proxy variables; for a container use `tracewire env --format docker`)"
            .to_owned()
    } else if excluded {
        "NO_PROXY excludes it: remove it there, or use --loopback trace if it is this machine".to_owned()
    } else {
        let origin = if connections.built_by_go { ProgramOrigin::Go } else { ProgramOrigin::Unknown };
        bypass_advice(&connections.program, origin)
    };
    Bypass { expected: service.is_some() || excluded, connections, advice }
}

/// Returns the failed calls by host and cause.
fn failures(spans: &[Span]) -> Vec<FailedCalls> {
    let mut found: BTreeMap<(String, String), usize> = BTreeMap::new();
    let failed = spans
        .iter()
        .filter(|span| span.kind == Some(SpanKind::Client) && !span.attributes.contains_key(names::CLIENT_ADVICE));
    for span in failed {
        if let (Some(cause), Some(host)) = (failure(span), host_of(span)) {
            *found.entry((host, cause)).or_default() += 1;
        }
    }
    found.into_iter().map(|((host, cause), calls)| FailedCalls { host, calls, cause }).collect()
}

/// Returns the rejections by host and client.
fn rejections(spans: &[Span], accepted: &BTreeSet<String>, observed: &Observations) -> Vec<RejectedHost> {
    let mut found: BTreeMap<(String, String), RejectedHost> = BTreeMap::new();
    for span in spans {
        let (Some(_), Some(host)) = (text(span, names::CLIENT_ADVICE), host_of(span)) else { continue };
        let port = span.attributes.get(names::CLIENT_PORT).and_then(Value::as_int);
        let program = port.and_then(|port| observed.clients.get(&u16::try_from(port).ok()?)).map(String::as_str);
        let (user_agent, program) =
            (text(span, names::USER_AGENT_ORIGINAL), text(span, names::CLIENT_PROGRAM).or(program));
        // The proxy may not have known the program: it exits at once.
        let advice = advice(user_agent, program);
        let client = user_agent.or(program).unwrap_or("an unknown client").to_owned();
        let pinned = !accepted.is_empty() && !accepted.contains(&host);
        let advice = match pinned {
            false => advice,
            true => format!(
                "{advice}; if it pins this host's certificate, it only works with the host in proxy.passthrough"
            ),
        };
        let new = RejectedHost { host: host.clone(), client: client.clone(), connections: 0, pinned, advice };
        found.entry((host, client)).or_insert(new).connections += 1;
    }
    found.into_values().collect()
}

fn is_exchange(span: &Span) -> bool {
    span.kind == Some(SpanKind::Client)
        && span.name != "CONNECT"
        && span.attributes.contains_key(names::HTTP_RESPONSE_STATUS_CODE)
}

fn host_of(span: &Span) -> Option<String> {
    text(span, names::SERVER_ADDRESS).map(str::to_owned)
}

fn text<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    span.attributes.get(name).and_then(Value::as_str)
}

fn error_of(span: &Span) -> &str {
    span.status.description.as_deref().or_else(|| text(span, names::ERROR_TYPE)).unwrap_or("the call failed")
}

/// Ports of services that agents often use and that do not speak HTTP.
const OTHER_PROTOCOLS: &[(u16, &str)] = &[
    (22, "SSH"),
    (25, "SMTP"),
    (3306, "MySQL"),
    (5432, "PostgreSQL"),
    (5672, "AMQP"),
    (6379, "Redis"),
    (9092, "Kafka"),
    (27017, "MongoDB"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(program: &str, remote: &str) -> ObservedConnections {
        ObservedConnections {
            program: program.to_owned(),
            pid: 7,
            remote: remote.parse().unwrap(),
            protocol: Transport::Tcp,
            connections: 1,
            environment_lost: false,
            built_by_go: false,
        }
    }

    #[test]
    fn a_bypass_is_explained_by_its_most_likely_cause() {
        let advice = |connections, no_proxy| explain(connections, no_proxy).advice;
        assert!(advice(connections("node", "10.0.0.1:443"), "").contains("dispatcher"));
        assert!(
            advice(ObservedConnections { built_by_go: true, ..connections("agent", "10.0.0.1:443") }, "")
                .contains("http.Transport")
        );
        assert!(advice(connections("node", "127.0.0.1:8000"), "localhost").contains("NO_PROXY"));
        assert!(advice(connections("python3", "10.0.0.1:5432"), "").contains("PostgreSQL"));
        assert!(
            advice(ObservedConnections { environment_lost: true, ..connections("node", "10.0.0.1:1") }, "")
                .contains("sudo -E")
        );
        let udp = ObservedConnections { protocol: Transport::Udp, ..connections("chrome", "10.0.0.1:443") };
        assert!(advice(udp, "").contains("HTTP/3"));
    }

    #[test]
    fn a_probe_without_a_span_is_not_seen() {
        let (verdict, advice) = judge("node", &[], "at last\nboom\n\n");
        assert_eq!(verdict, Verdict::NotSeen);
        assert!(advice.unwrap().ends_with("boom"));
    }
}
