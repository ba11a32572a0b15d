//! The endpoint's side of a long call. Of a request it keeps nothing, of a response the piece that is being written.

use super::answer::{Pieces, first_event, later_events, response, whole_length};
use super::plan::{Ids, Kind, Order};
use crate::upstream::Answer;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::http::Error;
use hyper::{Response, StatusCode};
use std::convert::Infallible;
use std::time::Duration;

/// Responds to an order, whose request begins with `head`.
pub async fn respond(order: Order, head: &[u8]) -> Result<Response<Answer>, Error> {
    let call = order.call;
    let asks = head.windows(ASKS.len()).any(|window| window == ASKS);
    if order.ids == Ids::OnRequest && !asks {
        let why = Full::new(Bytes::from_static(b"{\"error\":{\"message\":\"the request asks for no ids\"}}"));
        return Response::builder().status(StatusCode::BAD_REQUEST).body(why.boxed());
    }
    tokio::time::sleep(Duration::from_millis(call.plan.delay_ms)).await;
    let builder = Response::builder();
    if call.plan.kind == Kind::Sse {
        let interval = Duration::from_millis(call.plan.interval_ms);
        let paced = stream::iter(later_events(call)).then(move |event| async move {
            tokio::time::sleep(interval).await;
            event
        });
        return builder.header("content-type", "text/event-stream").body(body(pieces(first_event(call)).chain(paced)));
    }
    let builder = builder.header("content-type", "application/json").header("content-length", whole_length(call));
    builder.body(body(pieces(response(call))))
}

fn pieces(pieces: Pieces) -> impl Stream<Item = Bytes> + Send + Sync {
    stream::iter(pieces)
}

fn body(pieces: impl Stream<Item = Bytes> + Send + Sync + 'static) -> Answer {
    BodyExt::boxed(StreamBody::new(pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece)))))
}

const ASKS: &[u8] = b"\"return_token_ids\"";
