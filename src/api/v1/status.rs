//! The four states of version 1.0, and what they are among the seven of version 0.3.

use crate::trace::RolloutStatus;

/// A state of a rollout in this API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StateV1 {
    Queuing,
    Running,
    Succeeded,
    Failed,
}

/// The text of FastAPI for a state that does not exist.
pub(super) const UNKNOWN_STATE: &str = "Input should be 'queuing', 'running', 'succeeded' or 'failed'";

impl StateV1 {
    pub(super) fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "queuing" => Self::Queuing,
            "running" => Self::Running,
            "succeeded" => Self::Succeeded,
            "failed" => Self::Failed,
            _ => return None,
        })
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Queuing => "queuing",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }

    pub(super) fn of_status(status: RolloutStatus) -> Self {
        match status {
            RolloutStatus::Queuing | RolloutStatus::Requeuing => Self::Queuing,
            RolloutStatus::Preparing | RolloutStatus::Running => Self::Running,
            RolloutStatus::Succeeded => Self::Succeeded,
            RolloutStatus::Failed | RolloutStatus::Cancelled => Self::Failed,
        }
    }

    /// The status that a rollout gets when a controller moves it to this state.
    pub(super) fn status(self) -> RolloutStatus {
        match self {
            Self::Queuing => RolloutStatus::Queuing,
            Self::Running => RolloutStatus::Running,
            Self::Succeeded => RolloutStatus::Succeeded,
            Self::Failed => RolloutStatus::Failed,
        }
    }

    /// Every status of this state.
    pub(super) fn statuses(self) -> &'static [RolloutStatus] {
        match self {
            Self::Queuing => &[RolloutStatus::Queuing, RolloutStatus::Requeuing],
            Self::Running => &[RolloutStatus::Running, RolloutStatus::Preparing],
            Self::Succeeded => &[RolloutStatus::Succeeded],
            Self::Failed => &[RolloutStatus::Failed, RolloutStatus::Cancelled],
        }
    }

    /// True when a controller may move a rollout from this state to that.
    pub(super) fn may_become(self, to: Self) -> bool {
        matches!(
            (self, to),
            (Self::Queuing, Self::Running | Self::Failed) | (Self::Running, Self::Succeeded | Self::Failed)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_statuses_agree() {
        for state in [StateV1::Queuing, StateV1::Running, StateV1::Succeeded, StateV1::Failed] {
            assert_eq!(StateV1::of_name(state.as_str()), Some(state));
            assert!(state.statuses().contains(&state.status()));
            assert!(state.statuses().iter().all(|status| StateV1::of_status(*status) == state));
        }
    }
}
