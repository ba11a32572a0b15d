//! Verdicts and weights of attempts that are made from spans: 40 clean ones, and 40 with one fault each.

use super::*;
use crate::trace::semconv as names;
use crate::trace::span::Resource;
use crate::trace::{
    Attempt, AttemptStatus, PrunedSpans, Rollout, RolloutConfig, RolloutStatus, Span, Status, StatusCode, Timestamp,
    Value,
};
use fastrand::Rng;
use serde_json::json;
use std::collections::BTreeMap;

fn span(sequence_id: u64, name: &str, attributes: &[(&str, Value)]) -> Span {
    Span {
        rollout_id: "ro-1".into(),
        attempt_id: "at-1".into(),
        sequence_id,
        trace_id: "0".repeat(32),
        span_id: format!("{sequence_id:016x}"),
        parent_id: None,
        name: name.to_owned(),
        kind: None,
        status: Status::default(),
        attributes: attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        events: Vec::new(),
        links: Vec::new(),
        start_time: Some(Timestamp::from_unix_nanos(sequence_id * 10)),
        end_time: Some(Timestamp::from_unix_nanos(sequence_id * 10 + 5)),
        context: None,
        parent: None,
        resource: Resource::default(),
    }
}

fn call(sequence_id: u64, prompt: &[i64], sampled: &[i64], version: u64) -> Span {
    let logprobs = sampled.iter().map(|id| -(*id as f64) / 4.0).collect();
    span(
        sequence_id,
        "chat m",
        &[
            (names::DIALECT, "openai.chat".into()),
            (names::GEN_AI_OPERATION_NAME, "chat".into()),
            (names::GEN_AI_RESPONSE_ID, format!("c-{sequence_id}").into()),
            (names::GEN_AI_RESPONSE_FINISH_REASONS, vec!["stop".to_owned()].into()),
            (names::PROMPT_TOKEN_IDS, Value::Ints(prompt.to_vec())),
            (names::RESPONSE_TOKEN_IDS, Value::Ints(sampled.to_vec())),
            (names::RESPONSE_LOGPROBS, Value::Floats(logprobs)),
            (names::TOKENS_STATUS, "exact".into()),
            (names::POLICY_VERSION, version.to_string().into()),
            (names::URL_FULL, "http://model/v1/chat/completions".into()),
            (names::SERVER_ADDRESS, "model".into()),
        ],
    )
}

fn fetch(sequence_id: u64, host: &str, path: &str, body: &str) -> Span {
    span(
        sequence_id,
        "GET",
        &[
            (names::URL_FULL, format!("https://{host}{path}").into()),
            (names::SERVER_ADDRESS, host.into()),
            (names::SERVER_PORT, 443_i64.into()),
            (names::HTTP_RESPONSE_BODY_CONTENT, body.into()),
        ],
    )
}

fn reward(sequence_id: u64, value: f64) -> Span {
    let attributes =
        [("agentlightning.reward.0.name", "primary".into()), ("agentlightning.reward.0.value", value.into())];
    span(sequence_id, "agentlightning.annotation", &attributes)
}

/// A sound attempt: one conversation, other traffic, a failed call that was tried again, and a title, by chance.
fn clean(random: &mut Rng) -> Vec<Span> {
    let mut spans = Vec::new();
    let (mut prompt, mut sequence_id) = (vec![1, 2, random.i64(3..100)], 1);
    for _ in 0..random.usize(2..6) {
        match random.u8(0..5) {
            0 => spans.push(fetch(sequence_id, "pypi.org", "/simple/numpy", "wheels")),
            // Nearly what is denied.
            4 => spans.push(fetch(sequence_id, "github.com", "/orgs/task", "git diff")),
            1 => {
                let mut failed = call(sequence_id, &prompt, &[], 3);
                failed.status.status_code = StatusCode::Error;
                spans.push(failed);
            }
            2 => {
                let mut title = call(sequence_id, &[9, 9], &[8], 3);
                title.set(names::CALL_ROLE, "title");
                title.attributes.remove(names::RESPONSE_TOKEN_IDS);
                spans.push(title);
            }
            _ => {}
        }
        let sampled: Vec<i64> = (0..random.usize(1..9)).map(|_| random.i64(3..100)).collect();
        spans.push(call(sequence_id + 1, &prompt, &sampled, random.u64(3..5)));
        prompt.extend(sampled);
        prompt.extend([7, random.i64(3..100)]);
        sequence_id += 2;
    }
    spans.push(reward(sequence_id + 1, random.f64()));
    spans
}

/// Adds a fault to a sound attempt. Returns the reason that must be found.
fn break_it(kind: usize, spans: &mut Vec<Span>) -> &'static str {
    let last = spans
        .iter()
        .rposition(|span| span.name == "chat m" && !span.is_error() && !span.attributes.contains_key(names::CALL_ROLE))
        .unwrap();
    match kind {
        0 => {
            spans[last].attributes.remove(names::RESPONSE_TOKEN_IDS);
            "missing_token_ids"
        }
        1 => {
            spans[last].set(names::TOKENS_REASONS, vec!["usage_output_tokens".to_owned()]);
            "unproved_token_ids"
        }
        2 => {
            spans[last].set(names::OUTCOME, "aborted");
            "last_call_incomplete"
        }
        3 => {
            spans[last].set(names::POLICY_VERSION, "9");
            "version_spread"
        }
        4 => {
            spans.last_mut().unwrap().start_time = Some(Timestamp::from_unix_nanos(1));
            "early_reward"
        }
        5 => {
            spans.last_mut().unwrap().set("agentlightning.reward.0.value", f64::NAN);
            "invalid_reward"
        }
        6 => {
            spans[last].set(names::CAPTURE_RESPONSE_TRUNCATED, "max_body_bytes");
            "capture_gap"
        }
        7 => {
            spans[last].attributes.remove(names::RESPONSE_LOGPROBS);
            "missing_logprobs"
        }
        8 => {
            // The engine samples the stop token, and the template writes another one.
            let Some(Value::Ints(prompt)) = spans[last].attributes.get(names::PROMPT_TOKEN_IDS) else { unreachable!() };
            let prompt = [prompt.as_slice(), &[5, 6, 7]].concat();
            spans[last].set(names::RESPONSE_TOKEN_IDS, Value::Ints(vec![5, 6, 2]));
            spans[last].set(names::RESPONSE_LOGPROBS, Value::Floats(vec![-0.5; 3]));
            insert_call(spans, call(60, &prompt, &[4], 3));
            "unlinked_call"
        }
        9 => {
            let mut twin = spans[last].clone();
            (twin.sequence_id, twin.span_id) = (59, "twin".to_owned());
            twin.set(names::GEN_AI_RESPONSE_ID, "another");
            let (Some(Value::Ints(prompt)), Some(Value::Ints(sampled))) =
                (twin.attributes.get(names::PROMPT_TOKEN_IDS), twin.attributes.get(names::RESPONSE_TOKEN_IDS))
            else {
                unreachable!()
            };
            let next = call(60, &[prompt.as_slice(), sampled, &[7]].concat(), &[4], 3);
            insert_call(spans, twin);
            insert_call(spans, next);
            "ambiguous_parent"
        }
        10 => {
            spans.retain(|span| span.name != "chat m");
            "no_calls"
        }
        kind => {
            let (fetched, reason) = cheat(kind);
            spans.push(fetched);
            reason
        }
    }
}

/// Adds a call, and moves the reward behind it.
fn insert_call(spans: &mut Vec<Span>, call: Span) {
    let at = spans.len() - 1;
    spans[at].start_time = Some(Timestamp::from_unix_nanos(call.sequence_id * 10 + 9));
    spans.insert(at, call);
}

/// An exchange by which an agent cheats, in a spelling that a simple comparison misses.
fn cheat(kind: usize) -> (Span, &'static str) {
    let relayed = |host: &str| {
        let mut relayed = fetch(90, host, "", "");
        relayed.attributes.remove(names::URL_FULL);
        relayed
    };
    match kind {
        11 => (fetch(90, "evil.example", "/", "x"), "host_not_allowed"),
        12 => (fetch(90, "pypi.org.evil.example", "/simple", "x"), "host_not_allowed"),
        13 => (relayed("ssh.github.example"), "host_not_allowed"),
        14 => (fetch(90, "140.82.121.4", "/org/other", "x"), "host_not_allowed"),
        15 => (fetch(90, "github.com", "/org/task/issues/7", "x"), "denied_url"),
        16 => (fetch(90, "GitHub.com", "/Org/Task.git/info/refs?service=git-upload-pack", "x"), "denied_url"),
        17 => (fetch(90, "github.com", "//org/%74ask", "x"), "denied_url"),
        18 => (fetch(90, "github.com", "/other", "diff --git a/fix.py"), "denied_text"),
        _ => (fetch(90, "github.com", "/search?q=diff%20--git", "x"), "denied_text"),
    }
}

fn attempt(status: AttemptStatus) -> Attempt {
    Attempt { status, ..Attempt::running("r".into(), "a".into(), Timestamp::default()) }
}

fn judged(spans: &[Span]) -> Verdict {
    let settings = VerdictSettings {
        max_version_spread: 1,
        allow_hosts: vec!["pypi.org".to_owned(), "github.com".to_owned()],
        deny_urls: vec!["https://github.com/org/task*".to_owned()],
        deny_text: vec!["diff --git".to_owned()],
    };
    let mut record = read(spans);
    let tree = Trajectory::build(std::mem::take(&mut record.calls), MergeMode::Strict);
    verdict(Some(&attempt(AttemptStatus::Succeeded)), spans, &record, &tree, &settings)
}

#[test]
fn faults_are_found_and_sound_attempts_are_not_suspected() {
    for seed in 0..40 {
        let mut spans = clean(&mut Rng::with_seed(seed));
        assert_eq!(judged(&spans), Verdict::default(), "seed {seed}");
        let expected = break_it(usize::try_from(seed).unwrap() % 20, &mut spans);
        assert_eq!(judged(&spans).names(), [expected], "seed {seed}");
    }
}

#[test]
fn connections_past_the_proxy_are_a_reason() {
    let mut spans = clean(&mut Rng::with_seed(1));
    spans.push(span(0, "agent", &[(names::PROXY_BYPASSES, vec!["curl to 192.0.2.7:443".to_owned()].into())]));
    let found = judged(&spans);
    assert_eq!((found.names(), found.reasons[0].detail.as_str()), (vec!["bypassed_proxy"], "curl to 192.0.2.7:443"));
}

#[test]
fn spans_that_limits_have_removed_are_a_reason() {
    let spans = clean(&mut Rng::with_seed(1));
    let mut record = read(&spans);
    let tree = Trajectory::build(std::mem::take(&mut record.calls), MergeMode::Strict);
    let mut pruned = attempt(AttemptStatus::Succeeded);
    pruned.metadata = serde_json::Value::Null;
    for (llm_calls, name) in [(0, "spans_not_stored"), (2, "llm_calls_not_stored")] {
        pruned.add_pruned(PrunedSpans { spans: 3, llm_calls });
        let found = verdict(Some(&pruned), &spans, &record, &tree, &VerdictSettings::default());
        assert_eq!(found.names(), [name]);
    }
    assert_eq!(pruned.pruned(), PrunedSpans { spans: 6, llm_calls: 2 });
}

#[test]
fn an_attempt_that_has_not_ended_is_not_sound() {
    let spans = clean(&mut Rng::with_seed(1));
    let mut record = read(&spans);
    let tree = Trajectory::build(std::mem::take(&mut record.calls), MergeMode::Strict);
    let running = verdict(Some(&attempt(AttemptStatus::Running)), &spans, &record, &tree, &VerdictSettings::default());
    assert_eq!(running.names(), ["running"]);
    let empty = verdict(
        None,
        &[],
        &AttemptRecord::default(),
        &Trajectory::build(Vec::new(), MergeMode::Strict),
        &VerdictSettings::default(),
    );
    assert_eq!(empty.names(), ["no_calls"]);
}

#[test]
fn weighted_rows_give_the_loss_of_the_attempts_tokens() {
    // A shared call, two branches of it, and a conversation of its own.
    let spans = [
        call(1, &[1], &[2, 3], 3),
        call(2, &[1, 2, 3, 4], &[5], 3),
        call(3, &[1, 2, 3, 6], &[7, 8, 9], 3),
        call(4, &[50], &[51, 52, 53, 54], 3),
    ];
    let rollout = Rollout {
        rollout_id: "ro-1".into(),
        input: json!({ "task_id": 7 }),
        start_time: Timestamp::default(),
        end_time: None,
        mode: None,
        resources_id: None,
        status: RolloutStatus::Succeeded,
        config: RolloutConfig::default(),
        metadata: json!({}),
    };
    let mut record = read(&spans);
    let tree = Trajectory::build(std::mem::take(&mut record.calls), MergeMode::Strict);
    let rows = rows(&rollout, &spans, &tree, &[], &Verdict::default());
    let row_mean = |row: &TrainingRow| {
        let logprobs = row.logprobs.as_ref().unwrap();
        let trained: Vec<f64> =
            row.mask.iter().zip(logprobs).filter(|(mask, _)| **mask == 1).map(|(_, one)| f64::from(*one)).collect();
        trained.iter().sum::<f64>() / trained.len() as f64
    };
    let by_rows: f64 = rows.iter().map(|row| row.weight * row_mean(row)).sum();
    let all: Vec<f64> =
        tree.calls.iter().flat_map(|call| call.logprobs.iter().flatten()).map(|one| f64::from(*one)).collect();
    let by_tokens = all.iter().sum::<f64>() / all.len() as f64;
    assert!((by_rows - by_tokens).abs() < 1e-12, "{by_rows} {by_tokens}");
    assert_eq!(rows.iter().map(|row| row.calls.len()).collect::<Vec<_>>(), [2, 1, 1]);
    assert!(rows.iter().all(|row| row.group_id == "7" && row.n_branches == 3));
    // A mean over branches would count this attempt three times in its group.
    assert!((rows.iter().map(|row| row.weight).sum::<f64>() - 1.0).abs() < 1e-12);
}

#[test]
fn broken_spans_are_read_without_harm() {
    let mut odd = call(1, &[1, -5], &[2, 3], 3);
    odd.set(names::RESPONSE_LOGPROBS, Value::Floats(vec![-0.5]));
    odd.set(names::SAMPLING_MASK, Value::Ints(vec![1]));
    odd.set(names::SAMPLING_MASK_LENGTHS, Value::Ints(vec![9, 9]));
    (odd.start_time, odd.end_time) = (None, None);
    let twice = [call(2, &[1], &[2], 3), call(2, &[1], &[2], 3), odd];
    let record = read(&twice);
    let by_exclusion: BTreeMap<_, usize> = record.calls.iter().fold(BTreeMap::new(), |mut counts, call| {
        *counts.entry(call.exclusion).or_default() += 1;
        counts
    });
    assert_eq!(by_exclusion.get(&Some(Exclusion::NoTokenIds)), Some(&1));
    let tree = Trajectory::build(record.calls, MergeMode::Strict);
    assert!(tree.calls.iter().all(|call| call.logprobs.as_ref().is_none_or(|all| all.len() == call.sampled.len())));
}

#[test]
fn a_response_is_read_once_and_servers_may_repeat_their_ids() {
    let named = |mut call: Span, id: &str| {
        call.set(names::GEN_AI_RESPONSE_ID, id);
        call
    };
    let first = named(call(1, &[1], &[2, 3], 3), "c-0");
    let same = named(call(2, &[1], &[2, 3], 3), "c-0");
    let other = named(call(3, &[1, 2, 3, 4], &[5], 3), "c-0");
    let mut of_tracer = named(call(4, &[1], &[2, 3], 3), "c-0");
    for name in [names::PROMPT_TOKEN_IDS, names::RESPONSE_TOKEN_IDS] {
        of_tracer.attributes.remove(name);
    }
    let record = read(&[first, same, other, of_tracer]);
    let read: Vec<_> = record.calls.iter().map(|call| (call.sequence_id, call.exclusion)).collect();
    assert_eq!(read, [(1, None), (2, Some(Exclusion::Retry)), (3, None)]);
    // The last call goes on with the answer that is trained, not with its repetition.
    let tree = Trajectory::build(record.calls, MergeMode::Strict);
    assert_eq!((tree.nodes[2].parent, tree.nodes[2].parent_is_ambiguous), (Some(0), false));
}

#[test]
fn experts_keep_the_type_that_they_were_recorded_with() {
    let mut wide = call(1, &[1], &[2], 3);
    wide.set(names::ROUTED_EXPERTS, "AAECAQ==");
    wide.set(names::ROUTED_EXPERTS_SHAPE, Value::Ints(vec![1, 1, 2]));
    wide.set(names::ROUTED_EXPERTS_DTYPE, "uint16");
    let calls = read(&[wide]).calls;
    assert_eq!(
        (calls[0].routed_experts_dtype.as_deref(), &*calls[0].routed_experts_shape),
        (Some("uint16"), &[1, 1, 2][..])
    );
}

#[test]
fn experts_of_another_length_than_the_tokens_are_left_out() {
    let mut short = call(1, &[1, 2, 3], &[4], 3);
    short.set(names::ROUTED_EXPERTS, "AAEC");
    short.set(names::ROUTED_EXPERTS_DTYPE, "uint8");
    for (tokens, is_known) in [(3, true), (2, false), (4, false), (-1, false)] {
        short.set(names::ROUTED_EXPERTS_SHAPE, Value::Ints(vec![tokens, 1, 1]));
        let call = read(std::slice::from_ref(&short)).calls.remove(0);
        assert_eq!(call.routed_experts.is_some(), is_known, "{tokens}");
        assert_eq!((call.routed_experts_shape.is_empty(), call.routed_experts_dtype.is_none()), (!is_known, !is_known));
    }
}

#[test]
fn many_siblings_long_prompts_and_empty_answers_have_their_place() {
    let prompt: Vec<i64> = (0..20).collect();
    let long: Vec<i64> = (0..1_000_000).collect();
    let longer = [long.as_slice(), &[5, 6]].concat();
    let siblings = (0..5000_u32).map(|at| call(u64::from(at) + 1, &prompt, &[7, at.into()], 3));
    let others = [call(6001, &long, &[5], 3), call(6002, &longer, &[], 3), call(6003, &longer, &[9], 3)];
    let spans: Vec<Span> = siblings.chain(others).collect();
    let tree = Trajectory::build(read(&spans).calls, MergeMode::Strict);
    assert!(tree.nodes[..5000].iter().all(|node| node.n_siblings == 5000 && node.diagnosis.is_none()));
    assert_eq!((tree.calls[5001].exclusion, tree.nodes[5002].parent), (Some(Exclusion::NoTokenIds), Some(5000)));
    assert_eq!((tree.branches.len(), tree.branches[5000].trained.as_slice()), (5001, &[5000, 5002][..]));
    let trained = tree.branches.iter().flat_map(|branch| &branch.trained).map(|call| tree.trained_tokens(*call));
    assert_eq!((trained.sum::<usize>(), tree.sampled_tokens()), (10_002, 10_002));
}
