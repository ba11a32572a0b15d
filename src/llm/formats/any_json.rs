//! JSON of requests and responses, as lenient as that of real endpoints must be read.

use crate::llm::call::{LlmCall, UnreadPart};
use crate::wire::json::{self, Json, JsonRepairs};
use crate::wire::json_builder::JsonBuilder;

/// Reads JSON, repaired where that is possible. Null if it can't be read, which is noted on the call.
pub(super) fn any_json<'a>(text: &'a [u8], part: UnreadPart, call: &mut LlmCall) -> Json<'a> {
    if text.trim_ascii().is_empty() {
        return Json::Null;
    }
    let read = if part == UnreadPart::Request { json::parse(text) } else { json::parse_response(text) };
    if let Ok(json) = read {
        return json;
    }
    noted(json::parse_repaired(text).ok(), part, call)
}

/// The value that was built from text that came in pieces. Null if it was no JSON, which is noted on the call.
pub(super) fn built_json(builder: JsonBuilder, part: UnreadPart, call: &mut LlmCall) -> Json<'static> {
    if builder.is_empty() {
        return Json::Null;
    }
    noted(builder.finish().ok(), part, call)
}

/// The value, or null; what was wrong with it is noted on the call.
fn noted<'a>(read: Option<(Json<'a>, JsonRepairs)>, part: UnreadPart, call: &mut LlmCall) -> Json<'a> {
    let Some((json, repairs)) = read else {
        call.mark_unread(part);
        return Json::Null;
    };
    if repairs.characters {
        call.mark_unread(UnreadPart::InvalidUtf8);
    }
    json
}
