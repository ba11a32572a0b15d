//! Secret fields of `multipart/form-data` (RFC 7578).

use super::names::REDACTED;

/// Replaces the content of each part with a secret name.
pub(super) fn redact_parts(text: &str, is_secret: &dyn Fn(&str) -> bool) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("name=") {
        let start = at + "name=".len();
        let name = rest[start..].trim_start_matches('"').split(['"', ';', '\r', '\n']).next().unwrap_or_default();
        let Some(content) = rest[start..].find("\r\n\r\n").map(|found| start + found + 4) else { break };
        let end = rest[content..].find("\r\n--").map_or(rest.len(), |found| content + found);
        if is_secret(name) {
            out.push_str(&rest[..content]);
            out.push_str(REDACTED);
        } else {
            out.push_str(&rest[..end]);
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}
