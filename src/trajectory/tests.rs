//! Trees of known conversations.

use super::*;
use crate::llm::clients::CallRole;
use serde_json::json;
use std::sync::Arc;

/// A message: role, text, reasoning.
pub(super) type Message = (&'static str, String, String);

pub(super) fn said(role: &'static str, text: &str) -> Message {
    (role, text.to_owned(), String::new())
}

/// A toy chat template: one token for each letter, special tokens around each message.
fn render(messages: &[Message]) -> Vec<u32> {
    let mut ids = Vec::new();
    for (role, text, reasoning) in messages {
        ids.extend([BEGIN, role.bytes().map(u32::from).sum::<u32>() + 1000]);
        ids.extend(answer_ids(text, reasoning));
    }
    ids.extend([BEGIN, "assistant".bytes().map(u32::from).sum::<u32>() + 1000]);
    ids
}

fn answer_ids(text: &str, reasoning: &str) -> Vec<u32> {
    let thought = if reasoning.is_empty() {
        Vec::new()
    } else {
        [&[THINK], letters(reasoning).as_slice(), &[THINK + 1]].concat()
    };
    [thought, letters(text), vec![END]].concat()
}

fn letters(text: &str) -> Vec<u32> {
    text.chars().map(u32::from).collect()
}

const BEGIN: u32 = 5000;
const END: u32 = 5001;
const THINK: u32 = 5002;

fn content(messages: &[Message]) -> Arc<str> {
    let parts = |text: &str, reasoning: &str| {
        let mut parts = vec![json!({"type": "text", "content": text})];
        if !reasoning.is_empty() {
            parts.insert(0, json!({"type": "reasoning", "content": reasoning}));
        }
        parts
    };
    let all: Vec<_> =
        messages.iter().map(|(role, text, thought)| json!({"role": role, "parts": parts(text, thought)})).collect();
    json!(all).to_string().into()
}

pub(super) fn call(sequence_id: u64, messages: &[Message], answer: (&str, &str)) -> Call {
    let sampled = answer_ids(answer.0, answer.1);
    let reply = vec![("assistant", answer.0.to_owned(), answer.1.to_owned())];
    Call {
        span_id: format!("{sequence_id:016x}"),
        response_id: None,
        sequence_id,
        choice: 0,
        role: CallRole::Main,
        tools: 7,
        prompt: render(messages).into(),
        logprobs: Some((0..sampled.len()).map(|at| -(at as f32) - 0.5).collect()),
        versions: vec![VersionStart { at: 0, version: "3".to_owned() }],
        temperature: Some(1.0),
        routed_experts: None,
        routed_experts_shape: Vec::new(),
        routed_experts_dtype: None,
        sampling_mask: None,
        exclusion: None,
        is_retokenized: false,
        token_issue: None,
        finish_reason: Some("stop".to_owned()),
        model: None,
        content: CallContent { input: content(messages), output: content(&reply), ..CallContent::default() },
        start_time: None,
        end_time: None,
        parent_span: None,
        sampled,
    }
}

/// A conversation of some turns: its calls.
fn conversation(turns: &[(&str, &str)]) -> (Vec<Message>, Vec<Call>) {
    let mut messages = vec![said("system", "you are an agent")];
    let mut calls = Vec::new();
    for (at, (observed, answer)) in turns.iter().enumerate() {
        messages.push(said(if at == 0 { "user" } else { "tool" }, observed));
        calls.push(call(at as u64 + 1, &messages, (answer, "")));
        messages.push(said("assistant", answer));
    }
    (messages, calls)
}

fn paths(tree: &Trajectory) -> Vec<Vec<usize>> {
    tree.branches.iter().map(|branch| branch.path.clone()).collect()
}

fn trained(tree: &Trajectory) -> Vec<Vec<usize>> {
    tree.branches.iter().map(|branch| branch.trained.clone()).collect()
}

fn cause(tree: &Trajectory, at: usize) -> Option<BreakCause> {
    tree.nodes[at].diagnosis.as_ref().map(|found| found.cause)
}

pub(super) fn strict(calls: Vec<Call>) -> Trajectory {
    Trajectory::build(calls, MergeMode::Strict)
}

#[test]
fn a_tool_agent_of_five_turns_is_one_branch() {
    let (_, calls) =
        conversation(&[("fix it", "ls"), ("a b", "cat a"), ("text", "edit"), ("ok", "test"), ("passed", "done")]);
    let tree = strict(calls);
    assert_eq!((paths(&tree), trained(&tree)), (vec![vec![0, 1, 2, 3, 4]], vec![vec![0, 1, 2, 3, 4]]));
    assert!(tree.nodes.iter().all(|node| node.diagnosis.is_none()));
}

#[test]
fn answers_to_one_prompt_are_siblings_and_not_one_line() {
    let messages = [said("user", "try")];
    let calls = (1..=3).map(|at| call(at, &messages, (["one", "two", "three"][at as usize - 1], ""))).collect();
    let tree = strict(calls);
    assert_eq!(paths(&tree), [vec![0], vec![1], vec![2]]);
    assert!(tree.nodes.iter().all(|node| node.n_siblings == 3 && node.diagnosis.is_none()));
}

#[test]
fn what_branches_share_is_trained_once() {
    let (messages, mut calls) = conversation(&[("fix it", "ls")]);
    for (at, text) in ["left", "right"].into_iter().enumerate() {
        let next = [messages.as_slice(), &[said("tool", text)]].concat();
        calls.push(call(at as u64 + 2, &next, ("end", "")));
    }
    let tree = strict(calls);
    assert_eq!((paths(&tree), trained(&tree)), (vec![vec![0, 1], vec![0, 2]], vec![vec![0, 1], vec![2]]));
}

#[test]
fn a_retry_goes_on_with_the_line_that_broke_off() {
    let (_, calls) = conversation(&[("fix it", "ls"), ("a", "cat a"), ("text", "done")]);
    let mut broken = calls[1].clone();
    (broken.span_id, broken.exclusion) = ("broken".to_owned(), Some(Exclusion::Aborted));
    broken.sampled.truncate(2);
    let mut without_ids = broken.clone();
    without_ids.sampled.clear();
    for one in [broken, without_ids] {
        let mut all = calls.clone();
        all.push(one);
        for call in &mut all {
            call.sequence_id = call.sequence_id * 2 - u64::from(call.exclusion.is_some());
        }
        let tree = strict(all);
        assert_eq!(trained(&tree)[0], [0, 2, 3]);
        assert!(trained(&tree)[1..].iter().all(Vec::is_empty));
        assert!(tree.nodes.iter().all(|node| node.diagnosis.is_none()), "{:?}", tree.nodes);
    }
}

#[test]
fn side_calls_are_in_the_tree_and_not_trained() {
    let (_, mut calls) = conversation(&[("fix it", "ls"), ("a", "done")]);
    let mut title = call(9, &[said("system", "write a title"), said("user", "fix it")], ("Fixing", ""));
    (title.role, title.exclusion, title.tools) = (CallRole::Title, Some(Exclusion::SideCall), 0);
    calls.push(title);
    let tree = strict(calls);
    assert_eq!((paths(&tree), trained(&tree)), (vec![vec![0, 1], vec![2]], vec![vec![0, 1], vec![]]));
}

#[test]
fn nested_sub_agents_are_branches_beside_the_agent() {
    let (_, mut calls) = conversation(&[("task", "spawn"), ("result", "done")]);
    calls[1].sequence_id = 9;
    let outer = vec![said("system", "you are a researcher"), said("user", "look")];
    calls.push(call(3, &outer, ("spawn", "")));
    calls.push(call(4, &[said("system", "you are a reader"), said("user", "read")], ("text", "")));
    let next = [outer.as_slice(), &[said("assistant", "spawn"), said("tool", "text")]].concat();
    calls.push(call(5, &next, ("found", "")));
    let tree = strict(calls);
    assert_eq!(paths(&tree), [vec![0, 4], vec![1, 3], vec![2]]);
    assert_eq!([1, 2].map(|at| cause(&tree, at)), [Some(BreakCause::NewConversation); 2]);
}

#[test]
fn a_compaction_starts_a_branch() {
    let (messages, mut calls) = conversation(&[("fix the parser", "ls"), ("a b", "cat a"), ("text", "edit")]);
    let asked = [messages.as_slice(), &[said("user", "summarise the work so far")]].concat();
    calls.push(call(4, &asked, ("the parser was edited, tests are missing", "")));
    let short = [said("system", "you are an agent"), said("user", "So far: the parser was edited, tests are missing")];
    calls.push(call(5, &short, ("write tests", "")));
    let tree = strict(calls);
    assert_eq!(paths(&tree), [vec![0, 1, 2, 3], vec![4]]);
    assert_eq!(cause(&tree, 4), Some(BreakCause::Compacted));
}

#[test]
fn every_cause_is_found_with_its_position() {
    let (messages, calls) = conversation(&[("fix the parser", "list files"), ("main.rs lib.rs", "read main")]);
    let next = [messages.as_slice(), &[said("tool", "fn main")]].concat();
    let exact = call(3, &next, ("done", ""));
    let after_prompt = calls[1].prompt.len();
    let broken = |change: &dyn Fn(&mut Call)| {
        let mut broken = exact.clone();
        change(&mut broken);
        broken
    };
    let with = |messages: &[Message]| {
        let mut changed = call(3, messages, ("done", ""));
        changed.tools = 7;
        changed
    };
    let replaced = |at: usize, message: Message| {
        let mut all = next.clone();
        all[at] = message;
        all
    };
    let cases: Vec<(Call, BreakCause, usize)> = vec![
        (
            broken(&|call| {
                let mut ids = call.prompt.to_vec();
                // "re" as one token.
                ids.splice(after_prompt..after_prompt + 2, [6000]);
                call.prompt = ids.into();
            }),
            BreakCause::Retokenized,
            after_prompt,
        ),
        (
            broken(&|call| {
                let mut ids = call.prompt.to_vec();
                ids.insert(after_prompt + "read main".len(), 10);
                call.prompt = ids.into();
            }),
            BreakCause::Template,
            after_prompt + "read main".len(),
        ),
        (with(&replaced(4, said("assistant", "read  main"))), BreakCause::Template, after_prompt + 5),
        (with(&replaced(4, said("assistant", "write main"))), BreakCause::Rewritten, after_prompt),
        (with(&replaced(3, said("tool", "main.rs"))), BreakCause::Truncated, calls[0].len() + 2 + 7),
        (with(&[&next[..1], &next[3..]].concat()), BreakCause::Truncated, 20),
        (broken(&|call| call.tools = 8), BreakCause::ToolsChanged, calls[1].len()),
        (with(&[said("system", "you are a poet"), said("user", "write")]), BreakCause::NewConversation, 11),
    ];
    for (later, expected, position) in cases {
        let tree = strict([calls.clone(), vec![later]].concat());
        let found = tree.nodes[2].diagnosis.clone().unwrap();
        assert_eq!((found.cause, found.position, found.earlier), (expected, position, 1), "{found:?}");
        assert_eq!(trained(&tree), [vec![0, 1], vec![2]]);
    }
}

#[test]
fn dropped_thinking_is_found_by_messages_and_by_ids() {
    let first = call(1, &[said("user", "think")], ("answer", "a long thought"));
    let dropped = [said("user", "think"), said("assistant", "answer"), said("user", "more")];
    let by_messages = call(2, &dropped, ("end", ""));
    // The client sends the thought, the template leaves it out.
    let mut by_ids = by_messages.clone();
    let sent =
        [dropped[0].clone(), ("assistant", "answer".to_owned(), "a long thought".to_owned()), dropped[2].clone()];
    by_ids.content.input = content(&sent);
    for later in [by_messages, by_ids] {
        let tree = strict(vec![first.clone(), later]);
        let found = tree.nodes[1].diagnosis.clone().unwrap();
        assert_eq!((found.cause, found.position), (BreakCause::ThinkingDropped, first.prompt.len()));
    }
}

#[test]
fn an_agent_that_rewrites_its_history_gets_a_branch_each_time() {
    let (messages, calls) = conversation(&[("fix it", "ls"), ("a b", "cat a")]);
    let mut all = calls;
    for at in 0..3_u64 {
        let mut changed = messages.clone();
        changed[1].1 = format!("fix it, try {at}");
        all.push(call(3 + at, &changed, ("again", "")));
    }
    let tree = strict(all);
    assert_eq!(paths(&tree), [vec![0, 1], vec![2], vec![3], vec![4]]);
    assert!((2..5).all(|at| cause(&tree, at) == Some(BreakCause::Rewritten)));
}

#[test]
fn realigning_keeps_what_was_sampled_under_its_own_prefix() {
    let (messages, mut calls) = conversation(&[("go", "read main")]);
    let mut later = call(2, &[messages.as_slice(), &[said("tool", "ok")]].concat(), ("done", ""));
    let at = calls[0].prompt.len() + 5;
    let mut ids = later.prompt.to_vec();
    ids.splice(at..at + 2, [6000]);
    later.prompt = ids.into();
    calls.push(later);
    let lost = calls[0].sampled.len() - 5;
    for (limit, expected) in [(lost, vec![vec![0], vec![1]]), (lost + 1, vec![vec![0, 1]])] {
        let tree = Trajectory::build(calls.clone(), MergeMode::Realign(limit));
        assert_eq!(paths(&tree), expected);
        assert_eq!(tree.trained_tokens(0), if expected.len() == 1 { 5 } else { calls[0].sampled.len() });
    }
    let alone = Trajectory::build(calls, MergeMode::PerCall);
    assert_eq!(paths(&alone), [vec![0], vec![1]]);
}

#[test]
fn rewards_go_to_calls_by_the_rules_of_agent_lightning() {
    let (_, calls) = conversation(&[("a", "b"), ("c", "d")]);
    let reward = |sequence_id, value, call: Option<&str>| Reward {
        name: "primary".to_owned(),
        value,
        sequence_id,
        time: None,
        parent_span: None,
        call: call.map(str::to_owned),
    };
    let rewards = [reward(2, 0.5, None), reward(9, 1.0, None)];
    assert_eq!(RewardRule::FirstOccurrence.assign(&calls, &rewards), [Some(0.5), Some(1.0)]);
    assert_eq!(RewardRule::Final.assign(&calls, &rewards), [None, Some(1.0)]);
    let linked = [reward(9, 1.0, Some(&calls[0].span_id))];
    assert_eq!(RewardRule::FirstOccurrence.assign(&calls, &linked), [Some(1.0), None]);
    // A call that is not trained takes no reward from those that are.
    let mut with_title = calls;
    with_title[1].exclusion = Some(Exclusion::SideCall);
    for rule in [RewardRule::FirstOccurrence, RewardRule::Final] {
        assert_eq!(rule.assign(&with_title, &[reward(9, 1.0, None)]), [Some(1.0), None]);
    }
    assert_eq!(discounted_returns(&[0.0, 0.0, 1.0], 0.5), [0.25, 0.5, 1.0]);
}
