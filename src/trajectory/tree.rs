//! The tree: which call continues which, and the branches that are trained.
//!
//! A call continues the longest earlier sequence that is an exact prefix of its prompt, if both have the same tools; a side call
//! continues only side calls of its role. Other calls start a branch, with a diagnosis. A branch is a path from a root to a
//! leaf. A call that several branches share is trained in the first of them only, so that each sampled token is trained once,
//! under the prefix that it was sampled with. The order in which calls are given does not matter.

use super::breaks::{Break, diagnose};
use super::call::Call;
use super::prefix::{PromptKey, parents};
use crate::llm::clients::CallRole;
use std::collections::{HashMap, HashSet};

/// What makes a call the continuation of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MergeMode {
    /// Only an exact prefix.
    #[default]
    Strict,
    /// Also the same text with other ids, if fewer sampled tokens than this are lost. The tokens from the first difference on
    /// are lost: they are in no branch, and are counted as not trained.
    Realign(usize),
    /// Nothing. Each call is a branch of its own.
    PerCall,
}

/// The calls of an attempt as a tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Trajectory {
    /// The calls by sequence id. Other parts refer to them by index.
    pub calls: Vec<Call>,
    /// The place of each call in the tree.
    pub nodes: Vec<CallNode>,
    /// Paths from a root to a leaf, in the order of their first calls. Calls without token ids are in none.
    pub branches: Vec<Branch>,
}

/// The place of a call in the tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallNode {
    /// The call that it continues.
    pub parent: Option<usize>,
    /// Another call has the same prompt and answer as the parent: either may be the one that was continued.
    pub parent_is_ambiguous: bool,
    /// The calls that continue it.
    pub children: Vec<usize>,
    /// Why it does not continue the call nearest to it. `None` if it does, if it is the first, or if its prompt is that of an
    /// earlier one.
    pub diagnosis: Option<Break>,
    /// Number of calls with the same prompt, itself included.
    pub n_siblings: usize,
    /// How many of its sampled tokens are trained from the first on: fewer than all if a continuation was realigned.
    pub trainable: usize,
}

/// A path from a root to a leaf.
#[derive(Clone, Debug, PartialEq)]
pub struct Branch {
    /// The calls from the root to the leaf.
    pub path: Vec<usize>,
    /// Those of them that are trained in this branch, in the same order.
    pub trained: Vec<usize>,
    /// The role of its first trained call; if none is trained, of its last.
    pub role: CallRole,
}

impl Trajectory {
    /// Builds the tree of the calls of one attempt, in any order.
    pub fn build(mut calls: Vec<Call>, mode: MergeMode) -> Self {
        calls.sort_by(|a, b| {
            let key = |call: &Call| (call.sequence_id, call.choice);
            key(a).cmp(&key(b)).then_with(|| a.span_id.cmp(&b.span_id))
        });
        let prompts: Vec<PromptKey<'_>> = calls.iter().map(PromptKey::of).collect();
        let mut nodes = siblings(&calls, &prompts);
        if mode != MergeMode::PerCall {
            link(&calls, &prompts, &mut nodes, mode);
        }
        let branches = branches(&calls, &nodes);
        Self { calls, nodes, branches }
    }

    /// Sampled tokens of all calls, trained or not.
    pub fn sampled_tokens(&self) -> usize {
        self.calls.iter().map(|call| call.sampled.len()).sum()
    }

    /// The number of tokens of a call that are trained in the branch it belongs to; 0 if it is excluded.
    pub fn trained_tokens(&self, call: usize) -> usize {
        let is_trained = self.calls[call].exclusion.is_none() && self.calls[call].has_tokens();
        if is_trained { self.nodes[call].trainable } else { 0 }
    }
}

/// A node for each call, alone, with the number of calls that have its prompt.
fn siblings(calls: &[Call], prompts: &[PromptKey<'_>]) -> Vec<CallNode> {
    let mut counts: HashMap<&PromptKey<'_>, usize> = HashMap::with_capacity(calls.len());
    for (key, _) in prompts.iter().zip(calls).filter(|(_, call)| call.has_tokens()) {
        *counts.entry(key).or_default() += 1;
    }
    let node = |(call, key): (&Call, &PromptKey<'_>)| CallNode {
        n_siblings: counts.get(key).copied().unwrap_or(1),
        trainable: call.sampled.len(),
        ..CallNode::default()
    };
    calls.iter().zip(prompts).map(node).collect()
}

fn link(calls: &[Call], prompts: &[PromptKey<'_>], nodes: &mut [CallNode], mode: MergeMode) {
    let parents = parents(calls, prompts);
    for (at, parent) in parents.iter().enumerate() {
        if let Some(parent) = parent {
            nodes[at].parent = Some(parent.call);
            nodes[at].parent_is_ambiguous = parent.is_ambiguous;
            nodes[parent.call].children.push(at);
        }
    }
    let mut known_prompts = HashSet::with_capacity(calls.len());
    for at in (0..calls.len()).filter(|at| calls[*at].has_tokens()) {
        let is_new = known_prompts.insert(&prompts[at]);
        // A call that continues another one starts a branch if an earlier call continues that one too.
        let goes_on = |child: &usize| *child < at && calls[*child].exclusion.is_none();
        let leaves_none = parents[at].is_some_and(|parent| !nodes[parent.call].children.iter().any(goes_on));
        if leaves_none || !is_new {
            continue;
        }
        let diagnosis = diagnose(calls, at);
        if let (Some(found), MergeMode::Realign(limit)) = (&diagnosis, mode) {
            realign(calls, nodes, at, found, limit);
        }
        nodes[at].diagnosis = diagnosis;
    }
}

/// Lets a call continue an earlier one although their ids differ, if only the end of the last answer does.
fn realign(calls: &[Call], nodes: &mut [CallNode], at: usize, found: &Break, limit: usize) {
    let earlier = &calls[found.earlier];
    let Some(kept) = found.position.checked_sub(earlier.prompt.len()) else { return };
    let lost = earlier.sampled.len().saturating_sub(kept);
    let is_open = nodes[found.earlier].children.is_empty() && earlier.lineage() == calls[at].lineage();
    if found.cause.keeps_text() && is_open && lost < limit {
        if let Some(parent) = nodes[at].parent.replace(found.earlier) {
            nodes[parent].children.retain(|child| *child != at);
        }
        nodes[found.earlier].trainable = kept;
        nodes[found.earlier].children.push(at);
    }
}

/// All paths to leaves, depth first. Each call is assigned to the first path that it is on.
fn branches(calls: &[Call], nodes: &[CallNode]) -> Vec<Branch> {
    let roots = (0..calls.len()).filter(|at| calls[*at].has_tokens() && nodes[*at].parent.is_none());
    let mut branches = Vec::new();
    let mut assigned = vec![false; calls.len()];
    for root in roots {
        let mut open = vec![root];
        while let Some(at) = open.pop() {
            // Calls that broke off come last, so that the retry of one continues the branch.
            let broke_off = |child: &&usize| calls[**child].exclusion.is_some() && nodes[**child].children.is_empty();
            let (broken, whole): (Vec<&usize>, Vec<&usize>) = nodes[at].children.iter().partition(broke_off);
            open.extend(whole.into_iter().chain(broken).rev());
            if !nodes[at].children.is_empty() {
                continue;
            }
            let mut path: Vec<usize> = std::iter::successors(Some(at), |at| nodes[*at].parent).collect();
            path.reverse();
            let is_first = |at: &&usize| !std::mem::replace(&mut assigned[**at], true);
            let first: Vec<usize> = path.iter().filter(is_first).copied().collect();
            let trained: Vec<usize> = first.into_iter().filter(|at| calls[*at].exclusion.is_none()).collect();
            let role = calls[trained.first().copied().unwrap_or(at)].role;
            branches.push(Branch { path, trained, role });
        }
    }
    branches
}
