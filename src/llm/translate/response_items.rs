//! The items of OpenAI responses as they are kept for later requests: those of a request, and those of its answer.
//!
//! Items are JSON, with commas between them.

use super::untranslatable::{Untranslatable, untranslatable};
use crate::llm::json_object::{object, text_of};
use crate::wire::json::{Json, parse};
use crate::wire::json_edit::{Object, edited};
use crate::wire::sse::Events;
use serde::Deserialize;
use std::borrow::Cow;

/// The items of a request, with `find` in place of each reference to an item.
pub(crate) fn input_items(body: &[u8], find: impl Fn(&str) -> Option<String>) -> Result<String, Untranslatable> {
    let json = parse(body).map_err(|error| untranslatable("body", &format!("is no JSON: {error}")))?;
    let input = json.get("input");
    if let Some(text) = input.text() {
        return Ok(text_of(&object! {"role": "user", "content": text}));
    }
    let item = |(index, item): (usize, &Json<'_>)| {
        let id = item.get("id").text().filter(|_| is_reference(item));
        let found = |id| find(id).ok_or_else(|| unknown_item(index, id));
        id.map_or_else(|| Ok(text_of(item)), found)
    };
    Ok(input.list().iter().enumerate().map(item).collect::<Result<Vec<_>, _>>()?.join(","))
}

/// A request with these items as its input.
pub(crate) fn with_input(body: &[u8], items: &str) -> Vec<u8> {
    let edits = Object::find(body).map(|object| object.set(&[("input".to_owned(), format!("[{items}]"))]));
    edited(body, &edits.unwrap_or_default())
}

fn is_reference(item: &Json<'_>) -> bool {
    item.get("type").text() == Some("item_reference") || item.get("type").is_null() && !item.has("role")
}

fn unknown_item(index: usize, id: &str) -> Untranslatable {
    untranslatable(&format!("input[{index}]"), &format!("the item {id} {NOT_REMEMBERED}"))
}

/// What is said of a response or an item that is not there.
pub(crate) const NOT_REMEMBERED: &str =
    "is not remembered: it was not stored, is too old, or belongs to another rollout";

/// The id of a response, from the id of one of its items.
pub(crate) fn response_of_item(item: &str) -> Option<&str> {
    Some(item.split_once('_')?.1.rsplit_once('_')?.0)
}

/// The item with this id.
pub(crate) fn find_item(items: &str, id: &str) -> Option<String> {
    let list = format!("[{items}]");
    let json = parse(list.as_bytes()).ok()?;
    json.list().iter().find(|item| item.get("id").text() == Some(id)).map(text_of)
}

/// The items that a response puts out.
pub(crate) fn output_items(response: &str) -> &str {
    let list = Object::find(response.as_bytes()).and_then(|object| object.value("output"));
    let list = list.and_then(|list| std::str::from_utf8(list).ok()).unwrap_or_default();
    list.strip_prefix('[').and_then(|list| list.strip_suffix(']')).unwrap_or_default().trim()
}

/// The answer to a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AnsweredResponse {
    /// The id of the response.
    pub(crate) id: String,
    /// The response as JSON.
    pub(crate) json: String,
}

/// Reads the answer from a whole response, or from the last events of a streamed one. `None`: it failed.
pub(crate) fn answered_response(response: &[u8]) -> Option<AnsweredResponse> {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(borrow, rename = "type")]
        kind: Option<Cow<'a, str>>,
    }
    let last = Events::new(response).filter(|event| event.complete).last().map(|event| event.data);
    let text = last.as_deref().unwrap_or(response);
    let kind = serde_json::from_slice::<Kind<'_>>(text).ok()?.kind;
    let json = parse(text).ok()?;
    let response = match kind.as_deref() {
        None => &json,
        Some("response.completed" | "response.incomplete") => json.get("response"),
        Some(_) => return None,
    };
    Some(AnsweredResponse { id: response.get("id").word()?, json: text_of(response) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_items_of_a_request() {
        let find = |id: &str| (id == "msg_c-1_0").then(|| r#"{"id":"msg_c-1_0","n":18446744073709551616}"#.to_owned());
        for (body, expected) in [
            (r#"{"input":"hi"}"#, Ok(r#"{"role":"user","content":"hi"}"#)),
            (r#"{"input":[]}"#, Ok("")),
            (r"{}", Ok("")),
            (
                r#"{"input":[{"role":"user","content":"a"},{"id":"msg_c-1_0","type":"item_reference"}]}"#,
                Ok(r#"{"role":"user","content":"a"},{"id":"msg_c-1_0","n":18446744073709551616}"#),
            ),
            (r#"{"input":[{"id":"msg_c-1_0"}]}"#, Ok(r#"{"id":"msg_c-1_0","n":18446744073709551616}"#)),
            (r#"{"input":[{"role":"user"},{"id":"rs_x","type":"item_reference"}]}"#, Err("input[1]")),
            (r#"{"input""#, Err("body")),
        ] {
            let items = input_items(body.as_bytes(), find);
            assert_eq!(items.as_deref().map_err(|error| error.place.as_str()), expected, "{body}");
        }
        assert_eq!(response_of_item("msg_chatcmpl_1_0"), Some("chatcmpl_1"));
        assert_eq!(response_of_item("msg"), None);
        assert_eq!(find_item(r#"{"id":"a"},{"id":"b","x":1}"#, "b").as_deref(), Some(r#"{"id":"b","x":1}"#));
        assert_eq!(find_item("{", "b"), None);
    }

    #[test]
    fn the_output_of_a_response() {
        for (response, expected) in [
            (
                r#"{"id":"c","output":[{"id":"a","content":["]"]},{"id":"b"}],"x":[1]}"#,
                r#"{"id":"a","content":["]"]},{"id":"b"}"#,
            ),
            (r#"{"output":[]}"#, ""),
            (r#"{"output":null}"#, ""),
            ("{}", ""),
            ("{", ""),
        ] {
            assert_eq!(output_items(response), expected);
        }
    }

    #[test]
    fn the_answer_is_read_whole_and_streamed() {
        let response = r#"{"id":"c","output":[{"id":"a"},{"id":"b"}]}"#;
        let expected = Some(AnsweredResponse { id: "c".to_owned(), json: response.to_owned() });
        assert_eq!(answered_response(response.as_bytes()), expected);
        for (kind, expected) in [("response.completed", expected), ("response.failed", None), ("error", None)] {
            let events = format!(
                "event: x\ndata: {{\"type\":\"x\"}}\n\nevent: {kind}\ndata: {{\"type\":\"{kind}\",\"response\":{response}}}\n\n"
            );
            assert_eq!(answered_response(events.as_bytes()), expected);
        }
        assert_eq!(answered_response(b"{}"), None);
        assert_eq!(answered_response(b"x"), None);
    }
}
