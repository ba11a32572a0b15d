//! Where clients of LLM APIs put their API key.

use http::HeaderMap;

/// The API key in a request's header: a bearer token, or in one of the fields that clients of Anthropic, Azure and Google
/// use.
pub(crate) fn api_key(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
    bearer.or_else(|| KEY_HEADERS.iter().find_map(|name| text(name)))
}

/// The API key in a request's query, where clients of Google may put it.
pub(crate) fn api_key_in_query(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("key="))
}

const KEY_HEADERS: [&str; 3] = ["x-api-key", "api-key", "x-goog-api-key"];

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    #[test]
    fn keys_are_found_where_clients_put_them() {
        let key = |fields: &[(&'static str, &'static str)]| {
            let fields =
                fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            api_key(&HeaderMap::from_iter(fields)).map(str::to_owned)
        };
        assert_eq!(key(&[("authorization", "Bearer a"), ("x-api-key", "b")]).as_deref(), Some("a"));
        assert_eq!(key(&[("authorization", "Basic a"), ("api-key", "b")]).as_deref(), Some("b"));
        assert_eq!(key(&[("x-goog-api-key", "c")]).as_deref(), Some("c"));
        assert_eq!(key(&[("x-other", "c")]), None);
        assert_eq!((api_key_in_query("alt=sse&key=k"), api_key_in_query("monkey=k")), (Some("k"), None));
    }
}
