//! Detects the protocol of a connection by the client's first bytes.
//!
//! It reads until the protocol is certain and never decides on a short read. All consumed bytes are returned for replay.
//! A server that sends first makes the connection opaque.

use super::io::BoxedIo;
use crate::wire::client_hello::record_bytes;
use bytes::{Bytes, BytesMut};
use std::future::Future;
use std::io;
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

/// Reads from `client` until its protocol is known, `server_speaks` completes, or the client closes.
pub(crate) async fn sniff(
    client: &mut BoxedIo,
    server_speaks: impl Future<Output = ()>,
) -> io::Result<(Protocol, Bytes)> {
    tokio::pin!(server_speaks);
    let mut seen = BytesMut::with_capacity(FIRST_READ_BYTES);
    loop {
        let read = tokio::select! {
            biased;
            read = client.read_buf(&mut seen) => read?,
            () = &mut server_speaks => return Ok((Protocol::Opaque, seen.freeze())),
        };
        if read == 0 {
            return Ok((Protocol::Opaque, seen.freeze()));
        }
        if let Some(protocol) = decide(&seen) {
            return Ok((protocol, seen.freeze()));
        }
    }
}

/// Reads the first TLS record of `client`, of which `seen` was already consumed. The result may contain bytes of the next
/// record.
pub(crate) async fn read_record(client: &mut BoxedIo, seen: Bytes) -> io::Result<Bytes> {
    let mut record = BytesMut::from(seen);
    while record_bytes(&record).is_none_or(|length| record.len() < length) {
        if client.read_buf(&mut record).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(record.freeze())
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
        Some(end) if end > 0 && end <= MAX_METHOD_BYTES && seen[end] == b' ' => Some(Protocol::Http1),
        None if seen.len() <= MAX_METHOD_BYTES => None,
        _ => Some(Protocol::Opaque),
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

const TLS_HANDSHAKE: u8 = 0x16;
const TLS_MAJOR: u8 = 0x03;
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const MAX_METHOD_BYTES: usize = 20;
const FIRST_READ_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn recognises_by_first_bytes() {
        assert_eq!(decide(b"\x16\x03\x01"), Some(Protocol::Tls));
        assert_eq!(decide(b"\x16\x02\x01"), Some(Protocol::Opaque));
        assert_eq!(decide(b"POST /v1"), Some(Protocol::Http1));
        assert_eq!(decide(b"POS"), None);
        assert_eq!(decide(b"PRI * HTTP/2.0\r\n"), None);
        assert_eq!(decide(HTTP2_PREFACE), Some(Protocol::Http2));
        assert_eq!(decide(b"PRI /x"), Some(Protocol::Http1));
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
        let task = tokio::spawn(async move { sniff(&mut ours, std::future::pending()).await.unwrap() });
        for byte in b"POST " {
            tokio::io::AsyncWriteExt::write_all(&mut agent, &[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(task.await.unwrap().0, Protocol::Http1);
    }

    #[tokio::test]
    async fn a_server_that_sends_first_is_opaque() {
        let (_agent, ours) = tokio::io::duplex(64);
        let mut ours: BoxedIo = Box::new(ours);
        assert_eq!(sniff(&mut ours, std::future::ready(())).await.unwrap().0, Protocol::Opaque);
    }
}
