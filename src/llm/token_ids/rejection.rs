//! Whether an engine rejected a request because of the fields that were added to it.

use memchr::memmem;

/// Those of the added fields that an error response names. A request may be bad for other reasons, and a field of the
/// agent's may contain the name of an added one (`prompt_logprobs`): only a whole name counts.
pub(crate) fn rejected_fields(status: u16, body: &[u8], added: &[&'static str]) -> Vec<&'static str> {
    let is_named = |name: &&'static str| may_reject(status) && contains_name(body, name);
    added.iter().copied().filter(is_named).collect()
}

/// True for a status by which a server rejects fields.
pub(crate) fn may_reject(status: u16) -> bool {
    matches!(status, 400 | 422)
}

fn contains_name(body: &[u8], name: &str) -> bool {
    let is_part =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    memmem::find_iter(body, name.as_bytes()).any(|at| {
        !is_part(at.checked_sub(1).and_then(|before| body.get(before))) && !is_part(body.get(at + name.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_that_name_an_added_field_are_rejections() {
        let added = ["return_token_ids", "logprobs"];
        for (status, body, expected) in [
            (400, "unknown field return_token_ids", true),
            (422, r#"{"loc":["body","logprobs"]}"#, true),
            (400, "logprobs", true),
            (400, "`prompt_logprobs` are not available when `stream=True`", false),
            (400, "max_tokens is too large", false),
            (500, "return_token_ids", false),
            (200, "return_token_ids", false),
        ] {
            assert_eq!(!rejected_fields(status, body.as_bytes(), &added).is_empty(), expected, "{body}");
        }
    }
}
