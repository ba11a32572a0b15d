//! Lists of host patterns in settings, checked when they are read: a pattern that can match no host is a mistake.

use serde::{Deserialize, Deserializer, de::Error};

/// A text that is no pattern of hosts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a pattern of hosts; use a host name or an IP address, with `*` for any text and an optional :PORT, such as *.example.com or 10.*:8443"
)]
struct InvalidPattern(String);

/// For `deserialize_with` of a list that may be empty.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let patterns = Vec::<String>::deserialize(deserializer)?;
    match patterns.iter().find(|pattern| !is_pattern(pattern)) {
        Some(invalid) => Err(D::Error::custom(InvalidPattern(invalid.clone()))),
        None => Ok(patterns),
    }
}

/// For `deserialize_with` of the hosts of an entry, which has no effect without one.
pub(crate) fn deserialize_non_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let patterns = deserialize(deserializer)?;
    if patterns.is_empty() {
        return Err(D::Error::custom("the list of hosts is empty; name a host, or `*` for all, or remove the entry"));
    }
    Ok(patterns)
}

fn is_pattern(text: &str) -> bool {
    let is_allowed =
        |letter: char| !letter.is_whitespace() && !letter.is_control() && !"/,;@?#\\\"'<>".contains(letter);
    let port = match text.rsplit_once(':') {
        // More colons outside brackets: an IPv6 address.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => Some(port),
        _ => None,
    };
    let host = text.strip_suffix(port.map(|port| format!(":{port}")).unwrap_or_default().as_str()).unwrap_or(text);
    !host.is_empty()
        && text.chars().all(is_allowed)
        && port.is_none_or(|port| port == "*" || port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_match_no_host_is_refused() {
        for valid in [
            "api.openai.com",
            "*.corp",
            "*",
            "10.*:8443",
            "::1",
            "[::1]",
            "[::1]:80",
            "fe80::*",
            "x_y-z",
            "bücher.example",
        ] {
            assert!(is_pattern(valid), "{valid}");
        }
        for invalid in [
            "",
            " ",
            "a b",
            "a,b",
            "https://a.example",
            "a.example/v1",
            "10.0.0.0/8",
            "u@h",
            ":80",
            "h:",
            "h:99999",
            "h:http",
        ] {
            assert!(!is_pattern(invalid), "{invalid}");
        }
    }
}
