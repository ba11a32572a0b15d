//! Where a query can't be used: rules are decided on again and again, and what a removal selects must be known for certain.

use super::parse::Query;
use super::term::{Condition, NumberField};

impl Query {
    /// Why a rule in the settings can't have this query. `None` if it can.
    pub(crate) fn refusal_in_rules(&self) -> Option<&'static str> {
        let is_of_cost = |condition: &Condition| matches!(condition, Condition::Number(NumberField::Cost, ..));
        let is_refused = self.needs_verdict()
            || self.phrases().next().is_some()
            || self.terms.iter().any(|term| is_of_cost(&term.condition));
        is_refused.then_some(
            "`text`, `verdict` and `cost` are for searches and `tracewire store prune --query`, not for rules",
        )
    }

    /// Why rollouts can't be removed by this query. `None` if they can.
    pub(crate) fn refusal_in_removals(&self) -> Option<&'static str> {
        let is_refused = |term: &super::term::Term| term.is_negated && matches!(term.condition, Condition::Phrase(_));
        self.terms.iter().any(is_refused).then_some(
            "rollouts can't be removed for the words that they lack: of a rollout that limits have cut, not all messages are indexed",
        )
    }
}
