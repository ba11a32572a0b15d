//! What a sampler knows beside the ids of its tokens: routed experts and sampling masks, by setting.

use crate::support::client::{ask, get};
use crate::support::model_server::{npy, read_request};
use crate::support::{Bench, Running, endpoint, eventually, is_exchange};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};

const LAYERS: usize = 12;
const TOP_K: usize = 4;

/// The experts of as many tokens.
fn experts(tokens: usize) -> Vec<u8> {
    (0..tokens * LAYERS * TOP_K).map(|at| u8::try_from(at * 31 % 127).unwrap()).collect()
}

/// How many tokens a prompt and its response have.
#[derive(Clone, Copy)]
struct Length {
    prompt: usize,
    sampled: usize,
}

impl Length {
    /// The experts of the prompt and of what was sampled: the last token has none.
    fn experts(self) -> Vec<u8> {
        experts(self.prompt + self.sampled - 1)
    }

    /// For each token that was sampled, the tokens that it could have been.
    fn masks(self) -> Vec<Vec<usize>> {
        (0..self.sampled).map(|at| (0..at % 4 + 1).map(|other| at + other * 70_000).collect()).collect()
    }

    /// The ids that were sampled.
    fn ids(self) -> Vec<usize> {
        (0..self.sampled).map(|at| at * 7 % 100_000).collect()
    }
}

/// A response, with arrays for a model named `moe`.
fn response(request: &Value, length: Length) -> Value {
    let prompt = length.prompt;
    let (has_arrays, stays) = (request["model"] == "moe", request["return_token_ids"] == true);
    let or_null = |value: Value, is_there: bool| if is_there { value } else { Value::Null };
    let logprobs: Vec<Value> =
        (0..length.sampled).map(|at| json!({"token": "a", "logprob": -0.5 / (at + 1) as f64})).collect();
    json!({
        "id": "c", "object": "chat.completion", "model": "moe",
        "prompt_token_ids": or_null(json!((0..prompt).collect::<Vec<_>>()), stays),
        "choices": [{
            "index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "ab"},
            "token_ids": or_null(json!(length.ids()), stays),
            "logprobs": or_null(json!({"content": logprobs}), request["logprobs"] == true),
            "sampling_mask": or_null(json!(length.masks()), has_arrays),
            "routed_experts": or_null(json!(npy(&length.experts(), [LAYERS, TOP_K])), has_arrays),
        }],
        "usage": {"prompt_tokens": prompt, "completion_tokens": length.sampled},
        "kv_transfer_params": null,
    })
}

/// vLLM with a mixture of experts.
fn engine(length: Length) -> SocketAddr {
    endpoint(move |mut stream: TcpStream| {
        while let Some(body) = read_request(&mut stream) {
            let body = match body {
                Some(body) => response(&serde_json::from_slice(&body).unwrap(), length).to_string(),
                None => json!({"data": [{"id": "m", "owned_by": "vllm"}]}).to_string(),
            };
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
            if stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).is_err() {
                return;
            }
        }
    })
}

fn serve(bench: &Bench, engine: SocketAddr, capture: &str) -> Running {
    bench.gateway_without_backends(&format!(
        "[capture]\n{capture}\n[tokens]\nengines = [{{ hosts = [\"{engine}\"], engine = \"vllm\" }}]\n[gateway]\nbackends = [{{ model = \"\", url = \"http://{engine}/v1\", engine = \"vllm\" }}]\n"
    ))
}

/// What the agent got and what was recorded of a call through the gateway, or through the proxy.
fn call(serve: &Running, engine: SocketAddr, model: &str, rollout: &str, through_proxy: bool) -> (Value, Value) {
    let body = json!({"model": model, "messages": [{"role": "user", "content": "x"}]}).to_string();
    let reply = if through_proxy {
        let url = format!("http://{engine}/v1/chat/completions");
        ask(serve.address("proxy"), "POST", &url, &[("x-rollout-id", rollout)], &body)
    } else {
        ask(serve.address("server"), "POST", &format!("/rollout/{rollout}/attempt/0/v1/chat/completions"), &[], &body)
    };
    assert_eq!(reply.status, 200, "{}", reply.text());
    let span = eventually(|| {
        let page = get(serve.address("server"), &format!("/v1/agl/spans?rollout_id={rollout}")).json();
        page["items"].as_array()?.iter().find(|span| is_exchange(span)).cloned()
    });
    (reply.json(), span["attributes"].clone())
}

#[test]
fn arrays_are_recorded_exactly_and_no_agent_sees_them() {
    // Short responses are read at once, long ones while they pass.
    for (prompt, sampled) in [(3, 2), (4000, 2), (1000, 40_000)] {
        let length = Length { prompt, sampled };
        let (bench, engine) = (Bench::new(), engine(length));
        let serve = serve(&bench, engine, "routed_experts = true\nsampling_masks = true");
        let (masks, unasked) = (length.masks(), response(&json!({"model": "dense"}), length));
        for (rollout, through_proxy) in [("ro-g", false), ("ro-p", true)] {
            let (seen, attributes) = call(&serve, engine, "moe", rollout, through_proxy);
            let recorded = STANDARD.decode(attributes["tracewire.routed_experts"].as_str().unwrap()).unwrap();
            assert!(recorded == length.experts(), "{rollout} {prompt}");
            assert_eq!(attributes["tracewire.routed_experts.shape"], json!([prompt + sampled - 1, LAYERS, TOP_K]));
            assert_eq!(attributes["tracewire.routed_experts.dtype"], "uint8");
            assert!(attributes["tracewire.sampling_mask"] == json!(masks.concat()), "{rollout} {prompt}");
            let lengths: Vec<usize> = masks.iter().map(Vec::len).collect();
            assert!(attributes["tracewire.sampling_mask.lengths"] == json!(lengths), "{rollout} {prompt}");
            assert!(attributes["response_token_ids"] == json!(length.ids()), "{rollout} {prompt}");
            assert_eq!(attributes["tracewire.response_logprobs"].as_array().unwrap().len(), sampled);
            assert_eq!(attributes["tracewire.tokens.status"], "exact");
            assert!(seen == unasked, "{rollout} {prompt}");
        }
    }
}

#[test]
fn arrays_that_a_setting_wants_and_that_are_missing_are_told() {
    for sampled in [2, 40_000] {
        let (bench, engine) = (Bench::new(), engine(Length { prompt: 3, sampled }));
        let serve = serve(&bench, engine, "routed_experts = true\nsampling_masks = true");
        for (rollout, through_proxy) in [("ro-g", false), ("ro-p", true)] {
            let (_, attributes) = call(&serve, engine, "dense", rollout, through_proxy);
            assert_eq!(attributes["tracewire.tokens.status"], "partial");
            assert_eq!(attributes["tracewire.tokens.reasons"], json!(["experts_absent", "masks_absent"]));
        }
    }
}

#[test]
fn arrays_that_no_setting_wants_pass_unrecorded() {
    let (bench, engine) = (Bench::new(), engine(Length { prompt: 3, sampled: 2 }));
    let serve = serve(&bench, engine, "");
    for (rollout, through_proxy) in [("ro-g", false), ("ro-p", true)] {
        let (seen, attributes) = call(&serve, engine, "moe", rollout, through_proxy);
        assert!(
            attributes.get("tracewire.routed_experts").is_none() && attributes.get("tracewire.sampling_mask").is_none()
        );
        assert_eq!(attributes["tracewire.tokens.status"], "exact");
        assert_eq!(seen["choices"][0]["routed_experts"], npy(&experts(4), [LAYERS, TOP_K]));
    }
}
