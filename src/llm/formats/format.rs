//! What the format of an API does: requests and responses in, an [`LlmCall`] out.

use crate::llm::api::endpoint::Streaming;
use crate::llm::call::LlmCall;
use crate::llm::operation::Operation;
use crate::wire::json::Json;
use http::HeaderMap;

/// A request of an API: its endpoint, and what was sent to it.
pub(crate) struct CallRequest<'a> {
    /// What the endpoint does.
    pub(crate) operation: Operation,
    /// Whether the endpoint streams.
    pub(crate) streaming: Streaming,
    /// The model that the path names, percent-decoded.
    pub(crate) model: Option<&'a str>,
    /// The header fields of the request.
    pub(crate) headers: &'a HeaderMap,
    /// The body; null if it is no JSON.
    pub(crate) body: &'a Json<'a>,
}

/// The format of an API. Everything it finds goes into the call; what is missing or odd is skipped.
pub(crate) trait ApiFormat: Sync {
    /// Reads a request. The call has the endpoint's operation already.
    fn request(&self, request: &CallRequest<'_>, call: &mut LlmCall);

    /// Reads a whole response.
    fn response(&self, body: &Json<'_>, call: &mut LlmCall);

    /// Reads one event of a streamed response. True when it advanced the answer.
    fn event(&self, name: &str, data: &Json<'_>, call: &mut LlmCall) -> bool;
}
