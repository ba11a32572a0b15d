//! Finds where the parts of JSON text begin and end, without reading their values. The text may be cut short, or be no
//! JSON.

/// The index behind the string that opens at `open`; `None` if it is no string, or has no end.
pub(super) fn string_end(text: &[u8], open: usize) -> Option<usize> {
    if text.get(open) != Some(&b'"') {
        return None;
    }
    let mut at = open + 1;
    // Most are short: for those a plain loop is faster than memchr.
    for _ in 0..SHORT_BYTES {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The index behind the value that starts at `at`; `None` if it has no end, or the text ends before it.
pub(super) fn value_end(text: &[u8], at: usize) -> Option<usize> {
    match text.get(at)? {
        b'"' => string_end(text, at),
        b'{' | b'[' => {
            let (mut depth, mut at) = (0_usize, at);
            loop {
                at += text.get(at..)?.iter().position(|byte| IS_MARK[usize::from(*byte)])?;
                match text.get(at)? {
                    b'"' => {
                        at = string_end(text, at)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' if depth == 1 => return Some(at + 1),
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
            }
        }
        _ => {
            let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace();
            Some(at + text[at..].iter().position(ends).unwrap_or(text.len() - at))
        }
    }
}

/// The index of the first byte from `at` on that is no white space.
pub(super) fn skip_space(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

const SHORT_BYTES: usize = 16;

/// The bytes by which containers and strings begin and end.
const IS_MARK: [bool; 256] = {
    let mut marks = [false; 256];
    let bytes = b"\"{}[]";
    let mut at = 0;
    while at < bytes.len() {
        marks[bytes[at] as usize] = true;
        at += 1;
    }
    marks
};
