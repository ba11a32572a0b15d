//! Secrets that are recognised by the name before them: in environments, headers, connection strings and command lines that
//! a text quotes.
//!
//! Only literal values count. Source code that passes a secret on (`password=password`, `f"Bearer {token}"`) contains none.

use super::names::is_secret_variable;
use super::words::is_token68;
use std::ops::Range;

/// The value that is assigned to the name that starts a word at `at`.
pub(super) fn value(text: &str, at: usize) -> Option<Range<usize>> {
    match text.as_bytes()[at] {
        b'a' | b'A' if is_prefix(text, at, "authorization") => authorization(text, at),
        b'p' | b'P' => connection_string(text, at).or_else(|| variable(text, at)),
        byte if byte.is_ascii_uppercase() => variable(text, at),
        _ => None,
    }
}

/// `NAME_KEY=value`, as in environments and `.env` files.
fn variable(text: &str, at: usize) -> Option<Range<usize>> {
    let rest = &text.as_bytes()[at..];
    let name =
        rest.iter().take_while(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || **byte == b'_').count();
    if rest.get(name) != Some(&b'=') || !is_secret_variable(&text[at..at + name]) {
        return None;
    }
    literal(text, at + name + 1).filter(|value| value.len() >= 6)
}

/// A value that is written out: up to a space, a quote or a separator.
fn literal(text: &str, at: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    // In JSON text the quote is escaped.
    let start = at + bytes[at..].iter().take_while(|byte| b"\\\"'".contains(byte)).count();
    let ends = |byte: &u8| byte.is_ascii_whitespace() || b"\"'`\\;,)}]>&".contains(byte);
    let end = start + bytes[start..].iter().position(ends).unwrap_or(bytes.len() - start);
    let value = &bytes[start..end];
    let is_code = value.iter().any(|byte| b"($[{<*%".contains(byte));
    (!value.is_empty() && !is_code && text.is_char_boundary(end)).then_some(start..end)
}

/// `Authorization: Basic dXNlcjpwYXNz`, with or without quotes.
fn authorization(text: &str, at: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let skip = |at: usize, set: &[u8]| at + bytes[at..].iter().take_while(|byte| set.contains(byte)).count();
    let separator = skip(at + "authorization".len(), b"\\\"' ");
    if !matches!(bytes.get(separator), Some(b':' | b'=')) {
        return None;
    }
    let start = skip(separator + 1, b"\\\"' ");
    let word = |at: usize| at + bytes[at..].iter().take_while(|byte| is_token68(**byte)).count();
    let first = word(start);
    // A scheme, then the credentials.
    let is_scheme = first - start <= 20
        && bytes.get(first) == Some(&b' ')
        && bytes[start..first].iter().all(u8::is_ascii_alphabetic);
    let (start, end) = if is_scheme { (first + 1, word(first + 1)) } else { (start, first) };
    // `Authorization: Bearer <token>` in a manual has no credentials.
    (end - start >= 6).then_some(start..end)
}

/// `Server=h;User Id=u;Password=p` and `host=h user=u password=p`.
fn connection_string(text: &str, at: usize) -> Option<Range<usize>> {
    let name = ["password=", "pwd="].into_iter().find(|name| is_prefix(text, at, name))?;
    let before = &text.as_bytes()[at.saturating_sub(200)..at];
    let is_part = before.last() == Some(&b';')
        || [&b"host="[..], b"user="].iter().any(|field| before.windows(field.len()).any(|window| window == *field));
    if is_part { literal(text, at + name.len()) } else { None }
}

/// `-u name:password` and `--user name:password`, as curl takes them.
pub(super) fn user_option(text: &str, at: usize) -> Option<Range<usize>> {
    let option = ["-u ", "--user "].into_iter().find(|option| text[at..].starts_with(option))?;
    let value = literal(text, at + option.len())?;
    let (name, password) = text[value.clone()].split_once(':')?;
    // `docker run -u 1000:1000`
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_account = is_number(name) && is_number(password);
    let is_pair = password.len() >= 3 && !name.is_empty() && !name.contains('/') && !is_account;
    is_pair.then(|| value.start + name.len() + 1..value.end)
}

fn is_prefix(text: &str, at: usize, name: &str) -> bool {
    text.as_bytes()[at..].get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
}
