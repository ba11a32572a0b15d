//! The purpose of a call, from what its request says: for clients that do not tell it in header fields.
//!
//! Pure. Only the beginnings of texts are searched, so that a conversation about titles does not become one.

use super::call::LlmCall;
use super::clients::CallRole;
use super::message::{Message, Part};
use memchr::memmem::Finder;
use std::sync::LazyLock;

/// The purpose that the request of a call shows by itself. `None`: it shows none; most calls are of that kind.
pub(crate) fn shown_role(call: &LlmCall) -> Option<CallRole> {
    if call.request.is_warmup {
        return Some(CallRole::Warmup);
    }
    let last = call.input.iter().rev().find(|message| message.role == "user").map(beginning).unwrap_or_default();
    if call.tools.is_empty() {
        if call.request.max_tokens == Some(1) {
            return Some(CallRole::Probe);
        }
        if last == "warmup" {
            return Some(CallRole::Warmup);
        }
    }
    let instructions = if call.tools.is_empty() { system_beginning(call) } else { String::new() };
    let texts = [instructions.as_bytes(), last.as_bytes()];
    let says = |sign: &Finder<'_>| texts.iter().any(|text| sign.find(text).is_some());
    let with_tools = FINDERS.iter().filter(|(role, _)| call.tools.is_empty() || *role == CallRole::Compaction);
    with_tools.into_iter().find(|(_, signs)| signs.iter().any(says)).map(|(role, _)| *role)
}

/// Searches for the [`SIGNS`]. To prepare a search takes longer than the search itself.
static FINDERS: LazyLock<Vec<(CallRole, Vec<Finder<'static>>)>> = LazyLock::new(|| {
    let finders = |signs: &[&'static str]| signs.iter().map(|sign| Finder::new(*sign)).collect();
    SIGNS.iter().map(|(role, signs)| (*role, finders(signs))).collect()
});

/// What instructions for a purpose say, in lower case. Agents send the request for a compaction with their tools.
const SIGNS: &[(CallRole, &[&str])] = &[
    (
        CallRole::Compaction,
        &[
            "detailed summary of the conversation",
            "context checkpoint compaction",
            "summarizing conversations",
            "state_snapshot",
            "context summarization a",
            "context checkpoint summary",
            "summary of this conversation",
            "distilling chat history",
            "context compressor",
            "compact the conversation",
            "summarize the conversation",
            "summary of the conversation",
        ],
    ),
    (
        CallRole::Title,
        &[
            "title generator",
            "generate a title",
            "generate a short title",
            "generate a concise title",
            "generate a brief title",
            "concise, sentence-case title",
            "new conversation topic",
            "title for this conversation",
            "title for the conversation",
            "in under 50 characters",
        ],
    ),
    (
        CallRole::Memory,
        &["memory writing agent", "memory consolidation", "memory extraction agent", "extract memories"],
    ),
    (
        CallRole::Judge,
        &[
            "you are a judge",
            "impartial judge",
            "acting as a judge",
            "acting as a reviewer",
            "act as a grader",
            // Which model is to have the task.
            "task routing ai",
        ],
    ),
];

/// The texts of the system prompt up to a length, in lower case.
fn system_beginning(call: &LlmCall) -> String {
    let roles = ["system", "developer"];
    let messages = call.input.iter().filter(|message| roles.contains(&message.role.as_str()));
    let parts = call.system.iter().chain(messages.flat_map(|message| &message.parts));
    shortened(parts)
}

fn beginning(message: &Message) -> String {
    shortened(message.parts.iter())
}

fn shortened<'a>(parts: impl Iterator<Item = &'a Part>) -> String {
    let mut out = String::new();
    for part in parts {
        if let Part::Text { content } = part {
            let (content, room) = (content.trim(), MAX_CHARS.saturating_sub(out.chars().count()));
            let end = content.char_indices().nth(room).map_or(content.len(), |(end, _)| end);
            out.push_str(&content[..end]);
            out.push(' ');
        }
    }
    out.trim().to_lowercase()
}

const MAX_CHARS: usize = 600;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json::Json;

    fn call(system: &str, user: &str, tools: usize) -> LlmCall {
        let message = |role: &str, text: &str| Message {
            role: role.to_owned(),
            parts: vec![Part::text(text)],
            ..Message::default()
        };
        LlmCall {
            input: vec![message("system", system), message("user", user)],
            tools: vec![Json::Null; tools],
            ..LlmCall::default()
        }
    }

    #[test]
    fn requests_show_what_they_are_for() {
        for (system, user, tools, expected) in [
            ("You are a coding agent", "fix the bug", 3, None),
            ("You are a title generator.", "fix the bug", 0, Some(CallRole::Title)),
            ("You are a coding agent", "write a title generator", 3, None),
            (
                "x",
                "Your task is to create a detailed summary of the conversation so far",
                9,
                Some(CallRole::Compaction),
            ),
            ("You are an impartial judge", "answer", 0, Some(CallRole::Judge)),
            ("x", "Warmup", 0, Some(CallRole::Warmup)),
        ] {
            assert_eq!(shown_role(&call(system, user, tools)), expected, "{system} {user}");
        }
        let mut probe = call("", "quota", 0);
        probe.request.max_tokens = Some(1);
        assert_eq!(shown_role(&probe), Some(CallRole::Probe));
        let far = call("", &format!("{}summarize the conversation", "x".repeat(1000)), 0);
        assert_eq!(shown_role(&far), None);
    }
}
