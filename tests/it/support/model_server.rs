//! Parts of a model server that a test plays itself: requests are read whole, and responses come in pieces.

use super::{Running, read_head};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// The addresses of a server that a call needs.
#[derive(Clone, Copy)]
pub struct Addresses {
    pub proxy: SocketAddr,
    pub gateway: SocketAddr,
    pub model: SocketAddr,
}

impl Addresses {
    pub fn of(server: &Running, model: SocketAddr) -> Self {
        Self { proxy: server.address("proxy"), gateway: server.address("server"), model }
    }
}

/// The next request of a connection: its body, or `None` of one without a body. `None` at the end.
pub fn read_request(stream: &mut TcpStream) -> Option<Option<Vec<u8>>> {
    let head = read_head(stream).to_lowercase();
    if head.is_empty() {
        return None;
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let Some(length) = length.filter(|_| head.starts_with("post")) else { return Some(None) };
    let mut body = vec![0; length.trim().parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    Some(Some(body))
}

/// Sends a response in pieces that end anywhere. An agent may have gone.
pub fn respond(stream: &mut TcpStream, kind: &str, body: &str) {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
    let _ = stream.write_all(head.as_bytes());
    for piece in body.as_bytes().chunks(70_001) {
        let _ = stream.write_all(piece);
    }
}

/// A numpy file of 16-bit integers, as vLLM sends it, in base64: a row for each token.
pub fn npy(numbers: &[u8], [layers, top_k]: [usize; 2]) -> String {
    let rows = numbers.len() / layers / top_k;
    let header = format!("{{'descr': '<i2', 'fortran_order': False, 'shape': ({rows}, {layers}, {top_k}), }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend(u16::try_from(header.len()).unwrap().to_le_bytes());
    file.extend(header.bytes());
    file.extend(numbers.iter().flat_map(|number| [*number, 0]));
    STANDARD.encode(file)
}
