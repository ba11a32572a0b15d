//! Rules about what the exchanges of a rollout may reach: an agent that reaches something else may have found the answer to its
//! task.

use super::verdict_settings::VerdictSettings;
use crate::trace::semconv as names;
use crate::trace::{Span, Value};
use crate::util::glob::{any_matches, text_matches};
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// The first rule that an exchange broke: the name of the reason, and what the exchange did.
pub(super) fn violation(span: &Span, rules: &VerdictSettings) -> Option<(&'static str, String)> {
    let text = |name| span.attributes.get(name).and_then(Value::as_str);
    let is_model_call = span.attributes.contains_key(names::DIALECT);
    let port = span.attributes.get(names::SERVER_PORT).and_then(Value::as_int);
    let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or_default();
    // Connections that were relayed unread have a host, but no URL.
    if let Some(host) = text(names::SERVER_ADDRESS)
        && !is_model_call
        && !rules.allow_hosts.is_empty()
        && !any_matches(&rules.allow_hosts, host.trim_end_matches('.'), port)
    {
        return Some(("host_not_allowed", format!("the agent reached {host}")));
    }
    let url = text(names::URL_FULL)?;
    let same = comparable(url);
    let is_denied = |pattern: &String| text_matches(pattern, url) || text_matches(&comparable(pattern), &same);
    if rules.deny_urls.iter().any(is_denied) {
        return Some(("denied_url", format!("the agent reached {url}")));
    }
    if is_model_call {
        return None;
    }
    let decoded = percent_decode_str(url).decode_utf8_lossy();
    let bodies = [names::HTTP_REQUEST_BODY_CONTENT, names::HTTP_RESPONSE_BODY_CONTENT];
    let texts = [Some(url), Some(&*decoded)].into_iter().chain(bodies.map(text)).flatten();
    let is_found = |word: &&String| !word.is_empty() && texts.clone().any(|text| text.contains(word.as_str()));
    let word = rules.deny_text.iter().find(is_found)?;
    Some(("denied_text", format!("{url} has {word:?}")))
}

/// A URL in the spelling in which all that reach the same resource are equal: without upper case, escapes, user name, default
/// port, empty segments and dots. Servers that tell cases apart are rarer than agents that try another one.
fn comparable(url: &str) -> String {
    let lower = url.to_ascii_lowercase();
    let decoded: Cow<'_, str> = percent_decode_str(&lower).decode_utf8_lossy();
    let Some((scheme, rest)) = decoded.split_once("://") else { return decoded.into_owned() };
    let (target, query) = rest.split_at(rest.find(['?', '#']).unwrap_or(rest.len()));
    let (authority, path) = target.split_at(target.find('/').unwrap_or(target.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let default_port = if scheme == "http" || scheme == "ws" { ":80" } else { ":443" };
    let host = host.strip_suffix(default_port).unwrap_or(host).trim_end_matches('.');
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    format!("{scheme}://{host}/{}{query}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_url_are_equal() {
        for url in [
            "https://github.com/org/task",
            "https://GitHub.com:443/Org/task/",
            "https://user:x@github.com./org/%74ask",
            "https://github.com//org/./other/../task",
        ] {
            assert_eq!(comparable(url), "https://github.com/org/task", "{url}");
        }
        assert_eq!(comparable("http://a:8080?q=%41"), "http://a:8080/?q=A");
        assert_eq!(comparable("*/Task*"), "*/task*");
        assert_ne!(comparable("https://github.com/orgs/task"), comparable("https://github.com/org/task"));
    }
}
