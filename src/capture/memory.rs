//! Where bytes in flight may be: in memory within the budget, and in the spill file.

use super::memory_budget::{MemoryBudget, MemoryShare, MemoryUse};
use super::spill::SpillArea;
use std::path::PathBuf;

/// The memory budget and the spill file. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    budget: MemoryBudget,
    spill: SpillArea,
}

impl Memory {
    /// `budget_bytes` of memory, and a spill file in `spill_folder`.
    pub(crate) fn new(budget_bytes: u64, spill_folder: PathBuf) -> Self {
        Self { budget: MemoryBudget::new(budget_bytes), spill: SpillArea::new(spill_folder) }
    }

    pub(crate) fn budget(&self) -> &MemoryBudget {
        &self.budget
    }

    pub(crate) fn spill(&self) -> &SpillArea {
        &self.spill
    }

    /// A share of the budget; of nothing yet.
    pub(crate) fn share(&self, memory_use: MemoryUse) -> MemoryShare {
        self.budget.share(memory_use)
    }
}
