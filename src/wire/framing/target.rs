//! Request targets that servers take and the HTTP library refuses or changes.
//!
//! The library gets a target with the refused bytes percent-encoded; the endpoint gets the one that came.

use super::head::{MAX_TARGET_BYTES, fault, lines};
use crate::error::{FramingFault, FramingRule};
use bytes::Bytes;
use http::Uri;
use http::uri::PathAndQuery;

/// A path and query that the HTTP library can't hold as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawTarget {
    /// As the library holds it.
    pub(crate) encoded: String,
    /// As the endpoint must get it.
    pub(crate) raw: Bytes,
}

/// A request head for the HTTP library.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RewrittenHead {
    /// The head, its empty line included.
    pub(crate) head: Vec<u8>,
    /// What stands in it for the target that came.
    pub(crate) target: RawTarget,
}

/// The head to give to the HTTP library in place of a sound request head, if its target must change. A target that is
/// still no URI is a fault.
pub(super) fn rewritten(head: &[u8]) -> Result<Option<RewrittenHead>, FramingFault> {
    let (line, _) = lines(head)?;
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let start = path_start(target);
    let rest = &target[start..];
    let raw = match rest.first() {
        // RFC 9112 §3.2.4: an OPTIONS request for a whole server.
        None if start > 0 && target.contains(&b'/') && method == b"OPTIONS" => Bytes::from_static(b"*"),
        // RFC 9112 §3.2.1: an empty path is sent as "/".
        Some(b'?' | b'#') => [b"/", rest].concat().into(),
        _ => Bytes::copy_from_slice(rest),
    };
    let encoded = if raw == "*" { "/".to_owned() } else { encode(&raw) };
    let whole = [&target[..start], encoded.as_bytes()].concat();
    if whole.len() > MAX_TARGET_BYTES {
        let cause = "the request target is over 65534 bytes when it is percent-encoded";
        return Err(FramingFault { rule: FramingRule::TargetTooLong, cause });
    }
    if Uri::try_from(whole.as_slice()).is_err() {
        return Err(fault("the request target is not a URI"));
    }
    if encoded.as_bytes() == rest {
        return Ok(None);
    }
    let lead = head.len() - head.trim_ascii_start().len();
    let after = &head[lead + method.len() + 1 + target.len()..];
    let head = [method, b" ", &whole, after].concat();
    Ok(Some(RewrittenHead { head, target: RawTarget { encoded, raw } }))
}

/// The same for a path and query alone, as HTTP/2 has them. `None` if the library can hold it as it came.
pub(crate) fn encoded_path(path: &[u8]) -> Result<Option<RawTarget>, FramingFault> {
    let encoded = encode(path);
    if encoded.len() > MAX_TARGET_BYTES {
        let cause = "the request target is over 65534 bytes";
        return Err(FramingFault { rule: FramingRule::TargetTooLong, cause });
    }
    if PathAndQuery::try_from(encoded.as_str()).is_err() || !(path.starts_with(b"/") || path == b"*") {
        return Err(fault("the request target is not a URI"));
    }
    Ok((encoded.as_bytes() != path).then(|| RawTarget { encoded, raw: Bytes::copy_from_slice(path) }))
}

/// Where path and query start: behind the authority of an absolute target. At the end of a target without a path.
fn path_start(target: &[u8]) -> usize {
    if target.starts_with(b"/") {
        return 0;
    }
    let Some(scheme) = target.windows(3).position(|window| window == b"://") else { return target.len() };
    let authority = scheme + 3;
    let path = target[authority..].iter().position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    path.map_or(target.len(), |path| authority + path)
}

/// Percent-encodes what a URI can't hold. Bytes beyond ASCII may stay if they are UTF-8.
fn encode(path: &[u8]) -> String {
    let is_text = std::str::from_utf8(path).is_ok();
    let mut encoded = Vec::with_capacity(path.len());
    for byte in path {
        if REFUSED.contains(byte) || (!is_text && !byte.is_ascii()) {
            encoded.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            encoded.push(*byte);
        }
    }
    String::from_utf8_lossy(&encoded).into_owned()
}

/// What the library refuses in a path or in a query, and `#`, from which on it drops the rest.
const REFUSED: &[u8] = b"\"<>`#";

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, target: &str) -> Option<(String, String)> {
        let head = format!("\r\n{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        rewritten(head.as_bytes()).unwrap().map(|rewritten| {
            let head = String::from_utf8(rewritten.head).unwrap();
            assert!(head.ends_with(" HTTP/1.1\r\nHost: a\r\n\r\n"), "{head}");
            let line = head.split(' ').nth(1).unwrap().to_owned();
            assert!(line.ends_with(&rewritten.target.encoded), "{line}");
            (line, String::from_utf8(rewritten.target.raw.to_vec()).unwrap())
        })
    }

    #[test]
    fn what_the_library_refuses_is_encoded_and_kept() {
        for (target, encoded, raw) in [
            ("/a?q={\"b\"}", "/a?q={%22b%22}", "/a?q={\"b\"}"),
            ("http://h/a`b", "http://h/a%60b", "/a`b"),
            ("http://h:1?x=<1>", "http://h:1/?x=%3C1%3E", "/?x=<1>"),
            ("http://h?x=1", "http://h/?x=1", "/?x=1"),
            ("/a#b?c", "/a%23b?c", "/a#b?c"),
        ] {
            assert_eq!(of("GET", target), Some((encoded.to_owned(), raw.to_owned())), "{target}");
        }
        assert_eq!(of("OPTIONS", "http://h"), Some(("http://h/".to_owned(), "*".to_owned())));
        for (method, same) in
            [("GET", "http://h"), ("GET", "/%zz?a=[b]"), ("OPTIONS", "*"), ("OPTIONS", "http://h/"), ("CONNECT", "h:1")]
        {
            assert_eq!(of(method, same), None, "{same}");
        }
    }

    #[test]
    fn a_path_alone_is_encoded_in_the_same_way() {
        let of = |path: &[u8]| encoded_path(path).map(|raw| raw.map(|raw| (raw.encoded, raw.raw)));
        for same in ["/", "*", "/a?b=%zz{}|^[]", "/\u{e9}"] {
            assert_eq!(of(same.as_bytes()), Ok(None), "{same}");
        }
        for (path, encoded) in [(&b"/q?x=\"<`#"[..], "/q?x=%22%3C%60%23"), (b"/\xe9", "/%E9")] {
            assert_eq!(of(path), Ok(Some((encoded.to_owned(), path.into()))), "{encoded}");
        }
        for wrong in [&b""[..], b"a", b"?", b"/ ", b"/\0", b"/\x7f"] {
            assert!(of(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_target_that_is_no_uri_is_a_fault() {
        for target in ["http://h o/", "a", "http://h<>/", "h:99999999/x"] {
            let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            assert!(!matches!(rewritten(head.as_bytes()), Ok(Some(_))), "{target}");
        }
    }
}
