//! Interim (1xx) responses of the endpoint on their way to the agent.

use super::rewrite::{self, UpgradeFields};
use crate::capture::Recording;
use crate::error::ProxyError;
use crate::net::interim::InterimSender;
use crate::upstream::{Body, Sent};
use http::{HeaderMap, Request, StatusCode};
use std::pin::Pin;
use tokio::sync::{mpsc, oneshot};

/// Status and fields. In a box, because a queue is made for each request with room for several, and few have any.
pub(super) type Interim = Box<(StatusCode, HeaderMap)>;

/// Waits for the final response and passes interim ones on as they come.
pub(super) async fn with_interims(
    mut sending: Pin<&mut impl Future<Output = Result<Sent, ProxyError>>>,
    mut interims: mpsc::Receiver<Interim>,
    interim: Option<&InterimSender>,
    recording: &Recording,
) -> Result<Sent, ProxyError> {
    loop {
        tokio::select! {
            biased;
            Some(received) = interims.recv() => {
                let (status, headers) = *received;
                recording.interim_response(status.as_u16());
                // hyper itself sends the agent a 100.
                if let Some(interim) = interim.filter(|_| status != StatusCode::CONTINUE) {
                    interim.send(&interim_head(status, headers));
                }
            }
            sent = sending.as_mut() => return sent,
        }
    }
}

/// Delivers interim responses of `request` to the returned queue. A 100 also opens the request's gate through `go`.
pub(super) fn listen_for_interims(request: &mut Request<Body>, go: oneshot::Sender<()>) -> mpsc::Receiver<Interim> {
    let (sender, receiver) = mpsc::channel(MAX_QUEUED_INTERIMS);
    let go = std::sync::Mutex::new(Some(go));
    hyper::ext::on_informational(request, move |response| {
        if response.status() == StatusCode::CONTINUE
            && let Ok(mut go) = go.lock()
            && let Some(go) = go.take()
        {
            let _ = go.send(());
        }
        // What does not fit is dropped: interim responses are hints, and an endpoint may send any number.
        let _ = sender.try_send(Box::new((response.status(), response.headers().clone())));
    });
    receiver
}

fn interim_head(status: StatusCode, mut headers: HeaderMap) -> Vec<u8> {
    rewrite::response(&mut headers, UpgradeFields::Remove);
    let mut head = format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or("")).into_bytes();
    for (name, value) in &headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

const MAX_QUEUED_INTERIMS: usize = 16;
