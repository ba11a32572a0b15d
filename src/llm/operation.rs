//! What an endpoint of an API does.

use http::Method;

/// The operation of a call. [`Self::as_str`] gives the value of `gen_ai.operation.name`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Operation {
    /// A chat: messages in, a message out.
    #[default]
    Chat,
    /// Gemini's operation for a chat, which the conventions name separately.
    GenerateContent,
    /// A text is continued.
    TextCompletion,
    /// Texts become vectors.
    Embeddings,
    /// A tool is called over MCP.
    ExecuteTool,
    /// The tokens of a prompt are counted; nothing is sampled. The conventions have no name for it.
    CountTokens,
    /// The models of an endpoint are listed. The conventions have no name for it.
    ListModels,
    /// A stored response is read or deleted. The conventions have no name for it.
    StoredResponse,
    /// Any other, such as MCP's other methods. The conventions have no name for it.
    Other,
}

impl Operation {
    /// The conventions' name; empty where they have none.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::GenerateContent => "generate_content",
            Self::TextCompletion => "text_completion",
            Self::Embeddings => "embeddings",
            Self::ExecuteTool => "execute_tool",
            Self::CountTokens | Self::ListModels | Self::StoredResponse | Self::Other => "",
        }
    }

    /// True for a method that its requests have. Some paths begin like those of other operations.
    pub(crate) fn takes(self, method: &Method) -> bool {
        match self {
            Self::ListModels => [Method::GET, Method::HEAD].contains(method),
            Self::StoredResponse => [Method::GET, Method::DELETE].contains(method),
            // Others are refused where they are read.
            _ => true,
        }
    }

    /// True when the model samples tokens.
    pub(crate) fn samples(self) -> bool {
        matches!(self, Self::Chat | Self::GenerateContent | Self::TextCompletion)
    }
}
