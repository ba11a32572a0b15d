//! What agents say about themselves in the header fields of their requests: session, agent, parent, role.
//!
//! A table with one row a client, and one lookup. Pure. A request without these fields, and without the `User-Agent` of a
//! client, has no identity here. Values are neither checked nor trusted.

use crate::wire::json::parse;
use http::HeaderMap;

/// A client, and the fields by which it tells who calls.
#[derive(Debug)]
pub struct ClientSpec {
    /// Its name, such as `claude-code`.
    pub name: &'static str,
    /// The products that it names first in `User-Agent` (RFC 9110 §10.1.5); more may follow behind a hyphen.
    pub products: &'static [&'static str],
    /// Sets of fields that only this client sends together; one set is enough to recognise it.
    pub known_by: &'static [&'static [&'static str]],
    /// Its fields, and what each tells.
    pub fields: &'static [ClientField],
}

/// A header field of a client.
#[derive(Debug)]
pub struct ClientField {
    /// Its name, lower case.
    pub name: &'static str,
    /// What it tells.
    pub meaning: Meaning,
}

/// What a header field tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The session; sub-agents share it with the agent that started them, unless `ParentSession` is sent.
    Session,
    /// The agent within the session.
    Agent,
    /// The agent within the session, which another agent started: the main agent sends no such field.
    StartedAgent,
    /// The agent that started this one.
    ParentAgent,
    /// The session that started this one.
    ParentSession,
    /// The request that caused this one.
    CausingRequest,
    /// The role, by the field's value.
    Role(&'static [(&'static str, CallRole)]),
    /// The role, by a field of the JSON object that the value is.
    RoleInJson(&'static str, &'static [(&'static str, CallRole)]),
    /// The name of the agent, in a field of the JSON object that the value is.
    NameInJson(&'static str),
}

/// The purpose of a call within its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallRole {
    /// The agent that the user started.
    Main,
    /// An agent that another agent started.
    SubAgent,
    /// Shortens the conversation.
    Compaction,
    /// Writes memories for later sessions.
    Memory,
    /// Judges or reviews work.
    Judge,
    /// Names the conversation.
    Title,
    /// Only tries whether calls work, such as a check of a quota.
    Probe,
    /// Only prepares a later call: nothing is sampled, or nothing is meant by it.
    Warmup,
}

impl CallRole {
    /// The role with this word in attributes.
    pub fn named(word: &str) -> Option<Self> {
        const ALL: [CallRole; 8] = [
            CallRole::Main,
            CallRole::SubAgent,
            CallRole::Compaction,
            CallRole::Memory,
            CallRole::Judge,
            CallRole::Title,
            CallRole::Probe,
            CallRole::Warmup,
        ];
        ALL.into_iter().find(|role| role.as_str() == word)
    }

    /// The word in attributes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::SubAgent => "subagent",
            Self::Compaction => "compaction",
            Self::Memory => "memory",
            Self::Judge => "judge",
            Self::Title => "title",
            Self::Probe => "probe",
            Self::Warmup => "warmup",
        }
    }
}

/// All clients with known fields. The first that is recognised counts.
pub const ALL: &[ClientSpec] = &[
    ClientSpec {
        name: "claude-code",
        products: &["claude-cli", "claude-code"],
        known_by: &[&["x-claude-code-session-id"]],
        fields: &[
            field("x-claude-code-session-id", Meaning::Session),
            // Agents of its workflows lack them.
            field("x-claude-code-agent-id", Meaning::StartedAgent),
            field("x-claude-code-parent-agent-id", Meaning::ParentAgent),
            field("x-claude-code-request-class", Meaning::Role(&[("main", CallRole::Main)])),
        ],
    },
    ClientSpec {
        name: "codex",
        products: &["codex_exec", "codex_cli_rs", "codex-tui", "codex"],
        known_by: &[&["x-codex-turn-metadata"], &["x-openai-subagent"], &["session-id", "thread-id"]],
        fields: &[
            field("session-id", Meaning::Session),
            field("thread-id", Meaning::Agent),
            field("x-codex-parent-thread-id", Meaning::ParentAgent),
            // More precise than the metadata.
            field(
                "x-openai-subagent",
                Meaning::Role(&[
                    ("review", CallRole::Judge),
                    ("compact", CallRole::Compaction),
                    ("memory_consolidation", CallRole::Memory),
                    ("collab_spawn", CallRole::SubAgent),
                ]),
            ),
            field(
                "x-codex-turn-metadata",
                Meaning::RoleInJson(
                    "request_kind",
                    &[("prewarm", CallRole::Warmup), ("compact", CallRole::Compaction)],
                ),
            ),
            field("x-codex-turn-metadata", Meaning::NameInJson("agent_name")),
            field(
                "x-codex-turn-metadata",
                Meaning::RoleInJson("thread_source", &[("user", CallRole::Main), ("subagent", CallRole::SubAgent)]),
            ),
        ],
    },
    ClientSpec {
        name: "opencode",
        products: &["opencode"],
        known_by: &[&["x-opencode-session"], &["x-session-affinity"], &["x-parent-session-id"]],
        fields: &[
            field("x-opencode-session", Meaning::Session),
            field("x-session-affinity", Meaning::Session),
            field("x-session-id", Meaning::Session),
            field("x-parent-session-id", Meaning::ParentSession),
        ],
    },
    ClientSpec { name: "gemini-cli", products: &["GeminiCLI"], known_by: &[], fields: &[] },
    ClientSpec { name: "qwen-code", products: &["QwenCode"], known_by: &[], fields: &[] },
    ClientSpec {
        name: "acp",
        products: &[],
        known_by: &[&["x-acp-lineage-request-id"]],
        fields: &[field("x-acp-lineage-request-id", Meaning::CausingRequest)],
    },
];

/// How Claude Code begins the part of its system prompt that is about billing. It differs from call to call: with it, no two
/// calls would have a common prefix.
pub const BILLING_LINE: &str = "x-anthropic-billing-header:";

const fn field(name: &'static str, meaning: Meaning) -> ClientField {
    ClientField { name, meaning }
}

/// What a request says about its caller. Values are as sent; `None` where the client says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity<'a> {
    /// The client's name in the table.
    pub client: &'static str,
    /// Its version; `None` if `User-Agent` does not name it.
    pub version: Option<&'a str>,
    /// The session that the call belongs to, by the client's id.
    pub session: Option<&'a str>,
    /// The agent within the session.
    pub agent: Option<&'a str>,
    /// The agent's name.
    pub agent_name: Option<String>,
    /// The agent that started this one.
    pub parent_agent: Option<&'a str>,
    /// The session that started this one.
    pub parent_session: Option<&'a str>,
    /// The request that caused this one.
    pub causing_request: Option<&'a str>,
    /// The purpose of the call.
    pub role: Option<CallRole>,
}

/// Reads what a request says about its caller. `None`: it is from no known client, or the client says nothing. Where
/// two fields tell the same, the first of the row counts.
pub fn identify(headers: &HeaderMap) -> Option<ClientIdentity<'_>> {
    let is_sent = |name: &&str| text(headers, name).is_some();
    let product = product(headers);
    let names_it =
        |client: &&ClientSpec| product.is_some_and(|(name, _)| client.products.iter().any(|own| is(name, own)));
    let by_fields = |client: &&ClientSpec| client.known_by.iter().any(|set| set.iter().all(is_sent));
    let client = ALL.iter().find(names_it).or_else(|| ALL.iter().find(by_fields))?;
    let mut identity = ClientIdentity {
        client: client.name,
        version: product.filter(|_| names_it(&client)).and_then(|(_, version)| version),
        agent_name: None,
        session: None,
        agent: None,
        parent_agent: None,
        parent_session: None,
        causing_request: None,
        role: None,
    };
    for field in client.fields {
        let Some(value) = text(headers, field.name) else { continue };
        match field.meaning {
            Meaning::Session => identity.session = identity.session.or(Some(value)),
            Meaning::Agent => identity.agent = identity.agent.or(Some(value)),
            Meaning::StartedAgent => {
                identity.agent = identity.agent.or(Some(value));
                identity.role = identity.role.or(Some(CallRole::SubAgent));
            }
            Meaning::ParentAgent => identity.parent_agent = identity.parent_agent.or(Some(value)),
            Meaning::ParentSession => identity.parent_session = identity.parent_session.or(Some(value)),
            Meaning::CausingRequest => identity.causing_request = identity.causing_request.or(Some(value)),
            Meaning::Role(roles) => identity.role = identity.role.or_else(|| role_of(value, roles)),
            Meaning::RoleInJson(name, roles) => {
                let metadata = parse(value.as_bytes()).unwrap_or_default();
                identity.role = identity.role.or_else(|| role_of(metadata.get(name).text()?, roles));
            }
            Meaning::NameInJson(name) => {
                let metadata = parse(value.as_bytes()).unwrap_or_default();
                identity.agent_name = identity.agent_name.or_else(|| metadata.get(name).word());
            }
        }
    }
    Some(identity)
}

/// The first product of `User-Agent`, and its version.
fn product(headers: &HeaderMap) -> Option<(&str, Option<&str>)> {
    let first = text(headers, "user-agent")?.split([' ', '(']).next()?;
    let mut parts = first.split('/');
    Some((parts.next()?, parts.next().filter(|version| !version.is_empty())))
}

/// True if a product is this one, or this one with more behind a hyphen.
fn is(product: &str, own: &str) -> bool {
    product.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

fn role_of(value: &str, roles: &[(&str, CallRole)]) -> Option<CallRole> {
    roles.iter().find(|(known, _)| *known == value).map(|(_, role)| *role)
}

/// A field's value, if it is visible text.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        HeaderMap::from_iter(
            fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))),
        )
    }

    #[test]
    fn clients_tell_session_agent_and_parent() {
        let sent = headers(&[
            ("x-claude-code-session-id", "s"),
            ("x-claude-code-agent-id", "a"),
            ("x-claude-code-parent-agent-id", "p"),
        ]);
        let claude = identify(&sent).unwrap();
        assert_eq!((claude.client, claude.session, claude.agent), ("claude-code", Some("s"), Some("a")));
        assert_eq!((claude.parent_agent, claude.role), (Some("p"), Some(CallRole::SubAgent)));
        let main = headers(&[("x-claude-code-session-id", "s")]);
        assert_eq!((identify(&main).unwrap().agent, identify(&main).unwrap().role), (None, None));
        for (agent, client, version) in [
            ("claude-cli/2.1.332 (external, sdk-cli)", "claude-code", Some("2.1.332")),
            ("codex_exec/0.169.0 (Debian 12.0.0; x86_64) xterm", "codex", Some("0.169.0")),
            ("GeminiCLI-tui/0.61.0/gemini-2.5-pro (linux; x64; terminal)", "gemini-cli", Some("0.61.0")),
            ("opencode", "opencode", None),
        ] {
            let sent = headers(&[("user-agent", agent)]);
            let identity = identify(&sent).unwrap();
            assert_eq!((identity.client, identity.version), (client, version));
        }
        let sent = headers(&[("x-session-affinity", "s"), ("x-parent-session-id", "p")]);
        let opencode = identify(&sent).unwrap();
        assert_eq!((opencode.session, opencode.parent_session), (Some("s"), Some("p")));
        let sent = headers(&[("x-acp-lineage-request-id", "r")]);
        assert_eq!(identify(&sent).unwrap().causing_request, Some("r"));
    }

    #[test]
    fn codex_tells_the_role_of_a_call() {
        for (fields, expected) in [
            (&[("x-openai-subagent", "review")][..], Some(CallRole::Judge)),
            (
                &[("x-codex-turn-metadata", r#"{"thread_source":"user","request_kind":"prewarm"}"#)],
                Some(CallRole::Warmup),
            ),
            (&[("x-openai-subagent", "compact")], Some(CallRole::Compaction)),
            (&[("x-openai-subagent", "something_new")], None),
            (&[("x-codex-turn-metadata", r#"{"thread_source":"user"}"#)], Some(CallRole::Main)),
            (&[("x-codex-turn-metadata", r#"{"thread_s\u006furce":"subagent"}"#)], Some(CallRole::SubAgent)),
            (&[("x-codex-turn-metadata", "{")], None),
            (
                &[
                    ("x-codex-turn-metadata", r#"{"thread_source":"subagent"}"#),
                    ("x-openai-subagent", "memory_consolidation"),
                ],
                Some(CallRole::Memory),
            ),
            (&[("session-id", "s"), ("thread-id", "t")], None),
        ] {
            let sent = headers(fields);
            let identity = identify(&sent).unwrap();
            assert_eq!((identity.client, identity.role), ("codex", expected), "{fields:?}");
        }
    }

    #[test]
    fn other_requests_have_no_identity() {
        assert_eq!(identify(&headers(&[("session-id", "s"), ("user-agent", "codexes/1")])), None);
        assert_eq!(identify(&headers(&[("x-claude-code-session-id", " ")])), None);
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic(value in prop::collection::vec(any::<u8>(), 0..60)) {
            let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
            for field in ALL.iter().flat_map(|client| client.fields) {
                let sent = HeaderMap::from_iter([(HeaderName::from_static(field.name), value.clone())]);
                let _ = identify(&sent);
            }
        }
    }
}
