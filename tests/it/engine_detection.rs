//! Which engine serves at an endpoint: known before its second call, and in the next run. No call waits for another's response.

use crate::support::client::{Reply, ask};
use crate::support::model_server::{read_request, respond};
use crate::support::{Bench, Running, endpoint, python, text};
use serde_json::{Value, json};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

const CALLS: usize = 32;

/// A model server. What it was sent, and how often it was asked for its models.
#[derive(Clone)]
struct ModelServer {
    /// The list of models. `None`: it never answers such a request.
    models: Option<Value>,
    /// The response to calls.
    answer: Value,
    /// It answers none of this many calls before it has all.
    all: Arc<Barrier>,
    bodies: Arc<Mutex<Vec<Value>>>,
    looks: Arc<AtomicUsize>,
}

impl ModelServer {
    fn new(models: Option<Value>, answer: Value, calls: usize) -> Self {
        let all = Arc::new(Barrier::new(calls));
        Self { models, answer, all, bodies: Arc::default(), looks: Arc::default() }
    }

    fn start(&self) -> SocketAddr {
        let server = self.clone();
        endpoint(move |stream| server.serve(stream))
    }

    fn serve(&self, mut stream: TcpStream) {
        while let Some(body) = read_request(&mut stream) {
            let answer = match body {
                Some(body) => {
                    self.bodies.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                    self.all.wait();
                    Some(&self.answer)
                }
                None => {
                    self.looks.fetch_add(1, Ordering::SeqCst);
                    self.models.as_ref()
                }
            };
            match answer {
                Some(answer) => respond(&mut stream, "application/json", &answer.to_string()),
                None => thread::park(),
            }
        }
    }

    /// How many calls asked for token ids.
    fn asked(&self) -> usize {
        self.bodies.lock().unwrap().iter().filter(|body| body["return_token_ids"] == true).count()
    }

    fn calls(&self) -> usize {
        self.bodies.lock().unwrap().len()
    }
}

/// A response of an engine that shows nothing of itself.
fn plain() -> Value {
    json!({"id": "c", "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}]})
}

fn list_of(owner: &str) -> Option<Value> {
    Some(json!({"object": "list", "data": [{"id": "m", "owned_by": owner}]}))
}

fn call(serve: &Running, at: SocketAddr) -> Reply {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).to_string();
    let url = format!("http://{at}/v1/chat/completions");
    ask(serve.address("proxy"), "POST", &url, &[("x-rollout-id", "ro"), ("authorization", "Bearer x")], &body)
}

/// Makes this many calls at once.
fn calls_at_once(serve: &Running, at: SocketAddr, count: usize) {
    thread::scope(|scope| {
        let calls: Vec<_> = (0..count).map(|_| scope.spawn(|| call(serve, at))).collect();
        for call in calls {
            let reply = call.join().unwrap();
            assert_eq!((reply.status, reply.json()), (200, plain()));
        }
    });
}

#[test]
fn an_endpoint_is_known_before_its_second_call_though_many_come_at_once() {
    let (bench, model) = (Bench::new(), ModelServer::new(list_of("vllm"), plain(), CALLS));
    let serve = bench.serve(&[]);
    calls_at_once(&serve, model.start(), CALLS);
    // The first passed as it was.
    assert_eq!((model.asked(), model.calls(), model.looks.load(Ordering::SeqCst)), (CALLS - 1, CALLS, 1));
}

#[test]
fn an_endpoint_that_does_not_list_its_models_gets_its_calls_unchanged() {
    for models in [None, Some(json!("<html>")), list_of("someone"), list_of("openai")] {
        let (bench, model) = (Bench::new(), ModelServer::new(models, plain(), 4));
        let (serve, at) = (bench.serve(&[]), model.start());
        calls_at_once(&serve, at, 4);
        calls_at_once(&serve, at, 4);
        assert_eq!((model.asked(), model.calls(), model.looks.load(Ordering::SeqCst)), (0, 8, 1));
    }
}

#[test]
fn no_endpoint_is_asked_for_its_models_if_a_setting_forbids_it() {
    let (bench, model) = (Bench::new(), ModelServer::new(list_of("vllm"), plain(), 4));
    let at = model.start();
    for tokens in
        ["probe = false", "inject = \"off\"", &format!("engines = [{{ hosts = [\"{at}\"], engine = \"other\" }}]")]
    {
        let config = bench.home().join("proxy.toml");
        std::fs::write(&config, format!("[tokens]\n{tokens}\n")).unwrap();
        let serve = bench.serve(&["--config", config.to_str().unwrap()]);
        calls_at_once(&serve, at, 4);
    }
    assert_eq!((model.asked(), model.calls(), model.looks.load(Ordering::SeqCst)), (0, 12, 0));
}

/// Posts as many chat requests at once to the URL in its arguments.
const POST: &str = r#"
import concurrent.futures, json, sys, urllib.request
body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
def post(_):
    request = urllib.request.Request(sys.argv[1], body, {"content-type": "application/json"})
    return json.load(urllib.request.urlopen(request))["id"]
count = int(sys.argv[2])
with concurrent.futures.ThreadPoolExecutor(count) as pool:
    print(*pool.map(post, range(count)))
"#;

/// Runs a program that makes calls.
fn run(bench: &Bench, flags: &[&str], url: &str, calls: usize) {
    let output = bench.run(flags, &[&python(), "-c", POST, url, &calls.to_string()]);
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn a_backend_of_unknown_engine_is_known_before_its_first_call() {
    let (bench, model) = (Bench::new(), ModelServer::new(list_of("llamacpp"), plain(), CALLS));
    let backend = format!("backends = [{{ model = \"\", url = \"http://{}/v1\" }}]", model.start());
    let config = bench.home().join("proxy.toml");
    // Here nothing probes it at intervals.
    std::fs::write(&config, format!("[gateway]\n{backend}\n[[reroute]]\nhosts = [\"api.openai.com\"]\n")).unwrap();
    let flags = ["--config", config.to_str().unwrap()];
    run(&bench, &flags, "http://api.openai.com/v1/chat/completions", CALLS);
    let is_asked_in_its_way = |body: &Value| body["logprobs"] == true && body.get("return_token_ids").is_none();
    assert!(model.bodies.lock().unwrap().iter().all(is_asked_in_its_way), "{:?}", model.bodies);
    assert_eq!((model.calls(), model.looks.load(Ordering::SeqCst)), (CALLS, 1));
}

#[test]
fn a_run_knows_what_an_earlier_one_learned() {
    let bench = Bench::new();
    // Its list of models shows nothing, its responses do.
    let mut shown = plain();
    shown["prompt_token_ids"] = Value::Null;
    let model = ModelServer::new(None, shown, 1);
    let at = model.start();
    let run = || {
        run(&bench, &[], &format!("http://{at}/v1/chat/completions"), 1);
        model.asked()
    };
    assert_eq!((run(), run(), run()), (0, 1, 2));
    let file = bench.home().join("endpoints.json");
    let kept: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let [entry] = kept.as_array().unwrap().as_slice() else { panic!("{kept}") };
    assert_eq!(
        (&entry["host"], &entry["port"], &entry["engine"]),
        (&json!("127.0.0.1"), &json!(at.port()), &json!("vllm"))
    );
    // What can't be read, is too old, or is another engine's by now does no harm.
    for content in ["{", &kept.to_string().replace(&entry["learned_at"].to_string(), "1"), "[]"] {
        std::fs::write(&file, content).unwrap();
        let before = model.asked();
        assert_eq!((run() - before, run() - before), (0, 1), "{content}");
    }
    std::fs::write(&file, kept.to_string().replace("vllm", "sglang")).unwrap();
    run();
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(kept.contains("vllm") && !kept.contains("sglang"), "{kept}");
}

#[test]
fn a_run_knows_which_fields_an_endpoint_rejected() {
    let bench = Bench::new();
    let asked: Arc<Mutex<Vec<bool>>> = Arc::default();
    let seen = Arc::clone(&asked);
    let at = endpoint(move |mut stream| {
        while let Some(body) = read_request(&mut stream) {
            let Some(body) = body else {
                respond(&mut stream, "application/json", "{}");
                continue;
            };
            let has_it = String::from_utf8(body).unwrap().contains("top_logprobs");
            seen.lock().unwrap().push(has_it);
            if has_it {
                let error = r#"{"error":{"message":"top_logprobs is not allowed"}}"#;
                let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n";
                write!(stream, "{head}content-length: {}\r\n\r\n{error}", error.len()).unwrap();
            } else {
                let mut answer = plain();
                answer["prompt_token_ids"] = Value::Null;
                respond(&mut stream, "application/json", &answer.to_string());
            }
        }
    });
    let run = || {
        run(&bench, &[], &format!("http://{at}/v1/chat/completions"), 1);
        std::mem::take(&mut *asked.lock().unwrap())
    };
    assert_eq!(run(), [false]);
    assert_eq!(run(), [true, false], "the request is sent again without the field");
    assert_eq!(run(), [false]);
}
