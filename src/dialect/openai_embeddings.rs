//! OpenAI's embeddings. Vectors are not kept: they are large, and nobody reads them.

use super::call::{LlmCall, Operation};
use super::{Asked, Dialect, parts};
use crate::wire::json::Json;

/// `…/embeddings`.
pub(super) struct Embeddings;

impl Dialect for Embeddings {
    fn name(&self) -> &'static str {
        "openai.embeddings"
    }

    fn claims(&self, asked: &Asked<'_>) -> bool {
        asked.ends("/embeddings") && !asked.body.get("input").is_null()
    }

    fn request(&self, asked: &Asked<'_>, call: &mut LlmCall) {
        call.operation = Operation::Embeddings;
        call.request = parts::parameters(asked.body);
        call.request.dimensions = asked.body.get("dimensions").int();
        call.request.encoding_formats = parts::texts(asked.body.get("encoding_format"));
    }

    fn answer(&self, body: &Json<'_>, call: &mut LlmCall) {
        parts::root(body, call);
    }

    fn event(&self, _: &str, _: &Json<'_>, _: &mut LlmCall) -> bool {
        false
    }
}
