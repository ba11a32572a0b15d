//! The engines' own APIs at the gateway: they pass to the backend as they are, and those that sample are recorded.

use crate::support::client::{ask, get, post};
use crate::support::{Bench, Running, endpoint, eventually, is_exchange, read_head};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

/// The requests that a backend got: path and body.
type Requests = Arc<Mutex<Vec<(String, String)>>>;

/// A backend that has the own APIs of engines, and what it got.
fn backend() -> (SocketAddr, Requests) {
    let requests = Requests::default();
    let seen = Arc::clone(&requests);
    let address = endpoint(move |mut stream| {
        loop {
            let head = read_head(&mut stream);
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            let Some(path) = head.split(' ').nth(1).filter(|_| stream.read_exact(&mut body).is_ok()) else { return };
            let body = String::from_utf8(body).unwrap();
            if head.starts_with("POST ") {
                seen.lock().unwrap().push((path.to_owned(), body.clone()));
            }
            let (status, kind, answer) = answer(path, &body);
            let length = answer.len();
            let head =
                format!("HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{answer}");
            if stream.write_all(head.as_bytes()).is_err() {
                return;
            }
        }
    });
    (address, requests)
}

fn answer(path: &str, body: &str) -> (u16, &'static str, String) {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let events = |events: &[Value]| {
        let events = events.iter().map(|event| format!("data: {event}\n\n")).collect::<String>();
        (200, "text/event-stream", format!("{events}data: [DONE]\n\n"))
    };
    let whole = |answer: Value| (200, "application/json", format!("{answer:#}"));
    let of_sglang = |ids: &[u32], finish: Value| {
        let pairs: Vec<Value> = ids.iter().map(|id| json!([-0.5, id, null])).collect();
        let meta = json!({ "id": "g", "prompt_tokens": 3, "completion_tokens": ids.len(), "finish_reason": finish,
                           "output_token_logprobs": pairs });
        json!({ "text": "4 .", "output_ids": ids, "meta_info": meta })
    };
    let of_vllm = |ids: &[u32], finish: Value| json!({ "request_id": "g", "choices": [{ "index": 0, "token_ids": ids, "finish_reason": finish }] });
    let stop = json!({ "type": "stop" });
    match (path, body["stream"] == true) {
        ("/generate", false) => whole(of_sglang(&[10, 11], stop)),
        ("/generate", true) => events(&[of_sglang(&[10], Value::Null), of_sglang(&[10, 11], stop)]),
        ("/inference/v1/generate", false) => whole(of_vllm(&[10, 11], json!("stop"))),
        ("/inference/v1/generate", true) => events(&[of_vllm(&[10], Value::Null), of_vllm(&[11], json!("stop"))]),
        ("/tokenize", _) => whole(json!({ "count": 2, "max_model_len": 99, "tokens": [1, 2] })),
        ("/v1/messages/count_tokens", _) => whole(json!({ "input_tokens": 2 })),
        ("/v1/models", _) => whole(json!({ "data": [{ "id": "m" }] })),
        _ => (404, "application/json", "{\"detail\":\"Not Found here\"}".to_owned()),
    }
}

/// A gateway before the backend, as one of this engine.
fn gateway(bench: &Bench, engine: &str, settings: &str) -> (Running, Requests) {
    let (address, requests) = backend();
    let backend = format!("backends = [{{ model = \"m\", url = \"http://{address}/v1\", engine = \"{engine}\" }}]");
    let serve = bench.gateway_without_backends(&format!("[gateway]\nretries = 0\n{settings}\n{backend}\n"));
    (serve, requests)
}

/// The span of a rollout's only exchange.
fn span(serve: &Running, rollout: &str) -> Value {
    eventually(|| {
        let page = get(serve.address("server"), &format!("/v1/agl/spans?rollout_id={rollout}")).json();
        page["items"].as_array().unwrap().iter().find(|span| is_exchange(span)).cloned()
    })
}

fn of_sglang(stream: bool) -> Value {
    json!({ "input_ids": [1, 2, 3], "sampling_params": { "max_new_tokens": 2 }, "return_logprob": true, "stream": stream })
}

fn of_vllm(stream: bool) -> Value {
    json!({ "token_ids": [1, 2, 3], "sampling_params": { "max_tokens": 2 }, "stream": stream })
}

#[test]
fn calls_of_an_engines_own_api_pass_as_they_are_and_are_recorded() {
    let bench = Bench::new();
    for (engine, path, api) in
        [("sglang", "/generate", "sglang.generate"), ("vllm", "/inference/v1/generate", "vllm.generate")]
    {
        for stream in [false, true] {
            let (serve, requests) = gateway(&bench, engine, "");
            let body = if engine == "sglang" { of_sglang(stream) } else { of_vllm(stream) }.to_string();
            let expected = answer(path, &body).2;
            for (at, target) in [
                format!("/rollout/RO/attempt/at{path}"),
                format!("/rollout/RO/attempt/at/v1{path}"),
                format!("/sessions/RO/v1{path}"),
                path.to_owned(),
            ]
            .iter()
            .enumerate()
            {
                let rollout = format!("{engine}-{stream}-{at}");
                let target = target.replace("RO", &rollout);
                let headers = [("x-rollout-id", rollout.as_str())];
                let headers = if target == path { &headers[..] } else { &[] };
                let reply = ask(serve.address("server"), "POST", &target, headers, &body);
                assert_eq!((reply.status, reply.text()), (200, expected.clone()), "{target}");
                let sent = requests.lock().unwrap().pop().unwrap();
                assert_eq!(sent, (path.to_owned(), body.clone()), "{target}");
                let span = span(&serve, &rollout);
                let attributes = &span["attributes"];
                assert_eq!(attributes["tracewire.dialect"], api, "{target}: {span:#}");
                assert_eq!(attributes["gen_ai.operation.name"], "text_completion", "{target}");
                assert_eq!(attributes["prompt_token_ids"], json!([1, 2, 3]), "{target}");
                assert_eq!(attributes["response_token_ids"], json!([10, 11]), "{target}");
                assert_eq!(attributes["tracewire.tokens.status"], "exact", "{target}: {span:#}");
                assert!(attributes["tracewire.gateway.translated_from"].is_null(), "{target}");
            }
        }
    }
}

#[test]
fn tokenizers_are_reached_and_are_no_calls_of_a_model() {
    let bench = Bench::new();
    let (serve, requests) = gateway(&bench, "vllm", "aliases = { gpt = \"m\" }");
    for (at, (body, sent)) in [
        (json!({ "prompt": "hi" }), json!({ "prompt": "hi" })),
        (json!({ "model": "gpt", "prompt": "hi" }), json!({ "model": "m", "prompt": "hi" })),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/rollout/ro-{at}/attempt/at/tokenize");
        let reply = post(serve.address("server"), &path, &body);
        assert_eq!((reply.status, reply.text()), (200, answer("/tokenize", "").2));
        let (path, got) = requests.lock().unwrap().pop().unwrap();
        assert_eq!((path.as_str(), serde_json::from_str::<Value>(&got).unwrap()), ("/tokenize", sent));
        let span = span(&serve, &format!("ro-{at}"));
        assert_eq!((&span["name"], &span["attributes"]["gen_ai.operation.name"]), (&json!("POST"), &Value::Null));
    }
}

#[test]
fn the_tokens_of_messages_are_counted_by_the_engine_in_its_own_way() {
    let bench = Bench::new();
    let asked = json!({ "model": "gpt", "system": "s", "messages": [{ "role": "user", "content": "hi" }] });
    let as_it_came = json!({ "model": "m", "system": "s", "messages": [{ "role": "user", "content": "hi" }] });
    let turns = json!([{ "role": "system", "content": "s" }, { "role": "user", "content": "hi" }]);
    let as_chat = json!({ "model": "m", "messages": turns });
    let path = "/rollout/ro/attempt/at/v1/messages/count_tokens";
    for translate in ["missing", "always"] {
        for (engine, route, sent) in [
            ("vllm", "/tokenize", &as_chat),
            ("llama.cpp", "/v1/messages/count_tokens", &as_it_came),
            ("sglang", "/v1/messages/count_tokens", &as_it_came),
            ("anthropic", "/v1/messages/count_tokens", &as_it_came),
        ] {
            let settings = format!("aliases = {{ gpt = \"m\" }}\ntranslate = \"{translate}\"");
            let (serve, requests) = gateway(&bench, engine, &settings);
            let reply = post(serve.address("server"), path, &asked);
            assert_eq!((reply.status, reply.json()["input_tokens"].as_u64()), (200, Some(2)), "{engine} {translate}");
            let (got_at, got) = requests.lock().unwrap().pop().unwrap();
            let got: Value = serde_json::from_str(&got).unwrap();
            assert_eq!((got_at.as_str(), &got), (route, sent), "{engine} {translate}");
        }
        let (serve, _) = gateway(&bench, "tgi", &format!("translate = \"{translate}\""));
        let reply = post(serve.address("server"), path, &as_it_came);
        assert_eq!(reply.status, 400, "{}", reply.text());
        assert!(reply.text().contains("(tgi) does not have /messages/count_tokens"), "{}", reply.text());
    }
}

#[test]
fn an_engine_without_the_route_answers_itself() {
    let bench = Bench::new();
    for engine in ["openai", "anthropic", "llama.cpp", "auto"] {
        let (serve, requests) = gateway(&bench, engine, "translate = \"always\"");
        let reply = post(serve.address("server"), "/rollout/ro/attempt/at/detokenize", &json!({ "tokens": [1] }));
        assert_eq!((reply.status, reply.text().as_str()), (404, "{\"detail\":\"Not Found here\"}"), "{engine}");
        assert_eq!(requests.lock().unwrap().pop().unwrap(), ("/detokenize".to_owned(), "{\"tokens\":[1]}".to_owned()));
    }
}

#[test]
fn sampling_parameters_are_set_where_the_engine_reads_them() {
    let bench = Bench::new();
    let settings = "train = { temperature = 0.5, max_tokens = 7 }";
    for (engine, path, body, limit) in [
        ("sglang", "/generate", of_sglang(false), "max_new_tokens"),
        ("vllm", "/inference/v1/generate", of_vllm(false), "max_tokens"),
    ] {
        let (serve, requests) = gateway(&bench, engine, settings);
        let server = serve.address("server");
        let fields = json!({ "input": {}, "mode": "train", "metadata": { "sampling_params": { "seed": 3 } } });
        let rollout = post(server, "/v1/agl/rollouts", &fields).json()["rollout_id"].as_str().unwrap().to_owned();
        let path = format!("/rollout/{rollout}/attempt/at{path}");
        let mut body = body;
        body["sampling_params"] = Value::Null;
        assert_eq!(post(server, &path, &body).status, 200);
        let sent: Value = serde_json::from_str(&requests.lock().unwrap().pop().unwrap().1).unwrap();
        assert_eq!(sent["sampling_params"], json!({ "temperature": 0.5, limit: 7, "seed": 3 }), "{engine}");
        // A list, as SGLang takes it for several prompts, passes only if nothing is to be set in it.
        body["sampling_params"] = json!([{}, {}]);
        let refused = post(server, &path, &body);
        assert!(refused.status == 400 && refused.text().contains("sampling_params"), "{engine}: {}", refused.text());
        let unset = post(server, &path.replace(&rollout, "ro-unset"), &body);
        assert_eq!(unset.status, 200, "{engine}: {}", unset.text());
        let sent: Value = serde_json::from_str(&requests.lock().unwrap().pop().unwrap().1).unwrap();
        assert_eq!(sent, body, "{engine}");
    }
}
