//! Requests of Anthropic messages: what they become, what is left out, what is refused.

use crate::llm::translate::SourceApi::Messages;
use crate::llm::translate::test_support::{chat, refused_at, translated};
use serde_json::json;

#[test]
fn a_conversation_with_tools() {
    let request = json!({
        "model": "m",
        "max_tokens": 9,
        "system": [{"type": "text", "text": "be", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "kind"}],
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "one moment", "citations": null},
                {"type": "tool_use", "id": "t1", "name": "look", "input": {"z": 1, "a": [2.5]}},
            ]},
            {"role": "user", "content": [
                {"type": "text", "text": "and"},
                {"type": "tool_result", "tool_use_id": "t1", "is_error": true, "content": [
                    {"type": "text", "text": "no"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
                ]},
                {"type": "image", "source": {"type": "url", "url": "http://x/y.png"}},
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "doc"}},
            ]},
        ],
        "tools": [{"name": "look", "description": "looks", "input_schema": {"type": "object"}, "type": "custom"}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "stop_sequences": ["x"],
        "top_k": 5,
        "metadata": {"user_id": "u"},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        "stream": true,
    });
    let expected = json!({
        "model": "m",
        "max_tokens": 9,
        "messages": [
            {"role": "system", "content": "be\nkind"},
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "one moment", "reasoning_content": "hm", "reasoning": "hm", "tool_calls": [
                {"id": "t1", "type": "function", "function": {"name": "look", "arguments": "ARGUMENTS"}},
            ]},
            {"role": "tool", "tool_call_id": "t1", "content": [
                {"type": "text", "text": "Error: no"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
            ]},
            {"role": "user", "content": [
                {"type": "text", "text": "and"},
                {"type": "image_url", "image_url": {"url": "http://x/y.png"}},
                {"type": "text", "text": "doc"},
            ]},
        ],
        "tools": [{"type": "function", "function": {
            "name": "look", "description": "looks", "parameters": {"type": "object"},
        }}],
        "tool_choice": "required",
        "parallel_tool_calls": false,
        "chat_template_kwargs": {"enable_thinking": true},
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {
            "name": "answer", "schema": {"type": "object"}, "strict": true,
        }},
        "stop": ["x"],
        "top_k": 5,
        "user": "u",
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    // The arguments keep the order in which the model wrote them.
    let request = request.to_string().replace(r#"{"a":[2.5],"z":1}"#, r#"{"z":1,"a":[2.5]}"#);
    let expected = expected.to_string().replace("ARGUMENTS", r#"{\"z\":1,\"a\":[2.5]}"#);
    assert_eq!(chat(Messages, &request), serde_json::from_str::<serde_json::Value>(&expected).unwrap());
}

#[test]
fn a_last_message_of_the_assistant_is_continued() {
    let request =
        json!({"model": "m", "messages": [{"role": "assistant", "content": [{"type": "text", "text": "{"}]}]});
    let expected = json!({
        "model": "m",
        "messages": [{"role": "assistant", "content": "{"}],
        "continue_final_message": true,
        "add_generation_prompt": false,
    });
    assert_eq!(chat(Messages, &request.to_string()), expected);
}

#[test]
fn what_changes_the_answer_is_refused_with_its_place() {
    let user = |block: serde_json::Value| json!({"messages": [{"role": "user", "content": [block]}]});
    let assistant = |block: serde_json::Value| json!({"messages": [{"role": "assistant", "content": [block]}]});
    for (request, place) in [
        (json!({"mcp_servers": [{"url": "u"}]}), "mcp_servers[0]"),
        (json!({"messages": [{"role": "judge", "content": ""}]}), "messages[0].role"),
        (user(json!({"type": "search_result"})), "messages[0].content[0]"),
        (user(json!({"type": "image", "source": {"type": "file", "file_id": "f"}})), "messages[0].content[0].source"),
        (user(json!({"type": "document", "source": {"type": "base64"}})), "messages[0].content[0]"),
        (assistant(json!({"type": "server_tool_use"})), "messages[0].content[0]"),
        (json!({"tool_choice": {"type": "some"}}), "tool_choice"),
        (json!({"thinking": {"type": "deep"}}), "thinking"),
        (json!({"output_config": {"format": {"type": "grammar"}}}), "output_config.format"),
    ] {
        assert_eq!(refused_at(Messages, &request), place, "{request}");
    }
}

#[test]
fn what_has_no_effect_is_left_out_and_named() {
    let request = json!({
        "model": "m",
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cch=1;"},
            {"type": "text", "text": "be kind"},
        ],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi", "citations": [1]}]},
            {"role": "system", "content": [{"type": "text", "text": "be brief"}], "output_config": {"effort": "low"}},
            {"role": "assistant", "content": [
                {"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "yes"},
            ]},
            {"role": "user", "content": "go on"},
        ],
        "tools": [
            {"type": "web_search_20250305", "name": "web_search"},
            {"name": "f", "input_schema": {}, "eager": true},
        ],
        "tool_choice": {"type": "tool", "name": "web_search"},
        "context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]},
        "diagnostics": {"previous_message_id": null},
        "container": "c",
        "cache_control": {},
    });
    let (chat, dropped) = translated(Messages, &request);
    let expected = json!({
        "model": "m",
        "messages": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "hi\nbe brief"},
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": "go on"},
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    });
    assert_eq!(chat, expected);
    let places = [
        "container",
        "context_management",
        "diagnostics",
        "messages[].content[]",
        "messages[].content[].citations",
        "messages[].output_config",
        "system[]",
        "tool_choice",
        "tools[]",
        "tools[].eager",
    ];
    assert_eq!(dropped, places);
}

#[test]
fn a_billing_line_is_the_only_part_of_a_text_that_is_left_out() {
    let prompt = |system: &str| {
        let request = json!({"system": system, "messages": [{"role": "user", "content": "hi"}]});
        translated(Messages, &request).0["messages"][0]["content"].clone()
    };
    assert_eq!(prompt("x-anthropic-billing-header: cch=1;\nbe kind"), "be kind");
    assert_eq!(prompt("be kind\nx-anthropic-billing-header: cch=1;"), "be kind\nx-anthropic-billing-header: cch=1;");
    assert_eq!(prompt("x-anthropic-billing-header: cch=1;"), "hi");
}

#[test]
fn a_deferred_tool_counts_once_a_search_has_found_it() {
    let tools = json!([
        {"name": "ToolSearch", "input_schema": {}},
        {"name": "Fetch", "input_schema": {}, "defer_loading": true},
    ]);
    let names = |content: serde_json::Value| {
        let request = json!({"messages": [{"role": "user", "content": content}], "tools": tools});
        let (chat, _) = translated(Messages, &request);
        let names = chat["tools"].as_array().unwrap().iter().map(|tool| tool["function"]["name"].clone());
        (names.collect::<Vec<_>>(), chat["messages"][0]["content"].clone())
    };
    assert_eq!(names(json!("hi")).0, ["ToolSearch"]);
    let result = json!([{"type": "tool_result", "tool_use_id": "t", "content": [
        {"type": "tool_reference", "tool_name": "Fetch"}, {"type": "tool_reference", "tool_name": "Nothing"},
    ]}]);
    let (names, text) = names(result);
    assert_eq!(names, ["ToolSearch", "Fetch"]);
    assert_eq!(text, "Found the tool Fetch.\nFound the tool Nothing.");
}
