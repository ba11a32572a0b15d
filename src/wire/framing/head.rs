//! One HTTP/1 message head: is it well-formed, and what frames the body behind it.
//!
//! It must not be lenient: bare CR or LF, folded lines, odd names and doubled framing fields are faults.

use crate::error::{FramingFault, FramingRule};

/// What a head says about what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The body behind it.
    pub(crate) body: Body,
    /// True when another protocol may follow: CONNECT, an Upgrade, a 101.
    pub(crate) switches: bool,
    /// True when nothing follows the message: `Connection: close`, or HTTP/1.0 without keep-alive.
    pub(crate) is_last: bool,
}

/// How a body's end is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// There is none.
    None,
    /// By its length in bytes.
    Length(u64),
    /// By its last chunk.
    Chunked,
    /// By the end of the connection; only a response's.
    UntilClose,
}

/// Where the head that starts `bytes` ends, if all of it is there; `searched` bytes were looked at before.
pub(crate) fn find_end(bytes: &[u8], searched: usize) -> Result<Option<usize>, FramingFault> {
    // RFC 9112 §2.2: an empty line before a message is passed over.
    let lead = bytes.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count() * 2;
    // An end may straddle what was searched before.
    let mut at = searched.saturating_sub(3).max(lead);
    while let Some(found) = bytes[at..].iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        let index = at + found;
        match (bytes[index], bytes.get(index + 1)) {
            (b'\r', None) => break,
            (b'\r', Some(b'\n')) if bytes[index + 2..].starts_with(b"\r\n") => return Ok(Some(index + 4)),
            (b'\r', Some(b'\n')) => at = index + 2,
            (b'\r', _) => return Err(fault("a bare CR in the message head")),
            // The middle of a pair that the search before ended in.
            _ if index > 0 && bytes[index - 1] == b'\r' => at = index + 1,
            _ => return Err(fault("a bare LF in the message head")),
        }
    }
    if bytes.len() > MAX_HEAD_BYTES {
        let line_ends = bytes[lead..].contains(&b'\n');
        let rule = if line_ends { FramingRule::HeadTooLarge } else { FramingRule::TargetTooLong };
        return Err(FramingFault { rule, cause: "the message head is over 256 KiB" });
    }
    Ok(None)
}

/// Judges a request's head, its empty line included.
pub(crate) fn request(head: &[u8]) -> Result<Head, FramingFault> {
    let (line, fields) = lines(head)?;
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(fault("the request line is not METHOD TARGET VERSION"));
    };
    if !is_token(method) {
        return Err(fault("the method is not a token"));
    }
    if target.is_empty() || target.iter().any(|byte| byte.is_ascii_control()) {
        return Err(fault("the request target is empty or has control characters"));
    }
    if target.len() > MAX_TARGET_BYTES {
        let cause = "the request target is over 65534 bytes";
        return Err(FramingFault { rule: FramingRule::TargetTooLong, cause });
    }
    let old = is_old(version)?;
    let fields = Fields::read(fields, old)?;
    if fields.hosts > 1 {
        return Err(fault("several Host fields"));
    }
    if fields.hosts == 0 && !old {
        return Err(fault("no Host field in an HTTP/1.1 request"));
    }
    if fields.ends_early {
        return Err(fault("Transfer-Encoding in a request must be chunked"));
    }
    let body = match (fields.chunked, fields.length) {
        (true, _) => Body::Chunked,
        (false, Some(length)) => Body::Length(length),
        (false, None) => Body::None,
    };
    let connect = method == b"CONNECT";
    let switches = connect || fields.upgrades;
    if switches && !matches!(body, Body::None | Body::Length(0)) {
        return Err(fault("a CONNECT or Upgrade request must not have a body"));
    }
    Ok(Head { body, switches, is_last: fields.is_last })
}

/// Judges a response's head, its empty line included. `to_head`: it answers a HEAD request.
pub(crate) fn response(head: &[u8], to_head: bool) -> Result<Head, FramingFault> {
    let (line, fields) = lines(head)?;
    let (version, rest) = line.split_at(line.iter().position(|byte| *byte == b' ').unwrap_or(line.len()));
    let old = is_old(version)?;
    let status = match rest {
        [b' ', digits @ ..] if digits.len() == 3 || digits.get(3) == Some(&b' ') => {
            std::str::from_utf8(&digits[..3]).ok().and_then(|digits| digits.parse::<u16>().ok())
        }
        _ => None,
    };
    let status = status.filter(|status| *status >= 100).ok_or_else(|| fault("the status line has no status code"))?;
    let fields = Fields::read(fields, old)?;
    let bodiless = status < 200 || status == 204;
    if bodiless && (fields.chunked || fields.ends_early) {
        return Err(fault("Transfer-Encoding in a 1xx or 204 response"));
    }
    let body = match (fields.chunked, fields.length) {
        _ if to_head || bodiless || status == 304 => Body::None,
        (true, _) => Body::Chunked,
        (false, Some(length)) => Body::Length(length),
        (false, None) => Body::UntilClose,
    };
    Ok(Head { body, switches: status == 101, is_last: fields.is_last })
}

/// What of the fields matters for framing.
#[derive(Default)]
struct Fields {
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
    /// `Transfer-Encoding: identity`, which an old server may say for "until I close".
    ends_early: bool,
    upgrades: bool,
    is_last: bool,
}

impl Fields {
    fn read(block: &[u8], old: bool) -> Result<Self, FramingFault> {
        let mut fields = Self { is_last: old, ..Self::default() };
        let (mut codings, mut lengths, mut upgrade, mut connection_upgrade, mut count) = (0, 0, false, false, 0);
        for line in block.split_inclusive(|byte| *byte == b'\n') {
            let (name, value) = field(line.strip_suffix(b"\r\n").unwrap_or(line))?;
            count += 1;
            if name.eq_ignore_ascii_case(b"host") {
                fields.hosts += 1;
            } else if name.eq_ignore_ascii_case(b"content-length") {
                lengths += 1;
                fields.length = Some(length(value)?);
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                codings += 1;
                fields.chunked = value.eq_ignore_ascii_case(b"chunked");
                fields.ends_early = value.eq_ignore_ascii_case(b"identity");
                if !fields.chunked && !fields.ends_early {
                    // Another coding could not be passed on: the field is of this hop, the coding of the bytes is not.
                    return Err(fault("Transfer-Encoding is not chunked"));
                }
            } else if name.eq_ignore_ascii_case(b"upgrade") {
                // HTTP/2 in clear is an offer that may be ignored, and is (RFC 9113 §3.1): the request is HTTP/1.1.
                upgrade |= !value.trim_ascii().eq_ignore_ascii_case(b"h2c");
            } else if name.eq_ignore_ascii_case(b"connection") {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                    fields.is_last |= option.eq_ignore_ascii_case(b"close");
                    fields.is_last &= !option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
        }
        if count > MAX_FIELDS {
            let cause = "the message head has over 512 fields";
            return Err(FramingFault { rule: FramingRule::HeadTooLarge, cause });
        }
        if lengths > 1 {
            return Err(fault("several Content-Length fields"));
        }
        if codings > 1 {
            return Err(fault("several Transfer-Encoding fields"));
        }
        if codings > 0 && lengths > 0 {
            return Err(fault("both Transfer-Encoding and Content-Length"));
        }
        if codings > 0 && old {
            return Err(fault("Transfer-Encoding in an HTTP/1.0 message"));
        }
        fields.upgrades = upgrade && connection_upgrade;
        Ok(fields)
    }
}

/// The start line, and the field lines with their ends.
fn lines(head: &[u8]) -> Result<(&[u8], &[u8]), FramingFault> {
    let lead = head.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count() * 2;
    let head = &head[lead..head.len().saturating_sub(2).max(lead)];
    let end = head.windows(2).position(|pair| pair == b"\r\n").ok_or_else(|| fault("no start line"))?;
    Ok((&head[..end], &head[end + 2..]))
}

/// Name and value of a field line (RFC 9112 §5).
pub(super) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), FramingFault> {
    if line.starts_with(b" ") || line.starts_with(b"\t") {
        return Err(fault("a folded field line"));
    }
    let colon = line.iter().position(|byte| *byte == b':').ok_or_else(|| fault("a field line without a colon"))?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if !is_token(name) {
        return Err(fault("a field name is not a token"));
    }
    if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(fault("a field value has control characters"));
    }
    Ok((name, value))
}

/// `0`, or digits that don't start with one; never a list.
fn length(value: &[u8]) -> Result<u64, FramingFault> {
    let plain =
        value == b"0" || (value.first().is_some_and(|digit| *digit != b'0') && value.iter().all(u8::is_ascii_digit));
    let number = std::str::from_utf8(value).ok().filter(|_| plain).and_then(|digits| digits.parse().ok());
    // Sums with a length must not overflow.
    number.filter(|length| *length <= u64::MAX / 2).ok_or_else(|| fault("Content-Length is not a plain number"))
}

fn is_old(version: &[u8]) -> Result<bool, FramingFault> {
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        _ => Err(fault("the version is not HTTP/1.1 or HTTP/1.0")),
    }
}

/// RFC 9110 §5.6.2.
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn fault(cause: &'static str) -> FramingFault {
    FramingFault { rule: FramingRule::Ambiguous, cause }
}

const MAX_HEAD_BYTES: usize = 256 * 1024;
const MAX_TARGET_BYTES: usize = 65_534;
/// As many as the HTTP library is told to take.
pub(crate) const MAX_FIELDS: usize = 512;
