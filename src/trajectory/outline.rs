//! A trajectory as text for a terminal: its calls as a tree, with tokens, breaks, rewards and the verdict.

use super::rewards::{Reward, RewardRule};
use super::tree::Trajectory;
use super::verdict::Verdict;
use std::fmt::Write as _;

/// Draws a trajectory. The result has text from the network: the caller escapes it for its terminal.
pub fn outline(tree: &Trajectory, rewards: &[Reward], verdict: &Verdict) -> String {
    let mut text = String::new();
    let assigned = RewardRule::default().assign(&tree.calls, rewards);
    let roots = (0..tree.calls.len()).filter(|at| tree.nodes[*at].parent.is_none());
    for root in roots {
        // Calls that have one continuation stay in their column, so that a long conversation does not leave the screen.
        let mut open = vec![(root, 0_usize)];
        while let Some((at, depth)) = open.pop() {
            let children = &tree.nodes[at].children;
            let deeper = if children.len() > 1 { depth + 1 } else { depth };
            open.extend(children.iter().rev().map(|child| (*child, deeper)));
            line(&mut text, tree, at, depth, assigned[at]);
        }
    }
    let sampled = tree.sampled_tokens();
    let trained: usize =
        tree.branches.iter().flat_map(|branch| &branch.trained).map(|at| tree.trained_tokens(*at)).sum();
    // Writing to a String can't fail.
    let _ = writeln!(
        text,
        "\n{} calls, {} branches, {trained} of {sampled} sampled tokens trained",
        tree.calls.len(),
        tree.branches.len()
    );
    for reward in rewards {
        let _ = writeln!(text, "reward {} {}", reward.name, reward.value);
    }
    if verdict.is_sound() {
        let _ = writeln!(text, "verdict: sound");
    }
    for reason in &verdict.reasons {
        let span = reason.span_id.as_deref().map(|span| format!(" (span {span})")).unwrap_or_default();
        let _ = writeln!(text, "verdict: {}: {}{span}", reason.name, reason.detail);
    }
    text
}

fn line(text: &mut String, tree: &Trajectory, at: usize, depth: usize, reward: Option<f64>) {
    let (call, node) = (&tree.calls[at], &tree.nodes[at]);
    let known = node.parent.map_or(0, |parent| tree.calls[parent].len().min(call.prompt.len()));
    let indent = "  ".repeat(depth.min(MAX_DEPTH));
    let observed = call.prompt.len() - known;
    let _ = write!(
        text,
        "{indent}{} {} +{observed} observed, {} sampled",
        call.sequence_id,
        call.role.as_str(),
        call.sampled.len()
    );
    if let Some(exclusion) = call.exclusion {
        let _ = write!(text, ", not trained: {}", exclusion.as_str());
    }
    if call.is_retokenized {
        let _ = write!(text, ", retokenized");
    }
    if node.n_siblings > 1 {
        let _ = write!(text, ", one of {} answers", node.n_siblings);
    }
    if let Some(reward) = reward {
        let _ = write!(text, ", reward {reward}");
    }
    let _ = writeln!(text);
    if let Some(found) = &node.diagnosis {
        let earlier = tree.calls[found.earlier].sequence_id;
        let _ = writeln!(text, "{indent}  {} at token {} of call {earlier}", found.cause.as_str(), found.position);
        let (expected, got) = (&found.expected, &found.found);
        for (name, side) in [("expected", expected), ("found   ", got)] {
            let decoded = side.decoded.as_ref().map(|decoded| format!(" = {decoded:?}")).unwrap_or_default();
            let _ = writeln!(text, "{indent}    {name} {:?}{decoded} {:?}", side.ids, side.text);
        }
    }
}

const MAX_DEPTH: usize = 20;
