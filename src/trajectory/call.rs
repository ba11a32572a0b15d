//! An LLM call as trajectories need it: one sampled answer with its prompt, and what is known about both.

use crate::llm::clients::CallRole;
use crate::trace::Timestamp;
use serde::Serialize;
use std::sync::Arc;

/// One answer to one prompt. A call that returned several answers (`n > 1`) is several of these.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The span of the call.
    pub span_id: String,
    /// The id that the endpoint gave its response. `None` if it gave none.
    pub response_id: Option<String>,
    /// Position within the rollout, assigned when the request started.
    pub sequence_id: u64,
    /// Index of the answer among the answers of the call.
    pub choice: usize,
    /// The purpose of the call.
    pub role: CallRole,
    /// Digest of the tools of the request; 0 if it has none. Equal digests mean equal tools.
    pub tools: u64,
    /// Token ids of the prompt; empty if unknown.
    pub prompt: Arc<[u32]>,
    /// Token ids that were sampled; empty if unknown.
    pub sampled: Vec<u32>,
    /// Log-probability of each sampled token. `None` if they are missing or do not match the ids.
    pub logprobs: Option<Vec<f32>>,
    /// Which weights sampled from which token on, by first token. Empty if unknown.
    pub versions: Vec<VersionStart>,
    /// The sampling temperature, if the request named one.
    pub temperature: Option<f64>,
    /// Routed experts of the call's tokens, in base64 as they were recorded.
    pub routed_experts: Option<String>,
    /// Lengths of the dimensions of the routed experts: tokens, layers, experts.
    pub routed_experts_shape: Vec<i64>,
    /// numpy's name of their type, such as `uint8`.
    pub routed_experts_dtype: Option<String>,
    /// The ids that each token was sampled from: how many for each token, and all of them, one token after the other.
    pub sampling_mask: Option<(Vec<u32>, Vec<u32>)>,
    /// Why the call is not trained by default. `None`: it is.
    pub exclusion: Option<Exclusion>,
    /// True if a tokenizer made some of the ids from the messages: the engine may have had others.
    pub is_retokenized: bool,
    /// What a tokenizer found to be wrong with the ids. `None` if there was none, or it found nothing.
    pub token_issue: Option<String>,
    /// `stop`, `length`, `tool_calls` …
    pub finish_reason: Option<String>,
    /// The model that the agent named.
    pub model: Option<String>,
    /// Messages and tools as JSON, for diagnosis and for exports of messages.
    pub content: CallContent,
    /// Start of the request.
    pub start_time: Option<Timestamp>,
    /// End of the response.
    pub end_time: Option<Timestamp>,
    /// Span id of the parent.
    pub parent_span: Option<String>,
}

impl Call {
    /// Number of tokens of prompt and answer.
    pub fn len(&self) -> usize {
        self.prompt.len() + self.sampled.len()
    }

    /// True if neither a prompt nor an answer is known as ids.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The token at a position of prompt and answer together.
    pub(super) fn token(&self, at: usize) -> Option<u32> {
        self.prompt.get(at).or_else(|| self.sampled.get(at.checked_sub(self.prompt.len())?)).copied()
    }

    /// True if the prompt begins with prompt and answer of `earlier`.
    pub(super) fn continues(&self, earlier: &Self) -> bool {
        let Some((head, rest)) = self.prompt.split_at_checked(earlier.prompt.len()) else { return false };
        rest.starts_with(&earlier.sampled) && *head == *earlier.prompt
    }

    /// True if prompt and answer are known, so that the call has a place in the tree.
    pub(super) fn has_tokens(&self) -> bool {
        !self.prompt.is_empty() && !self.sampled.is_empty()
    }

    /// What a call and its continuation have in common: the tools, and the role if it is that of a side call. All other roles
    /// count as one: a compaction, for example, continues the conversation that it shortens.
    pub(super) fn lineage(&self) -> Lineage {
        (Some(self.role).filter(|role| is_side_call(*role)), self.tools)
    }
}

/// The role, if it is that of a side call, and the digest of the tools; see [`Call::lineage`].
pub(super) type Lineage = (Option<CallRole>, u64);

/// Messages and tools of a call as the span has them: JSON texts, empty if content was not recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallContent {
    /// System instructions that are not among the messages.
    pub system: Arc<str>,
    /// The messages of the request.
    pub input: Arc<str>,
    /// The messages of the response, one for each answer.
    pub output: Arc<str>,
    /// The definitions of the tools.
    pub tools: Arc<str>,
}

/// From which sampled token on a version of the weights was in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionStart {
    /// Index among the sampled tokens.
    pub at: usize,
    /// The version as the engine or the gateway names it.
    pub version: String,
}

/// True for calls beside the task, which the reward of the rollout says nothing about.
pub(super) fn is_side_call(role: CallRole) -> bool {
    matches!(role, CallRole::Title | CallRole::Probe | CallRole::Judge | CallRole::Warmup)
}

/// Why a call is not trained by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exclusion {
    /// The call failed: the span is an error, or there was no response.
    Failed,
    /// The agent disconnected before the end of the answer, or the engine aborted the sampling.
    Aborted,
    /// The same answer as another call: a retry that got the response of its first try.
    Retry,
    /// Ids of the prompt or of the answer are missing.
    NoTokenIds,
    /// The validation of the token ids found an issue that leaves them incomplete or contradictory.
    Unproved,
    /// The call does not work on the task: a title, a probe, a judgement or a warm-up.
    SideCall,
}

impl Exclusion {
    /// The word in exports and proofs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Retry => "retry",
            Self::NoTokenIds => "no_token_ids",
            Self::Unproved => "unproved",
            Self::SideCall => "side_call",
        }
    }
}
