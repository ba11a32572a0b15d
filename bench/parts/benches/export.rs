//! Training data: how fast calls become trajectories, and a store of many calls to export. `bench/export` runs both.
//!
//! `export trajectories` measures the library on one thread. `export fill FILE SPANS` fills a store.

use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracewire::store::Store;
use tracewire::store::sqlite::{SqliteOptions, SqliteStore};
use tracewire::trace::semconv as names;
use tracewire::trace::span::Resource;
use tracewire::trace::{Attempt, AttemptStatus, Rollout, RolloutConfig, RolloutStatus, Span, Status, Timestamp, Value};
use tracewire::trajectory::{MergeMode, Trajectory, VerdictSettings, read, rows, verdict};

// As the program has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["fill", file, spans] => fill(Path::new(file), spans.parse().unwrap()),
        _ => trajectories(),
    }
}

/// 10,000 calls of 8,192 tokens, and one attempt of 200 calls with a million prompt tokens.
fn trajectories() {
    // Ten calls of an attempt; the last one has 8,192 tokens. The others are as long: each begins anew.
    for (name, attempts, per_attempt) in [("1,000 calls of 8k tokens", 100, 10), ("10,000 calls of 8k tokens", 1000, 10)] {
        let (mut spent, mut tokens) = (Duration::ZERO, 0);
        for attempt in 0..attempts {
            let spans = attempt_of(attempt, per_attempt, 8192 - 192, 0, 192);
            tokens += per_attempt * 8192;
            spent += measured(&spans).0;
        }
        report(name, spent, tokens);
    }
    let spans = attempt_of(1, 200, 400, 46, 48);
    let (spent, tokens) = measured(&spans);
    report("one rollout of 200 calls", spent, tokens);
}

fn report(name: &str, spent: Duration, tokens: usize) {
    let rate = tokens as f64 / spent.as_secs_f64() / 1e6;
    let mut out = std::io::stdout();
    writeln!(out, "{name:<28} {:>8.1} ms {rate:>8.1} million tokens/s, peak {} MB", spent.as_secs_f64() * 1e3, peak_mb()).unwrap();
}

/// The most memory that this process has had.
fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// How long an attempt takes from its spans to its rows, and its tokens.
fn measured(spans: &[Span]) -> (Duration, usize) {
    let rollout = rollout();
    let started = Instant::now();
    let mut record = read(spans);
    let tree = Trajectory::build(std::mem::take(&mut record.calls), MergeMode::Strict);
    let attempt = Attempt::running(rollout.rollout_id.clone(), "at-1".into(), Timestamp::default());
    let attempt = Attempt { status: AttemptStatus::Succeeded, ..attempt };
    let verdict = verdict(Some(&attempt), spans, &record, &tree, &VerdictSettings::default());
    black_box(rows(&rollout, spans, &tree, &record.rewards, &verdict));
    let spent = started.elapsed();
    (spent, tree.calls.iter().map(|call| call.prompt.len() + call.sampled.len()).sum())
}

fn rollout() -> Rollout {
    Rollout {
        rollout_id: "ro-1".into(),
        input: serde_json::Value::Null,
        start_time: Timestamp::default(),
        end_time: None,
        mode: None,
        resources_id: None,
        status: RolloutStatus::Succeeded,
        config: RolloutConfig::default(),
        metadata: serde_json::Value::Null,
    }
}

/// The calls of an attempt. The first prompt has `first` tokens. Each later one has the prompt and the answer before it and
/// `observed` more; with `observed` = 0 it is another conversation.
fn attempt_of(attempt: usize, calls: usize, first: usize, observed: usize, sampled: usize) -> Vec<Span> {
    let mut random = fastrand::Rng::with_seed(attempt as u64);
    let mut ids = |count: usize| -> Vec<i64> { (0..count).map(|_| random.i64(0..150_000)).collect() };
    let mut prompt = ids(first);
    let mut spans = Vec::with_capacity(calls);
    for at in 0..calls {
        let answer = ids(sampled);
        spans.push(call(attempt, at as u64 + 1, &prompt, &answer));
        if observed == 0 {
            prompt = ids(first);
        } else {
            prompt.extend(answer);
            prompt.extend(ids(observed));
        }
    }
    spans
}

fn call(attempt: usize, sequence_id: u64, prompt: &[i64], sampled: &[i64]) -> Span {
    let logprobs = sampled.iter().map(|id| -(*id as f64) / 65536.0).collect();
    let attributes: [(&str, Value); 10] = [
        (names::DIALECT, "openai.chat".into()),
        (names::GEN_AI_OPERATION_NAME, "chat".into()),
        (names::GEN_AI_REQUEST_TEMPERATURE, 1.0.into()),
        (names::GEN_AI_RESPONSE_ID, format!("c-{attempt}-{sequence_id}").into()),
        (names::GEN_AI_RESPONSE_FINISH_REASONS, vec!["stop".to_owned()].into()),
        (names::PROMPT_TOKEN_IDS, Value::Ints(prompt.to_vec())),
        (names::RESPONSE_TOKEN_IDS, Value::Ints(sampled.to_vec())),
        (names::RESPONSE_LOGPROBS, Value::Floats(logprobs)),
        (names::TOKENS_STATUS, "exact".into()),
        (names::POLICY_VERSION, "3".into()),
    ];
    Span {
        rollout_id: format!("ro-{attempt}").as_str().into(),
        attempt_id: "at-1".into(),
        sequence_id,
        trace_id: format!("{attempt:032x}"),
        span_id: format!("{:016x}", (attempt as u64) << 16 | sequence_id),
        parent_id: None,
        name: "chat m".to_owned(),
        kind: None,
        status: Status::default(),
        attributes: attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        events: Vec::new(),
        links: Vec::new(),
        start_time: Some(Timestamp::from_unix_nanos(sequence_id * 10)),
        end_time: Some(Timestamp::from_unix_nanos(sequence_id * 10 + 5)),
        context: None,
        parent: None,
        resource: Resource::default(),
    }
}

/// Fills a store with attempts of 20 calls, whose prompts grow to a thousand tokens.
fn fill(file: &Path, spans: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(file, SqliteOptions::default()).unwrap();
        for batch in (0..spans / CALLS).collect::<Vec<_>>().chunks(32) {
            let calls = batch.iter().flat_map(|attempt| attempt_of(*attempt, CALLS, 64, 16, 32));
            store.append(calls.map(Arc::new).collect()).await.unwrap();
        }
        store.close().await.unwrap();
    });
}

/// Calls of an attempt in the store.
const CALLS: usize = 20;
