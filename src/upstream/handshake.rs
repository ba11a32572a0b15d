//! Starts HTTP/1.1 or HTTP/2 on a stream to an endpoint.
//!
//! It must not dial, and must not know what is sent.

use super::connection::{Http1Sender, Http2Sender, Sender};
use super::pool::MAX_STREAMS;
use super::proxy_url::ProxyUrl;
use crate::error::{ErrorKind, ProxyError};
use crate::net::BoxedIo;
use crate::net::guard::GuardedIo;
use crate::net::raw_target::RawTargetIo;
use crate::net::task::{ConnectionExecutor, spawn};
use crate::net::trailers::TrailerIo;
use crate::wire::framing::head::{MAX_FIELD_LIST_BYTES, MAX_FIELDS, MAX_HEAD_BYTES};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Instant;
use tokio::sync::{mpsc, watch};

/// Starts HTTP/1.1, with responses judged by the framing guard.
pub(super) async fn http1_sender(
    io: BoxedIo,
    forward_proxy: Option<ProxyUrl>,
    endpoint: &str,
) -> Result<Sender, ProxyError> {
    let (io, trailers) = TrailerIo::new(io);
    let (io, targets) = RawTargetIo::new(Box::new(io));
    let (io, guard) = GuardedIo::of_responses(Box::new(io));
    let (requests, connection) = http1::Builder::new()
        .preserve_header_case(true)
        .max_headers(MAX_FIELDS)
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| ProxyError::from_source(ErrorKind::HttpProtocolError, endpoint, &error))?;
    let connection = connection.with_upgrades();
    // An error of the connection is also an error of each affected request.
    drop(spawn(async move { drop(connection.await) }));
    Ok(Sender::Http1(Http1Sender { requests, guard, targets, trailers, forward_proxy }))
}

/// Starts HTTP/2. It sends no PING of its own: endpoints such as gRPC servers end connections for those on silent streams. TCP
/// keepalive finds the dead ones.
pub(super) async fn http2_sender(io: BoxedIo, endpoint: &str) -> Result<Sender, ProxyError> {
    let (requests, mut connection) = http2::Builder::new(ConnectionExecutor)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(MAX_FIELD_LIST_BYTES)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| ProxyError::from_source(ErrorKind::HttpProtocolError, endpoint, &error))?;
    let (enabled, extended_connect) = watch::channel(false);
    let (refresh, mut refreshes) = mpsc::channel(1);
    let max_streams = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
    let current_max = Arc::clone(&max_streams);
    drop(spawn(std::future::poll_fn(move |cx| {
        let polled = Pin::new(&mut connection).poll(cx).map(drop);
        while let Poll::Ready(Some(())) = refreshes.poll_recv(cx) {}
        current_max.store(connection.current_max_send_streams(), Ordering::Relaxed);
        enabled.send_if_modified(|known| {
            let now = connection.is_extended_connect_protocol_enabled();
            std::mem::replace(known, now) != now
        });
        polled
    })));
    Ok(Sender::Http2(Http2Sender { requests, max_streams, extended_connect, refresh, made: Instant::now() }))
}

/// The most that waits for the reader of one response.
const WINDOW_BYTES: u32 = 1024 * 1024;
/// Readers that have stopped must not use up the window of other calls on the connection.
const CONNECTION_WINDOW_BYTES: u32 = WINDOW_BYTES * MAX_STREAMS;

#[cfg(test)]
mod tests {
    use super::super::body;
    use super::*;
    use http::Request;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_is_not_pinged() {
        let (ours, mut endpoint) = duplex(64 * 1024);
        endpoint.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let Ok(Sender::Http2(mut sender)) = http2_sender(Box::new(ours), "h").await else { panic!("no HTTP/2") };
        let request = Request::get("http://h/").body(body::empty()).unwrap();
        let response = tokio::spawn(async move { sender.requests.try_send_request(request).await.map_err(drop) });
        tokio::time::sleep(Duration::from_secs(3600)).await;
        response.abort();
        let _ = response.await;
        let mut sent = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(1), endpoint.read_to_end(&mut sent)).await;
        let (mut kinds, mut frames) = (Vec::new(), &sent[24..]);
        while let [a, b, c, kind, ..] = *frames {
            kinds.push(kind);
            frames = &frames[9 + u32::from_be_bytes([0, a, b, c]) as usize..];
        }
        assert!(kinds.contains(&1) && !kinds.contains(&6), "{kinds:?}");
    }
}
