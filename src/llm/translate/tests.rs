//! Responses in every format: whole, streamed, cut anywhere.

use super::response::ResponseTranslator;
use super::source::{GeminiPath, SourceApi};
use super::test_support::{OPTIONS, SSE, events, streamed};
use super::to_chat::to_chat;
use proptest::prelude::*;
use serde_json::{Value, json};

const SOURCES: [SourceApi; 3] = [SourceApi::Messages, SourceApi::Responses, SourceApi::Gemini];
/// The translator for a client that asks for a stream and for reasoning.
fn translator(source: SourceApi) -> ResponseTranslator {
    let request = match source {
        SourceApi::Messages => r#"{"model":"asked","stream":true,"thinking":{"type":"enabled","budget_tokens":1024}}"#,
        SourceApi::Responses => r#"{"model":"asked","stream":true}"#,
        SourceApi::Gemini => r#"{"generationConfig":{"thinkingConfig":{"includeThoughts":true}}}"#,
    };
    to_chat(source, request.as_bytes(), SSE, OPTIONS).unwrap().response
}

fn whole(source: SourceApi, chat: &Value) -> Value {
    serde_json::from_slice(&translator(source).whole(chat.to_string().as_bytes()).unwrap()).unwrap()
}

/// What a model samples: reasoning, text, and tool calls, each in pieces.
#[derive(Clone, Debug)]
struct Sampled {
    thought: Vec<String>,
    text: Vec<String>,
    calls: Vec<Vec<String>>,
    finish: &'static str,
}

const USAGE: &str = r#"{"prompt_tokens":7,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":3}}"#;

impl Sampled {
    /// As one chat completion, with fields that the agent must not get.
    fn whole(&self) -> Value {
        let calls = self.calls.iter().enumerate().map(|(index, pieces)| {
            json!({"id": format!("c{index}"), "type": "function", "function": {"name": "f", "arguments": pieces.concat()}})
        });
        let message = json!({
            "role": "assistant",
            "reasoning_content": self.thought.concat(),
            "content": self.text.concat(),
            "tool_calls": calls.collect::<Vec<_>>(),
        });
        let choice = json!({
            "index": 0, "message": message, "finish_reason": self.finish, "token_ids": [4], "logprobs": {"content": [4]},
        });
        json!({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 9, "model": "m", "choices": [choice],
            "usage": serde_json::from_str::<Value>(USAGE).unwrap(), "prompt_token_ids": [4],
        })
    }

    /// As a stream of chunks, in vLLM's form.
    fn stream(&self) -> String {
        let chunk = |choices: Value, usage: Value| {
            let (id, created, model) = ("chatcmpl-1", 9, "m");
            json!({"id": id, "created": created, "model": model, "choices": choices, "usage": usage})
        };
        let delta = |delta: Value| {
            chunk(json!([{"index": 0, "delta": delta, "finish_reason": null, "token_ids": [4]}]), Value::Null)
        };
        let mut chunks = vec![delta(json!({"role": "assistant", "content": ""}))];
        chunks.extend(self.thought.iter().map(|piece| delta(json!({"reasoning": piece, "reasoning_content": piece}))));
        chunks.extend(self.text.iter().map(|piece| delta(json!({"content": piece}))));
        for (index, pieces) in self.calls.iter().enumerate() {
            let function = json!({"name": "f"});
            let first = json!({"index": index, "id": format!("c{index}"), "type": "function", "function": function});
            chunks.push(delta(json!({"tool_calls": [first]})));
            for piece in pieces {
                let function = json!({"arguments": piece});
                chunks.push(delta(json!({"tool_calls": [{"index": index, "function": function}]})));
            }
        }
        chunks.push(chunk(json!([{"index": 0, "delta": {}, "finish_reason": self.finish}]), Value::Null));
        chunks.push(chunk(json!([]), serde_json::from_str(USAGE).unwrap()));
        let events: String = chunks.iter().map(|chunk| format!("data: {chunk}\n\n: alive\r\n\r\n")).collect();
        format!("{events}data: [DONE]\n\n")
    }
}

fn example() -> Sampled {
    Sampled {
        thought: vec!["h".to_owned(), "m".to_owned()],
        text: vec!["hé".to_owned(), "llo".to_owned()],
        calls: vec![vec!["{\"b\":".to_owned(), "1,\"a\":2}".to_owned()], vec!["{}".to_owned()]],
        finish: "tool_calls",
    }
}

/// The whole response that the events of a stream make.
fn put_together(source: SourceApi, events: &[Value]) -> Value {
    match source {
        SourceApi::Messages => message_of(events),
        SourceApi::Responses => events.last().unwrap()["response"].clone(),
        SourceApi::Gemini => {
            let mut whole = events.last().unwrap().clone();
            let parts = events.iter().flat_map(|event| event["candidates"][0]["content"]["parts"].as_array().unwrap());
            let mut merged: Vec<Value> = Vec::new();
            for part in parts.filter(|part| part["text"] != "") {
                let last = merged.last_mut().filter(|last| last["thought"] == part["thought"]);
                match (last, part["text"].as_str()) {
                    (Some(last), Some(more)) if last["text"].is_string() => {
                        last["text"] = json!(last["text"].as_str().unwrap().to_owned() + more);
                    }
                    _ => merged.push(part.clone()),
                }
            }
            whole["candidates"][0]["content"]["parts"] = Value::Array(merged);
            whole
        }
    }
}

fn message_of(events: &[Value]) -> Value {
    let mut message = events[0]["message"].clone();
    let mut inputs: Vec<String> = Vec::new();
    for event in events {
        let at = event["index"].as_u64().map_or(0, |index| usize::try_from(index).unwrap());
        match event["type"].as_str().unwrap() {
            "content_block_start" => {
                let content = message["content"].as_array_mut().unwrap();
                assert_eq!(content.len(), at);
                content.push(event["content_block"].clone());
                inputs.push(String::new());
            }
            "content_block_delta" => {
                let delta = &event["delta"];
                let block = &mut message["content"][at];
                for name in ["text", "thinking"] {
                    if let Some(more) = delta[name].as_str() {
                        block[name] = json!(block[name].as_str().unwrap().to_owned() + more);
                    }
                }
                inputs[at].push_str(delta["partial_json"].as_str().unwrap_or_default());
            }
            "content_block_stop" if !inputs[at].is_empty() => {
                message["content"][at]["input"] = serde_json::from_str(&inputs[at]).unwrap();
            }
            "message_delta" => {
                message["stop_reason"] = event["delta"]["stop_reason"].clone();
                message["stop_sequence"] = event["delta"]["stop_sequence"].clone();
                message["usage"] = event["usage"].clone();
            }
            _ => {}
        }
    }
    message
}

fn any_sampled() -> impl Strategy<Value = Sampled> {
    let pieces = || prop::collection::vec("[a\u{e9}\\\\\" \n]{0,3}", 0..4);
    let call = prop::sample::select(vec![vec!["{}"], vec!["{\"a\"", ":[1]", "}"], vec!["", "{\"a\":\"\\u00e9", "\"}"]]);
    let call = call.prop_map(|pieces| pieces.into_iter().map(str::to_owned).collect::<Vec<String>>());
    let finish = prop::sample::select(vec!["stop", "length", "tool_calls", "content_filter"]);
    (pieces(), pieces(), prop::collection::vec(call, 0..3), finish).prop_map(|(thought, text, calls, finish)| Sampled {
        thought,
        text,
        calls,
        finish,
    })
}

proptest! {
    #[test]
    fn any_division_of_a_stream_gives_the_same(sampled in any_sampled(), cuts in prop::collection::vec(0_usize..4000, 0..12)) {
        for source in SOURCES {
            let stream = sampled.stream();
            prop_assert_eq!(streamed(&translator(source), &stream, &cuts), streamed(&translator(source), &stream, &[]));
        }
    }

    #[test]
    fn the_pieces_of_a_stream_make_the_whole_answer(sampled in any_sampled()) {
        for source in SOURCES {
            let translated = streamed(&translator(source), &sampled.stream(), &[]);
            prop_assert!(!translated.contains("token_ids") && !translated.contains("logprobs"));
            let expected = whole(source, &sampled.whole());
            prop_assert!(!expected.to_string().contains("token_ids") && !expected.to_string().contains("logprobs"));
            prop_assert_eq!(put_together(source, &events(&translated)), expected);
        }
    }
}

#[test]
fn a_whole_answer_of_messages() {
    let expected = json!({
        "id": "chatcmpl-1", "type": "message", "role": "assistant", "model": "m",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "text", "text": "héllo"},
            {"type": "tool_use", "id": "c0", "name": "f", "input": {"a": 2, "b": 1}},
            {"type": "tool_use", "id": "c1", "name": "f", "input": {}},
        ],
        "stop_reason": "tool_use", "stop_sequence": null,
        "usage": {
            "input_tokens": 4, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 3, "output_tokens": 5,
        },
    });
    assert_eq!(whole(SourceApi::Messages, &example().whole()), expected);
    let bytes = translator(SourceApi::Messages).whole(example().whole().to_string().as_bytes()).unwrap();
    assert!(String::from_utf8(bytes).unwrap().contains(r#""input":{"b":1,"a":2}"#), "arguments keep their order");
    let stopped = json!({"choices": [{"message": {"content": "x"}, "finish_reason": "stop", "stop_reason": "END"}]});
    let stopped = whole(SourceApi::Messages, &stopped);
    assert_eq!((&stopped["stop_reason"], &stopped["stop_sequence"]), (&json!("stop_sequence"), &json!("END")));
    assert_eq!(stopped["model"], "asked");
}

#[test]
fn a_whole_answer_of_responses() {
    let body = br#"{"model":"asked","input":"hi","instructions":"be","tools":[{"type":"function","name":"f"}]}"#;
    let translator = to_chat(SourceApi::Responses, body, GeminiPath::default(), OPTIONS).unwrap().response;
    assert!(!translator.streams());
    let bytes = translator.whole(example().whole().to_string().as_bytes()).unwrap();
    let whole: Value = serde_json::from_slice(&bytes).unwrap();
    let call = |at: usize, call: &str, arguments: &str| {
        json!({
            "id": format!("fc_chatcmpl-1_{at}"), "type": "function_call", "status": "completed", "call_id": call,
            "name": "f", "arguments": arguments,
        })
    };
    let output = json!([
        {
            "id": "rs_chatcmpl-1_0", "type": "reasoning", "status": "completed", "summary": [],
            "content": [{"type": "reasoning_text", "text": "hm"}],
        },
        {
            "id": "msg_chatcmpl-1_1", "type": "message", "status": "completed", "role": "assistant",
            "content": [{"type": "output_text", "text": "héllo", "annotations": []}],
        },
        call(2, "c0", "{\"b\":1,\"a\":2}"),
        call(3, "c1", "{}"),
    ]);
    assert_eq!(whole["output"], output);
    assert_eq!((&whole["status"], &whole["id"]), (&json!("completed"), &json!("chatcmpl-1")));
    assert_eq!((&whole["instructions"], &whole["tool_choice"]), (&json!("be"), &json!("auto")));
    assert_eq!(whole["tools"], json!([{"type": "function", "name": "f"}]));
    assert_eq!(whole["usage"]["input_tokens_details"]["cached_tokens"], 3);
    assert_eq!(whole["usage"]["total_tokens"], 12);
}

#[test]
fn a_whole_answer_of_gemini() {
    let expected = json!({
        "candidates": [{
            "content": {"role": "model", "parts": [
                {"text": "hm", "thought": true},
                {"text": "héllo", "thoughtSignature": "dHJhY2V3aXJlLmht"},
                {"functionCall": {"id": "c0", "name": "f", "args": {"a": 2, "b": 1}}},
                {"functionCall": {"id": "c1", "name": "f", "args": {}}},
            ]},
            "finishReason": "STOP",
            "index": 0,
        }],
        "usageMetadata": {
            "promptTokenCount": 7, "cachedContentTokenCount": 3, "candidatesTokenCount": 5, "thoughtsTokenCount": 0,
            "totalTokenCount": 12,
        },
        "modelVersion": "m",
        "responseId": "chatcmpl-1",
    });
    assert_eq!(whole(SourceApi::Gemini, &example().whole()), expected);
}

#[test]
fn the_events_of_a_stream_have_their_order() {
    let types = |source: SourceApi| {
        let translated = events(&streamed(&translator(source), &example().stream(), &[]));
        for (number, event) in translated.iter().enumerate().filter(|_| source == SourceApi::Responses) {
            assert_eq!(event["sequence_number"], number);
        }
        translated.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let block = |deltas: usize| {
        let delta = std::iter::repeat_n("content_block_delta", deltas);
        ["content_block_start"].into_iter().chain(delta).chain(["content_block_stop"]).collect::<Vec<_>>()
    };
    let expected =
        [vec!["message_start"], block(2), block(2), block(2), block(1), vec!["message_delta", "message_stop"]];
    assert_eq!(types(SourceApi::Messages), expected.concat());
    #[rustfmt::skip]
    let expected = [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.delta",
        "reasoning_text.done", "content_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done",
        "completed",
    ];
    assert_eq!(types(SourceApi::Responses), expected.map(|name| format!("response.{name}")));
}

#[test]
fn a_stream_that_is_cut_ends_with_an_error() {
    let stream = example().stream();
    let cut = &stream[..stream.find("llo").unwrap()];
    for (source, mark) in SOURCES.into_iter().zip(["event: error", "event: response.failed", "{\"error\":"]) {
        let translated = streamed(&translator(source), cut, &[]);
        assert!(translated.contains(mark), "{translated}");
        let broken = streamed(&translator(source), "data: {\"error\":{\"message\":\"out of memory\"}}\n\n", &[]);
        assert!(broken.contains("out of memory") && broken.contains("error"), "{broken}");
        // A finish reason completes a stream, and so does `[DONE]` without its blank line.
        let finished = &stream[..stream.find("\"usage\":{").unwrap()];
        let finished = &finished[..finished.rfind("data:").unwrap()];
        assert!(!streamed(&translator(source), finished, &[]).contains("error\":{"), "{source:?}");
        assert!(!streamed(&translator(source), "data: [DONE]", &[]).contains("error\":{"), "{source:?}");
    }
}

#[test]
fn gemini_also_streams_a_list() {
    let request = br#"{"generationConfig":{"thinkingConfig":{"includeThoughts":true}}}"#;
    let translator =
        to_chat(SourceApi::Gemini, request, GeminiPath { streams: true, sse: false }, OPTIONS).unwrap().response;
    assert_eq!((translator.content_type(), translator.streams()), ("application/json", true));
    let list: Vec<Value> = serde_json::from_str(&streamed(&translator, &example().stream(), &[3, 500])).unwrap();
    assert_eq!(put_together(SourceApi::Gemini, &list), whole(SourceApi::Gemini, &example().whole()));
    let failed: Vec<Value> = serde_json::from_str(&streamed(&translator, "", &[])).unwrap();
    assert_eq!(failed[0]["error"]["code"], 500);
}

#[test]
fn reasoning_goes_to_clients_that_ask_for_it() {
    let chat = example().whole().to_string();
    for (source, request) in [(SourceApi::Messages, &br#"{"model":"m"}"#[..]), (SourceApi::Gemini, b"{}")] {
        let translator = to_chat(source, request, GeminiPath::default(), OPTIONS).unwrap().response;
        let whole = String::from_utf8(translator.whole(chat.as_bytes()).unwrap()).unwrap();
        assert!(whole.contains("h\u{e9}llo") && !whole.contains("thinking") && !whole.contains("thought\""), "{whole}");
    }
}

#[test]
fn odd_arguments_cost_no_response() {
    let call = json!({"id": "c", "function": {"name": "f", "arguments": "{\"a\": 1"}});
    let message = json!({"content": "Writing.", "tool_calls": [call]});
    let odd = json!({"choices": [{"message": message, "finish_reason": "length"}]});
    let messages = whole(SourceApi::Messages, &odd);
    assert_eq!((&messages["stop_reason"], &messages["content"][0]["text"]), (&json!("max_tokens"), &json!("Writing.")));
    assert_eq!(messages["content"][1]["input"], json!({}));
    let gemini = &whole(SourceApi::Gemini, &odd)["candidates"][0];
    assert_eq!(
        (&gemini["finishReason"], &gemini["content"]["parts"][1]["functionCall"]["args"]),
        (&json!("MAX_TOKENS"), &json!({}))
    );
    assert_eq!(whole(SourceApi::Responses, &odd)["output"][1]["arguments"], "{\"a\": 1");
}

#[test]
fn what_is_no_json_is_refused() {
    for source in SOURCES {
        assert_eq!(translator(source).whole(b"<html>").unwrap_err().place, "answer");
        assert_eq!(to_chat(source, b"{", SSE, OPTIONS).unwrap_err().place, "body");
        assert_eq!(to_chat(source, b"[]", SSE, OPTIONS).unwrap_err().to_string(), "body: must be an object");
    }
}
