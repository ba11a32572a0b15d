//! The words of a span's messages, for full-text search: which texts count, where a word begins and ends, and what is kept of it.
//!
//! A [`Word`] is a hash, so that an index of words has no text of a message. Every store compares words, never texts.

use super::semconv as names;
use super::span::Span;
use super::value::Value;
use std::fmt;

/// A hash of a word, in 40 bits. Different words rarely have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Word(u64);

impl Word {
    /// Stands between two texts, so that no phrase begins in one and ends in the other. No word has it.
    pub const GAP: Self = Self(u64::MAX);

    fn of(word: &str) -> Self {
        // FNV-1a, which does not change with the program's version.
        let hash = word
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self((hash ^ (hash >> 40)) & ((1 << BITS) - 1))
    }
}

/// Eight letters and digits; one digit for [`Word::GAP`].
impl fmt::Display for Word {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::GAP {
            return formatter.write_str("0");
        }
        let letter = |at: u32| char::from(DIGITS[(self.0 >> (5 * at)) as usize & 31]);
        (0..BITS / 5).try_for_each(|at| fmt::Write::write_char(formatter, letter(at)))
    }
}

/// The words of a text, in their order. A word is a run of letters and digits in lower case; in scripts without spaces it is one
/// character. Of a longer word, the first 64 characters count.
pub fn words_of(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    add_words(text, &mut words);
    words
}

fn add_words(text: &str, words: &mut Vec<Word>) {
    let (mut word, mut length) = (String::new(), 0);
    let mut finish = |word: &mut String| {
        if !word.is_empty() && words.len() < MAX_WORDS {
            words.push(Word::of(word));
        }
        word.clear();
    };
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        let character = if character == '\\' { escaped(&mut rest) } else { character };
        if is_mark(character) {
            continue;
        }
        if !character.is_alphanumeric() || is_word_alone(character) {
            finish(&mut word);
            length = 0;
        }
        if character.is_alphanumeric() && length < MAX_WORD_CHARACTERS {
            word.extend(character.to_lowercase());
            length += 1;
        }
        if is_word_alone(character) {
            finish(&mut word);
            length = 0;
        }
    }
    finish(&mut word);
}

/// What follows a backslash: texts of tools are often JSON within a text.
fn escaped(rest: &mut std::str::Chars<'_>) -> char {
    let mut ahead = rest.clone();
    match ahead.next() {
        Some('n' | 'r' | 't') => {
            *rest = ahead;
            ' '
        }
        Some('u') => {
            let digits = ahead.as_str().get(..4);
            let found = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(char::from_u32);
            if found.is_some() {
                *rest = ahead.as_str().get(4..).unwrap_or_default().chars();
            }
            found.unwrap_or(' ')
        }
        _ => ' ',
    }
}

/// True for accents that follow their letter.
fn is_mark(character: char) -> bool {
    ('\u{300}'..='\u{36f}').contains(&character)
}

/// True for characters of scripts that are written without spaces.
fn is_word_alone(character: char) -> bool {
    matches!(character, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}')
}

/// The words of a span's messages: system instructions, messages to and from models, and arguments and results of tools. Elements of
/// its lists for which `is_new` is false are left out: an agent sends its whole conversation with each call. At most
/// [`MAX_WORDS`].
pub(crate) fn message_words(span: &Span, mut is_new: impl FnMut(&str) -> bool) -> Vec<Word> {
    let mut words = Vec::new();
    for (name, labels) in TEXTS {
        let text = span.attributes.get(name).and_then(Value::as_str).unwrap_or_default();
        for element in elements(text).into_iter().filter(|element| !element.is_empty()) {
            if is_new(element) {
                add_json(element, labels, &mut words);
            }
        }
    }
    words
}

/// True if the words follow each other in a text of the span's messages.
pub(crate) fn has_phrase(span: &Span, phrase: &[Word]) -> bool {
    message_words(span, |_| true).windows(phrase.len().max(1)).any(|words| words == phrase)
}

/// The elements of a list in JSON, or the whole text.
fn elements(text: &str) -> Vec<&str> {
    let Some(list) = text.trim_start().strip_prefix('[') else { return vec![text] };
    let (mut found, mut depth, mut from, mut at) = (Vec::new(), 0_usize, 0, 0);
    let bytes = list.as_bytes();
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at),
            b'{' | b'[' => depth += 1,
            b']' if depth == 0 => break,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                found.extend(list.get(from..at).map(str::trim));
                from = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    found.extend(list.get(from..at).or_else(|| list.get(from..)).map(str::trim));
    found
}

/// Adds the texts and numbers of some JSON, also if it is incomplete, except those of `labels`. What is no JSON is one text.
fn add_json(json: &str, labels: &[&str], words: &mut Vec<Word>) {
    let bytes = json.as_bytes();
    if !json.trim_start().starts_with(['{', '[', '"']) {
        return add_text(json, words);
    }
    let (mut at, mut key, mut depth) = (0, "", 0_usize);
    while let Some(byte) = bytes.get(at) {
        let is_label = depth <= LABEL_DEPTH && labels.contains(&key);
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if *byte == b'"' {
            let end = string_end(bytes, at);
            let quoted = json.get(at..=end).or_else(|| json.get(at..)).unwrap_or_default();
            let is_key = json.get(end + 1..).is_some_and(|rest| rest.trim_start().starts_with(':'));
            if is_key {
                key = quoted.trim_matches('"');
            } else if !is_label {
                match serde_json::from_str::<String>(quoted) {
                    Ok(text) => add_text(&text, words),
                    Err(_) => add_text(quoted, words),
                }
            }
            at = end + 1;
        } else if byte.is_ascii_digit() {
            let length = bytes[at..].iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
            if !is_label {
                add_text(json.get(at..at + length).unwrap_or_default(), words);
            }
            at += length;
        } else {
            at += 1;
        }
    }
}

fn add_text(text: &str, words: &mut Vec<Word>) {
    if words.len() < MAX_WORDS && !is_encoded(text) {
        if !words.is_empty() {
            words.push(Word::GAP);
        }
        add_words(text, words);
    }
}

/// True for the base64 of an image or a sound.
fn is_encoded(text: &str) -> bool {
    let start = &text.as_bytes()[..text.len().min(ENCODED_BYTES)];
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=-_:;,.".contains(byte);
    text.len() >= ENCODED_BYTES && start.iter().all(is_digit)
}

/// The index of the quote that ends a text, or the last index.
fn string_end(bytes: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at,
            _ => at += 1,
        }
    }
    bytes.len().saturating_sub(1).max(open)
}

/// The attributes with messages, and which fields of a message have words that no person wrote.
const TEXTS: [(&str, &[&str]); 5] = [
    (names::GEN_AI_SYSTEM_INSTRUCTIONS, LABELS),
    (names::GEN_AI_INPUT_MESSAGES, LABELS),
    (names::GEN_AI_OUTPUT_MESSAGES, LABELS),
    (names::GEN_AI_TOOL_CALL_ARGUMENTS, &[]),
    (names::GEN_AI_TOOL_CALL_RESULT, &[]),
];

const LABELS: &[&str] = &["type", "role", "id", "finish_reason", "modality", "mime_type", "signature"];
/// How deep the fields of a part of a message are. Deeper ones are arguments of tools.
const LABEL_DEPTH: usize = 3;

/// Words of a phrase that is searched for.
pub(crate) const MAX_PHRASE_WORDS: usize = 64;
/// Characters of a word that count.
const MAX_WORD_CHARACTERS: usize = 64;
/// Words of one span. Further ones are not found.
const MAX_WORDS: usize = 100_000;
/// Bytes without a space from which on a text is taken for base64.
const ENCODED_BYTES: usize = 512;
const BITS: u32 = 40;
const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Span;
    use proptest::prelude::*;
    use serde_json::json;

    fn span(attributes: &serde_json::Value) -> Span {
        let json = json!({"rollout_id": "r", "attempt_id": "a", "sequence_id": 1, "trace_id": "t", "span_id": "s", "parent_id": null,
            "name": "x", "status": {"status_code": "OK", "description": null}, "attributes": attributes, "events": [], "links": [],
            "start_time": null, "end_time": null, "context": null, "parent": null, "resource": {"attributes": {}, "schema_url": ""}});
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn words_are_compared_in_lower_case_and_without_what_stands_between_them() {
        for (one, other) in [
            ("Where is my Refund?", "where IS my, refund"),
            ("line\\nnext", "line next"),
            ("caf\u{65}\u{301}", "cafe"),
            ("\\u4f60\\u597d", "你好"),
            ("退款政策", "退款 政策"),
            ("a\u{200b}b", "a b"),
            ("x\\", "x"),
        ] {
            assert_eq!(words_of(one), words_of(other), "{one}");
        }
        assert!(words_of("!\"* () -- \u{301}").is_empty());
        assert_eq!(words_of(&"x".repeat(10_000)), words_of(&"x".repeat(MAX_WORD_CHARACTERS)));
        assert_ne!(words_of("refund"), words_of("refunds"));
        assert_eq!((words_of("refund")[0].to_string().len(), Word::GAP.to_string()), (8, "0".to_owned()));
    }

    #[test]
    fn phrases_are_found_in_one_text_of_the_messages() {
        let input = json!([{"role": "user", "parts": [{"type": "text", "content": "Say \"hi\".\nThen: refund policy 4711"}]},
            {"role": "assistant", "parts": [{"type": "tool_call", "id": "call-9", "name": "search",
                "arguments": {"id": 815, "note": "in Köln"}}]}]);
        let span = span(&json!({"gen_ai.input.messages": input.to_string(), "gen_ai.tool.call.result": "plain result",
            "gen_ai.output.messages": "[{\"role\":\"assistant\",\"parts\":[{\"content\":\"cut o", "http.request.body": "hidden"}));
        for phrase in ["hi then refund", "refund policy", "4711", "815", "köln", "search", "plain result", "cut o"] {
            assert!(has_phrase(&span, &words_of(phrase)), "{phrase}");
        }
        for phrase in ["policy refund", "4711 search", "user", "tool call", "call 9", "hidden", "arguments", "koln"] {
            assert!(!has_phrase(&span, &words_of(phrase)), "{phrase}");
        }
    }

    #[test]
    fn a_message_is_offered_once_as_it_is() {
        let span = span(&json!({"gen_ai.input.messages": r#"[{"a":"x, [y"},{"a":"z\"]"}]"#}));
        let mut seen = Vec::new();
        let words = message_words(&span, |element| {
            seen.push(element.to_owned());
            seen.len() > 1
        });
        assert_eq!(seen, [r#"{"a":"x, [y"}"#, r#"{"a":"z\"]"}"#]);
        assert_eq!(words, words_of("z"));
    }

    #[test]
    fn images_have_no_words() {
        let image = format!("[{{\"content\":\"{}\"}}]", "QUJD/+".repeat(1000));
        assert_eq!(message_words(&span(&json!({"gen_ai.input.messages": image})), |_| true), []);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(\\[)?[\\[\\]{},:\"\\\\a1 u00é退]{0,80}") {
            let span = span(&json!({"gen_ai.input.messages": text}));
            let words = message_words(&span, |_| true);
            prop_assert!(words.len() <= 200);
        }
    }
}
