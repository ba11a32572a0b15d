//! The mock's WebSockets, over HTTP/1.1 and HTTP/2: an echo, and a session in the shape of OpenAI's Realtime API.

use super::answer::words;
use super::tools::MockState;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use serde_json::{Value, json};

/// `/ws`: sends every message back.
pub(super) async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async |mut socket| {
        while let Some(Ok(message)) = socket.recv().await {
            // The library answers these itself.
            if matches!(message, Message::Ping(_) | Message::Pong(_) | Message::Close(_)) {
                continue;
            }
            if socket.send(message).await.is_err() {
                return;
            }
        }
    })
}

/// `/v1/realtime`: a session that answers every `response.create` in text.
pub(super) async fn realtime(State(state): State<MockState>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.protocols(["realtime"]).on_upgrade(async move |mut socket| {
        let session = json!({ "id": "sess_mock", "object": "realtime.session", "model": "mock" });
        let mut asked = String::new();
        let mut open = say(&mut socket, json!({ "type": "session.created", "session": session })).await;
        while open && let Some(Ok(message)) = socket.recv().await {
            let Message::Text(text) = message else { continue };
            let event: Value = serde_json::from_str(&text).unwrap_or_default();
            open = match event["type"].as_str() {
                Some("conversation.item.create") => {
                    asked = event["item"].to_string();
                    say(&mut socket, json!({ "type": "conversation.item.created", "item": event["item"] })).await
                }
                Some("response.create") => respond(&mut socket, &words(&asked, state.options.chunks)).await,
                _ => {
                    let error = json!({ "type": "invalid_request_error", "message": "unknown event" });
                    say(&mut socket, json!({ "type": "error", "error": error })).await
                }
            };
        }
    })
}

async fn respond(socket: &mut WebSocket, words: &[String]) -> bool {
    let response = |status: &str| json!({ "id": "resp_mock", "object": "realtime.response", "status": status });
    let mut events = vec![json!({ "type": "response.created", "response": response("in_progress") })];
    events.extend(words.iter().map(|word| json!({ "type": "response.output_text.delta", "delta": word })));
    events.push(json!({ "type": "response.output_text.done", "text": words.concat() }));
    events.push(json!({ "type": "response.done", "response": response("completed") }));
    for event in events {
        if !say(socket, event).await {
            return false;
        }
    }
    true
}

/// False when the client has left.
pub(super) async fn say(socket: &mut WebSocket, event: Value) -> bool {
    socket.send(Message::Text(event.to_string().into())).await.is_ok()
}
