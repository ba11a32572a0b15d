//! The patterns of all settings: `*` stands for any text, also none, at any place and any number of times.
//!
//! Hosts and names (header fields, query and body keys) are compared without regard to ASCII case; other texts exactly.
//! Matching takes at most `pattern.len() * text.len()` steps and never allocates.

/// True when `host` (and `port`, if the pattern names one) matches `pattern`. `*.example.com` also matches
/// `example.com`, which is what people mean by it. An IPv6 address in a pattern needs brackets only before a port.
pub(crate) fn host_matches(pattern: &str, host: &str, port: u16) -> bool {
    let (pattern, pattern_port) = match pattern.rsplit_once(':') {
        Some((name, digits)) if !name.contains(':') || name.ends_with(']') => match digits.parse::<u16>() {
            Ok(number) => (name, Some(number)),
            Err(_) => (pattern, None),
        },
        _ => (pattern, None),
    };
    if pattern_port.is_some_and(|pattern_port| pattern_port != port) {
        return false;
    }
    let pattern = pattern.trim_start_matches('[').trim_end_matches(']');
    let is_apex = pattern.strip_prefix("*.").is_some_and(|apex| apex.eq_ignore_ascii_case(host));
    is_apex || name_matches(pattern, host)
}

/// True when any of `patterns` matches the host and port.
pub(crate) fn any_matches(patterns: &[String], host: &str, port: u16) -> bool {
    patterns.iter().any(|pattern| host_matches(pattern, host, port))
}

/// True when `name` matches `pattern`, upper or lower case: header fields, keys.
pub(crate) fn name_matches(pattern: &str, name: &str) -> bool {
    glob(pattern.as_bytes(), name.as_bytes(), |one, other| one.eq_ignore_ascii_case(&other))
}

/// True when `name` matches any of `patterns`, upper or lower case.
pub(crate) fn any_name_matches(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| name_matches(pattern, name))
}

/// True when `text` matches `pattern` exactly: paths, ids.
pub(crate) fn text_matches(pattern: &str, text: &str) -> bool {
    glob(pattern.as_bytes(), text.as_bytes(), |one, other| one == other)
}

/// The only matcher. After a mismatch the last `*` takes one byte more.
fn glob(pattern: &[u8], text: &[u8], is_same: impl Fn(u8, u8) -> bool) -> bool {
    let (mut pattern_at, mut text_at) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while text_at < text.len() {
        match pattern.get(pattern_at) {
            Some(b'*') => {
                star = Some((pattern_at, text_at));
                pattern_at += 1;
            }
            Some(byte) if is_same(*byte, text[text_at]) => {
                pattern_at += 1;
                text_at += 1;
            }
            _ => {
                let Some((star_at, star_text)) = star else { return false };
                (pattern_at, text_at) = (star_at + 1, star_text + 1);
                star = Some((star_at, star_text + 1));
            }
        }
    }
    pattern[pattern_at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_as_people_mean_them() {
        for (pattern, host, port, expected) in [
            ("api.openai.com", "API.openai.com", 443, true),
            ("*.openai.com", "api.openai.com", 443, true),
            ("*.OpenAI.com", "openai.com", 443, true),
            ("*.openai.com", "evilopenai.com", 443, false),
            ("*", "anything", 1, true),
            ("10.*", "10.1.2.3", 80, true),
            ("example.com:8443", "example.com", 443, false),
            ("example.com:8443", "example.com", 8443, true),
            ("[::1]:80", "::1", 80, true),
            ("::1", "::1", 80, true),
            ("a*b*c", "aXXbYYc", 80, true),
            ("a*b*c", "aXXbYY", 80, false),
        ] {
            assert_eq!(host_matches(pattern, host, port), expected, "{pattern} {host}:{port}");
        }
        assert!(name_matches("X-*-Note", "x-private-note") && !text_matches("RO-*", "ro-1"));
    }

    /// What the matcher must agree with: the definition, which takes exponential time.
    fn defined(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], _) => text.is_empty(),
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|at| defined(rest, &text[at..])),
            ([byte, rest @ ..], [first, behind @ ..]) => byte == first && defined(rest, behind),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_star_is_any_text_at_any_place(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(text_matches(&pattern, &text), defined(pattern.as_bytes(), text.as_bytes()));
            prop_assert_eq!(name_matches(&pattern.to_uppercase(), &text), text_matches(&pattern, &text));
        }
    }
}
