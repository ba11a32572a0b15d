//! The difference of two rollouts as text for terminals: what both said last, what each said next, and what each did then.

use super::conversation_text::{BOLD, CYAN, ConversationOptions, GREEN, Writer, readable};
use super::difference::{ConversationMessage, Difference, TokenDifference, TokenList};
use super::transcript::Part;
use crate::export::text::{escape_for_terminal, shortened};

/// A rollout that is compared.
pub(crate) struct ComparedRollout {
    /// Its id.
    pub(crate) id: String,
    /// What is known of it, such as its status and reward.
    pub(crate) facts: Vec<String>,
}

/// Writes a difference. Text from the network is escaped.
pub(crate) fn difference_text(
    rollouts: &[ComparedRollout; 2],
    found: &Difference,
    options: &ConversationOptions,
) -> String {
    let mut out = Writer { text: String::new(), options };
    for (name, ComparedRollout { id, facts }) in NAMES.iter().zip(rollouts) {
        out.line(name, &format!("  {}  {}", escape_for_terminal(id), escape_for_terminal(&facts.join(" · "))));
    }
    out.line("", "");
    let common = found.common_messages;
    match (found.same_messages, common) {
        (true, 0) => out.line("", "Neither has recorded messages."),
        (true, _) => out.line("", &format!("The conversations are the same: {}.", messages_text(common))),
        (false, 0) => out.line("", "The first messages differ."),
        (false, _) => out.line("", &format!("They part after {} that both have.", messages_text(common))),
    }
    if let Some(tokens) = &found.tokens {
        out.line("", &token_line(tokens));
    }
    if found.same_messages {
        return out.text;
    }
    if let Some(last) = common.checked_sub(1).and_then(|last| found.messages[0].get(last)) {
        out.heading(BOLD, &format!("both · message {common} · {}", role(last)), '─');
        out.parts(&last.message);
    }
    let sides = NAMES.iter().zip([CYAN, GREEN]).zip(&found.messages);
    for ((name, color), messages) in sides {
        let mut rest = messages.iter().skip(common);
        let Some(next) = rest.next() else {
            out.heading(color, &format!("{name} ends here"), '─');
            continue;
        };
        out.heading(color, &format!("{name} · message {} · {} · call {}", common + 1, role(next), next.call), '─');
        out.parts(&next.message);
        let (rest, total) = (rest.clone().take(MAX_NEXT_LINES), rest.count());
        let width = options.width.saturating_sub(2);
        for message in rest {
            out.line(
                "  ",
                &shortened(&escape_for_terminal(&format!("{}: {}", role(message), summary(message))), width),
            );
        }
        if total > MAX_NEXT_LINES {
            out.line("  ", &format!("… {} more", messages_text(total - MAX_NEXT_LINES)));
        }
    }
    out.text
}

fn messages_text(count: usize) -> String {
    if count == 1 { "1 message".to_owned() } else { format!("{count} messages") }
}

fn token_line(TokenDifference { calls: [call, other_call], list, common_tokens, ids }: &TokenDifference) -> String {
    let list = match list {
        TokenList::Prompt => "prompts",
        TokenList::Sampled => "sampled tokens",
    };
    let [one, other] = ids.map(|id| id.map_or_else(|| "ends".to_owned(), |id| format!("has id {id}")));
    let place = format!("call {call} of A and call {other_call} of B");
    format!("The {list} of {place} part at token {}: A {one}, B {other}.", common_tokens + 1)
}

fn role(message: &ConversationMessage) -> &str {
    if message.message.role.is_empty() { "unknown" } else { &message.message.role }
}

/// A message in one line.
fn summary(message: &ConversationMessage) -> String {
    let part = |part: Part<'_>| match part {
        Part::Text(text) | Part::Reasoning(text) => one_line(text),
        Part::ToolCall { name, arguments, .. } => format!("→ {name} {}", one_line(&readable(arguments))),
        Part::ToolResult { response, .. } => format!("← {}", one_line(&readable(response))),
        Part::Other(part) => format!("[{}]", part["type"].as_str().unwrap_or("unknown")),
    };
    message.message.parts().map(part).filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What the rollouts are called in the text.
const NAMES: [&str; 2] = ["A", "B"];

/// Messages after the first one that differs, one line each.
const MAX_NEXT_LINES: usize = 20;
