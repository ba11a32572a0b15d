//! The tokens that a chat completion used, as its backend counts them.

use crate::wire::json::Json;

/// Tokens used. The input includes cached tokens, the output includes reasoning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ChatUsage {
    /// Tokens of the prompt.
    pub(super) input: i64,
    /// Tokens of the prompt that came from a cache.
    pub(super) cached: i64,
    /// Tokens of the answer.
    pub(super) output: i64,
    /// Tokens of the answer that are reasoning.
    pub(super) reasoning: i64,
}

impl ChatUsage {
    /// Takes the counts of a chunk's `usage`; those that it lacks stay.
    pub(super) fn update(&mut self, usage: &Json<'_>) {
        let number = |path: &[&str]| usage.at(path).int();
        *self = Self {
            input: number(&["prompt_tokens"]).unwrap_or(self.input),
            cached: number(&["prompt_tokens_details", "cached_tokens"]).unwrap_or(self.cached),
            output: number(&["completion_tokens"]).unwrap_or(self.output),
            reasoning: number(&["completion_tokens_details", "reasoning_tokens"])
                .or_else(|| number(&["reasoning_tokens"]))
                .unwrap_or(self.reasoning),
        };
    }

    /// Tokens of prompt and answer. The counts are the backend's, which may send any number.
    pub(super) fn total(self) -> i64 {
        self.input.saturating_add(self.output)
    }

    /// Tokens of the prompt that did not come from a cache.
    pub(super) fn uncached_input(self) -> i64 {
        self.input.saturating_sub(self.cached).max(0)
    }

    /// Tokens of the answer without reasoning.
    pub(super) fn visible_output(self) -> i64 {
        self.output.saturating_sub(self.reasoning).max(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_any_size_can_be_added() {
        let usage = ChatUsage { input: i64::MAX, cached: i64::MIN, output: i64::MAX, reasoning: i64::MIN };
        assert_eq!((usage.total(), usage.uncached_input(), usage.visible_output()), (i64::MAX, i64::MAX, i64::MAX));
    }
}
