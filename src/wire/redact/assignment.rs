//! Secrets that are recognised by the name before them: in environments, headers, connection strings and command lines that
//! a text quotes.
//!
//! Only literal values count. Source code that passes a secret on (`password=password`, `f"Bearer {token}"`) contains none.

use super::names::{is_secret_name, is_secret_variable};
use super::words::is_token68;
use std::ops::Range;

/// The value that is assigned to the name that starts a word at `at`.
pub(super) fn value(text: &str, at: usize) -> Option<Range<usize>> {
    let in_query = || if at > 0 && b"?&".contains(&text.as_bytes()[at - 1]) { query_value(text, at) } else { None };
    let found = match text.as_bytes()[at] {
        b'a' | b'A' if is_prefix(text, at, "authorization") => authorization(text, at, "authorization"),
        b'x' | b'X' if is_prefix(text, at, "x-api-key") => authorization(text, at, "x-api-key"),
        b'a' => AWS_NAMES.iter().find(|name| is_prefix(text, at, name)).and_then(|name| setting(text, at + name.len())),
        b'p' | b'P' => connection_string(text, at).or_else(|| variable(text, at)),
        byte if byte.is_ascii_uppercase() => variable(text, at),
        _ => None,
    };
    found.or_else(in_query)
}

/// `NAME_KEY=value` and `NAME_KEY: value`, as in environments, `.env` files and YAML, and in source code.
fn variable(text: &str, at: usize) -> Option<Range<usize>> {
    let rest = &text.as_bytes()[at..];
    let name =
        rest.iter().take_while(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || **byte == b'_').count();
    if !is_secret_variable(text.get(at..at + name)?) {
        return None;
    }
    match rest.get(name)? {
        b'=' => {
            let value = quoted(text, at + name + 1).or_else(|| literal(text, at + name + 1));
            value.filter(|value| value.len() >= MIN_VALUE_BYTES)
        }
        b'\'' | b'"' | b'\\' | b' ' => in_code(text, at, at + name),
        // Prose also has colons.
        b':' if rest.get(name + 1) == Some(&b' ') => {
            literal(text, at + name + 2).filter(|value| looks_random(&text[value.clone()]))
        }
        _ => None,
    }
}

/// `environ["NAME_KEY"] = "value"`, `setenv("NAME_KEY", "value")`, `process.env.NAME_KEY = "value"` and `NAME_KEY = "value"`: the
/// name ends at `end`. What is no variable of the environment may be a constant of another meaning, and must look random.
fn in_code(text: &str, at: usize, end: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let skip = |at: usize, set: &[u8]| at + bytes[at..].iter().take_while(|byte| set.contains(byte)).count();
    let after_name = skip(end, b"\\\"'");
    let is_assigned = |at: usize| (bytes.get(at) == Some(&b'=')).then_some(at + 1);
    let (before_value, is_environment) = match bytes.get(after_name)? {
        b']' => (is_assigned(skip(after_name + 1, b" "))?, true),
        b',' if sets_variable(&text[..at]) => (after_name + 1, true),
        b' ' if after_name == end => {
            let before = &bytes[..at];
            let is_environment = [&b"env."[..], b"env:"].iter().any(|end| ends_with(before, end));
            (is_assigned(end + 1)?, is_environment)
        }
        _ => return None,
    };
    let value = quoted(text, skip(before_value, b" "))?;
    let is_secret = value.len() >= MIN_VALUE_BYTES && (is_environment || looks_random(&text[value.clone()]));
    is_secret.then_some(value)
}

/// True if a call that sets a variable of the environment ends here, before the variable's name: `os.Setenv("`.
fn sets_variable(before: &str) -> bool {
    let call = before.trim_end_matches(['\\', '"', '\'']).strip_suffix('(').unwrap_or_default();
    [&b"setenv"[..], b"setdefault"].iter().any(|end| ends_with(call.as_bytes(), end))
}

fn ends_with(text: &[u8], end: &[u8]) -> bool {
    text.len().checked_sub(end.len()).is_some_and(|at| text[at..].eq_ignore_ascii_case(end))
}

/// A value in quotes, which may have spaces. In JSON text the quotes are escaped.
fn quoted(text: &str, at: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let escapes = bytes.get(at..)?.iter().take_while(|byte| **byte == b'\\').count();
    let start = at + escapes + 1;
    if !b"\"'`".contains(bytes.get(start - 1)?) {
        return None;
    }
    let (closing, rest) = (&bytes[at..start], &bytes[start..bytes.len().min(start + MAX_VALUE_BYTES)]);
    let closes =
        |end: &usize| rest[*end..].starts_with(closing) && (escapes > 0 || *end == 0 || rest[end - 1] != b'\\');
    let Some(end) = (0..rest.len()).find(closes) else { return literal(text, at) };
    let is_code = rest[..end].iter().any(|byte| b"($[{<*%\n".contains(byte));
    (end > 0 && !is_code).then_some(start..start + end)
}

/// `name = value`, as in files of settings.
fn setting(text: &str, end_of_name: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let skip = |at: usize| at + bytes[at..].iter().take_while(|byte| **byte == b' ').count();
    let equals = skip(end_of_name);
    (bytes.get(equals) == Some(&b'='))
        .then(|| literal(text, skip(equals + 1)))?
        .filter(|value| value.len() >= MIN_VALUE_BYTES)
}

/// `?token=value` and `&X-Amz-Signature=value`, in a URL.
fn query_value(text: &str, at: usize) -> Option<Range<usize>> {
    let name =
        text.as_bytes()[at..].iter().take(40).take_while(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(byte));
    let name = text.get(at..at + name.count())?;
    let is_secret = is_secret_name(name) || name.eq_ignore_ascii_case("x-amz-signature");
    let equals = at + name.len();
    if !is_secret || text.as_bytes().get(equals) != Some(&b'=') {
        return None;
    }
    literal(text, equals + 1).filter(|value| value.len() >= MIN_VALUE_BYTES)
}

/// True for a text that is no word and no name of source code: it is long, and has digits and letters.
fn looks_random(text: &str) -> bool {
    let has = |is: fn(&u8) -> bool| text.as_bytes().iter().any(is);
    let is_name = text.contains('_') && !has(u8::is_ascii_uppercase);
    text.len() >= 12 && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic) && !is_name
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

/// `Authorization: Basic dXNlcjpwYXNz` and `X-Api-Key: value`, with or without quotes.
fn authorization(text: &str, at: usize, name: &str) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let skip = |at: usize, set: &[u8]| at + bytes[at..].iter().take_while(|byte| set.contains(byte)).count();
    let separator = skip(at + name.len(), b"\\\"' ");
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
    // `Authorization: Bearer <token>` in a manual has no credentials, and neither has a call in source code.
    let is_code = bytes.get(end).is_some_and(|next| b"([{<".contains(next));
    (end - start >= MIN_VALUE_BYTES && !is_code).then_some(start..end)
}

/// `Server=h;User Id=u;Password=p` and `host=h user=u password=p`.
fn connection_string(text: &str, at: usize) -> Option<Range<usize>> {
    let name = ["password=", "pwd="].into_iter().find(|name| is_prefix(text, at, name))?;
    let before = &text.as_bytes()[at.saturating_sub(200)..at];
    let is_part = before.last() == Some(&b';')
        || [&b"host="[..], b"user="].iter().any(|field| before.windows(field.len()).any(|window| window == *field));
    if is_part { literal(text, at + name.len()) } else { None }
}

/// `-u name:password` and `--user name:password`, as curl takes them, and `--token value`.
pub(super) fn option(text: &str, at: usize) -> Option<Range<usize>> {
    let starts = |option: &&&str| text[at..].starts_with(**option);
    if let Some(option) = ["--token", "--api-key", "--password"].iter().find(starts) {
        let value = at + option.len();
        let is_followed = matches!(text.as_bytes().get(value), Some(b' ' | b'='));
        return is_followed.then(|| literal(text, value + 1))?.filter(|value| looks_random(&text[value.clone()]));
    }
    let option = ["-u ", "--user "].iter().find(starts)?;
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

/// The names of the settings of AWS's programs that are secret.
const AWS_NAMES: [&str; 2] = ["aws_secret_access_key", "aws_session_token"];
/// Shorter values are more often placeholders than secrets.
const MIN_VALUE_BYTES: usize = 6;
/// As far ahead the end of a quoted value is looked for.
const MAX_VALUE_BYTES: usize = 256;
