//! HTTP/2 by hand: frames, fields as HPACK literals, and the other end of a connection.

use super::endpoint;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// The preface of a client, and its SETTINGS.
pub fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, b"")].concat()
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field as an HPACK literal, without table and Huffman code.
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        // RFC 7541 §5.1.
        let mut length = Vec::new();
        match text.len() {
            short @ 0..127 => length.push(u8::try_from(short).unwrap()),
            mut rest => {
                length.push(127);
                rest -= 127;
                while rest >= 128 {
                    length.push(u8::try_from(rest % 128).unwrap() | 128);
                    rest /= 128;
                }
                length.push(u8::try_from(rest).unwrap());
            }
        }
        [&length, text.as_bytes()].concat()
    };
    [vec![0], text(name), text(value)].concat()
}

/// A block of fields.
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
}

/// HEADERS, with as many CONTINUATIONs as the block needs.
pub fn headers(flags: u8, stream: u32, block: &[u8]) -> Vec<u8> {
    let mut pieces = block.chunks(16_000);
    let first = pieces.next().unwrap_or_default();
    let is_whole = pieces.len() == 0;
    let mut frames = frame(HEADERS, flags | if is_whole { END_HEADERS } else { 0 }, stream, first);
    while let Some(piece) = pieces.next() {
        frames.extend(frame(CONTINUATION, if pieces.len() == 0 { END_HEADERS } else { 0 }, stream, piece));
    }
    frames
}

/// A frame that was read.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// One end of a connection.
pub struct Peer {
    pub stream: TcpStream,
}

impl Peer {
    /// The server's end.
    pub fn accept(mut stream: TcpStream) -> Self {
        stream.read_exact(&mut [0; 24]).unwrap();
        let mut peer = Self { stream };
        peer.write(&frame(SETTINGS, 0, 0, b""));
        peer
    }

    /// The client's end.
    pub fn connect(stream: TcpStream) -> Self {
        let mut peer = Self { stream };
        peer.write(&preface());
        peer
    }

    /// Writes; the other side may have gone.
    pub fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next frame about a stream, or GOAWAY. The rest is answered as it must be. `None` at the end.
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.stream.read_exact(&mut payload).ok()?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            match (head[3], head[4] & ACK) {
                (SETTINGS, 0) => self.write(&frame(SETTINGS, ACK, 0, b"")),
                (PING, 0) => self.write(&frame(PING, ACK, 0, &payload)),
                (kind @ (DATA | HEADERS | RST_STREAM | GOAWAY), _) => {
                    return Some(Frame { kind, flags: head[4], stream, payload });
                }
                _ => {}
            }
        }
    }

    /// Reads requests one after the other to their ends: the stream and the body of the next.
    pub fn request(&mut self) -> Option<(u32, Vec<u8>)> {
        let mut body = Vec::new();
        loop {
            let frame = self.next()?;
            match frame.kind {
                DATA => body.extend(frame.payload),
                HEADERS => {}
                _ => continue,
            }
            if frame.flags & END_STREAM != 0 {
                return Some((frame.stream, body));
            }
        }
    }
}

/// An endpoint that speaks HTTP/2 without TLS. The script gets the number of the connection, from 0.
pub fn http2_endpoint(script: impl Fn(Peer, usize) + Send + Sync + 'static) -> SocketAddr {
    let connections = AtomicUsize::new(0);
    endpoint(move |stream| script(Peer::accept(stream), connections.fetch_add(1, Ordering::Relaxed)))
}

/// A body of requests.
pub type RequestBody = UnsyncBoxBody<Bytes, Infallible>;

/// The client's end of a connection, by the HTTP library. Within a tokio runtime.
pub async fn http2_client(stream: TcpStream) -> SendRequest<RequestBody> {
    stream.set_nonblocking(true).unwrap();
    let io = TokioIo::new(tokio::net::TcpStream::from_std(stream).unwrap());
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.max_header_list_size(1 << 20).handshake(io).await.unwrap();
    tokio::spawn(connection);
    sender
}
