//! What is known of an engine: the type of a row of the table.

use crate::llm::api::spec::ApiSpec;
use crate::trace::SamplerArray;
use crate::wire::json_strip::Change;

/// One engine: the software that samples.
#[derive(Debug)]
pub(crate) struct EngineSpec {
    /// The name in settings, such as `llama.cpp`.
    pub name: &'static str,
    /// The provider's name (`gen_ai.provider.name`).
    pub provider: &'static str,
    /// What `owned_by` of its models may be, in its list of models. Empty: the list does not tell it.
    pub owners: &'static [&'static str],
    /// Fields of a response that only this engine sends.
    pub marks: &'static [Mark],
    /// Where its responses and events say the version of the weights: names of fields, one within the other. `choices`
    /// stands for each of them.
    pub weight_versions: &'static [&'static [&'static str]],
    /// APIs that it serves.
    pub apis: &'static [&'static ApiSpec],
    /// How token ids are requested from it, by API. Empty: it returns none.
    pub token_ids: &'static [TokenIdRequest],
    /// How a backend's key is sent to it.
    pub credential: Credential,
    /// A header field by which its router keeps calls with the same value at one worker, for its prefix cache.
    pub affinity_header: Option<&'static str>,
    /// The fields of a chat request that it takes, if it rejects all others.
    pub chat_fields: Option<&'static [&'static str]>,
    /// How it counts the tokens of a prompt. `None`: it does not.
    pub token_counter: Option<TokenCounter>,
}

/// What most engines have.
pub(crate) const COMMON: EngineSpec = EngineSpec {
    name: "",
    provider: "",
    owners: &[],
    marks: &[],
    weight_versions: &[],
    apis: &[],
    token_ids: &[],
    credential: Credential::Bearer,
    affinity_header: None,
    chat_fields: None,
    token_counter: None,
};

/// A field of a response of OpenAI's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// A field of the body, or of an event.
    Root(&'static str),
    /// A field of the first choice.
    Choice(&'static str),
    /// A field of the body, or of an event, with this text.
    RootText(&'static str, &'static str),
}

/// How a key is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Credential {
    /// As `Authorization: Bearer KEY` (RFC 6750).
    Bearer,
    /// Alone in the header field of this name.
    Header(&'static str),
}

/// How an engine counts the tokens of a prompt in Anthropic's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenCounter {
    /// It has `count_tokens` of Anthropic's API.
    CountTokens,
    /// It has an endpoint of its own, which takes the messages of a chat request.
    Tokenizer(Tokenizer),
}

/// An endpoint that counts a prompt's tokens, beside the base path of the API (not below its `/v1`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tokenizer {
    /// The endpoint's path, with a leading slash.
    pub path: &'static str,
    /// Fields of a chat request that it takes, beside `model`.
    pub fields: &'static [&'static str],
    /// The field of its response with the number.
    pub count: &'static str,
}

/// How token ids are requested at one API, and what the response has only because of that.
#[derive(Debug)]
pub(crate) struct TokenIdRequest {
    /// The API at which token ids are requested in this way.
    pub api: &'static ApiSpec,
    /// Fields that are added to the body of a request.
    pub fields: &'static [AddedField],
    /// Fields that are added to its header.
    pub headers: &'static [(&'static str, &'static str)],
    /// What is taken out of the response.
    pub strip: &'static [StripRule],
    /// The further arrays that it can return.
    pub arrays: &'static [ArrayRequest],
    /// Requests that must not be changed at all.
    pub not_for: &'static [Combination],
}

/// How one of the arrays is requested, where a setting wants it.
#[derive(Debug)]
pub(crate) struct ArrayRequest {
    /// The array that the fields request.
    pub array: SamplerArray,
    /// Fields that are added to the body of a request. Empty: an option of the server decides.
    pub fields: &'static [AddedField],
    /// What is taken out of the response, whether the fields were added or not.
    pub strip: &'static [StripRule],
}

/// A field that is added to the body of a request.
#[derive(Debug)]
pub(crate) struct AddedField {
    /// The name of a top-level field of the request.
    pub name: &'static str,
    /// The field's value as JSON text.
    pub value: &'static str,
    /// What the response has because of the field.
    pub purpose: Purpose,
    /// Requests that it must not be added to.
    pub not_for: &'static [Combination],
}

/// What a field requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The ids of the sampled tokens, of the prompt's, or both.
    Ids,
    /// Log-probabilities of the sampled tokens.
    Logprobs,
    /// Details of the logprobs; alone it has no effect.
    LogprobDetail,
    /// The number of tokens, with which the ids are compared.
    Usage,
    /// One of the arrays.
    Array,
}

impl AddedField {
    /// A field that requests token ids.
    pub(crate) const fn ids(name: &'static str, value: &'static str) -> Self {
        Self { name, value, purpose: Purpose::Ids, not_for: &[] }
    }

    /// A field that requests logprobs.
    pub(crate) const fn logprobs(name: &'static str, value: &'static str) -> Self {
        Self { name, value, purpose: Purpose::Logprobs, not_for: &[] }
    }

    /// A field that requests the usage at the end of a stream: ids that an engine left out show by it.
    pub(crate) const fn stream_usage() -> Self {
        let not_for = &[Combination::Off("stream")];
        Self { name: STREAM_OPTIONS, value: "{\"include_usage\":true}", purpose: Purpose::Usage, not_for }
    }

    /// A field that requests an array.
    pub(crate) const fn array(name: &'static str, value: &'static str) -> Self {
        Self { name, value, purpose: Purpose::Array, not_for: &[] }
    }

    /// A field with details of the logprobs.
    pub(crate) const fn logprob_detail(name: &'static str, value: &'static str) -> Self {
        Self { name, value, purpose: Purpose::LogprobDetail, not_for: &[] }
    }

    /// With requests that it must not be added to.
    pub(crate) const fn not_for(self, not_for: &'static [Combination]) -> Self {
        Self { not_for, ..self }
    }
}

/// A combination of the agent's fields with which the request for ids fails, or changes more than can be removed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Combination {
    /// The first field without the second: the agent's own mistake, which adding the second would hide.
    Without(&'static str, &'static str),
    /// The field is missing, null or false.
    Off(&'static str),
    /// The field has another value.
    On(&'static str),
    /// All these fields have a value other than null, false, 0 and 1.
    All(&'static [&'static str]),
    /// The field is a list with anything but numbers in it: several prompts, which are answered with a list.
    SeveralPrompts(&'static str),
}

/// A field that is removed from a response, unless the agent requested it itself.
#[derive(Debug)]
pub(crate) struct StripRule {
    /// Fields of a request by which an agent requests it. Empty: the header fields request it.
    pub requested_by: &'static [&'static str],
    /// The object in the response that has the field.
    pub place: Place,
    /// The field's name.
    pub name: &'static str,
    /// What happens to it: some engines send null for what was not requested, others leave the field out.
    pub change: Change,
}

/// Where a field of a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the body, in an event, or in the `response` that an event brings.
    Root,
    /// In every element of `choices`.
    Choice,
    /// In `generation_settings`, with which llama.cpp repeats what was asked.
    Settings,
    /// In the event at the end of a stream that has no choices. Without the field the event has no purpose.
    LastEvent,
}

/// A request for details of logprobs without the logprobs, which servers of chat completions answer with 400.
pub(super) const TOP_ALONE: &[Combination] = &[Combination::Without("top_logprobs", "logprobs")];

/// The field of a request with which a stream's usage is requested.
const STREAM_OPTIONS: &str = "stream_options";

/// The rule for what [`AddedField::stream_usage`] requests.
pub(crate) const USAGE_EVENT: StripRule =
    StripRule { requested_by: &[STREAM_OPTIONS], place: Place::LastEvent, name: "usage", change: Change::Remove };
