//! A Hugging Face tokenizer beside the recorded calls: ids for calls without, a check of those that have some, and the text of
//! ids where two calls differ.
//!
//! What it makes is never told as exact: the engine may have sampled other ids for the same text.

mod apply;
mod load;

pub(crate) use load::ModelTokenizer;
