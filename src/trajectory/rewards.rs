//! Rewards of an attempt, and which call each belongs to.

use super::call::Call;
use crate::trace::Timestamp;
use serde::Serialize;

/// A reward that was given to an attempt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reward {
    /// Its name; `primary` unless another was given.
    pub name: String,
    /// A finite number.
    pub value: f64,
    /// The sequence id of the span that has the reward.
    pub sequence_id: u64,
    /// When it was given: the start of that span. `None` if the span has no time.
    pub time: Option<Timestamp>,
    /// Span id of the parent of that span.
    #[serde(skip)]
    pub parent_span: Option<String>,
    /// Span id of the call that it was given to. `None`: it was given to the attempt.
    pub call: Option<String>,
}

/// Which of the trained calls a reward without a call belongs to. The rules of Agent Lightning 0.3, whose adapters see no
/// other calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RewardRule {
    /// The last call that had ended when the reward was given, and that has no reward yet.
    #[default]
    FirstOccurrence,
    /// The same, among the calls with the parent of the reward.
    FirstSibling,
    /// The last one of the attempt.
    Final,
}

impl RewardRule {
    /// The primary reward of each call. Rewards that name their call come first.
    pub fn assign(self, calls: &[Call], rewards: &[Reward]) -> Vec<Option<f64>> {
        let mut assigned = vec![None; calls.len()];
        let primary: Vec<&Reward> = primary(rewards).collect();
        for reward in primary.iter().filter(|reward| reward.call.is_some()) {
            let is_it = |call: &Call| reward.call.as_deref() == Some(call.span_id.as_str());
            for (at, _) in calls.iter().enumerate().filter(|(_, call)| is_it(call)) {
                assigned[at] = Some(reward.value);
            }
        }
        for reward in primary.iter().filter(|reward| reward.call.is_none()) {
            let had_ended = |call: &Call| match (call.end_time, reward.time) {
                (Some(end), Some(given)) => end <= given,
                _ => call.sequence_id < reward.sequence_id,
            };
            let is_open = |(at, call): &(usize, &Call)| match self {
                Self::FirstOccurrence => assigned[*at].is_none() && had_ended(call),
                Self::FirstSibling => {
                    assigned[*at].is_none() && had_ended(call) && call.parent_span == reward.parent_span
                }
                Self::Final => true,
            };
            let trained = calls.iter().enumerate().filter(|(_, call)| call.exclusion.is_none());
            if let Some((at, _)) = trained.rev().find(is_open) {
                assigned[at] = Some(reward.value);
            }
        }
        assigned
    }
}

/// The rewards that trainers use: those named `primary`; all, if none is.
pub(super) fn primary(rewards: &[Reward]) -> impl Iterator<Item = &Reward> {
    let has_primary = rewards.iter().any(|reward| reward.name == PRIMARY);
    rewards.iter().filter(move |reward| !has_primary || reward.name == PRIMARY)
}

/// The reward of the attempt: the last primary one that was given to no call.
pub fn final_reward(rewards: &[Reward]) -> Option<&Reward> {
    primary(rewards).filter(|reward| reward.call.is_none()).last()
}

/// The discounted return of each step: its reward, and `discount` times the return of the next step.
pub fn discounted_returns(rewards: &[f64], discount: f64) -> Vec<f64> {
    let mut returns: Vec<f64> = Vec::with_capacity(rewards.len());
    for reward in rewards.iter().rev() {
        returns.push(reward + discount * returns.last().copied().unwrap_or(0.0));
    }
    returns.reverse();
    returns
}

const PRIMARY: &str = "primary";
