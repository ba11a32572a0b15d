//! Tests of responses in the format of OpenAI responses.

use super::source::SourceApi::Responses;
use super::test_support::{response_to, stream_to};
use serde_json::{Value, json};

const CUSTOM: &str = r#"{
    "input": "x", "stream": true, "include": ["reasoning.encrypted_content"],
    "tools": [{"type": "namespace", "name": "n", "tools": [
        {"type": "custom", "name": "exec"}, {"type": "function", "name": "f"}
    ]}]
}"#;

fn chat() -> Value {
    let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    let calls = [call("1", "n__exec", r#"{"input":"ls -l"}"#), call("2", "n__f", ""), call("3", "made_up", "{}")];
    let message = json!({"role": "assistant", "reasoning_content": "hm", "tool_calls": calls});
    json!({"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})
}

fn check_output(output: &Value) {
    assert_eq!(output[0]["encrypted_content"], "tracewire.aG0=");
    let call = |index: usize, fields: Value| {
        for (name, value) in fields.as_object().unwrap() {
            assert_eq!(&output[index][name], value, "{name} of {index}");
        }
    };
    call(1, json!({"type": "custom_tool_call", "name": "exec", "namespace": "n", "call_id": "1", "input": "ls -l"}));
    call(2, json!({"type": "function_call", "name": "f", "namespace": "n", "call_id": "2", "arguments": "{}"}));
    call(3, json!({"type": "function_call", "name": "made_up", "namespace": null, "arguments": "{}"}));
}

#[test]
fn tools_are_called_as_the_client_knows_them() {
    check_output(&response_to(Responses, CUSTOM, &chat())["output"]);
}

#[test]
fn a_warmup_gets_no_answer() {
    let request = r#"{"input":"x","generate":false,"stream":true,"max_output_tokens":99}"#;
    assert_eq!(super::test_support::chat(Responses, request)["max_tokens"], 1);
    let mut chat = chat();
    chat["choices"][0]["finish_reason"] = json!("length");
    let whole = response_to(Responses, request, &chat);
    assert_eq!((&whole["output"], &whole["status"]), (&json!([]), &json!("completed")));
    let events = stream_to(Responses, request, &chat);
    let types: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["response.created", "response.in_progress", "response.completed"]);
}

#[test]
fn streamed_calls_are_the_same() {
    let events = stream_to(Responses, CUSTOM, &chat());
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.completed");
    check_output(&last["response"]["output"]);
    let inputs: Vec<&Value> = events
        .iter()
        .filter(|event| event["type"].as_str().unwrap().starts_with("response.custom_tool_call_input"))
        .map(|event| if event["delta"].is_null() { &event["input"] } else { &event["delta"] })
        .collect();
    assert_eq!(inputs, ["ls -l", "ls -l"]);
}

#[test]
fn a_compaction_is_one_item_that_comes_back_as_a_summary() {
    let request = r#"{"input":[{"role":"user","content":"go"},{"type":"compaction_trigger"}],"stream":true}"#;
    let asked = super::test_support::chat(Responses, request);
    assert!(asked["messages"].to_string().contains("context checkpoint compaction"), "{asked}");
    let message = json!({"role": "assistant", "reasoning_content": "hm", "content": "all done"});
    let chat = json!({"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]});
    let events = stream_to(Responses, request, &chat);
    let types: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let expected = ["created", "in_progress", "output_item.added", "output_item.done", "completed"]
        .map(|name| format!("response.{name}"));
    assert_eq!(types, expected);
    let output = response_to(Responses, request, &chat)["output"].clone();
    assert_eq!((&events[3]["item"], &events[4]["response"]["output"]), (&output[0], &output));
    assert_eq!((output.as_array().unwrap().len(), &output[0]["type"]), (1, &json!("compaction")));
    let next = json!({"input": [output[0], {"role": "user", "content": "go on"}]}).to_string();
    let messages = super::test_support::chat(Responses, &next)["messages"].to_string();
    assert!(messages.contains("all done") && messages.contains("go on"), "{messages}");
}
