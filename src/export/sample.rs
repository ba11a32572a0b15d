//! An attempt ready for export: its tree, its rows and its verdict.

use super::tokenizer::ModelTokenizer;
use crate::trace::{Attempt, Rollout, Span};
use crate::trajectory::{
    AttemptRecord, MergeMode, TrainingRow, Trajectory, Verdict, VerdictSettings, read, rows, verdict,
};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One attempt, as the shapes read it. An export drops it before it reads the next one, so that its memory does not grow with
/// the number of rollouts.
pub(crate) struct AttemptSample {
    pub(crate) rollout: Rollout,
    /// The attempt's id; empty if the rollout has none.
    pub(crate) attempt_id: String,
    pub(crate) record: AttemptRecord,
    pub(crate) tree: Trajectory,
    pub(crate) verdict: Verdict,
    pub(crate) rows: Vec<TrainingRow>,
}

/// How calls are merged to branches, what counts as sound, and what makes ids for calls without.
#[derive(Clone, Default)]
pub(crate) struct SampleOptions {
    pub(crate) mode: MergeMode,
    pub(crate) verdict: VerdictSettings,
    pub(crate) tokenizer: Option<Arc<ModelTokenizer>>,
}

impl AttemptSample {
    /// Makes the sample of an attempt from its spans. `attempt` is the store's record of it; `None` if there is none.
    pub(crate) fn of(rollout: Rollout, attempt: Option<&Attempt>, spans: &[Span], options: &SampleOptions) -> Self {
        let mut record = read(spans);
        let mut calls = std::mem::take(&mut record.calls);
        if let Some(tokenizer) = &options.tokenizer {
            tokenizer.apply(&mut calls);
        }
        let mut tree = Trajectory::build(calls, options.mode);
        if let Some(tokenizer) = &options.tokenizer {
            tokenizer.explain(&mut tree);
        }
        let verdict = verdict(attempt, spans, &record, &tree, &options.verdict);
        let rows = rows(&rollout, spans, &tree, &record.rewards, &verdict);
        let attempt_id = attempt.map(|attempt| attempt.attempt_id.to_string());
        let attempt_id = attempt_id.or_else(|| spans.first().map(|span| span.attempt_id.to_string()));
        Self { rollout, attempt_id: attempt_id.unwrap_or_default(), record, tree, verdict, rows }
    }

    /// Counts what is in the data and what is not.
    pub(crate) fn proof(&self) -> Proof {
        let mut proof = Proof { rollouts: 1, rows: self.rows.len(), calls: self.tree.calls.len(), ..Proof::default() };
        for (at, call) in self.tree.calls.iter().enumerate() {
            let trained = self.tree.trained_tokens(at);
            proof.sampled_tokens += call.sampled.len();
            proof.trained_tokens += trained;
            let missing = call.sampled.len() - trained;
            let reason = call.exclusion.map_or("realigned", |exclusion| exclusion.as_str());
            if missing > 0 || call.sampled.is_empty() {
                let entry = proof.missing.entry(reason).or_default();
                entry.tokens += missing;
                entry.calls += 1;
            }
        }
        proof
    }
}

/// The proof of an export: how many sampled tokens are known, how many of them are trained, and why the others are not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Proof {
    /// Rollouts that were read.
    pub(crate) rollouts: usize,
    /// Training rows, whatever the shape makes of them.
    pub(crate) rows: usize,
    /// Answers of LLM calls; a call with several answers counts as many times.
    pub(crate) calls: usize,
    /// Sampled tokens with known ids.
    pub(crate) sampled_tokens: usize,
    /// Those that are trained, each once.
    pub(crate) trained_tokens: usize,
    /// The others, by the mark of their call, or `realigned`. A call without ids counts with 0 tokens.
    pub(crate) missing: BTreeMap<&'static str, Missing>,
}

/// What is not trained for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Missing {
    pub(crate) calls: usize,
    pub(crate) tokens: usize,
}

impl Proof {
    /// Adds the counts of another attempt.
    pub(crate) fn add(&mut self, other: &Self) {
        self.rollouts += other.rollouts;
        self.rows += other.rows;
        self.calls += other.calls;
        self.sampled_tokens += other.sampled_tokens;
        self.trained_tokens += other.trained_tokens;
        for (reason, missing) in &other.missing {
            let entry = self.missing.entry(reason).or_default();
            entry.calls += missing.calls;
            entry.tokens += missing.tokens;
        }
    }
}
