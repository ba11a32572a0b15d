//! One HTTP/1 message head: whether it is well-formed, and what frames the body behind it.
//!
//! It is never lenient: bare CR or LF, folded lines, malformed names and repeated framing fields are faults.

use crate::error::{FramingFault, FramingRule};
use http::Version;

/// What a head says about the bytes that follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// How the end of the body is known.
    pub(crate) body: BodyFraming,
    /// True when another protocol may follow: after CONNECT, an Upgrade, a 101.
    pub(crate) switches: bool,
    /// True when no message follows on the connection: `Connection: close`, or HTTP/1.0 without keep-alive.
    pub(crate) is_last: bool,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFraming {
    /// There is no body.
    None,
    /// By its length in bytes.
    Length(u64),
    /// By its last chunk.
    Chunked,
    /// By the end of the connection. Only responses have such bodies.
    UntilClose,
}

/// The request that a response answers, as far as its framing depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ResponseTo {
    /// A HEAD request: the response has no body, whatever its fields say.
    Head,
    /// Any other request: the fields of the response say whether it has a body.
    #[default]
    Other,
}

/// The end of the head that `bytes` start with. None if the head is not complete. `searched` bytes were searched before.
pub(crate) fn find_end(bytes: &[u8], searched: usize) -> Result<Option<usize>, FramingFault> {
    // RFC 9112 §2.2: an empty line before a message is skipped.
    let lead = bytes.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count() * 2;
    // The end may start within the bytes that were searched before.
    let mut at = searched.saturating_sub(3).max(lead);
    while let Some(found) = bytes[at..].iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        let index = at + found;
        match (bytes[index], bytes.get(index + 1)) {
            (b'\r', None) => break,
            (b'\r', Some(b'\n')) if bytes[index + 2..].starts_with(b"\r\n") => return Ok(Some(index + 4)),
            (b'\r', Some(b'\n')) => at = index + 2,
            (b'\r', _) => return Err(fault("a bare CR in the message head")),
            // The LF of a pair. Its CR was the last byte of the search before.
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

/// Judges the head of a request, its empty line included.
pub(crate) fn request(head: &[u8]) -> Result<Head, FramingFault> {
    let (line, fields) = lines(head)?;
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(fault("the request line is not METHOD TARGET VERSION"));
    };
    if !is_token(method) {
        return Err(NO_METHOD);
    }
    if target.is_empty() || target.iter().any(|byte| byte.is_ascii_control()) {
        return Err(fault("the request target is empty or has control characters"));
    }
    if target == b"*" && method != b"OPTIONS" {
        return Err(ASTERISK);
    }
    if target.len() > MAX_TARGET_BYTES {
        let cause = "the request target is over 65534 bytes";
        return Err(FramingFault { rule: FramingRule::TargetTooLong, cause });
    }
    let version = http_version(version)?;
    let fields = Fields::read(fields, version)?;
    if fields.hosts > 1 {
        return Err(fault("several Host fields"));
    }
    if fields.hosts == 0 && version == Version::HTTP_11 {
        return Err(fault("no Host field in an HTTP/1.1 request"));
    }
    if fields.is_identity {
        return Err(fault("Transfer-Encoding in a request must be chunked"));
    }
    let body = match (fields.chunked, fields.length) {
        (true, _) => BodyFraming::Chunked,
        (false, Some(length)) => BodyFraming::Length(length),
        (false, None) => BodyFraming::None,
    };
    let is_empty = matches!(body, BodyFraming::None | BodyFraming::Length(0));
    let connects = method == b"CONNECT";
    if connects && !is_empty {
        return Err(CONNECT_WITH_BODY);
    }
    // An offer with a body is ignored: one hop could take the body for the new protocol (CVE-2026-58055).
    let switches = connects || (fields.upgrades && is_empty);
    Ok(Head { body, switches, is_last: fields.is_last })
}

/// Judges the head of a response, its empty line included.
pub(crate) fn response(head: &[u8], request: ResponseTo) -> Result<Head, FramingFault> {
    let (line, fields) = lines(head)?;
    let (version, status) = status_line(line)?;
    let fields = Fields::read(fields, version)?;
    let bodiless = status < 200 || status == 204;
    if bodiless && (fields.chunked || fields.is_identity) {
        return Err(fault("Transfer-Encoding in a 1xx or 204 response"));
    }
    let body = match (fields.chunked, fields.length) {
        _ if request == ResponseTo::Head || bodiless || status == 304 => BodyFraming::None,
        (true, _) => BodyFraming::Chunked,
        (false, Some(length)) => BodyFraming::Length(length),
        (false, None) => BodyFraming::UntilClose,
    };
    Ok(Head { body, switches: status == 101, is_last: fields.is_last })
}

/// The end of the head of a response, as [`find_end`]. An incomplete head is judged by the lines that it has.
pub(super) fn find_response_end(bytes: &[u8], searched: usize) -> Result<Option<usize>, FramingFault> {
    begins_response(bytes)?;
    let end = find_end(bytes, searched)?;
    if end.is_none() {
        new_fields(bytes, searched)?;
    }
    Ok(end)
}

/// Whether bytes that are no whole head yet can become the head of a response. What another protocol sends is told by its first
/// bytes: its endpoint may wait for an answer.
fn begins_response(bytes: &[u8]) -> Result<(), FramingFault> {
    let lead = bytes.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count() * 2;
    let start = &bytes[lead..];
    let known = start.len().min(RESPONSE_START.len());
    if start[..known] == RESPONSE_START[..known] || b"\r\n".starts_with(start) {
        return match start.windows(2).position(|pair| pair == b"\r\n") {
            Some(end) => status_line(&start[..end]).map(drop),
            None => Ok(()),
        };
    }
    Err(fault(match start {
        [TLS_ALERT | TLS_HANDSHAKE, TLS_MAJOR, ..] => "the endpoint speaks TLS; use https",
        _ => "the response does not begin with HTTP/1.1 or HTTP/1.0",
    }))
}

/// Judges the field lines of an incomplete head that end behind the first `searched` bytes, so that a wrong one is refused at once.
fn new_fields(head: &[u8], searched: usize) -> Result<(), FramingFault> {
    let lead = head.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count() * 2;
    let Some(start_line) = head[lead..].windows(2).position(|pair| pair == b"\r\n") else { return Ok(()) };
    let start = lead + start_line + 2;
    let bytes = &head[start..];
    let (old, new) = bytes.split_at(searched.saturating_sub(start).min(bytes.len()));
    let Some(last) = new.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
    let first = old.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    for line in bytes[first..=old.len() + last].split_inclusive(|byte| *byte == b'\n') {
        field(line.strip_suffix(b"\r\n").unwrap_or(line))?;
    }
    Ok(())
}

/// Version and status code of a status line.
fn status_line(line: &[u8]) -> Result<(Version, u16), FramingFault> {
    let (version, rest) = line.split_at(line.iter().position(|byte| *byte == b' ').unwrap_or(line.len()));
    let version = http_version(version)?;
    let status = match rest {
        [b' ', digits @ ..] if digits.len() == 3 || digits.get(3) == Some(&b' ') => {
            std::str::from_utf8(&digits[..3]).ok().and_then(|digits| digits.parse::<u16>().ok())
        }
        _ => None,
    };
    let status = status.filter(|status| *status >= 100).ok_or_else(|| fault("the status line has no status code"))?;
    Ok((version, status))
}

/// The reason phrase of a final response, if it has bytes beyond ASCII: the HTTP library drops such phrases.
pub(super) fn reason_beyond_ascii(head: &[u8]) -> Option<Vec<u8>> {
    let (line, _) = lines(head).ok()?;
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let (_version, status, reason) = (words.next()?, words.next()?, words.next()?);
    (!status.starts_with(b"1") && !reason.is_ascii()).then(|| reason.to_vec())
}

/// The fields that framing depends on.
#[derive(Default)]
struct Fields {
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
    /// True for `Transfer-Encoding: identity`, which old servers send for a body that ends with the connection.
    is_identity: bool,
    upgrades: bool,
    is_last: bool,
}

impl Fields {
    fn read(block: &[u8], version: Version) -> Result<Self, FramingFault> {
        let mut fields = Self { is_last: version == Version::HTTP_10, ..Self::default() };
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
                fields.is_identity = value.eq_ignore_ascii_case(b"identity");
                if !fields.chunked && !fields.is_identity {
                    // No other coding can be forwarded: the field is removed at this hop, but the bytes stay coded.
                    return Err(fault("Transfer-Encoding is not chunked"));
                }
            } else if name.eq_ignore_ascii_case(b"upgrade") {
                upgrade |= is_taken(value);
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
        if codings > 0 && version == Version::HTTP_10 {
            return Err(fault("Transfer-Encoding in an HTTP/1.0 message"));
        }
        fields.upgrades = upgrade && connection_upgrade;
        Ok(fields)
    }
}

/// True when an `Upgrade` names a protocol that the proxy relays. Offers of cleartext HTTP/2 and of TLS (RFC 2817) are
/// ignored, as any server may: the exchanges after them could not be recorded.
pub(crate) fn is_taken(upgrade: &[u8]) -> bool {
    let mut protocols = upgrade.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    protocols.any(|protocol| {
        let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default();
        !name.is_empty() && !IGNORED_UPGRADES.iter().any(|ignored| name.eq_ignore_ascii_case(ignored))
    })
}

/// The start line, and the field lines with their line ends.
pub(super) fn lines(head: &[u8]) -> Result<(&[u8], &[u8]), FramingFault> {
    let lead = head.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count() * 2;
    let head = &head[lead..head.len().saturating_sub(2).max(lead)];
    let end = head.windows(2).position(|pair| pair == b"\r\n").ok_or_else(|| fault("no start line"))?;
    Ok((&head[..end], &head[end + 2..]))
}

/// Name and value of a field line without its line end (RFC 9112 §5).
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

/// A Content-Length: digits, which may begin with zeros (RFC 9110 §8.6); never a sign or a list.
fn length(value: &[u8]) -> Result<u64, FramingFault> {
    let plain = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(value).ok().filter(|_| plain).and_then(|digits| digits.parse().ok());
    // Sums with a length must not overflow.
    number.filter(|length| *length <= u64::MAX / 2).ok_or_else(|| fault("Content-Length is not a plain number"))
}

fn http_version(version: &[u8]) -> Result<Version, FramingFault> {
    match version {
        b"HTTP/1.1" => Ok(Version::HTTP_11),
        b"HTTP/1.0" => Ok(Version::HTTP_10),
        _ => Err(fault("the version is not HTTP/1.1 or HTTP/1.0")),
    }
}

/// True for a token (RFC 9110 §5.6.2).
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// RFC 9112 §3.2.4.
pub(crate) const ASTERISK: FramingFault = fault("the target * is for OPTIONS only");
/// A CONNECT has no content that an endpoint could read.
pub(crate) const CONNECT_WITH_BODY: FramingFault = fault("a CONNECT request must not have a body");
/// RFC 9110 §9.1.
pub(crate) const NO_METHOD: FramingFault = fault("the method is not a token");

pub(super) const fn fault(cause: &'static str) -> FramingFault {
    FramingFault { rule: FramingRule::Ambiguous, cause }
}

/// Longest head. The HTTP library's buffers hold as much: more would only be memory that a slow reader takes.
pub(crate) const MAX_HEAD_BYTES: usize = 128 * 1024;
/// The same limit in HTTP/2, where each field counts 32 bytes more (RFC 9113 §6.5.2).
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
pub(crate) const MAX_FIELD_LIST_BYTES: u32 = (MAX_HEAD_BYTES + 32 * MAX_FIELDS) as u32;
pub(super) const MAX_TARGET_BYTES: usize = 65_534;
const RESPONSE_START: &[u8] = b"HTTP/1.";
const TLS_ALERT: u8 = 21;
const TLS_HANDSHAKE: u8 = 22;
const TLS_MAJOR: u8 = 3;
const IGNORED_UPGRADES: [&[u8]; 2] = [b"h2c", b"TLS"];
/// Maximum header fields of a message. The HTTP library gets the same limit.
pub(crate) const MAX_FIELDS: usize = 512;
