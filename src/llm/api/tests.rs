//! What the table answers, for the paths, bodies and frames of real clients.

use super::detect::{ApiCall, detect, ends_stream, may_be_call, models_path_beside, sole_api, websocket_calls};
use super::table::ALL;
use crate::wire::json::parse;
use http::{HeaderMap, HeaderValue, Method, header};
use std::collections::BTreeSet;

fn named(call: Option<ApiCall>) -> Option<(&'static str, Option<String>)> {
    call.map(|call| (call.api.name, call.model))
}

#[test]
fn rows_have_names_and_paths_of_their_own() {
    let names: BTreeSet<&str> = ALL.iter().map(|api| api.name).collect();
    assert_eq!(names.len(), ALL.len());
    let patterns: Vec<&str> = ALL.iter().flat_map(|api| api.endpoints).map(|endpoint| endpoint.pattern).collect();
    for pattern in &patterns {
        assert!(pattern.matches("{model}").count() <= 1, "{pattern}");
    }
}

#[test]
fn a_path_tells_its_api_where_no_body_could_tell_another() {
    for (path, expected) in [
        ("/v1/chat/completions", Some("openai.chat")),
        ("/openai/deployments/d/chat/completions", Some("openai.chat")),
        ("/v1/messages", Some("anthropic.messages")),
        ("/v1/responses", Some("openai.responses")),
        ("/v1beta/models/g:streamGenerateContent", Some("gemini")),
        ("/api/chat", Some("ollama")),
        ("/inference/v1/generate", None),
        ("/v1/completions", None),
        ("/completion", Some("llama_cpp.completion")),
        ("/mcp", None),
    ] {
        assert_eq!(sole_api(path).map(|call| call.api.name), expected, "{path}");
        for body in ["{}", r#"{"prompt":"p","n_predict":1,"model":"m","text":"t","messages":[],"input_ids":[1]}"#] {
            let detected = detect(path, &parse(body.as_bytes()).unwrap()).map(|call| call.api.name);
            assert!(
                expected.is_none() || detected.is_none_or(|api| Some(api) == expected),
                "{path} {body}: {detected:?}"
            );
        }
    }
}

#[test]
fn requests_tell_their_api() {
    for (path, body, expected) in [
        ("/v1/chat/completions", "{}", Some(("openai.chat", None))),
        ("/openai/deployments/d%20e/chat/completions", "{}", Some(("openai.chat", Some("d e")))),
        ("/v1/completions", r#"{"prompt":"p"}"#, Some(("openai.completions", None))),
        ("/completions", r#"{"prompt":"p","n_predict":1}"#, Some(("llama_cpp.completion", None))),
        ("/completion", r#"{"prompt":"p"}"#, Some(("llama_cpp.completion", None))),
        ("/v1/completions", "{}", None),
        ("/v1/messages", r#"{"messages":[]}"#, Some(("anthropic.messages", None))),
        ("/model/anthropic.c%3A0/invoke", r#"{"messages":[]}"#, Some(("anthropic.messages", Some("anthropic.c:0")))),
        ("/model/m/invoke", r#"{"inputText":""}"#, None),
        ("/model/m/converse-stream", "{}", Some(("bedrock.converse", Some("m")))),
        ("/v1beta/models/g-2:streamGenerateContent", "{}", Some(("gemini", Some("g-2")))),
        ("/v1/projects/p/locations/l/endpoints/7:generateContent", "{}", Some(("gemini", Some("7")))),
        ("/v1beta/models/g-2:countTokens", "{}", None),
        ("/v1/models", "{}", None),
        ("/api/generate", r#"{"model":"m"}"#, Some(("ollama", None))),
        ("/generate", r#"{"input_ids":[1]}"#, Some(("sglang.generate", None))),
        ("/generate", "{}", None),
        ("/anywhere", r#"{"jsonrpc":"2.0","method":"tools/call"}"#, Some(("mcp", None))),
        ("/anywhere", r#"{"jsonrpc":"2.0","method":"notifications/any"}"#, Some(("mcp", None))),
        ("/anywhere", r#"{"jsonrpc":"2.0","method":"eth_call"}"#, None),
    ] {
        let body = parse(body.as_bytes()).unwrap();
        let expected = expected.map(|(name, model)| (name, model.map(str::to_owned)));
        assert_eq!(named(detect(path, &body)), expected, "{path}");
    }
}

#[test]
fn the_gateway_serves_whole_paths_and_reroutes_their_ends() {
    for (path, at_gateway, elsewhere) in [
        ("/v1/chat/completions", Some("/chat/completions"), Some("/chat/completions")),
        ("/chat/completions/", Some("/chat/completions"), Some("/chat/completions")),
        ("/openai/deployments/d/chat/completions", None, Some("/chat/completions")),
        ("/v1/messages/count_tokens", Some("/messages/count_tokens"), Some("/messages/count_tokens")),
        ("/v1beta/models/g:embedContent", Some("/models/g:embedContent"), Some("/models/g:embedContent")),
        ("/x/models/g:embedContent", None, Some("/models/g:embedContent")),
        ("/v1/models/org/m", Some("/models/org/m"), Some("/models/org/m")),
        ("/x/models/m", None, None),
        (
            "/v1/models/a%3Fb%20%25%23:generateContent",
            Some("/models/a%3Fb%20%25%23:generateContent"),
            Some("/models/a%3Fb%20%25%23:generateContent"),
        ),
        (
            "/v1beta/models/..%2F..%2Fx:generateContent",
            Some("/models/..%2F..%2Fx:generateContent"),
            Some("/models/..%2F..%2Fx:generateContent"),
        ),
        (
            "/v1beta/models/../x:generateContent",
            Some("/models/..%2Fx:generateContent"),
            Some("/models/..%2Fx:generateContent"),
        ),
        ("/v1/responses/resp_1", Some("/responses/resp_1"), Some("/responses/resp_1")),
        ("/api/chat", None, None),
        ("/generate", Some("/generate"), None),
        ("/v1/generate", Some("/generate"), None),
        ("/api/generate", None, None),
        ("/inference/v1/generate", Some("/inference/v1/generate"), None),
        ("/tokenize", Some("/tokenize"), None),
        ("/x/tokenize", None, None),
        ("/v1/v1/responses", None, Some("/responses")),
        ("/v1", None, None),
    ] {
        let shown = |call: Option<ApiCall>| call.map(|call| call.path());
        assert_eq!(shown(ApiCall::at_gateway(path)).as_deref(), at_gateway, "{path}");
        assert_eq!(shown(ApiCall::at_other_host(path)).as_deref(), elsewhere, "{path}");
    }
}

#[test]
fn a_path_alone_tells_the_api_that_it_is_known_for() {
    for (path, expected) in [
        ("/completions", Some("openai.completions")),
        ("/completion", Some("llama_cpp.completion")),
        ("/models/chat/completions", Some("openai.chat")),
        ("/v1/models/m", None),
        ("/", None),
    ] {
        assert_eq!(ApiCall::of_path(path).map(|call| call.api.name), expected, "{path}");
    }
    assert!(websocket_calls("/v1/responses?x=1").is_some() && websocket_calls("/v1/realtime").is_none());
}

#[test]
fn the_list_of_models_is_beside_a_call() {
    for (path, expected) in [
        ("/v1/chat/completions", Some("/v1/models")),
        ("/serving/llm/v1/completions/", Some("/serving/llm/v1/models")),
        ("/completion", Some("/v1/models")),
        ("/inference/v1/generate", Some("/v1/models")),
        ("/other", None),
    ] {
        assert_eq!(models_path_beside(path).as_deref(), expected, "{path}");
    }
}

#[test]
fn posted_json_may_be_a_call() {
    let headers = |fields: &[(header::HeaderName, &'static str)]| {
        HeaderMap::from_iter(fields.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))))
    };
    assert!(may_be_call(&Method::POST, &headers(&[]), b" {"));
    assert!(!may_be_call(&Method::GET, &headers(&[]), b"{") && !may_be_call(&Method::POST, &headers(&[]), b"<"));
    let compressed = [(header::CONTENT_ENCODING, "zstd"), (header::CONTENT_TYPE, "application/JSON")];
    assert!(may_be_call(&Method::POST, &headers(&compressed), b"\x28"));
    assert!(!may_be_call(&Method::POST, &headers(&compressed[..1]), b"\x28"));
}

#[test]
fn terminal_events_end_a_stream() {
    for (frame, expected) in [
        ("data: {}\n\ndata: [DONE]\n\n", true),
        ("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n", true),
        ("event: content_block_stop\ndata: {}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n", true),
        ("event: response.completed\ndata: {}\n\n", true),
        ("event: response.created\ndata: {}\n\n", false),
        ("data: {\"choices\":[]}\n\n", false),
        ("data: {\"text\":\"message_stop\"}\n\n", true),
        ("data: {\"text\":\"a message_stop\"}\n\n", false),
        ("", false),
    ] {
        assert_eq!(ends_stream(frame.as_bytes()), expected, "{frame}");
    }
}
