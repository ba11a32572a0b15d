//! Parts that several formats share: fields of OpenAI's shape, content lists, tool definitions.

use crate::llm::call::{LlmCall, Parameters, UnreadPart};
use crate::llm::message::{Message, Modality, Part, arguments_of_text};
use crate::llm::token_ids::tokens::Tokens;
use crate::llm::usage::Usage;
use crate::trace::SamplerArray;
use crate::wire::json::Json;
use crate::wire::json_value::Packed;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Reads the parameters of a request, by the names that most APIs have for them.
pub(super) fn parameters(body: &Json<'_>) -> Parameters {
    Parameters {
        model: body.get("model").word(),
        stream: body.get("stream").bool() == Some(true),
        temperature: body.get("temperature").float(),
        top_p: body.get("top_p").float(),
        top_k: body.get("top_k").float(),
        frequency_penalty: body.get("frequency_penalty").float(),
        presence_penalty: body.get("presence_penalty").float(),
        seed: body.get("seed").int(),
        sampling: sampling(body),
        max_tokens: body.any(&["max_completion_tokens", "max_output_tokens", "max_tokens"]).int(),
        stop: texts(body.any(&["stop", "stop_sequences"])),
        choice_count: body.get("n").int().filter(|count| *count != 1),
        output_type: match body.any(&["response_format", "text"]).any(&["type", "format"]) {
            Json::Text(kind) => output_type(kind),
            format => format.get("type").text().and_then(output_type),
        },
        first_expert_row: body.any(&["routed_experts_prompt_start", "routed_experts_start_len"]).int(),
        reasoning_level: body.get("reasoning_effort").word().or_else(|| body.at(&["reasoning", "effort"]).word()),
        wants_logprobs: ["logprobs", "return_logprob", "n_probs"].iter().any(|name| {
            let value = body.get(name);
            value.bool() == Some(true) || value.int().is_some_and(|count| count > 0)
        }),
        wants_token_ids: ["return_token_ids", "return_tokens", "return_output_ids"]
            .iter()
            .any(|name| body.get(name).bool() == Some(true)),
        ..Parameters::default()
    }
}

/// The numbers and flags of an object that the sampling depends on.
pub(super) fn sampling(object: &Json<'_>) -> BTreeMap<&'static str, serde_json::Value> {
    let value = |name: &'static str| {
        let json = object.get(name);
        let flag = json.bool().map(serde_json::Value::from);
        let number = || json.int().map(serde_json::Value::from);
        let value = flag.or_else(number).or_else(|| Some(serde_json::Number::from_f64(json.float()?)?.into()))?;
        Some((name, value))
    };
    SAMPLING.iter().filter_map(|name| value(name)).collect()
}

/// Sampling parameters of OpenAI, Anthropic, vLLM, SGLang and llama.cpp.
#[rustfmt::skip]
const SAMPLING: &[&str] = &[
    "temperature", "top_p", "top_k", "min_p", "top_a", "typical_p", "repetition_penalty", "repeat_penalty", "repeat_last_n",
    "presence_penalty", "frequency_penalty", "min_tokens", "max_tokens", "max_completion_tokens", "max_output_tokens",
    "max_new_tokens", "min_new_tokens", "n_predict", "seed", "ignore_eos", "dynatemp_range", "dynatemp_exponent",
    "xtc_probability", "xtc_threshold", "mirostat", "mirostat_tau", "mirostat_eta", "dry_multiplier", "dry_base",
];

fn output_type(kind: &str) -> Option<&'static str> {
    match kind {
        "text" => Some("text"),
        "json_object" | "json_schema" | "json" => Some("json"),
        _ => None,
    }
}

/// A text, or the texts of a list.
pub(super) fn texts(json: &Json<'_>) -> Vec<String> {
    match json {
        Json::Text(text) => vec![text.clone().into_owned()],
        _ => json.list().iter().filter_map(Json::text).map(str::to_owned).collect(),
    }
}

/// Reads the fields that every response of OpenAI's shape has at its root.
pub(super) fn root(body: &Json<'_>, call: &mut LlmCall) {
    call.response_id = body.get("id").word().or(call.response_id.take());
    call.response_model = body.get("model").word().or(call.response_model.take());
    for (field, name) in
        [("service_tier", "openai.response.service_tier"), ("system_fingerprint", "openai.response.system_fingerprint")]
    {
        if let Some(value) = body.get(field).word()
            && call.extras.iter().all(|(known, _)| *known != name)
        {
            call.extras.push((name, value));
        }
    }
    call.usage.update(usage(body.get("usage")));
    call.prompt_ids_once(body.any(&["prompt_token_ids"]));
}

/// The choices of a response with their index, or with their position where they have none. Two with the same index are
/// noted on the call.
pub(super) fn choices<'a, 'b>(body: &'b Json<'a>, call: &mut LlmCall) -> Vec<(i64, &'b Json<'a>)> {
    let places = (0..).zip(body.get("choices").list());
    let list: Vec<(i64, &Json<'_>)> =
        places.map(|(place, choice)| (choice.get("index").int().unwrap_or(place), choice)).collect();
    let mut indexes: Vec<i64> = list.iter().map(|(index, _)| *index).collect();
    indexes.sort_unstable();
    if indexes.windows(2).any(|pair| pair[0] == pair[1]) {
        call.mark_unread(UnreadPart::ChoiceIndex);
    }
    list
}

/// Reads the arrays that come beside the ids of a choice: in it, or in its `meta_info`.
pub(super) fn sampler_arrays(choice: &Json<'_>, into: &mut Tokens) {
    for place in [choice, choice.get("meta_info")] {
        into.push_array(SamplerArray::RoutedExperts, place.get("routed_experts"));
        into.push_array(SamplerArray::SamplingMask, place.any(&["sampling_mask", "output_token_sampling_mask"]));
    }
}

/// Reads `usage`, in the shape of chat completions or of responses.
pub(super) fn usage(usage: &Json<'_>) -> Usage {
    let details = |names: [&str; 2], field: &str| usage.any(&names).get(field).int();
    Usage {
        input: usage.any(&["prompt_tokens", "input_tokens"]).int(),
        output: usage.any(&["completion_tokens", "output_tokens"]).int(),
        cache_read: details(["prompt_tokens_details", "input_tokens_details"], "cached_tokens")
            .or_else(|| usage.get("prompt_cache_hit_tokens").int()),
        cache_write: None,
        reasoning: details(["completion_tokens_details", "output_tokens_details"], "reasoning_tokens"),
    }
}

impl LlmCall {
    /// Reads the prompt's ids, unless they were read: some endpoints repeat them in each event.
    pub(super) fn prompt_ids_once(&mut self, ids: &Json<'_>) {
        if self.prompt_ids.ids.is_none() {
            self.prompt_ids.push_ids(ids);
        }
    }
}

/// The content of a message in OpenAI's, Anthropic's or Cohere's shape: a text, or a list of typed parts.
pub(super) fn content(content: &Json<'_>) -> Vec<Part> {
    match content {
        Json::Text(text) if text.is_empty() => Vec::new(),
        Json::Text(text) => vec![Part::text(text.clone())],
        Json::List(elements) => elements.iter().map(part).collect(),
        Json::Null => Vec::new(),
        other => vec![part(other)],
    }
}

fn part(json: &Json<'_>) -> Part {
    let other = || Part::Other(json.clone().into_owned());
    let text = |name: &str| json.get(name).text().map(str::to_owned);
    match json.get("type").text().unwrap_or_default() {
        "text" | "input_text" | "output_text" | "refusal" | "summary_text" => {
            json.any(&["text", "refusal"]).text().map_or_else(other, Part::text)
        }
        "thinking" => text("thinking").map_or_else(other, |content| Part::Reasoning { content }),
        "image_url" | "input_image" => {
            let url = json.get("image_url");
            match (url.text().or_else(|| url.get("url").text()), text("file_id")) {
                (Some(url), _) => Part::at_url(Modality::Image, url),
                (None, Some(file_id)) => Part::File { mime_type: None, modality: Modality::Image, file_id },
                (None, None) => other(),
            }
        }
        "input_audio" => {
            let audio = json.get("input_audio");
            let mime_type = audio.get("format").text().map(|format| format!("audio/{format}"));
            let content = audio.get("data").text().unwrap_or_default().to_owned();
            Part::Blob { mime_type, modality: Modality::Audio, content }
        }
        kind @ ("image" | "document") => {
            let modality = if kind == "image" { Modality::Image } else { Modality::Document };
            let source = json.get("source");
            let mime_type = source.get("media_type").word();
            match (source.get("data").word(), source.get("url").word(), source.get("file_id").word()) {
                (Some(content), ..) if source.get("type").text() == Some("base64") => {
                    Part::Blob { mime_type, modality, content }
                }
                (_, Some(uri), _) => Part::Uri { mime_type, modality, uri },
                (_, _, Some(file_id)) => Part::File { mime_type, modality, file_id },
                _ => other(),
            }
        }
        "file" | "input_file" => {
            let file = if json.get("file").is_null() { json } else { json.get("file") };
            match (file.get("file_id").word(), file.get("file_data").text()) {
                (Some(file_id), _) => Part::File { mime_type: None, modality: Modality::Document, file_id },
                (None, Some(data)) => Part::at_url(Modality::Document, data),
                (None, None) => other(),
            }
        }
        "tool_use" => Part::ToolCall {
            id: text("id"),
            name: text("name").unwrap_or_default(),
            arguments: json.get("input").clone().into_owned(),
        },
        "tool_result" => Part::ToolCallResponse { id: text("tool_use_id"), response: flat(json.get("content")) },
        _ => other(),
    }
}

/// The result of a tool: its text, if it is a single text part, else all of it.
pub(super) fn flat(content: &Json<'_>) -> Json<'static> {
    match content.list() {
        [one] if one.get("type").text() == Some("text") => one.get("text").clone().into_owned(),
        _ => content.clone().into_owned(),
    }
}

/// A message in the shape of OpenAI's chat.
pub(super) fn chat_message(json: &Json<'_>) -> Message {
    let role = json.get("role").text().unwrap_or_default();
    let mut parts = Vec::new();
    if let Some(reasoning) = json.any(&["reasoning_content", "reasoning"]).word() {
        parts.push(Part::Reasoning { content: reasoning });
    }
    if role == "tool" || role == "function" {
        parts.push(Part::ToolCallResponse { id: json.get("tool_call_id").word(), response: flat(json.get("content")) });
    } else {
        parts.extend(content(json.get("content")));
        if let Some(refusal) = json.get("refusal").word() {
            parts.push(Part::text(refusal));
        }
    }
    for call in json.get("tool_calls").list() {
        parts.push(tool_call(call));
    }
    let function = json.get("function_call");
    if !function.is_null() {
        parts.push(tool_call(json));
    }
    Message { role: role.to_owned(), parts, name: json.get("name").word(), finish_reason: None }
}

/// A tool call in the shape of OpenAI's chat. Its arguments are a text; some endpoints send an object.
pub(super) fn tool_call(json: &Json<'_>) -> Part {
    let function = json.any(&["function", "function_call", "custom"]);
    let arguments = match function.any(&["arguments", "input"]) {
        Json::Text(text) => arguments_of_text(text),
        other => other.clone().into_owned(),
    };
    Part::ToolCall { id: json.get("id").word(), name: function.get("name").word().unwrap_or_default(), arguments }
}

/// Tool definitions, in the conventions' shape.
pub(super) fn tools(list: &Json<'_>) -> Vec<Json<'static>> {
    list.list().iter().map(tool).collect()
}

fn tool(json: &Json<'_>) -> Json<'static> {
    let function = if json.get("function").is_null() { json } else { json.get("function") };
    let name = function.get("name");
    if name.is_null() {
        return json.clone().into_owned();
    }
    let mut fields = vec![
        (Cow::Borrowed("type"), Json::Text(Cow::Borrowed("function"))),
        (Cow::Borrowed("name"), name.clone().into_owned()),
    ];
    for (field, names) in [
        ("description", &["description"] as &[&str]),
        ("parameters", &["parameters", "input_schema", "parametersJsonSchema"]),
    ] {
        let value = function.any(names);
        if !value.is_null() {
            fields.push((Cow::Borrowed(field), value.clone().into_owned()));
        }
    }
    Json::Object(fields)
}

/// Where the id of a token is in its row.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// In a field of an object.
    Field(&'static str),
    /// At a position of a list.
    Position(usize),
}

/// The ids in a list of rows, such as `[{id, logprob}]`.
pub(super) fn ids_in(rows: &Json<'_>, place: Place) -> Json<'static> {
    let ids = if let Json::Packed(Packed::Table(table)) = rows {
        let column = match place {
            Place::Field(name) => table.column(name),
            Place::Position(at) => table.position(at),
        };
        let value = |row| column.map(|column| column.get(row)).unwrap_or_default();
        // A table keeps whole numbers as doubles.
        (0..table.rows()).map(value).map(|id| id.int().map_or(id, Json::Int)).collect()
    } else {
        let value = |row: &Json<'_>| match place {
            Place::Field(name) => row.get(name).clone().into_owned(),
            Place::Position(at) => row.list().get(at).cloned().unwrap_or_default().into_owned(),
        };
        rows.list().iter().map(value).collect()
    };
    Json::List(ids)
}

/// Whether the texts of tokens may be `token_id:NUMBER`, by which a server names their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenNames {
    /// They may; no other ids were sent.
    AreIds,
    /// They are texts; the ids were sent elsewhere, or none are expected.
    AreTexts,
}

impl TokenNames {
    /// How tokens are read beside a list of ids: names count only where that is null.
    pub(super) fn beside(ids: &Json<'_>) -> Self {
        if ids.is_null() { Self::AreIds } else { Self::AreTexts }
    }
}
