//! Whether an engine rejected a request because of the fields that were added to it.

use memchr::memmem;

/// True for an error response that names one of the added fields. A request may be bad for other reasons, and a field of
/// the agent's may contain the name of an added one (`prompt_logprobs`): only a whole name counts.
pub(crate) fn is_rejection(status: u16, body: &[u8], added: &[&'static str]) -> bool {
    matches!(status, 400 | 422) && added.iter().any(|name| contains_name(body, name))
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
            assert_eq!(is_rejection(status, body.as_bytes(), &added), expected, "{body}");
        }
    }
}
