//! OpenAI's embeddings. Vectors are not kept: they are large, and nobody reads them.

use super::{ApiFormat, CallRequest, parts};
use crate::llm::call::{LlmCall, Operation};
use crate::wire::json::Json;

/// `…/embeddings`.
pub(super) struct Embeddings;

impl ApiFormat for Embeddings {
    fn name(&self) -> &'static str {
        "openai.embeddings"
    }

    fn claims(&self, asked: &CallRequest<'_>) -> bool {
        asked.ends("/embeddings") && !asked.body.get("input").is_null()
    }

    fn request(&self, asked: &CallRequest<'_>, call: &mut LlmCall) {
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
