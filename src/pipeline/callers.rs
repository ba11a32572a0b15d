//! Who made a call, and what for: from what the client says, then from evidence. Sub-agents' calls are put below the call that
//! started them.
//!
//! Evidence: the request shows its purpose by itself; a new conversation begins with a text that another call's answer passed
//! to a tool, so that call started it. Bounded: the least recently used conversations are forgotten.

use super::options::SpanOptions;
use crate::llm::call::LlmCall;
use crate::llm::call_role::shown_role;
use crate::llm::clients::{BILLING_LINE, CallRole, ClientIdentity, identify};
use crate::llm::message::Part;
use crate::trace::exchange::Exchange;
use crate::trace::semconv as names;
use crate::trace::span::SpanContext;
use crate::trace::{AttemptId, RolloutId, Span};
use crate::util::lru::{LruCache, lru};
use crate::wire::json::Json;
use std::hash::{BuildHasher, RandomState};

/// The callers of earlier calls.
pub(super) struct Callers {
    hasher: RandomState,
    /// By the conversation: its agent, or its system prompt and first message.
    conversations: LruCache<Key, Conversation>,
    /// By a text that a tool got.
    spawns: LruCache<Key, Spawn>,
    /// The last call of each agent that has an id.
    agents: LruCache<Key, SpanContext>,
}

type Key = (RolloutId, AttemptId, u64);

impl Default for Callers {
    fn default() -> Self {
        let hasher = RandomState::new();
        Self { hasher, conversations: lru(MAX_ENTRIES), spawns: lru(MAX_ENTRIES), agents: lru(MAX_ENTRIES) }
    }
}

/// What is known of a conversation.
#[derive(Clone, Default)]
struct Conversation {
    is_subagent: bool,
    /// The call that started it.
    started_by: Option<SpanContext>,
    agent_name: Option<String>,
    parent_id: Option<String>,
}

/// A call that passed a text to a tool in its response.
#[derive(Clone)]
struct Spawn {
    call: SpanContext,
    agent_id: Option<String>,
    agent_name: Option<String>,
}

/// How the purpose of a call is known.
#[derive(Clone, Copy)]
enum Source {
    Header,
    Request,
    ToolCall,
    Assumed,
}

impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Request => "request",
            Self::ToolCall => "tool_call",
            Self::Assumed => "assumed",
        }
    }
}

impl Callers {
    /// Writes onto the span of a call who made it, and notes what the call starts.
    pub(super) fn describe(&mut self, span: &mut Span, call: &LlmCall, exchange: &Exchange, options: &SpanOptions) {
        if !call.operation.samples() {
            return;
        }
        let said = identify(&exchange.request.headers);
        let redact = |text: &str| options.redactor.text(text).into_owned();
        let conversation = self.conversation(span, call, said.as_ref());
        let (role, source) = role_of(call, said.as_ref(), &conversation);
        span.set(names::CALL_ROLE, role.as_str());
        span.set(names::CALL_ROLE_SOURCE, source.as_str());
        let mut agent_name = conversation.agent_name.clone();
        if let Some(said) = &said {
            span.set(names::CLIENT_NAME, said.client);
            span.set_some(names::CLIENT_VERSION, said.version.map(redact));
            span.set_some(names::GEN_AI_AGENT_ID, said.agent.map(redact));
            if !span.attributes.contains_key(names::GEN_AI_CONVERSATION_ID) {
                span.set_some(names::GEN_AI_CONVERSATION_ID, said.session.map(redact));
            }
            agent_name = said.agent_name.clone().or(agent_name);
        }
        span.set_some(names::GEN_AI_AGENT_NAME, agent_name.as_deref().map(redact));
        span.set_some(names::AGENT_PARENT_ID, conversation.parent_id.as_deref().map(redact));
        if let Some(parent) = conversation.started_by.filter(|_| !exchange.trace.parent_is_remote)
            && parent.trace_id == span.trace_id
        {
            span.parent_id = Some(parent.span_id.clone());
            span.parent = Some(parent);
        }
        self.note(span, call, said.as_ref());
    }

    /// The conversation that a call belongs to. A new one is compared with what other calls passed to tools.
    fn conversation(&mut self, span: &Span, call: &LlmCall, said: Option<&ClientIdentity<'_>>) -> Conversation {
        let key = |hash: u64| (span.rollout_id.clone(), span.attempt_id.clone(), hash);
        let own_session = said.filter(|said| said.parent_session.is_some()).and_then(|said| said.session);
        let first: Vec<&str> = first_texts(call);
        let hash = match said.and_then(|said| said.agent).or(own_session) {
            Some(agent) => self.hasher.hash_one(("agent", agent)),
            None => self.hasher.hash_one((system_text(call), &first)),
        };
        if let Some(known) = self.conversations.get(&key(hash)) {
            return known.clone();
        }
        let texts = first.iter().copied().chain(last_texts(call)).flat_map(endings);
        let mut texts = texts.filter(|text| SPAWN_BYTES.contains(&text.len()));
        let spawn = texts.find_map(|text| {
            let text = self.hasher.hash_one(text);
            self.spawns.get(&key(text)).cloned()
        });
        let parent_id = said.and_then(|said| said.parent_agent.or(said.parent_session)).map(str::to_owned);
        let is_subagent = said.is_some_and(|said| said.role == Some(CallRole::SubAgent));
        // The main agent may have no id but the session's.
        let parent = parent_id.as_deref().or_else(|| said.filter(|_| is_subagent)?.session);
        let parents_call = parent.map(|parent| self.hasher.hash_one(("agent", parent)));
        let parents_call = parents_call.and_then(|parent| self.agents.get(&key(parent)).cloned());
        let conversation = Conversation {
            is_subagent: is_subagent || spawn.is_some() || parent_id.is_some(),
            started_by: spawn.as_ref().map(|spawn| spawn.call.clone()).or(parents_call),
            parent_id: parent_id.or_else(|| spawn.as_ref()?.agent_id.clone()),
            agent_name: spawn.and_then(|spawn| spawn.agent_name),
        };
        self.conversations.put(key(hash), conversation.clone());
        conversation
    }

    /// Notes what the answer passes to tools, and that this is the last call of its agent.
    fn note(&mut self, span: &Span, call: &LlmCall, said: Option<&ClientIdentity<'_>>) {
        let Some(context) = &span.context else { return };
        let key = |hash: u64| (span.rollout_id.clone(), span.attempt_id.clone(), hash);
        // Where a client names no agent, its session is the main agent's.
        let agent = said.and_then(|said| said.agent.or(said.session));
        if let Some(agent) = agent {
            self.agents.put(key(self.hasher.hash_one(("agent", agent))), context.clone());
        }
        for part in call.choices.iter().flat_map(|choice| &choice.parts) {
            let Part::ToolCall { arguments, .. } = part else { continue };
            let texts = arguments.fields().iter().filter_map(|(_, value)| value.text());
            for text in texts.map(str::trim).filter(|text| SPAWN_BYTES.contains(&text.len())).take(MAX_TEXTS) {
                let (agent_id, agent_name) =
                    (said.and_then(|said| said.agent).map(str::to_owned), agent_name(arguments));
                let spawn = Spawn { call: context.clone(), agent_id, agent_name };
                self.spawns.put(key(self.hasher.hash_one(text)), spawn);
            }
        }
    }
}

/// The purpose of a call, and how it is known.
fn role_of(call: &LlmCall, said: Option<&ClientIdentity<'_>>, conversation: &Conversation) -> (CallRole, Source) {
    let said_role = said.and_then(|said| said.role);
    let is_started = said.is_some_and(|said| said.parent_agent.is_some() || said.parent_session.is_some());
    let is_started = is_started || said_role == Some(CallRole::SubAgent);
    match (said_role.filter(|role| !matches!(role, CallRole::Main | CallRole::SubAgent)), shown_role(call)) {
        (Some(role), _) => (role, Source::Header),
        (None, Some(role)) => (role, Source::Request),
        _ if is_started => (CallRole::SubAgent, Source::Header),
        _ if conversation.is_subagent => (CallRole::SubAgent, Source::ToolCall),
        _ if said_role.is_some() => (CallRole::Main, Source::Header),
        _ => (CallRole::Main, Source::Assumed),
    }
}

/// The texts of the user in front of the first answer.
fn first_texts(call: &LlmCall) -> Vec<&str> {
    let before = call.input.iter().take_while(|message| message.role != "assistant" && message.role != "model");
    let users = before.filter(|message| message.role == "user");
    let texts = users.flat_map(|message| &message.parts).filter_map(|part| match part {
        Part::Text { content } => Some(content.as_str()),
        _ => None,
    });
    texts.take(MAX_TEXTS).collect()
}

/// The texts of the last message, if it is the user's. An agent that has its parent's history gets its task there.
fn last_texts(call: &LlmCall) -> Vec<&str> {
    let last = call.input.last().filter(|message| message.role == "user");
    let texts = last.into_iter().flat_map(|message| &message.parts).filter_map(|part| match part {
        Part::Text { content } => Some(content.as_str()),
        _ => None,
    });
    texts.take(MAX_TEXTS).collect()
}

/// A text, and what is behind each of its last line ends: agents put notes in front of a task.
fn endings(text: &str) -> impl Iterator<Item = &str> {
    let behind_lines = memchr::memrchr_iter(b'\n', text.as_bytes()).take(MAX_ENDINGS).map(|at| text[at + 1..].trim());
    std::iter::once(text.trim()).chain(behind_lines)
}

fn system_text(call: &LlmCall) -> Option<&str> {
    let messages = call.input.iter().filter(|message| message.role == "system").flat_map(|message| &message.parts);
    call.system.iter().chain(messages).find_map(|part| match part {
        // It differs from call to call.
        Part::Text { content } if !content.starts_with(BILLING_LINE) => Some(content.as_str()),
        _ => None,
    })
}

/// The agent that a tool's arguments name.
fn agent_name(arguments: &Json<'_>) -> Option<String> {
    arguments.any(&["subagent_type", "agent_type", "agent_name", "agent"]).word()
}

/// Lengths of the texts that are compared: a shorter one may be the same by chance.
const SPAWN_BYTES: std::ops::RangeInclusive<usize> = 8..=256 * 1024;
const MAX_TEXTS: usize = 16;
const MAX_ENDINGS: usize = 64;
const MAX_ENTRIES: usize = 16 * 1024;
