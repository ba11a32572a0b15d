//! Header fields that outlive the message they came in, and those that end at each hop.

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};

/// The fields about one connection (RFC 9110 §7.6.1).
pub(crate) const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Removes from trailers what says how a message is framed or routed: a recipient must not use it there (RFC 9110 §6.5.1).
pub(crate) fn remove_not_of_trailers(trailers: &mut HeaderMap) {
    for name in HOP_BY_HOP.iter().chain(&[header::CONTENT_LENGTH, header::HOST, header::TRAILER]) {
        trailers.remove(name);
    }
}

/// A copy. Its values share one buffer. The values of a received message are slices of the reader's buffer: to keep one
/// of them would keep all of that buffer.
pub(crate) fn copy(headers: &HeaderMap) -> HeaderMap {
    let length = headers.values().map(HeaderValue::len).sum();
    let mut values = BytesMut::with_capacity(length);
    headers.values().for_each(|value| values.extend_from_slice(value.as_bytes()));
    let mut values: Bytes = values.freeze();
    let mut copied = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        // The bytes of a value are a valid value again.
        if let Ok(mut copy) = HeaderValue::from_maybe_shared(values.split_to(value.len())) {
            copy.set_sensitive(value.is_sensitive());
            copied.append(name, copy);
        }
    }
    copied
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_the_same_in_the_same_order() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("b", "1"), ("a", ""), ("b", "2, \u{e9}")] {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let copied = copy(&headers);
        assert_eq!(copied, headers);
        assert!(copied.iter().eq(headers.iter()));
    }
}
