//! Escapes text from the network, so that it cannot control a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Replaces characters that could control a terminal or reorder a line by `\u{…}`: control characters (C0, DEL, C1), line
/// and paragraph separators, zero-width and directional marks.
pub(crate) fn escape_for_terminal(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_unsafe(letter) {
            // Writing to a String can't fail.
            let _ = write!(out, "\\u{{{:x}}}", u32::from(letter));
        } else {
            out.push(letter);
        }
    }
    Cow::Owned(out)
}

fn is_unsafe(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unsafe_characters_are_escaped() {
        assert_eq!(escape_for_terminal("a\u{1b}[31mb\n"), "a\\u{1b}[31mb\\u{a}");
        assert_eq!(escape_for_terminal("plain é"), "plain é");
    }

    proptest! {
        #[test]
        fn no_unsafe_character_is_left(text in any::<String>()) {
            prop_assert!(!escape_for_terminal(&text).chars().any(is_unsafe));
        }
    }
}
