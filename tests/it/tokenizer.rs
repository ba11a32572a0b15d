//! `--tokenizer`: ids for calls without, a check of those that have some, and breaks in text.

use crate::support::client::post;
use crate::support::store::span;
use crate::support::{Bench, Running, text, tracewire};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Output;

const SPECIAL: [&str; 5] = ["<unk>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>"];
const WORDS: [&str; 8] = ["go", "on", "ok", "now", "done", "stop", "bash", "gone"];
const TEMPLATE: &str = "{%- for message in messages -%}<|{{ message.role }}|> {{ message.content }}<|end|>{%- endfor -%}\
    {%- if add_generation_prompt -%}<|assistant|>{%- endif -%}";

fn id(word: &str) -> usize {
    SPECIAL.iter().chain(&WORDS).position(|one| *one == word).unwrap()
}

fn ids(text: &str) -> Vec<usize> {
    text.split_whitespace().map(id).collect()
}

/// A tokenizer with an id for each word, as Hugging Face's `save_pretrained` writes it.
fn write_tokenizer(folder: &Path) -> PathBuf {
    let special = |(id, content): (usize, &&str)| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let vocabulary: serde_json::Map<String, Value> =
        SPECIAL.iter().chain(&WORDS).map(|word| ((*word).to_owned(), id(word).into())).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null, "decoder": null,
        "added_tokens": SPECIAL.iter().enumerate().map(special).collect::<Vec<_>>(),
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    });
    let folder = folder.join("tokenizer");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let config = json!({"chat_template": TEMPLATE, "eos_token": {"content": "<|end|>"}, "unk_token": "<unk>"});
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
    folder
}

/// Messages as spans have them, from pairs of role and text.
fn messages(said: &[(&str, &str)]) -> String {
    let one = |(role, text): &(&str, &str)| json!({"role": role, "parts": [{"type": "text", "content": text}]});
    Value::Array(said.iter().map(one).collect()).to_string()
}

struct Recorded {
    bench: Bench,
    serve: Running,
    rollout: String,
    attempt: String,
}

impl Recorded {
    fn start() -> Self {
        let bench = Bench::new();
        let serve = bench.serve(&[]);
        let started = post(serve.address("server"), "/v1/agl/rollouts", &json!({"input": {}})).json();
        let id = |value: &Value| value.as_str().unwrap().to_owned();
        let (rollout, attempt) = (id(&started["rollout_id"]), id(&started["attempt"]["attempt_id"]));
        Self { bench, serve, rollout, attempt }
    }

    /// Records a call, with ids or without.
    fn call(&self, number: u64, said: &[(&str, &str)], answer: &str, known: Option<(Vec<usize>, Vec<usize>)>) {
        let mut span =
            serde_json::to_value(span(&self.rollout, &self.attempt, number, &format!("{number:016x}"))).unwrap();
        span["attributes"] = json!({
            "gen_ai.operation.name": "chat",
            "gen_ai.input.messages": messages(said),
            "gen_ai.output.messages": messages(&[("assistant", answer)]),
        });
        if let Some((prompt, sampled)) = known {
            span["attributes"]["prompt_token_ids"] = json!(prompt);
            span["attributes"]["tracewire.response_logprobs"] = json!(vec![-0.5; sampled.len()]);
            span["attributes"]["response_token_ids"] = json!(sampled);
        }
        let reply = post(self.serve.address("server"), "/v1/agl/spans", &span);
        assert!(reply.status < 300, "{}", reply.text());
    }

    /// Runs a command on the rollout.
    fn run(&self, command: &str, arguments: &[&str]) -> Output {
        tracewire(self.bench.home()).args([command, &self.rollout]).args(arguments).output().unwrap()
    }

    fn rows(&self, tokenizer: &Path) -> Vec<Value> {
        let tokenizer = tokenizer.to_str().unwrap();
        let output = self.run("export", &["--format", "trajectories", "--tokenizer", tokenizer]);
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn calls_without_ids_get_them_and_are_never_told_as_exact() {
    let recorded = Recorded::start();
    let tokenizer = write_tokenizer(recorded.bench.home());
    recorded.call(1, &[("user", "go on")], "ok now", None);
    recorded.call(2, &[("user", "go on"), ("assistant", "ok now"), ("tool", "stop")], "done", None);
    let rows = recorded.rows(&tokenizer);
    assert_eq!(rows.len(), 1, "{rows:#?}");
    let expected =
        ids("<|user|> go on <|end|> <|assistant|> ok now <|end|> <|tool|> stop <|end|> <|assistant|> done <|end|>");
    assert_eq!(rows[0]["token_ids"], json!(expected));
    assert_eq!(rows[0]["mask"], json!([0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1]));
    assert_eq!(
        (&rows[0]["retokenized"], &rows[0]["sound"], &rows[0]["logprobs"]),
        (&json!(true), &json!(false), &Value::Null)
    );
    assert!(rows[0]["reasons"].as_array().unwrap().contains(&json!("retokenized")), "{}", rows[0]["reasons"]);
    let plain = recorded.run("export", &["--format", "trajectories"]);
    assert!(plain.status.success() && plain.stdout.is_empty(), "{}", text(&plain));
}

#[test]
fn recorded_ids_are_checked_and_breaks_are_shown_in_text() {
    let recorded = Recorded::start();
    let tokenizer = write_tokenizer(recorded.bench.home());
    let asked = [("user", "go on")];
    let prompt = ids("<|user|> go on <|end|> <|assistant|>");
    recorded.call(1, &asked, "ok now", Some((prompt.clone(), ids("ok now <|end|>"))));
    let again = ids("<|user|> go on <|end|> <|assistant|> ok gone <|end|> <|tool|> stop <|end|> <|assistant|>");
    let longer = [("user", "go on"), ("assistant", "ok now"), ("tool", "stop")];
    recorded.call(2, &longer, "done", Some((again, ids("done <|end|>"))));
    let rows = recorded.rows(&tokenizer);
    assert!(rows.iter().all(|row| row["retokenized"] == false), "{rows:#?}");
    let shown = |arguments: &[&str]| {
        let output = recorded.run("trajectory", arguments);
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let with = ["--tokenizer", tokenizer.to_str().unwrap()];
    let tree = shown(&with);
    assert!(tree.contains(" at token 6 of call 1"), "{tree}");
    assert!(tree.contains("= \"now <|end|>\"") && tree.contains("= \"gone <|end|> <|tool|>"), "{tree}");
    assert!(!shown(&[]).contains("<|end|>"));
    recorded.call(3, &asked, "ok now", Some((prompt.clone(), ids("stop <|end|>"))));
    recorded.call(4, &asked, "ok", Some((prompt, vec![id("ok"), 999])));
    let tree = shown(&with);
    assert!(tree.contains("unproved_token_ids: the sampled ids are not those of the recorded answer"), "{tree}");
    assert!(tree.contains("unproved_token_ids: the tokenizer has no token 999"), "{tree}");
    assert!(!shown(&[]).contains("unproved"), "{}", shown(&[]));
}

#[test]
fn a_folder_that_is_no_tokenizer_is_refused_with_the_cause() {
    let recorded = Recorded::start();
    recorded.call(1, &[("user", "go on")], "ok now", None);
    let folder = write_tokenizer(recorded.bench.home());
    let refused = |words: &str| {
        let output = recorded.run("export", &["--format", "slime", "--tokenizer", folder.to_str().unwrap()]);
        assert!(!output.status.success() && text(&output).contains(words), "{}", text(&output));
    };
    std::fs::write(folder.join("tokenizer_config.json"), "{}").unwrap();
    refused("tokenizer_config.json: ");
    std::fs::write(folder.join("chat_template.jinja"), "{% for %}").unwrap();
    refused("chat_template.jinja: ");
    std::fs::write(folder.join("chat_template.jinja"), "{{ raise_exception('no system here') }}").unwrap();
    let output = recorded.run("trajectory", &["--tokenizer", folder.to_str().unwrap()]);
    let words = "missing_token_ids: the chat template rejects the messages: ";
    assert!(text(&output).contains(words) && text(&output).contains("no system here"), "{}", text(&output));
    std::fs::write(folder.join("tokenizer.json"), "{}").unwrap();
    refused("tokenizer.json: ");
    std::fs::remove_file(folder.join("tokenizer.json")).unwrap();
    refused("cannot read ");
}
