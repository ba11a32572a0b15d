//! The rows that trainers load: one for each branch, with an entry for each token.

use super::breaks::BreakCause;
use super::call::Call;
use super::rewards::{Reward, final_reward};
use super::tree::{Branch, Trajectory};
use super::verdict::Verdict;
use crate::trace::{Rollout, Span};
use serde::Serialize;

/// Version of the columns. It rises when a column changes its meaning or goes.
pub const ROW_SCHEMA_VERSION: u32 = 1;

/// A branch as a training sample. A list with an entry for each token is as long as `token_ids`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainingRow {
    /// Always [`ROW_SCHEMA_VERSION`], so that a reader of the file knows what the columns mean.
    pub schema_version: u32,
    /// Id of the rollout that the row was sampled in.
    pub rollout_id: String,
    /// Id of the attempt within the rollout.
    pub attempt_id: String,
    /// The task: rollouts of one group are compared with each other.
    pub group_id: String,
    /// Index of the branch among the rows of the attempt.
    pub branch: usize,
    /// Number of rows of the attempt.
    pub n_branches: usize,
    /// Number of answers to the prompt of the branch's last trained call.
    pub n_siblings: usize,
    /// Share of the attempt's trained tokens. The weights of an attempt add up to 1, so that a weighted mean over rows is
    /// one over rollouts.
    pub weight: f64,
    /// The role of the branch's first trained call.
    pub role: &'static str,
    /// The model that the agent named in the last trained call.
    pub model: Option<String>,
    /// Prompt and answer of the last trained call. Answers of earlier calls are part of its prompt.
    pub token_ids: Vec<u32>,
    /// 1 for tokens that are trained, 0 for those that were observed.
    pub mask: Vec<u8>,
    /// Log-probabilities; 0 for observed tokens. `None` if a trained call has none.
    pub logprobs: Option<Vec<f32>>,
    /// Versions of the weights, if they are numbers; -1 for observed tokens and where the version is unknown.
    pub versions: Vec<i64>,
    /// Sampling temperatures; 0 for observed tokens. `None` if a trained call named none.
    pub temperatures: Option<Vec<f32>>,
    /// Tokens before the first trained one.
    pub prompt_length: usize,
    /// Span ids of the trained calls.
    pub calls: Vec<String>,
    /// Where the sampled tokens of each trained call begin.
    pub call_starts: Vec<usize>,
    /// How many sampled tokens of each trained call are trained.
    pub call_lengths: Vec<usize>,
    /// Why the last trained call ended, in the endpoint's word.
    pub finish_reason: Option<String>,
    /// Why the branch does not continue an earlier one.
    pub break_cause: Option<BreakCause>,
    /// The reward of the branch. `None` if none was given.
    pub reward: Option<f64>,
    /// What the reward was given to. `None` without a reward.
    pub reward_source: Option<RewardSource>,
    /// True if the verdict has no reason against training.
    pub sound: bool,
    /// The reasons of the verdict.
    pub reasons: Vec<&'static str>,
    /// True if a tokenizer made ids of the row: the engine may have had others.
    pub retokenized: bool,
    /// Routed experts of all tokens but the last, in base64, as the engine returned them with the last trained call.
    pub routed_experts: Option<String>,
    /// Lengths of the dimensions of `routed_experts`: tokens, layers, experts. Empty without them.
    pub routed_experts_shape: Vec<i64>,
    /// numpy's name of the type of `routed_experts`, such as `uint8`; little-endian. `None` without them.
    pub routed_experts_dtype: Option<String>,
    /// From how many ids each token was sampled; 0 for observed tokens. `None` if a trained call has no mask.
    pub sampling_mask_lengths: Option<Vec<u32>>,
    /// These ids, one token after the other. `None` as `sampling_mask_lengths`.
    pub sampling_mask: Option<Vec<u32>>,
}

/// What the reward of a branch was given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardSource {
    /// It was given to a call of the branch.
    Call,
    /// It was given to the attempt.
    Attempt,
}

impl RewardSource {
    /// The word in exports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Attempt => "attempt",
        }
    }
}

/// The rows of an attempt. Branches without a trained token have none.
pub fn rows(
    rollout: &Rollout,
    spans: &[Span],
    tree: &Trajectory,
    rewards: &[Reward],
    verdict: &Verdict,
) -> Vec<TrainingRow> {
    let attempt_id = spans.first().map(|span| span.attempt_id.to_string()).unwrap_or_default();
    let tokens = |branch: &Branch| branch.trained.iter().map(|call| tree.trained_tokens(*call)).sum::<usize>();
    let branches: Vec<(&Branch, usize)> =
        tree.branches.iter().map(|branch| (branch, tokens(branch))).filter(|(_, tokens)| *tokens > 0).collect();
    let all_tokens: usize = branches.iter().map(|(_, tokens)| tokens).sum();
    let (group_id, reward) = (group_id(rollout), final_reward(rewards).map(|reward| reward.value));
    let mut rows = Vec::with_capacity(branches.len());
    for (index, (branch, tokens)) in branches.iter().enumerate() {
        let Some(last) = branch.trained.last() else { continue };
        let own = branch.trained.iter().rev().find_map(|call| reward_of(&tree.calls[*call], rewards));
        let (calls, call) = (|| branch.trained.iter().map(|at| &tree.calls[*at]), &tree.calls[*last]);
        let columns = Columns::of(tree, branch, *last);
        rows.push(TrainingRow {
            schema_version: ROW_SCHEMA_VERSION,
            rollout_id: rollout.rollout_id.to_string(),
            attempt_id: attempt_id.clone(),
            group_id: group_id.clone(),
            branch: index,
            n_branches: branches.len(),
            n_siblings: tree.nodes[*last].n_siblings,
            weight: *tokens as f64 / all_tokens as f64,
            role: branch.role.as_str(),
            model: call.model.clone(),
            prompt_length: columns.mask.iter().position(|mask| *mask == 1).unwrap_or_default(),
            calls: calls().map(|call| call.span_id.clone()).collect(),
            call_starts: calls().map(|call| call.prompt.len()).collect(),
            call_lengths: branch.trained.iter().map(|at| tree.nodes[*at].trainable).collect(),
            finish_reason: call.finish_reason.clone(),
            break_cause: branch.path.first().and_then(|at| Some(tree.nodes[*at].diagnosis.as_ref()?.cause)),
            reward: own.or(reward),
            reward_source: own.map(|_| RewardSource::Call).or(reward.map(|_| RewardSource::Attempt)),
            sound: verdict.is_sound(),
            reasons: verdict.names(),
            retokenized: calls().any(|call| call.is_retokenized),
            routed_experts: call.routed_experts.clone(),
            routed_experts_shape: call.routed_experts_shape.clone(),
            routed_experts_dtype: call.routed_experts_dtype.clone(),
            token_ids: call.prompt.iter().chain(&call.sampled).copied().collect(),
            mask: columns.mask,
            logprobs: columns.logprobs,
            versions: columns.versions,
            temperatures: columns.temperatures,
            sampling_mask_lengths: columns.sampling_masks.as_ref().map(|(lengths, _)| lengths.clone()),
            sampling_mask: columns.sampling_masks.map(|(_, ids)| ids),
        });
    }
    rows
}

/// The task of a rollout: the group that was given, else an id of the task in its input, else the input itself.
pub fn group_id(rollout: &Rollout) -> String {
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let given = rollout.metadata.get("group_id").filter(|group| !group.is_null());
    let task = || ["data_id", "instance_id", "task_id", "id"].iter().find_map(|name| rollout.input.get(name));
    if let Some(id) = given.or_else(task) {
        return text(id);
    }
    if rollout.input.is_null() {
        return rollout.rollout_id.to_string();
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, rollout.input.to_string().as_bytes());
    const_hex::encode(&digest.as_ref()[..8])
}

fn reward_of(call: &Call, rewards: &[Reward]) -> Option<f64> {
    let is_own = |reward: &&Reward| reward.call.as_deref() == Some(call.span_id.as_str());
    super::rewards::primary(rewards).filter(is_own).last().map(|reward| reward.value)
}

/// The lists with an entry for each token.
struct Columns {
    mask: Vec<u8>,
    logprobs: Option<Vec<f32>>,
    versions: Vec<i64>,
    temperatures: Option<Vec<f32>>,
    sampling_masks: Option<(Vec<u32>, Vec<u32>)>,
}

impl Columns {
    fn of(tree: &Trajectory, branch: &Branch, last: usize) -> Self {
        let length = tree.calls[last].len();
        let mut columns = Self {
            mask: vec![0; length],
            logprobs: Some(vec![0.0; length]),
            versions: vec![-1; length],
            temperatures: Some(vec![0.0; length]),
            sampling_masks: Some((vec![0; length], Vec::new())),
        };
        for at in &branch.trained {
            columns.add(&tree.calls[*at], tree.nodes[*at].trainable);
        }
        columns
    }

    /// Adds the first `count` sampled tokens of a call.
    fn add(&mut self, call: &Call, count: usize) {
        let range = call.prompt.len()..call.prompt.len() + count;
        self.mask[range.clone()].fill(1);
        match (&mut self.logprobs, &call.logprobs) {
            (Some(all), Some(own)) => all[range.clone()].copy_from_slice(&own[..count]),
            (all, _) => *all = None,
        }
        for start in &call.versions {
            let version = start.version.parse().unwrap_or(-1);
            self.versions[range.clone()].iter_mut().skip(start.at).for_each(|one| *one = version);
        }
        match (&mut self.temperatures, call.temperature) {
            (Some(all), Some(own)) => all[range.clone()].fill(own as f32),
            (all, _) => *all = None,
        }
        match (&mut self.sampling_masks, &call.sampling_mask) {
            (Some((lengths, ids)), Some((own_lengths, own_ids))) => {
                lengths[range].copy_from_slice(&own_lengths[..count]);
                let kept: usize = own_lengths[..count].iter().map(|one| *one as usize).sum();
                ids.extend_from_slice(&own_ids[..kept.min(own_ids.len())]);
            }
            (masks, _) => *masks = None,
        }
    }
}
