//! HTTP connections of clients, for both listeners: HTTP/1.1 behind the framing guard, and HTTP/2 by prior knowledge.
//!
//! Limits: a request head must arrive within the header timeout, which also closes idle HTTP/1.1 connections; HTTP/2
//! connections have at most [`MAX_STREAMS`] streams, and get no PING: an agent that a debugger holds would not answer it,
//! and TCP keepalive finds those that are gone. When the drain starts, a connection finishes the requests in progress and
//! takes no new ones. It must not know what a request means.

use super::deferred_error::DeferredError;
use super::drain::DrainGuard;
use super::guard::{AfterResponse, GuardedIo};
use super::http1_body::Http1Body;
use super::interim::{InterimIo, InterimSender};
use super::io::BoxedIo;
use super::prefixed::Prefixed;
use super::raw_paths::{RawPathIo, restore_path};
use super::sniff::{OnSilence, Protocol, sniff};
use super::task::ConnectionExecutor;
use super::timeout::within;
use super::trailers::TrailerIo;
use crate::error::FramingFault;
use crate::wire::framing::head::{MAX_FIELD_LIST_BYTES, MAX_FIELDS, MAX_HEAD_BYTES};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::time::Duration;

/// One client connection, ready for HTTP.
pub(crate) struct HttpConnection {
    /// The byte stream, after TLS if there is any.
    pub io: BoxedIo,
    /// The client's address, for the log.
    pub peer: SocketAddr,
    /// Held until the connection is closed.
    pub drain: DrainGuard,
    /// The longest time a request head may take; zero means no limit.
    pub header_timeout: Duration,
    /// The origin of the responses.
    pub responses: ResponseOrigin,
}

/// The HTTP version that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HttpVersion {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Who wrote the responses on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResponseOrigin {
    /// An endpoint. Responses are passed on unchanged: without a `Date` of ours, and with the endpoint's spelling of
    /// field names.
    Endpoint,
    /// This process, which adds a `Date` (RFC 9110 §6.6.1).
    Local,
}

/// Reads a new connection's first bytes until its protocol is known. The bytes are returned for replay.
///
/// `None` when the client closed, sent nothing within `limit`, or had sent nothing when the drain started.
pub(crate) async fn first_bytes(io: &mut BoxedIo, limit: Duration, drain: &DrainGuard) -> Option<(Protocol, Bytes)> {
    tokio::select! {
        sniffed = within(limit, sniff(io, std::future::pending(), OnSilence::Wait)) => sniffed?.ok(),
        () = drain.started() => None,
    }
}

/// Serves HTTP/1.1, or HTTP/2 when the client starts with its preface. `answer` gets each request, or the fault for
/// which the framing guard withheld it.
pub(crate) async fn serve<A, F, B>(mut connection: HttpConnection, answer: A)
where
    A: Fn(Result<Request<Incoming>, FramingFault>) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (limit, drain) = (connection.header_timeout, connection.drain.clone());
    let Some((protocol, seen)) = first_bytes(&mut connection.io, limit, &drain).await else { return };
    connection.io = Box::new(Prefixed::new(seen, connection.io));
    match protocol {
        Protocol::Http2 => Box::pin(serve_http2(connection, answer)).await,
        // Anything that is not HTTP is answered as a malformed request.
        Protocol::Http1 | Protocol::Tls | Protocol::Opaque => {
            serve_http1(connection, |request, _interim| answer(request)).await;
        }
    }
}

/// Serves HTTP/1.1. `answer` gets each request, or the fault for which the framing guard withheld it, and a sender of
/// interim responses.
pub(crate) async fn serve_http1<A, F, B>(connection: HttpConnection, answer: A)
where
    A: Fn(Result<Request<Incoming>, FramingFault>, InterimSender) -> F,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let HttpConnection { io, peer, drain, header_timeout, responses } = connection;
    let (io, framing) = GuardedIo::of_requests(io);
    let (io, interim) = InterimIo::new(Box::new(io));
    let (io, trailers) = TrailerIo::new(Box::new(io));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (is_connect, version) = (request.method() == Method::CONNECT, request.version());
        let request = match framing.begin_request() {
            Some(fault) => Err(fault),
            None => {
                if let Some(target) = framing.take_target() {
                    request.extensions_mut().insert(target);
                }
                Ok(request)
            }
        };
        let (answer, framing, trailers) = (answer(request, interim.clone()), framing.clone(), trailers.clone());
        async move {
            let response = answer.await;
            let status = response.status();
            let switched = status == StatusCode::SWITCHING_PROTOCOLS || (is_connect && status.is_success());
            framing.responded(if switched { AfterResponse::OtherProtocol } else { AfterResponse::Http });
            Ok::<_, Infallible>(Http1Body::of(response, version, trailers))
        }
    });
    let builder = http1_builder(header_timeout, responses);
    let connection = pin!(builder.serve_connection(TokioIo::new(io), service).with_upgrades());
    until_drained(connection, |connection| connection.graceful_shutdown(), peer, drain).await;
}

/// Serves HTTP/2. `answer` gets each request, or the fault for which it was withheld.
pub(crate) async fn serve_http2<A, F, B>(connection: HttpConnection, answer: A)
where
    A: Fn(Result<Request<Incoming>, FramingFault>) -> F,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let HttpConnection { io, peer, drain, responses, .. } = connection;
    let service = service_fn(|request| {
        let answer = answer(restore_path(request));
        async move { Ok::<_, Infallible>(answer.await.map(DeferredError::new)) }
    });
    let connection = pin!(http2_builder(responses).serve_connection(TokioIo::new(RawPathIo::new(io)), service));
    until_drained(connection, |connection| connection.graceful_shutdown(), peer, drain).await;
}

/// Runs a connection to its end. When the drain starts, `finish` asks it to complete the requests in progress.
async fn until_drained<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    finish: fn(Pin<&mut C>),
    peer: SocketAddr,
    drain: DrainGuard,
) {
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.started() => {
            finish(connection.as_mut());
            connection.await
        }
    };
    log_end(peer, ended);
}

fn http2_builder(responses: ResponseOrigin) -> http2::Builder<ConnectionExecutor> {
    let mut builder = http2::Builder::new(ConnectionExecutor);
    builder
        .auto_date_header(responses == ResponseOrigin::Local)
        .max_header_list_size(MAX_FIELD_LIST_BYTES)
        // WebSocket over HTTP/2 (RFC 8441).
        .enable_connect_protocol()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(MAX_STREAMS);
    builder
}

fn http1_builder(header_timeout: Duration, responses: ResponseOrigin) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .auto_date_header(responses == ResponseOrigin::Local)
        .preserve_header_case(responses == ResponseOrigin::Endpoint)
        .max_headers(MAX_FIELDS)
        .max_buf_size(MAX_HEAD_BYTES);
    // hyper's own default is 30 seconds.
    builder.header_read_timeout((!header_timeout.is_zero()).then_some(header_timeout));
    builder
}

/// Logs how a connection ended. Malformed input is the client's error, not this program's.
fn log_end(peer: SocketAddr, ended: hyper::Result<()>) {
    match ended {
        Err(error) if error.is_parse() => {
            let cause = crate::error::source_chain(&error);
            tracing::warn!(%peer, cause, "a client sent something that is not HTTP; the connection was closed");
        }
        Err(error) => tracing::debug!(%peer, cause = crate::error::source_chain(&error), "connection ended"),
        Ok(()) => {}
    }
}

const MAX_STREAMS: u32 = 256;
/// The most that waits for the endpoint of one request.
const WINDOW_BYTES: u32 = 256 * 1024;
/// Uploads to endpoints that have stopped reading must not use up the window of other calls on the connection.
const CONNECTION_WINDOW_BYTES: u32 = MAX_STREAMS * WINDOW_BYTES;

#[cfg(test)]
mod tests {
    use super::super::drain::Drain;
    use super::*;
    use http_body_util::Full;
    use hyper_util::rt::TokioExecutor;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    /// The client of a served connection: it gets 204 for a request, and 400 for a fault.
    fn client(header_timeout: Duration) -> (DuplexStream, Drain) {
        let (client, server) = tokio::io::duplex(4096);
        let drain = Drain::new();
        let connection = HttpConnection {
            io: Box::new(server),
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
            drain: drain.guard(),
            header_timeout,
            responses: ResponseOrigin::Local,
        };
        tokio::spawn(serve(connection, |request| async move {
            let mut response = Response::new(Full::new(Bytes::new()));
            *response.status_mut() = if request.is_ok() { StatusCode::NO_CONTENT } else { StatusCode::BAD_REQUEST };
            response
        }));
        (client, drain)
    }

    async fn response(client: &mut DuplexStream) -> String {
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        text
    }

    const START: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n";
    const END: &[u8] = b"Connection: close\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn a_head_must_arrive_within_the_timeout() {
        for (limit, sent_before) in [(5, START), (5, b""), (0, START), (0, b"")] {
            let (mut client, _drain) = client(Duration::from_secs(limit));
            client.write_all(sent_before).await.unwrap();
            tokio::time::sleep(Duration::from_secs(3600)).await;
            // The server may have closed the connection.
            let _ = client.write_all(&[&START[sent_before.len()..], END].concat()).await;
            let response = response(&mut client).await;
            assert_eq!(response.starts_with("HTTP/1.1 204"), limit == 0, "{limit} s: {response:?}");
        }
    }

    #[tokio::test]
    async fn a_fault_is_answered_and_ends_the_connection() {
        for request in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\0\x01\r\n\r\n", b"garbage\r\n\r\n"] {
            let (mut client, _drain) = client(Duration::ZERO);
            client.write_all(request).await.unwrap();
            client.shutdown().await.unwrap();
            let response = response(&mut client).await;
            assert!(response.starts_with("HTTP/1.1 400"), "{request:?}: {response:?}");
        }
    }

    #[tokio::test]
    async fn http2_is_recognized_by_its_preface() {
        let (client, _drain) = client(Duration::ZERO);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get("http://a/").body(Full::new(Bytes::new())).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), StatusCode::NO_CONTENT);
    }

    #[tokio::test(start_paused = true)]
    async fn http2_clients_are_not_pinged() {
        let (mut client, _drain) = client(Duration::ZERO);
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let mut sent = Vec::new();
        // A client that answers no PING must keep its connection.
        assert!(tokio::time::timeout(Duration::from_secs(3600), client.read_to_end(&mut sent)).await.is_err());
        assert!(sent.windows(5).all(|bytes| *bytes != *b"\0\0\x08\x06\0"), "{sent:?}");
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed_when_the_drain_starts() {
        let (mut idle, drain) = client(Duration::ZERO);
        assert_eq!(drain.drain(Duration::from_secs(60)).await, super::super::drain::Drained::InTime);
        assert_eq!(response(&mut idle).await, "");
    }
}
