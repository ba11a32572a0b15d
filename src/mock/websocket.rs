//! The mock's WebSockets over HTTP/1.1 and HTTP/2: an echo, and a session of OpenAI's Realtime API.

use super::content::words;
use super::state::MockState;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use serde_json::{Value as JsonValue, json};

/// `/ws`: returns every message.
pub(super) async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async |mut socket| {
        while let Some(Ok(message)) = socket.recv().await {
            // axum responds to these itself.
            if matches!(message, Message::Ping(_) | Message::Pong(_) | Message::Close(_)) {
                continue;
            }
            if socket.send(message).await.is_err() {
                return;
            }
        }
    })
}

/// `/v1/realtime`: a session that responds to each `response.create` with text.
pub(super) async fn realtime(State(state): State<MockState>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.protocols(["realtime"]).on_upgrade(async move |mut socket| {
        let session = json!({ "id": "sess_mock", "object": "realtime.session", "model": "mock" });
        let mut prompt = String::new();
        let mut sent = send_event(&mut socket, json!({ "type": "session.created", "session": session })).await;
        while sent.is_ok()
            && let Some(Ok(message)) = socket.recv().await
        {
            let Message::Text(text) = message else { continue };
            let event: JsonValue = serde_json::from_str(&text).unwrap_or_default();
            sent = match event["type"].as_str() {
                Some("conversation.item.create") => {
                    prompt = event["item"].to_string();
                    send_event(&mut socket, json!({ "type": "conversation.item.created", "item": event["item"] })).await
                }
                Some("response.create") => respond(&mut socket, &words(&prompt, state.options.chunks)).await,
                _ => {
                    let error = json!({ "type": "invalid_request_error", "message": "unknown event" });
                    send_event(&mut socket, json!({ "type": "error", "error": error })).await
                }
            };
        }
    })
}

async fn respond(socket: &mut WebSocket, words: &[String]) -> Result<(), axum::Error> {
    let response = |status: &str| json!({ "id": "resp_mock", "object": "realtime.response", "status": status });
    let mut events = vec![json!({ "type": "response.created", "response": response("in_progress") })];
    events.extend(words.iter().map(|word| json!({ "type": "response.output_text.delta", "delta": word })));
    events.push(json!({ "type": "response.output_text.done", "text": words.concat() }));
    events.push(json!({ "type": "response.done", "response": response("completed") }));
    for event in events {
        send_event(socket, event).await?;
    }
    Ok(())
}

/// An error means that the client has disconnected.
pub(super) async fn send_event(socket: &mut WebSocket, event: JsonValue) -> Result<(), axum::Error> {
    socket.send(Message::Text(event.to_string().into())).await
}
