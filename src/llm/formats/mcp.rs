//! MCP over streamable HTTP: one JSON-RPC request a POST, its answer plain or in events.

use super::{ApiFormat, CallRequest};
use crate::llm::call::{LlmCall, Operation, ToolUse};
use crate::wire::json::Json;

/// JSON-RPC whose method is one of MCP's.
pub(super) struct Mcp;

const METHODS: &[&str] = &[
    "initialize",
    "ping",
    "tools/call",
    "tools/list",
    "resources/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "resources/templates/list",
    "prompts/get",
    "prompts/list",
    "completion/complete",
    "logging/setLevel",
    "sampling/createMessage",
    "elicitation/create",
    "roots/list",
    "server/discover",
    "subscriptions/listen",
];

impl ApiFormat for Mcp {
    fn name(&self) -> &'static str {
        "mcp"
    }

    fn claims(&self, asked: &CallRequest<'_>) -> bool {
        let method = asked.body.get("method").text().unwrap_or_default();
        asked.body.get("jsonrpc").text() == Some("2.0")
            && (METHODS.contains(&method) || method.starts_with("notifications/"))
    }

    fn request(&self, asked: &CallRequest<'_>, call: &mut LlmCall) {
        let (body, params) = (asked.body, asked.body.get("params"));
        let method = body.get("method").word().unwrap_or_default();
        call.operation = if method == "tools/call" { Operation::ExecuteTool } else { Operation::Other };
        let id = body.get("id");
        let field = |name: &str| asked.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        for (name, value) in [
            ("mcp.protocol.version", field("mcp-protocol-version").or_else(|| params.get("protocolVersion").word())),
            ("mcp.resource.uri", params.get("uri").word()),
        ] {
            call.extras.extend(value.map(|value| (name, value)));
        }
        call.traceparent = params.at(&["_meta", "traceparent"]).word();
        call.tool = Some(ToolUse {
            name: params.get("name").word(),
            id: id.word().or_else(|| id.int().map(|id| id.to_string())),
            arguments: params.get("arguments").clone().into_owned(),
            result: Json::Null,
            method,
        });
    }

    fn answer(&self, body: &Json<'_>, call: &mut LlmCall) {
        self.event("", body, call);
    }

    fn event(&self, _: &str, data: &Json<'_>, call: &mut LlmCall) -> bool {
        let Some(tool) = &mut call.tool else { return false };
        let id = data.get("id");
        let id = id.word().or_else(|| id.int().map(|id| id.to_string()));
        // Requests of the server's own may come along, with ids of their own.
        if id != tool.id || data.has("method") {
            return data.has("method");
        }
        let result = data.get("result");
        if result.get("isError").bool() == Some(true) {
            call.error = Some(("tool_error".to_owned(), String::new()));
        }
        tool.result = result.clone().into_owned();
        call.ended = true;
        true
    }
}
