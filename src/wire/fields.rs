//! Header fields that outlive the message they came in.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};

/// A copy whose values share one buffer. The values of a received message are slices of the reader's buffer: to keep one
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
