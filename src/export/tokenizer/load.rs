//! Reads a tokenizer and its chat template from a folder as Hugging Face's `save_pretrained` writes it.

use hf_chat_template::{ChatTemplate, Message, RenderInput, TokenField, TokenizerConfig};
use serde_json::Value as JsonValue;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

/// The tokenizer of a model, with its chat template.
pub(crate) struct ModelTokenizer {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    // The token that ends an answer.
    end: Option<u32>,
}

/// Why a folder is no tokenizer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenizerError {
    /// A file is missing, or can't be read.
    #[error("cannot read {path}: {cause}")]
    File {
        /// The file's path.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },
    /// A file is not what its name says.
    #[error("{path}: {cause}")]
    Content {
        /// The file's path.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
}

/// Why a call gets no ids.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error("the messages are not those of a chat: {0}")]
    Messages(#[from] serde_json::Error),
    #[error("the chat template rejects the messages: {0}")]
    Template(#[from] hf_chat_template::Error),
    #[error("the tokenizer rejects the text: {0}")]
    Text(tokenizers::Error),
}

impl ModelTokenizer {
    /// Reads `tokenizer.json`, `tokenizer_config.json` and, if there is one, `chat_template.jinja`.
    pub(crate) fn from_folder(folder: &Path) -> Result<Self, TokenizerError> {
        let text = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(|cause| TokenizerError::File { path, cause })
        };
        let wrong = |name: &str, cause: String| TokenizerError::Content { path: folder.join(name), cause };
        let tokenizer: Tokenizer =
            text(TOKENIZER)?.parse().map_err(|cause: tokenizers::Error| wrong(TOKENIZER, cause.to_string()))?;
        let config: TokenizerConfig =
            serde_json::from_str(&text(CONFIG)?).map_err(|cause| wrong(CONFIG, cause.to_string()))?;
        let template = match text(TEMPLATE) {
            Ok(source) => ChatTemplate::from_template_and_config(&source, &config)
                .map_err(|cause| wrong(TEMPLATE, cause.to_string())),
            Err(_) => ChatTemplate::from_tokenizer_config(&config).map_err(|cause| wrong(CONFIG, cause.to_string())),
        }?;
        let end = config.eos_token.as_ref().and_then(TokenField::as_str).and_then(|token| tokenizer.token_to_id(token));
        Ok(Self { tokenizer, template, end })
    }

    /// The ids of a prompt, and of the answer to it.
    pub(super) fn ids(
        &self,
        messages: &[JsonValue],
        answer: Option<&JsonValue>,
        tools: &JsonValue,
    ) -> Result<(Vec<u32>, Vec<u32>), ApplyError> {
        let prompt = self.rendered(messages, tools, TemplateEnd::Answer)?;
        let Some(answer) = answer else { return Ok((self.encoded(&prompt)?, Vec::new())) };
        let whole = self.rendered(&[messages, std::slice::from_ref(answer)].concat(), tools, TemplateEnd::Message)?;
        // Some templates write an answer of the history differently from how it is sampled.
        let sampled = match whole.strip_prefix(&prompt) {
            Some(sampled) => self.encoded(sampled)?,
            None => self.encoded(answer["content"].as_str().unwrap_or_default())?.into_iter().chain(self.end).collect(),
        };
        Ok((self.encoded(&prompt)?, self.up_to_end(sampled)))
    }

    fn rendered(&self, messages: &[JsonValue], tools: &JsonValue, end: TemplateEnd) -> Result<String, ApplyError> {
        let messages = messages.iter().cloned().map(|message| serde_json::from_value(with_arguments(message)));
        let input = RenderInput {
            messages: messages.collect::<Result<Vec<Message>, _>>()?,
            tools: tools.as_array().cloned().unwrap_or_default(),
            add_generation_prompt: end == TemplateEnd::Answer,
            ..RenderInput::default()
        };
        Ok(self.template.render(&input)?)
    }

    fn encoded(&self, text: &str) -> Result<Vec<u32>, ApplyError> {
        // The template writes the special tokens.
        Ok(self.tokenizer.encode_fast(text, false).map_err(ApplyError::Text)?.get_ids().to_vec())
    }

    /// Without what the template writes after the end of an answer, which no model samples.
    fn up_to_end(&self, mut sampled: Vec<u32>) -> Vec<u32> {
        if let Some(last) = sampled.iter().rposition(|id| Some(*id) == self.end) {
            sampled.truncate(last + 1);
        }
        sampled
    }

    /// The first id that the tokenizer does not know.
    pub(super) fn unknown_id(&self, ids: &[u32]) -> Option<u32> {
        ids.iter().copied().find(|id| self.tokenizer.id_to_token(*id).is_none())
    }

    /// The text of ids, with special tokens.
    pub(super) fn text(&self, ids: &[u32]) -> Option<String> {
        self.tokenizer.decode(ids, false).ok()
    }
}

/// What a rendered conversation ends with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TemplateEnd {
    /// The beginning of an answer.
    Answer,
    /// The last message.
    Message,
}

/// The message with the arguments of its tool calls as JSON, as templates expect them.
fn with_arguments(mut message: JsonValue) -> JsonValue {
    for call in message.get_mut("tool_calls").and_then(JsonValue::as_array_mut).into_iter().flatten() {
        let Some(arguments) = call.pointer_mut("/function/arguments") else { continue };
        if let Some(parsed) = arguments.as_str().and_then(|text| serde_json::from_str(text).ok()) {
            *arguments = parsed;
        }
    }
    message
}

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";
