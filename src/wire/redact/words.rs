//! Where words start and end in a text, as far as credentials are concerned.

/// True when a word starts at `at`. In JSON text an escaped line break ends in a letter, and counts as a separator.
pub(super) fn starts_word(bytes: &[u8], at: usize) -> bool {
    let before = |distance: usize| at.checked_sub(distance).map(|at| bytes[at]);
    let Some(last) = before(1) else { return true };
    !is_word(last)
        || (before(2) == Some(b'\\') && matches!(last, b'n' | b'r' | b't' | b'b' | b'f'))
        || (before(6) == Some(b'\\') && before(5) == Some(b'u'))
}

pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

pub(super) fn is_token68(byte: u8) -> bool {
    is_word(byte) || b".~+/=".contains(&byte)
}
