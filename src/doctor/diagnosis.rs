//! What was seen, explained: of a probe's call, and of a command that was watched.
//!
//! Values in, values out: it must not run, read or print anything.

use super::watch::{Seen, Sighting};
use crate::net::peer::Protocol;
use crate::run::runtime::bypass_advice;
use crate::trace::semconv as names;
use crate::trace::{Span, SpanKind, Value};
use serde::Serialize;

use std::collections::{BTreeMap, BTreeSet};

/// One client of this machine, tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What people call it.
    pub client: &'static str,
    /// Its version; none: it is not on this machine.
    pub version: Option<String>,
    /// How it went.
    pub verdict: Verdict,
    /// What was seen, and what to do; none where it works.
    pub advice: Option<String>,
}

/// How a client's call went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Its call is in the store.
    Works,
    /// It refused our certificate.
    Distrusts,
    /// It called nobody, or somebody else.
    NotSeen,
    /// It reached us, and its call failed.
    Fails,
    /// It is not on this machine.
    NotHere,
}

/// Judges a probe by the spans it left. `output` is what it printed.
pub fn judge(program: &str, spans: &[Span], output: &str) -> (Verdict, Option<String>) {
    if spans.iter().any(is_exchange) {
        return (Verdict::Works, None);
    }
    let last_words =
        output.lines().rfind(|line| !line.trim().is_empty()).map(|line| format!("; it said: {}", line.trim()));
    let last_words = last_words.unwrap_or_default();
    if let Some(advice) = spans.iter().find_map(|span| word(span, names::CLIENT_ADVICE)) {
        return (Verdict::Distrusts, Some(format!("it refuses the certificate: {advice}")));
    }
    match spans.iter().find(|span| span.kind == SpanKind::Client && span.is_error()) {
        Some(span) => (Verdict::Fails, Some(format!("{}{last_words}", error_of(span)))),
        None => (Verdict::NotSeen, Some(format!("{}{last_words}", bypass_advice(program, false)))),
    }
}

/// A watched command, explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// Its exit code.
    pub exit_code: i32,
    /// How many exchanges were recorded.
    pub exchanges: usize,
    /// With whom.
    pub hosts: BTreeSet<String>,
    /// What went past the door.
    pub bypasses: Vec<Bypass>,
    /// Whose client did not trust us.
    pub distrusts: Vec<Refused>,
    /// Hosts whose bytes were relayed unopened: a setting says so, or they were not HTTP.
    pub unopened: BTreeSet<String>,
    /// What its environment has to say.
    pub notes: Vec<String>,
}

/// Connections that did not lead to the door, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bypass {
    /// What was seen.
    #[serde(flatten)]
    pub sighting: Sighting,
    /// True when it is as the user, or the protocol, will have it.
    pub expected: bool,
    /// Why it is so, and what to do.
    pub advice: String,
}

/// A host whose connections a client refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The host.
    pub host: String,
    /// The client: its user agent, or its program.
    pub client: String,
    /// How many connections.
    pub connections: usize,
    /// True when the command's other hosts were trusted, so that this one seems pinned.
    pub pinned: bool,
    /// What to do.
    pub advice: String,
}

impl Diagnosis {
    /// Explains what was recorded and what was seen. `unproxied` is NO_PROXY as the command saw it.
    pub fn new(exit_code: i32, spans: &[Span], seen: Seen, unproxied: &str, notes: Vec<String>) -> Self {
        let hosts: BTreeSet<String> = spans.iter().filter(|span| is_exchange(span)).filter_map(host_of).collect();
        let unopened = |span: &&Span| word(span, names::CONNECT_POLICY) == Some("tunnel");
        Self {
            exit_code,
            exchanges: spans.iter().filter(|span| is_exchange(span)).count(),
            distrusts: refused(spans, &hosts, &seen),
            bypasses: seen.sightings.into_iter().map(|sighting| explain(sighting, unproxied)).collect(),
            unopened: spans.iter().filter(unopened).filter_map(host_of).collect(),
            hosts,
            notes,
        }
    }

    /// True when exchanges were seen, and nothing that should have been one and was not.
    pub fn is_healthy(&self) -> bool {
        self.exchanges > 0 && self.distrusts.is_empty() && self.bypasses.iter().all(|bypass| bypass.expected)
    }
}

fn explain(sighting: Sighting, unproxied: &str) -> Bypass {
    let remote = sighting.remote;
    let named = |entry: &str| {
        let entry = entry.trim().trim_matches(['[', ']']);
        entry == "*" || entry == remote.ip().to_string() || (remote.ip().is_loopback() && entry == "localhost")
    };
    let service = OTHER_PROTOCOLS.iter().find(|(port, _)| *port == remote.port()).map(|(_, service)| service);
    let unproxied = unproxied.split(',').any(named);
    let advice = if let Some(service) = service {
        format!("by its port this is {service}, not HTTP: nothing to trace")
    } else if sighting.protocol == Protocol::Udp {
        "it speaks HTTP/3, which no proxy setting leads anywhere: turn HTTP/3 (QUIC) off in it".to_owned()
    } else if sighting.environment_lost {
        "it was started without our HTTPS_PROXY: pass the environment on (sudo -E, no `env -i`, no variables of its own \
         for it, `tracewire env --format docker` for a container)"
            .to_owned()
    } else if unproxied {
        "NO_PROXY names it: take it out there, or start with --loopback trace if it is this machine".to_owned()
    } else {
        bypass_advice(&sighting.program, sighting.built_by_go)
    };
    Bypass { expected: service.is_some() || unproxied, sighting, advice }
}

/// Refused connections, by host and client.
fn refused(spans: &[Span], trusted: &BTreeSet<String>, seen: &Seen) -> Vec<Refused> {
    let mut found: BTreeMap<(String, String), Refused> = BTreeMap::new();
    for span in spans {
        let (Some(advice), Some(host)) = (word(span, names::CLIENT_ADVICE), host_of(span)) else { continue };
        let port = span.attributes.get(names::CLIENT_PORT).and_then(Value::as_int);
        let watched = port.and_then(|port| seen.clients.get(&u16::try_from(port).ok()?)).map(String::as_str);
        let client = word(span, names::USER_AGENT_ORIGINAL).or_else(|| word(span, names::CLIENT_PROGRAM)).or(watched);
        let client = client.unwrap_or("a client without a name").to_owned();
        let pinned = !trusted.is_empty() && !trusted.contains(&host);
        let advice = match pinned {
            false => advice.to_owned(),
            true => format!("{advice}; if it pins this host's certificate, nothing but proxy.passthrough lets it work"),
        };
        let new = Refused { host: host.clone(), client: client.clone(), connections: 0, pinned, advice };
        found.entry((host, client)).or_insert(new).connections += 1;
    }
    found.into_values().collect()
}

fn is_exchange(span: &Span) -> bool {
    span.kind == SpanKind::Client
        && span.name != "CONNECT"
        && span.attributes.contains_key(names::HTTP_RESPONSE_STATUS_CODE)
}

fn host_of(span: &Span) -> Option<String> {
    word(span, names::SERVER_ADDRESS).map(str::to_owned)
}

fn word<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    span.attributes.get(name).and_then(Value::as_str)
}

fn error_of(span: &Span) -> &str {
    span.status.description.as_deref().or_else(|| word(span, names::ERROR_TYPE)).unwrap_or("its call failed")
}

/// Ports of services that agents often use and that are no HTTP.
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

    fn sighting(program: &str, remote: &str) -> Sighting {
        Sighting {
            program: program.to_owned(),
            pid: 7,
            remote: remote.parse().unwrap(),
            protocol: Protocol::Tcp,
            connections: 1,
            environment_lost: false,
            built_by_go: false,
        }
    }

    #[test]
    fn a_bypass_is_explained_by_its_likeliest_cause() {
        let advice = |sighting, unproxied| explain(sighting, unproxied).advice;
        assert!(advice(sighting("node", "10.0.0.1:443"), "").contains("dispatcher"));
        assert!(
            advice(Sighting { built_by_go: true, ..sighting("agent", "10.0.0.1:443") }, "").contains("http.Transport")
        );
        assert!(advice(sighting("node", "127.0.0.1:8000"), "localhost").contains("NO_PROXY"));
        assert!(advice(sighting("python3", "10.0.0.1:5432"), "").contains("PostgreSQL"));
        assert!(advice(Sighting { environment_lost: true, ..sighting("node", "10.0.0.1:1") }, "").contains("sudo -E"));
        let udp = Sighting { protocol: Protocol::Udp, ..sighting("chrome", "10.0.0.1:443") };
        assert!(advice(udp, "").contains("HTTP/3"));
    }

    #[test]
    fn a_probe_without_a_span_is_not_seen() {
        let (verdict, advice) = judge("node", &[], "at last\nboom\n\n");
        assert_eq!(verdict, Verdict::NotSeen);
        assert!(advice.unwrap().ends_with("boom"));
    }
}
