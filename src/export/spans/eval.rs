//! A log of Inspect (`.eval`): a ZIP file with a sample for each rollout, their summaries, and a header.
//!
//! [`encoded`](SpanFormat::encoded) gives the summary of a sample and the sample, each as a line of JSON.

use super::eval_sample::{sample, summary};
use super::format::{Archive, Framing, RecordedRollout, SpanFormat};
use super::span_facts::rfc3339;
use super::transcript::Transcript;
use super::zip::ZipFile;
use crate::trace::{AttemptScope, Timestamp};
use serde_json::{Value as JsonValue, json};
use std::collections::BTreeMap;

/// `--format eval`
pub(super) struct Eval;

impl SpanFormat for Eval {
    fn name(&self) -> &'static str {
        "eval"
    }

    fn media_type(&self) -> &'static str {
        "application/zip"
    }

    fn framing(&self) -> Framing {
        Framing::NONE
    }

    fn archive(&self) -> Option<Box<dyn Archive>> {
        Some(Box::<EvalLog>::default())
    }

    fn scope(&self) -> AttemptScope {
        AttemptScope::Latest
    }

    fn encoded(&self, recorded: &RecordedRollout) -> serde_json::Result<Vec<u8>> {
        let transcript = Transcript::of(&recorded.spans);
        let Some(sample) = sample(recorded, &transcript) else { return Ok(Vec::new()) };
        let mut lines = serde_json::to_vec(&summary(&sample))?;
        lines.push(b'\n');
        serde_json::to_writer(&mut lines, &sample)?;
        Ok(lines)
    }
}

/// A log in progress. Its memory grows by some hundred bytes with each sample.
#[derive(Default)]
struct EvalLog {
    zip: ZipFile,
    /// The list of summaries, without its end.
    summaries: Vec<u8>,
    samples: u64,
    model: Option<String>,
    /// The first start and the last end, as text.
    times: Option<(String, String)>,
    usage: BTreeMap<String, BTreeMap<String, u64>>,
    scores: BTreeMap<String, Mean>,
}

#[derive(Default)]
struct Mean {
    sum: f64,
    values: u32,
}

impl Archive for EvalLog {
    fn add(&mut self, rollout: &[u8]) -> serde_json::Result<Vec<u8>> {
        let end = rollout.iter().position(|byte| *byte == b'\n').unwrap_or(rollout.len());
        let (line, sample) = rollout.split_at(end);
        let summary: JsonValue = serde_json::from_slice(line)?;
        self.count(&summary);
        self.summaries.push(if self.samples == 0 { b'[' } else { b',' });
        self.summaries.extend(line);
        self.samples += 1;
        // Ids come from agents: none leads out of the folder.
        let id = summary["id"].as_str().unwrap_or_default().replace(['/', '\\'], "_").replace("..", "__");
        let name = format!("samples/{id}_epoch_1.json");
        Ok(self.zip.entry(&name, sample.trim_ascii_start()))
    }

    fn finish(mut self: Box<Self>) -> serde_json::Result<Vec<u8>> {
        let header = self.header();
        if self.samples == 0 {
            self.summaries.push(b'[');
        }
        self.summaries.push(b']');
        let mut bytes = self.zip.entry("summaries.json", &self.summaries);
        bytes.extend(self.zip.entry("header.json", &serde_json::to_vec(&header)?));
        bytes.extend(self.zip.finish());
        Ok(bytes)
    }
}

impl EvalLog {
    /// Adds what the header says of all samples. It has at most [`MAX_NAMES`] models and scores.
    fn count(&mut self, summary: &JsonValue) {
        let text = |name: &str| summary[name].as_str().unwrap_or_default().to_owned();
        let (start, end) = (text("started_at"), text("completed_at"));
        // Times in this form are ordered as texts are.
        self.times = Some(match self.times.take() {
            Some((first, last)) => (first.min(start), last.max(end)),
            None => (start, end),
        });
        let fields = |name: &str| summary[name].as_object().into_iter().flatten();
        for (model, usage) in fields("model_usage") {
            self.model.get_or_insert_with(|| model.clone());
            if self.usage.len() < MAX_NAMES || self.usage.contains_key(model) {
                let sums = self.usage.entry(model.clone()).or_default();
                for (name, tokens) in usage.as_object().into_iter().flatten() {
                    let sum = sums.entry(name.clone()).or_default();
                    *sum = sum.saturating_add(tokens.as_u64().unwrap_or_default());
                }
            }
        }
        for (name, score) in fields("scores") {
            if let Some(value) = score["value"].as_f64()
                && (self.scores.len() < MAX_NAMES || self.scores.contains_key(name))
            {
                let mean = self.scores.entry(name.clone()).or_default();
                mean.sum += value;
                mean.values = mean.values.saturating_add(1);
            }
        }
    }

    fn header(&self) -> JsonValue {
        let epoch = || rfc3339(Timestamp::default());
        let (start, end) = self.times.clone().unwrap_or_else(|| (epoch(), epoch()));
        let scores = self.scores.iter().map(|(name, mean)| {
            let value = mean.sum / f64::from(mean.values.max(1));
            json!({ "name": name, "scorer": name, "scored_samples": mean.values,
                "metrics": { "mean": { "name": "mean", "value": value } } })
        });
        let scores: Vec<JsonValue> = scores.collect();
        json!({
            "version": 2,
            "status": "success",
            "eval": {
                "eval_id": "tracewire",
                "run_id": "tracewire",
                "created": start,
                "task": "rollouts",
                "task_id": "tracewire",
                "task_version": 0,
                "dataset": { "name": "tracewire", "samples": self.samples },
                "model": self.model.as_deref().unwrap_or("unknown"),
                "config": { "epochs": 1 },
                "packages": { "tracewire": env!("CARGO_PKG_VERSION") },
            },
            "plan": { "name": "recorded", "steps": [] },
            "results": { "total_samples": self.samples, "completed_samples": self.samples, "scores": scores },
            "stats": { "started_at": start, "completed_at": end, "model_usage": self.usage },
        })
    }
}

const MAX_NAMES: usize = 64;
