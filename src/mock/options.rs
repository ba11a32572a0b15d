//! How the mock behaves unless a request says otherwise.

use std::time::Duration;

/// Delays and size of responses. A request overrides all but `vllm` with `x-mock-*` headers or query parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MockOptions {
    /// Delay before every response of the LLM routes.
    pub(crate) delay: Duration,
    /// Delay before every chunk of a streamed response except the first.
    pub(crate) chunk_delay: Duration,
    /// Number of content chunks of a streamed response, and of words of any response.
    pub(crate) chunks: usize,
    /// Include the token id fields in every response, null unless requested, as vLLM does.
    pub(crate) vllm: bool,
}

impl Default for MockOptions {
    fn default() -> Self {
        Self { delay: Duration::ZERO, chunk_delay: Duration::ZERO, chunks: 10, vllm: false }
    }
}
