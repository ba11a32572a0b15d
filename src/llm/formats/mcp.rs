//! MCP over streamable HTTP: one JSON-RPC request a POST, with the response whole or in events.

use super::format::{ApiFormat, CallRequest};
use crate::llm::call::{LlmCall, ToolUse};
use crate::llm::operation::Operation;
use crate::wire::json::Json;

/// The format of MCP's requests and results.
pub(crate) struct Mcp;

impl ApiFormat for Mcp {
    fn request(&self, request: &CallRequest<'_>, call: &mut LlmCall) {
        let (body, params) = (request.body, request.body.get("params"));
        let method = body.get("method").word().unwrap_or_default();
        call.operation = if method == "tools/call" { Operation::ExecuteTool } else { Operation::Other };
        let id = body.get("id");
        let field = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
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

    fn response(&self, body: &Json<'_>, call: &mut LlmCall) {
        self.event("", body, call);
    }

    fn event(&self, _: &str, data: &Json<'_>, call: &mut LlmCall) -> bool {
        let Some(tool) = &mut call.tool else { return false };
        let id = data.get("id");
        let id = id.word().or_else(|| id.int().map(|id| id.to_string()));
        // The server may send requests too, with ids of its own.
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
