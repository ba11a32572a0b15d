//! Golden exchanges: the bytes that an endpoint sent, and the span that must be recorded.
//!
//! `tests/golden/API/CASE/` has `request.http`, `response.http` (raw) and `span.json`. `UPDATE_GOLDEN=1` rewrites each
//! `span.json` that differs. Every response is sent twice: as it is, and a few bytes at a time.

use crate::support::{Bench, Running, connect, endpoint, find, read_head, root};
use serde_json::{Map, Value, json};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;

/// A folder of an exchange.
struct Case {
    folder: PathBuf,
    name: String,
}

fn cases() -> Vec<Case> {
    let folders = |path: PathBuf| {
        let mut all: Vec<PathBuf> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        all.sort();
        all
    };
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let apis = folders(root().join("tests/golden"));
    let of = |api: PathBuf| folders(api.clone()).into_iter().map(move |case| (name(&api), case));
    apis.into_iter()
        .flat_map(of)
        .map(|(api, folder)| Case { name: format!("{api}-{}", name(&folder)), folder })
        .collect()
}

impl Case {
    fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.folder.join(file)).unwrap()
    }

    /// Plays the exchange through the proxy; the response comes `step` bytes at a time.
    fn play(&self, serve: &Running, rollout: &str, step: usize) {
        let response = self.read("response.http");
        let origin = endpoint(move |mut stream: TcpStream| {
            let head = read_head(&mut stream);
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let _ = stream.set_nodelay(true);
            for part in response.chunks(step) {
                // The proxy may have closed the connection.
                if stream.write_all(part).is_err() {
                    return;
                }
            }
            let _ = stream.shutdown(Shutdown::Write);
        });
        let request = self.read("request.http");
        let line = find(&request, b"\r\n").unwrap();
        let words = String::from_utf8(request[..line].to_vec()).unwrap();
        let line_to_proxy = words.replacen(" /", &format!(" http://{origin}/"), 1);
        let mut agent = connect(serve.address("proxy"));
        let head = format!("{line_to_proxy}\r\nhost: {origin}\r\nx-rollout-id: {rollout}\r\nconnection: close");
        agent.write_all(head.as_bytes()).unwrap();
        agent.write_all(&request[line..]).unwrap();
        let mut answer = Vec::new();
        // A cut response is a reset or an end.
        let _ = agent.read_to_end(&mut answer);
    }
}

/// The part of a span that depends on the exchange alone: no times, no addresses.
fn reproducible(span: &Value) -> Value {
    let kept = |name: &str| {
        let prefixes =
            ["gen_ai.", "mcp.", "openai.", "jsonrpc.", "prompt_token_ids", "response_token_ids", "error.type"];
        let ours =
            ["tokens.", "dialect", "response_logprobs", "policy.", "llm.", "outcome", "response.chunks", "sampling"];
        let timed = name.ends_with("time_to_first_chunk") || name.ends_with("_ms");
        !timed
            && (prefixes.iter().any(|prefix| name.starts_with(prefix))
                || name.strip_prefix("tracewire.").is_some_and(|rest| ours.iter().any(|one| rest.starts_with(one))))
    };
    let attributes = span["attributes"].as_object().unwrap().iter().filter(|(name, _)| kept(name));
    // JSON in strings becomes JSON, so that people can read the file.
    let shown = |(name, value): (&String, &Value)| {
        let parsed =
            value.as_str().filter(|text| text.starts_with(['[', '{'])).and_then(|text| serde_json::from_str(text).ok());
        (name.clone(), parsed.unwrap_or_else(|| value.clone()))
    };
    let attributes: Map<String, Value> = attributes.map(shown).collect();
    json!({ "name": span["name"], "kind": span["kind"], "status": span["status"], "attributes": attributes })
}

#[test]
fn every_golden_exchange_gives_its_span_however_it_is_divided() {
    let bench = Bench::new();
    let serve = bench.serve(&[]);
    let cases = cases();
    assert!(cases.len() > 80, "{} cases", cases.len());
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    for case in &cases {
        for (way, step) in [("whole", usize::MAX), ("pieces", 7)] {
            case.play(&serve, &format!("{}-{way}", case.name), step);
        }
    }
    let mut wrong = Vec::new();
    for case in &cases {
        let mut spans =
            ["whole", "pieces"].map(|way| reproducible(&bench.exchanges(&format!("{}-{way}", case.name), 1)[0]));
        let file = case.folder.join("span.json");
        let read = || serde_json::from_slice(&std::fs::read(&file).unwrap_or_default()).unwrap_or_default();
        let mut expected: Value = read();
        if update && spans[0] != expected {
            // The file does not depend on the order in which the span was written.
            spans[0].sort_all_objects();
            std::fs::write(&file, format!("{:#}\n", spans[0])).unwrap();
            expected = read();
        }
        for span in &mut spans {
            if *span != expected {
                wrong.push(format!("{}:\n{span:#}\ninstead of\n{expected:#}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
