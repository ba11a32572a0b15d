//! Detects the protocol of a connection by the client's first bytes.
//!
//! It reads until the protocol is certain and never decides on a short read: HTTP/1 is known by its whole request line,
//! since other protocols begin with words and spaces too. All consumed bytes are returned for replay. A server that sends
//! first makes the connection opaque, and so does a client that waits for an answer to less than a request line.

use super::io::BoxedIo;
use crate::wire::client_hello::is_whole;
use crate::wire::framing::head::MAX_HEAD_BYTES;
use bytes::{Bytes, BytesMut};
use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// The protocol that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// A TLS ClientHello.
    Tls,
    /// An HTTP/1 request line.
    Http1,
    /// The HTTP/2 preface, without TLS.
    Http2,
    /// Anything else, or a server that sends first.
    Opaque,
}

/// What happens to a client that sends less than its protocol needs to be known, and then waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnSilence {
    /// It is waited for: the listener itself speaks HTTP only.
    Wait,
    /// It is taken for a client that waits for an answer, in a protocol of short messages.
    Opaque,
}

/// Reads from `client` until its protocol is known, `server_speaks` completes, or the client closes.
pub(crate) async fn sniff(
    client: &mut BoxedIo,
    server_speaks: impl Future<Output = ()>,
    on_silence: OnSilence,
) -> io::Result<(Protocol, Bytes)> {
    tokio::pin!(server_speaks);
    let mut seen = BytesMut::with_capacity(FIRST_READ_BYTES);
    loop {
        // A request line that has begun, with a method and a space, is waited for.
        let silent = on_silence == OnSilence::Opaque && !seen.is_empty() && !seen.contains(&b' ');
        let silence = async {
            match silent {
                true => tokio::time::sleep(SILENCE).await,
                false => std::future::pending().await,
            }
        };
        let read = tokio::select! {
            biased;
            read = client.read_buf(&mut seen) => read?,
            () = &mut server_speaks => return Ok((Protocol::Opaque, seen.freeze())),
            () = silence => return Ok((Protocol::Opaque, seen.freeze())),
        };
        if read == 0 {
            return Ok((Protocol::Opaque, seen.freeze()));
        }
        if let Some(protocol) = decide(&seen) {
            return Ok((protocol, seen.freeze()));
        }
    }
}

/// Reads the TLS records of `client` that its ClientHello spans, of which `seen` was already consumed. The result may
/// contain bytes behind them.
pub(crate) async fn read_client_hello(client: &mut BoxedIo, seen: Bytes) -> io::Result<Bytes> {
    let mut records = BytesMut::from(seen);
    while !is_whole(&records) {
        if client.read_buf(&mut records).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(records.freeze())
}

/// The protocol of a stream that starts with `seen`; `None` while it could still be several.
fn decide(seen: &[u8]) -> Option<Protocol> {
    match seen {
        [] | [TLS_HANDSHAKE] => return None,
        [TLS_HANDSHAKE, TLS_MAJOR, ..] => return Some(Protocol::Tls),
        _ => {}
    }
    if seen.starts_with(HTTP2_PREFACE) {
        return Some(Protocol::Http2);
    }
    if HTTP2_PREFACE.starts_with(seen) {
        return None;
    }
    // Any token is a method: PATCH and QUERY count, and so do future ones.
    match seen.iter().position(|byte| !is_token(*byte)) {
        Some(end) if end > 0 && end <= MAX_METHOD_BYTES && seen[end] == b' ' => http_request_line(seen),
        None if seen.len() <= MAX_METHOD_BYTES => None,
        _ => Some(Protocol::Opaque),
    }
}

/// Whether a stream that starts like a request line is HTTP/1, which the end of that line tells. A line that is longer than
/// any other protocol's is left to the reader of HTTP, which refuses it with a reason.
fn http_request_line(seen: &[u8]) -> Option<Protocol> {
    let Some(end) = seen.iter().position(|byte| *byte == b'\n') else {
        return (seen.len() > MAX_HEAD_BYTES).then_some(Protocol::Http1);
    };
    let version = seen[..end].trim_ascii_end().rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    Some(if version.starts_with(b"HTTP/") { Protocol::Http1 } else { Protocol::Opaque })
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

const TLS_HANDSHAKE: u8 = 0x16;
const TLS_MAJOR: u8 = 0x03;
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const MAX_METHOD_BYTES: usize = 20;
const FIRST_READ_BYTES: usize = 1024;
/// No HTTP client pauses this long within a method, even on a busy machine.
const SILENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn recognises_by_first_bytes() {
        assert_eq!(decide(b"\x16\x03\x01"), Some(Protocol::Tls));
        assert_eq!(decide(b"\x16\x02\x01"), Some(Protocol::Opaque));
        assert_eq!(decide(b"POST /v1 HTTP/1.1\r\n"), Some(Protocol::Http1));
        assert_eq!(decide(b"POST /v1"), None);
        assert_eq!(decide(b"POS"), None);
        for other in ["get key\r\n", "OPTIONS rtsp://h/s RTSP/1.0\r\n", "CONNECT {\"verbose\":false}\r\n", "GET /old\n"]
        {
            assert_eq!(decide(other.as_bytes()), Some(Protocol::Opaque), "{other}");
        }
        assert_eq!(decide(b"PRI * HTTP/2.0\r\n"), None);
        assert_eq!(decide(HTTP2_PREFACE), Some(Protocol::Http2));
        assert_eq!(decide(b"PRI /x HTTP/1.1\r\n"), Some(Protocol::Http1));
        assert_eq!(decide(b"SSH-2.0-OpenSSH_9.2\r\n"), Some(Protocol::Opaque));
        assert_eq!(decide(b"\0\x01"), Some(Protocol::Opaque));
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_the_result(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut known = None;
            for end in 0..=bytes.len() {
                let now = decide(&bytes[..end]);
                if known.is_some() {
                    prop_assert_eq!(now, known);
                }
                known = now;
            }
        }
    }

    #[tokio::test]
    async fn a_split_request_line_is_still_http() {
        let (mut agent, ours) = tokio::io::duplex(64);
        let mut ours: BoxedIo = Box::new(ours);
        let task =
            tokio::spawn(async move { sniff(&mut ours, std::future::pending(), OnSilence::Opaque).await.unwrap() });
        for byte in b"POST / HTTP/1.1\r\n" {
            tokio::io::AsyncWriteExt::write_all(&mut agent, &[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(task.await.unwrap().0, Protocol::Http1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_waits_for_an_answer_to_a_word_is_opaque() {
        let (mut agent, ours) = tokio::io::duplex(64);
        let mut ours: BoxedIo = Box::new(ours);
        tokio::io::AsyncWriteExt::write_all(&mut agent, b"ruok").await.unwrap();
        let (protocol, seen) = sniff(&mut ours, std::future::pending(), OnSilence::Opaque).await.unwrap();
        assert_eq!((protocol, &seen[..]), (Protocol::Opaque, &b"ruok"[..]));
    }

    #[tokio::test]
    async fn a_server_that_sends_first_is_opaque() {
        let (_agent, ours) = tokio::io::duplex(64);
        let mut ours: BoxedIo = Box::new(ours);
        assert_eq!(sniff(&mut ours, std::future::ready(()), OnSilence::Wait).await.unwrap().0, Protocol::Opaque);
    }
}
