//! What the SQL of all stores has in common: integers and lists of states.

use crate::trace::RolloutStatus;

/// A number for a signed 64-bit column. Larger values become the maximum; clocks and counters do not reach it.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number from a signed 64-bit column. Negative values, which are never written, become 0.
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

/// The states that `selected` accepts, as a list for SQL's `IN`.
pub(super) fn status_list(selected: fn(RolloutStatus) -> bool) -> String {
    let names: Vec<String> = RolloutStatus::ALL
        .into_iter()
        .filter(|status| selected(*status))
        .map(|status| format!("'{}'", status.as_str()))
        .collect();
    names.join(", ")
}

/// A migration with the list of final states in place of [`FINAL_STATES`].
pub(super) fn with_final_states(script: &str) -> String {
    script.replace(FINAL_STATES, &status_list(RolloutStatus::is_final))
}

/// Placeholder in migrations.
const FINAL_STATES: &str = "{final_states}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_states_follow_the_type() {
        assert_eq!(status_list(RolloutStatus::is_final), "'failed', 'succeeded', 'cancelled'");
        assert_eq!(with_final_states("IN ({final_states})"), "IN ('failed', 'succeeded', 'cancelled')");
    }
}
