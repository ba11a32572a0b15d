//! Requests of Gemini's generateContent: what they become, what is left out, what is refused.

use crate::llm::translate::SourceApi::Gemini;
use crate::llm::translate::test_support::{chat, refused_at, translated};
use serde_json::json;

#[test]
fn a_conversation_with_functions() {
    let request = json!({
        "system_instruction": {"parts": [{"text": "be"}, {"text": "kind"}]},
        "contents": [
            {"parts": [{"text": "hi"}, {"inline_data": {"mime_type": "image/png", "data": "AA=="}}]},
            {"role": "model", "parts": [{"text": "hm", "thought": true, "thoughtSignature": "s"}, {"text": "one "}]},
            {"role": "model", "parts": [
                {"text": "moment"},
                {"functionCall": {"name": "look", "args": {"at": "x"}}},
                {"functionCall": {"name": "look"}},
                {"functionCall": {"name": "hear", "id": "h"}},
            ]},
            {"role": "user", "parts": [
                {"text": "and"},
                {"functionResponse": {"name": "hear", "id": "h", "response": {"output": "la"}}},
                {"functionResponse": {"name": "look", "response": {"output": 1}}},
                {"functionResponse": {"name": "look", "id": "unknown", "response": {"output": 2}}},
            ]},
        ],
        "tools": [{"functionDeclarations": [
            {"name": "look", "description": "looks", "parameters": {"type": "OBJECT", "properties": {"at": {"type": "STRING"}}}},
            {"name": "hear", "parametersJsonSchema": {"type": "object"}},
        ]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["look"]}},
        "generationConfig": {
            "temperature": 0.5, "topP": 0.9, "topK": 3, "maxOutputTokens": 9, "stopSequences": ["x"], "seed": 1,
            "candidateCount": 1, "responseMimeType": "application/json",
            "thinkingConfig": {"thinkingBudget": 0, "includeThoughts": true},
        },
        "safetySettings": [{"category": "c", "threshold": "BLOCK_NONE"}],
    });
    let call = |id: &str, name: &str, arguments: &str| {
        let function = json!({"name": name, "arguments": arguments});
        json!({"id": id, "type": "function", "function": function})
    };
    let expected = json!({
        "messages": [
            {"role": "system", "content": "be\nkind"},
            {"role": "user", "content": [
                {"type": "text", "text": "hi"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
            ]},
            {
                "role": "assistant",
                "content": "one moment",
                "reasoning_content": "hm",
                "reasoning": "hm",
                "tool_calls": [
                    call("call_0", "look", r#"{"at":"x"}"#), call("call_1", "look", "{}"), call("h", "hear", "{}"),
                ],
            },
            {"role": "tool", "tool_call_id": "h", "content": r#"{"output":"la"}"#},
            {"role": "tool", "tool_call_id": "call_0", "content": r#"{"output":1}"#},
            {"role": "tool", "tool_call_id": "call_1", "content": r#"{"output":2}"#},
            {"role": "user", "content": "and"},
        ],
        "tools": [
            {"type": "function", "function": {
                "name": "look",
                "description": "looks",
                "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
            }},
        ],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "stop": ["x"],
        "seed": 1,
        "chat_template_kwargs": {"enable_thinking": false},
        "response_format": {"type": "json_object"},
    });
    assert_eq!(chat(Gemini, &request.to_string()), expected);
}

#[test]
fn what_changes_the_answer_is_refused_with_its_place() {
    let user = |part: serde_json::Value| json!({"contents": [{"role": "user", "parts": [part]}]});
    let model = |part: serde_json::Value| json!({"contents": [{"role": "model", "parts": [part]}]});
    let config = |field: serde_json::Value| json!({"generationConfig": field});
    for (request, place) in [
        (json!({"cachedContent": "c"}), "cachedContent"),
        (user(json!({"executableCode": {}})), "contents[0].parts[0].executableCode"),
        (user(json!({"inlineData": {"mimeType": "audio/wav", "data": ""}})), "contents[0].parts[0].inlineData"),
        (
            user(json!({"file_data": {"mime_type": "image/png", "file_uri": "gs://b/x"}})),
            "contents[0].parts[0].file_data.file_uri",
        ),
        (user(json!({"functionResponse": {"name": "f", "response": {}}})), "contents[0].parts[0].functionResponse"),
        (model(json!({"inlineData": {"mimeType": "image/png"}})), "contents[0].parts[0].inlineData"),
        (json!({"contents": [{"role": "system"}]}), "contents[0].role"),
        (json!({"toolConfig": {"functionCallingConfig": {"mode": "SOME"}}}), "toolConfig.functionCallingConfig.mode"),
        (config(json!({"candidateCount": 2})), "generationConfig.candidateCount"),
        (config(json!({"responseModalities": ["IMAGE"]})), "generationConfig.responseModalities[0]"),
        (config(json!({"responseMimeType": "text/x.enum"})), "generationConfig.responseMimeType"),
    ] {
        assert_eq!(refused_at(Gemini, &request), place, "{request}");
    }
}

#[test]
fn what_has_no_effect_is_left_out_and_named() {
    let request = json!({
        "contents": [{"parts": [{"text": "hi"}]}, {"parts": [{"text": "there", "new": 1}]}],
        "tools": [
            {"googleSearch": {}},
            {"functionDeclarations": [
                {"name": "f", "parametersJsonSchema": {"type": "OBJECT", "properties": {"type": {"type": "STRING"}}}},
                {"name": "g"},
                {"name": "h", "behavior": "BLOCKING"},
            ]},
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "VALIDATED", "allowedFunctionNames": ["f", "h"]}},
        "generationConfig": {
            "responseLogprobs": true,
            "responseJsonSchema": {"type": ["ARRAY", "NULL"], "items": {"type": "STRING", "enum": ["STRING"]}},
        },
    });
    let (chat, dropped) = translated(Gemini, &request);
    let schema = json!({"type": ["array", "null"], "items": {"type": "string", "enum": ["STRING"]}});
    let expected = json!({
        "messages": [{"role": "user", "content": "hi\nthere"}],
        "tool_choice": "auto",
        "tools": [
            {"type": "function", "function": {
                "name": "f", "parameters": {"type": "object", "properties": {"type": {"type": "string"}}},
            }},
            {"type": "function", "function": {"name": "h"}},
        ],
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": true}},
    });
    assert_eq!(chat, expected);
    let places = [
        "contents[].parts[].new",
        "generationConfig.responseLogprobs",
        "toolConfig.functionCallingConfig.mode",
        "tools[]",
        "tools[].functionDeclarations[].behavior",
    ];
    assert_eq!(dropped, places);
}
