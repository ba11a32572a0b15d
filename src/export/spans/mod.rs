//! Formats of recorded spans for other programs and for people: one file for each format, one trait, one table.
//!
//! A format turns one rollout into bytes, which do not depend on other rollouts. docs/exports.md describes the formats.

mod atif;
mod atif_steps;
mod borrowed_json;
mod chrome_trace;
mod conventions;
mod conversation_text;
mod csv;
mod difference;
mod difference_text;
mod eval;
mod eval_sample;
mod format;
mod har;
mod har_bodies;
mod html;
mod jaeger;
mod json;
mod markdown;
mod open_inference;
mod open_inference_messages;
mod otlp;
mod span_facts;
mod table;
mod transcript;
mod tree;
mod zip;
mod zipkin;

pub(crate) use conventions::AttributeConventions;
pub(crate) use conversation_text::{ConversationOptions, TextLength, conversations};
pub(crate) use difference::{Difference, TokenDifference};
pub(crate) use difference_text::{ComparedRollout, difference_text};
pub(crate) use format::{RecordedRollout, SpanFile, SpanFormat};
pub(crate) use table::ALL;
pub(crate) use tree::SpanTree;
