//! Patterns of the settings, mostly of hosts: `*` for any text, case-insensitive, optionally with `:port`.

/// True when `host` (and `port`, if the pattern names one) matches `pattern`. `*.example.com` also matches
/// `example.com`, which is what people mean by it.
pub fn host_matches(pattern: &str, host: &str, port: u16) -> bool {
    let (pattern, wanted_port) = match pattern.rsplit_once(':') {
        Some((name, digits)) if !name.contains(':') || name.ends_with(']') => match digits.parse::<u16>() {
            Ok(number) => (name, Some(number)),
            Err(_) => (pattern, None),
        },
        _ => (pattern, None),
    };
    if wanted_port.is_some_and(|wanted| wanted != port) {
        return false;
    }
    let pattern = pattern.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let host = host.to_ascii_lowercase();
    pattern.strip_prefix("*.") == Some(host.as_str()) || glob(pattern.as_bytes(), host.as_bytes())
}

/// True when any of `patterns` matches.
pub fn any_matches(patterns: &[String], host: &str, port: u16) -> bool {
    patterns.iter().any(|pattern| host_matches(pattern, host, port))
}

/// True when `text` matches `pattern`, where `*` stands for any text.
pub fn text_matches(pattern: &str, text: &str) -> bool {
    glob(pattern.as_bytes(), text.as_bytes())
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < text.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, from));
            at += 1;
        } else if pattern.get(at) == Some(&text[from]) {
            at += 1;
            from += 1;
        } else if let Some((star_at, star_from)) = star {
            at = star_at + 1;
            from = star_from + 1;
            star = Some((star_at, star_from + 1));
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::host_matches;

    #[test]
    fn patterns_match_as_people_mean_them() {
        for (pattern, host, port, expected) in [
            ("api.openai.com", "API.openai.com", 443, true),
            ("*.openai.com", "api.openai.com", 443, true),
            ("*.openai.com", "openai.com", 443, true),
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
    }
}
