//! What agents say about themselves in the header fields of their requests: session, agent, parent, role.
//!
//! A table with one row a client, and one lookup. Pure. A request without these fields has no identity here, and
//! values are neither checked nor trusted.

use crate::wire::json::parse;
use http::HeaderMap;

/// A client, and the fields by which it tells who calls.
#[derive(Debug)]
pub struct ClientSpec {
    /// Its name, such as `claude-code`.
    pub name: &'static str,
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
}

/// The purpose of a call within its session, as far as clients say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallRole {
    /// The agent that the user started.
    Main,
    /// An agent that another agent started.
    SubAgent,
    /// Shortens the conversation.
    Compaction,
    /// Writes memories.
    Memory,
    /// Reviews work.
    Review,
}

/// All clients with known fields. The first that is recognised counts.
pub const ALL: &[ClientSpec] = &[
    ClientSpec {
        name: "claude-code",
        known_by: &[&["x-claude-code-session-id"]],
        fields: &[
            field("x-claude-code-session-id", Meaning::Session),
            // Agents of its workflows lack them.
            field("x-claude-code-agent-id", Meaning::Agent),
            field("x-claude-code-parent-agent-id", Meaning::ParentAgent),
        ],
    },
    ClientSpec {
        name: "codex",
        known_by: &[&["x-codex-turn-metadata"], &["x-openai-subagent"], &["session-id", "thread-id"]],
        fields: &[
            field("session-id", Meaning::Session),
            field("thread-id", Meaning::Agent),
            // More precise than the metadata.
            field(
                "x-openai-subagent",
                Meaning::Role(&[
                    ("review", CallRole::Review),
                    ("compact", CallRole::Compaction),
                    ("memory_consolidation", CallRole::Memory),
                    ("collab_spawn", CallRole::SubAgent),
                ]),
            ),
            field(
                "x-codex-turn-metadata",
                Meaning::RoleInJson("thread_source", &[("user", CallRole::Main), ("subagent", CallRole::SubAgent)]),
            ),
        ],
    },
    ClientSpec {
        name: "opencode",
        known_by: &[&["x-opencode-session"], &["x-session-affinity"], &["x-parent-session-id"]],
        fields: &[
            field("x-opencode-session", Meaning::Session),
            field("x-session-affinity", Meaning::Session),
            field("x-parent-session-id", Meaning::ParentSession),
        ],
    },
    ClientSpec {
        name: "acp",
        known_by: &[&["x-acp-lineage-request-id"]],
        fields: &[field("x-acp-lineage-request-id", Meaning::CausingRequest)],
    },
];

const fn field(name: &'static str, meaning: Meaning) -> ClientField {
    ClientField { name, meaning }
}

/// What a request says about its caller. Values are as sent; `None` where the client says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity<'a> {
    /// The client's name in the table.
    pub client: &'static str,
    /// The session.
    pub session: Option<&'a str>,
    /// The agent within the session.
    pub agent: Option<&'a str>,
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
    let client = ALL.iter().find(|client| client.known_by.iter().any(|set| set.iter().all(is_sent)))?;
    let mut identity = ClientIdentity {
        client: client.name,
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
            Meaning::ParentAgent => identity.parent_agent = identity.parent_agent.or(Some(value)),
            Meaning::ParentSession => identity.parent_session = identity.parent_session.or(Some(value)),
            Meaning::CausingRequest => identity.causing_request = identity.causing_request.or(Some(value)),
            Meaning::Role(roles) => identity.role = identity.role.or_else(|| role_of(value, roles)),
            Meaning::RoleInJson(name, roles) => {
                let metadata = parse(value.as_bytes()).unwrap_or_default();
                identity.role = identity.role.or_else(|| role_of(metadata.get(name).text()?, roles));
            }
        }
    }
    Some(identity)
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
        assert_eq!((claude.parent_agent, claude.role), (Some("p"), None));
        let sent = headers(&[("x-session-affinity", "s"), ("x-parent-session-id", "p")]);
        let opencode = identify(&sent).unwrap();
        assert_eq!((opencode.session, opencode.parent_session), (Some("s"), Some("p")));
        let sent = headers(&[("x-acp-lineage-request-id", "r")]);
        assert_eq!(identify(&sent).unwrap().causing_request, Some("r"));
    }

    #[test]
    fn codex_tells_the_role_of_a_call() {
        for (fields, expected) in [
            (&[("x-openai-subagent", "review")][..], Some(CallRole::Review)),
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
        assert_eq!(identify(&headers(&[("session-id", "s"), ("user-agent", "x")])), None);
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
