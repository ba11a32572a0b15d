//! How many tokens a call used, as the endpoint counts them.

/// Tokens used, by the conventions: the input includes cached tokens, the output includes reasoning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub input: Option<i64>,
    /// Tokens of all choices together.
    pub output: Option<i64>,
    /// Input tokens that were read from a cache.
    pub cache_read: Option<i64>,
    /// Input tokens that were written to a cache.
    pub cache_write: Option<i64>,
    /// Output tokens of reasoning.
    pub reasoning: Option<i64>,
}

impl Usage {
    /// Takes newer counts; those that `newer` lacks stay.
    pub fn update(&mut self, newer: Self) {
        self.input = newer.input.or(self.input);
        self.output = newer.output.or(self.output);
        self.cache_read = newer.cache_read.or(self.cache_read);
        self.cache_write = newer.cache_write.or(self.cache_write);
        self.reasoning = newer.reasoning.or(self.reasoning);
    }

    /// The sum of two counts. What one of them lacks is the other's.
    pub(super) fn plus(self, other: Self) -> Self {
        let sum = |one: Option<i64>, other: Option<i64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        Self {
            input: sum(self.input, other.input),
            output: sum(self.output, other.output),
            cache_read: sum(self.cache_read, other.cache_read),
            cache_write: sum(self.cache_write, other.cache_write),
            reasoning: sum(self.reasoning, other.reasoning),
        }
    }
}
