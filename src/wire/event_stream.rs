//! AWS event stream messages (`application/vnd.amazon.eventstream`, Smithy's specification).
//!
//! A message has two lengths, a checksum, headers, the payload and another checksum. Payloads are not interpreted.

/// One message of a stream, with a valid checksum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventStreamMessage<'a> {
    /// Its `:event-type`, `:exception-type` or `:error-code`.
    pub(crate) kind: &'a [u8],
    /// True for an exception or an error.
    pub(crate) is_error: bool,
    /// The payload as transferred, often JSON.
    pub(crate) payload: &'a [u8],
    /// The index after the message in the input.
    pub(crate) end: usize,
}

/// The messages. The iteration ends with the first that is truncated or damaged, as an error.
pub(crate) fn messages(bytes: &[u8]) -> impl Iterator<Item = Result<EventStreamMessage<'_>, DamagedMessage>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let Some(length) = length_of(rest) else {
            at = bytes.len();
            return Some(Err(DamagedMessage));
        };
        at += length;
        Some(message(&rest[..length], at))
    })
}

/// A message is truncated, or its checksum is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event stream message is truncated or damaged")]
pub(crate) struct DamagedMessage;

/// The length of the message that `bytes` start with. None if it is truncated or its prelude is damaged.
fn length_of(bytes: &[u8]) -> Option<usize> {
    let length = usize::try_from(number(bytes, 0)?).ok()?;
    let prelude_is_right = number(bytes, 8)? == crc32fast::hash(&bytes[..8]);
    (prelude_is_right && (OVERHEAD_BYTES..=MAX_BYTES).contains(&length) && length <= bytes.len()).then_some(length)
}

/// True if these bytes may be the beginning of a message of which the rest is still to come.
pub(crate) fn may_continue(bytes: &[u8]) -> bool {
    if bytes.len() < PRELUDE_BYTES {
        return true;
    }
    let length = number(bytes, 0).and_then(|length| usize::try_from(length).ok()).unwrap_or_default();
    let prelude_is_right = number(bytes, 8) == Some(crc32fast::hash(&bytes[..8]));
    prelude_is_right && (OVERHEAD_BYTES..=MAX_BYTES).contains(&length) && bytes.len() < length
}

fn message(bytes: &[u8], end: usize) -> Result<EventStreamMessage<'_>, DamagedMessage> {
    let (body, sum) = bytes.split_at_checked(bytes.len() - 4).ok_or(DamagedMessage)?;
    if number(sum, 0) != Some(crc32fast::hash(body)) {
        return Err(DamagedMessage);
    }
    let headers_length = number(body, 4).and_then(|length| usize::try_from(length).ok()).ok_or(DamagedMessage)?;
    let (mut headers, payload) =
        body.get(PRELUDE_BYTES..).and_then(|rest| rest.split_at_checked(headers_length)).ok_or(DamagedMessage)?;
    let mut message = EventStreamMessage { kind: b"", is_error: false, payload, end };
    while let Some((name, value, rest)) = header(headers) {
        match name {
            b":event-type" | b":exception-type" | b":error-code" => message.kind = value,
            b":message-type" => message.is_error = value != b"event",
            _ => {}
        }
        headers = rest;
    }
    Ok(message)
}

/// Name and value of the first header, and the rest. The value of a number or boolean is its bytes.
fn header(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    let (kind, rest) = rest.split_first()?;
    let (value, rest) = match kind {
        0 | 1 => rest.split_at_checked(0)?,
        2 => rest.split_at_checked(1)?,
        3 => rest.split_at_checked(2)?,
        4 => rest.split_at_checked(4)?,
        5 | 8 => rest.split_at_checked(8)?,
        6 | 7 => {
            let (length, rest) = rest.split_at_checked(2)?;
            rest.split_at_checked(usize::from(u16::from_be_bytes([length[0], length[1]])))?
        }
        9 => rest.split_at_checked(16)?,
        _ => return None,
    };
    Some((name, value, rest))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes([word[0], word[1], word[2], word[3]]))
}

const PRELUDE_BYTES: usize = 12;
const OVERHEAD_BYTES: usize = 16;
pub(crate) const MAX_BYTES: usize = (24 << 20) + (128 << 10) + OVERHEAD_BYTES;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Writes a message with string headers.
    fn write(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
        let mut fields = Vec::new();
        for (name, value) in headers {
            fields.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
            fields.extend_from_slice(name.as_bytes());
            fields.push(7);
            fields.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
            fields.extend_from_slice(value.as_bytes());
        }
        let word = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
        let mut message = word(OVERHEAD_BYTES + fields.len() + payload.len()).to_vec();
        message.extend(word(fields.len()));
        message.extend(crc32fast::hash(&message).to_be_bytes());
        message.extend(fields);
        message.extend_from_slice(payload);
        message.extend(crc32fast::hash(&message).to_be_bytes());
        message
    }

    #[test]
    fn messages_are_read_until_one_is_damaged() {
        let event = write(&[(":message-type", "event"), (":event-type", "chunk")], b"{}");
        let error = write(&[(":message-type", "exception"), (":exception-type", "throttled")], b"");
        let mut bytes = [event.clone(), error, event].concat();
        let read: Vec<_> =
            messages(&bytes).map(|message| message.map(|message| (message.kind.to_vec(), message.is_error))).collect();
        let expected = [(b"chunk".to_vec(), false), (b"throttled".to_vec(), true), (b"chunk".to_vec(), false)];
        assert_eq!(read, expected.map(Ok));
        let last = bytes.len() - 5;
        bytes[last] ^= 1;
        assert_eq!(messages(&bytes).last(), Some(Err(DamagedMessage)));
        bytes.truncate(last);
        assert_eq!(messages(&bytes).last(), Some(Err(DamagedMessage)));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..100), flip in 0_usize..60) {
            prop_assert!(messages(&bytes).count() <= bytes.len());
            let mut written = write(&[(":event-type", "chunk")], b"payload");
            let at = flip % written.len();
            written[at] ^= 0x10;
            prop_assert!(messages(&written).all(|message| message.is_err()));
        }
    }
}
