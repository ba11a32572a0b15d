//! OpenAI's embeddings. The vectors are not kept, because of their size.

use super::format::{ApiFormat, CallRequest};
use super::parts;
use crate::llm::call::LlmCall;
use crate::wire::json::Json;

/// The format of embeddings.
pub(crate) struct Embeddings;

impl ApiFormat for Embeddings {
    fn request(&self, request: &CallRequest<'_>, call: &mut LlmCall) {
        call.request = parts::parameters(request.body);
        call.request.dimensions = request.body.get("dimensions").int();
        call.request.encoding_formats = parts::texts(request.body.get("encoding_format"));
    }

    fn response(&self, body: &Json<'_>, call: &mut LlmCall) {
        parts::root(body, call);
    }

    fn event(&self, _: &str, _: &Json<'_>, _: &mut LlmCall) -> bool {
        false
    }
}
