//! Properties of the trees of random conversations.

use super::Call;
use super::tests::{Message, call, said, strict};
use proptest::prelude::*;

/// What happens between two calls of a random conversation.
#[derive(Clone, Debug)]
enum Step {
    Continue,
    Resample,
    Fork(usize),
    Rewrite,
    NewConversation,
    Retokenize,
}

fn steps() -> impl Strategy<Value = Vec<(Step, String)>> {
    let step = prop_oneof![
        4 => Just(Step::Continue),
        1 => Just(Step::Resample),
        1 => (0..8_usize).prop_map(Step::Fork),
        1 => Just(Step::Rewrite),
        1 => Just(Step::NewConversation),
        1 => Just(Step::Retokenize),
    ];
    prop::collection::vec((step, "[a-d]{1,6}"), 1..20)
}

/// The calls of these steps.
fn calls_of(steps: &[(Step, String)]) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut histories: Vec<Vec<Message>> = Vec::new();
    for (at, (step, text)) in steps.iter().enumerate() {
        let last = histories.last().cloned().unwrap_or_default();
        let extended = |mut messages: Vec<Message>| {
            messages.push(said("user", text));
            messages
        };
        let before = |messages: &[Message]| messages[..messages.len().saturating_sub(1)].to_vec();
        let mut messages = match step {
            _ if last.is_empty() => extended(Vec::new()),
            Step::Continue | Step::Retokenize => extended(last),
            Step::Resample => before(&last),
            Step::Fork(back) => extended(histories[back % histories.len()].clone()),
            Step::Rewrite => {
                let mut changed = last;
                changed[0].1.push_str(&format!("changed {at}"));
                extended(changed)
            }
            Step::NewConversation => vec![said("system", &format!("{at}")), said("user", text)],
        };
        let mut one = call(at as u64 + 1, &messages, (text, ""));
        if matches!(step, Step::Retokenize) {
            one.prompt = [&one.prompt[..1], &[7000 + at as u32], &one.prompt[1..]].concat().into();
        }
        calls.push(one);
        messages.push(said("assistant", text));
        histories.push(messages);
    }
    calls
}

proptest! {
    #[test]
    fn each_sampled_token_is_trained_once_under_its_own_prefix(steps in steps()) {
        let calls = calls_of(&steps);
        let tree = strict(calls);
        let mut seen = vec![0; tree.calls.len()];
        for branch in &tree.branches {
            let leaf = &tree.calls[*branch.path.last().unwrap()];
            let tokens: Vec<u32> = leaf.prompt.iter().chain(&leaf.sampled).copied().collect();
            for at in &branch.trained {
                let call = &tree.calls[*at];
                seen[*at] += 1;
                prop_assert_eq!(&tokens[..call.prompt.len()], &*call.prompt);
                prop_assert_eq!(&tokens[call.prompt.len()..call.len()], &*call.sampled);
            }
        }
        prop_assert!(seen.iter().all(|count| *count == 1), "{seen:?}");
    }

    #[test]
    fn the_order_of_arrival_does_not_matter(steps in steps(), seed in any::<u64>()) {
        let calls = calls_of(&steps);
        let mut shuffled = calls.clone();
        fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
        prop_assert_eq!(strict(calls), strict(shuffled));
    }

    #[test]
    fn the_parent_is_the_longest_earlier_sequence(steps in steps()) {
        let tree = strict(calls_of(&steps));
        for (at, call) in tree.calls.iter().enumerate() {
            let whole = |call: &Call| -> Vec<u32> { call.prompt.iter().chain(&call.sampled).copied().collect() };
            let longest = tree.calls[..at].iter().map(whole).filter(|one| call.prompt.starts_with(one)).map(|one| one.len()).max();
            prop_assert_eq!(tree.nodes[at].parent.map(|parent| tree.calls[parent].len()), longest);
        }
    }
}
