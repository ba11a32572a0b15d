//! Requests of Gemini's generateContent become requests of chat completions.
//!
//! What would change the answer and can't be expressed is refused. Other fields are left out, and named. The model's name is
//! in the path: the caller adds it.

use super::chat_request::{ChatMessages, data_url, function, image_part, json_schema, stream_options, text_part};
use super::gemini_schema::{lower_case_types, schema};
use super::node::{NO_COUNTERPART, Node};
use super::opaque::read_signature;
use super::options::TranslationOptions;
use super::source::GeminiPath;
use super::tools::{self, Choice};
use super::untranslatable::Untranslatable;
use crate::llm::json_object::{IntoJson, object, text_of};
use crate::wire::json::Json;

/// The fields of a request that are read, and behind them those that never have an effect: the gateway does not filter
/// answers, and labels are about billing.
const FIELDS: &[&str] =
    &["contents", "generationConfig", "model", "systemInstruction", "toolConfig", "tools", "labels", "safetySettings"];

/// The fields of `generationConfig` that are read.
#[rustfmt::skip]
const CONFIG_FIELDS: &[&str] = &[
    "_responseJsonSchema", "candidateCount", "frequencyPenalty", "maxOutputTokens", "presencePenalty",
    "responseJsonSchema", "responseMimeType", "responseModalities", "responseSchema", "seed", "stopSequences",
    "temperature", "thinkingConfig", "topK", "topP",
];

/// Translates a request. Its path says whether the response is a stream.
pub(super) fn to_chat<'a>(
    root: &Node<'a>,
    path: GeminiPath,
    options: TranslationOptions,
) -> Result<Json<'a>, Untranslatable> {
    let streams = path.streams;
    root.without(&["cachedContent"])?;
    root.only(FIELDS)?;
    let config = root.get("generationConfig");
    config.only(CONFIG_FIELDS)?;
    check(&config)?;
    let mut messages = ChatMessages::new(options.turns);
    let system = root.get("systemInstruction");
    if !system.is_null() {
        let texts: Result<Vec<&str>, _> =
            system.get("parts").list()?.iter().map(|part| part.get("text").text()).collect();
        messages.system(&texts?.join("\n"));
    }
    let mut calls = PendingCalls::default();
    for content in root.get("contents").list()? {
        content.only(&["role", "parts"])?;
        let (role, parts) = (content.get("role"), content.get("parts").list()?);
        match role.word()? {
            Some("model") => model(&parts, &mut messages, &mut calls)?,
            None | Some("user" | "function") => user(&parts, &mut messages, &mut calls)?,
            Some(other) => return Err(role.refuse(format!("`{other}` is no role of a content"))),
        }
    }
    let (choice, allowed) = tool_choice(&root.get("toolConfig"))?;
    let mut functions = Vec::new();
    for tool in root.get("tools").list()? {
        let declarations = tool.get("functionDeclarations");
        if declarations.is_null() {
            let kind = tool.json().fields().first().map_or("", |(name, _)| name);
            tools::of_server::<()>(&tool, kind, options.server_tools)?;
        }
        for declaration in declarations.list()? {
            if allowed.is_empty() || allowed.contains(&declaration.get("name").text()?) {
                functions.push(declared(&declaration)?);
            }
        }
    }
    let (enable_thinking, effort) = thinking(&config.get("thinkingConfig"))?;
    let model = root.get("model").word()?.map(|model| model.strip_prefix("models/").unwrap_or(model));
    Ok(object! {
        "model": model,
        "messages": messages.finish(),
        "tool_choice": tools::chosen(&root.get("toolConfig"), choice, &functions),
        "tools": functions,
        "max_tokens": config.get("maxOutputTokens").json(),
        "temperature": config.get("temperature").json(),
        "top_p": config.get("topP").json(),
        "top_k": config.get("topK").json(),
        "stop": config.get("stopSequences").json(),
        "seed": config.get("seed").json(),
        "presence_penalty": config.get("presencePenalty").json(),
        "frequency_penalty": config.get("frequencyPenalty").json(),
        "chat_template_kwargs": enable_thinking.map(|enabled| object! {"enable_thinking": enabled}),
        "reasoning_effort": effort,
        "response_format": response_format(&config)?,
        "stream": streams.then_some(true),
        "stream_options": streams.then(stream_options),
    })
}

/// Refuses several candidates, and answers other than text.
fn check(config: &Node<'_>) -> Result<(), Untranslatable> {
    let count = config.get("candidateCount");
    if !count.is_null() && count.json().int() != Some(1) {
        return Err(count.refuse("the gateway gives one candidate"));
    }
    for modality in config.get("responseModalities").list()? {
        if !modality.text()?.eq_ignore_ascii_case("text") {
            return Err(modality.refuse("the backend answers in text"));
        }
    }
    Ok(())
}

/// Function calls without a response, with their ids and names. Ids are optional in Gemini, but not in chat completions.
#[derive(Debug, Default)]
struct PendingCalls {
    calls: Vec<(String, String)>,
    // Calls so far, which number the ids that are made up.
    count: usize,
}

impl PendingCalls {
    /// Adds a call and gives its id, which is made up where it has none.
    fn add(&mut self, id: Option<&str>, name: &str) -> String {
        let id = id.filter(|id| !id.is_empty()).map_or_else(|| format!("call_{}", self.count), str::to_owned);
        self.count += 1;
        self.calls.push((id.clone(), name.to_owned()));
        id
    }

    /// Removes the call that a response belongs to, and gives its id: the call with this id, else the first of this
    /// function.
    fn remove(&mut self, id: Option<&str>, name: &str) -> Option<String> {
        let by_id = self.calls.iter().position(|(known, _)| Some(known.as_str()) == id);
        let at = by_id.or_else(|| self.calls.iter().position(|(_, known)| known == name))?;
        Some(self.calls.remove(at).0)
    }
}

/// Refuses parts of another kind.
fn check_part(part: &Node<'_>) -> Result<(), Untranslatable> {
    part.without(&["executableCode", "codeExecutionResult"])?;
    part.only(&["text", "thought", "thoughtSignature", "inlineData", "fileData", "functionCall", "functionResponse"])
}

fn model<'a>(
    parts: &[Node<'a>],
    messages: &mut ChatMessages<'a>,
    calls: &mut PendingCalls,
) -> Result<(), Untranslatable> {
    for part in parts {
        check_part(part)?;
        for name in ["inlineData", "fileData", "functionResponse"] {
            let other = part.get(name);
            if !other.is_null() {
                return Err(other.refuse("messages of the model have only text and calls in chat completions"));
            }
        }
        let call = part.get("functionCall");
        let text = part.get("text").word()?.unwrap_or_default();
        let assistant = messages.assistant();
        // A client that keeps reasoning sends it twice.
        let signed = part.get("thoughtSignature").json().text().and_then(read_signature);
        if let Some(signed) = signed.filter(|signed| !assistant.reasoning.ends_with(signed)) {
            assistant.reasoning.push_str(&signed);
        }
        if part.get("thought").flag() {
            assistant.reasoning.push_str(text);
        } else {
            assistant.text.push_str(text);
        }
        if !call.is_null() {
            call.only(&["id", "name", "args"])?;
            let (name, args) = (call.get("name").text()?, call.get("args"));
            let arguments = if args.is_null() { "{}".to_owned() } else { text_of(args.json()) };
            assistant.call(&calls.add(call.get("id").word()?, name), name, arguments);
        }
    }
    Ok(())
}

/// Responses of functions come first, as messages of their own, then the other parts as one message.
fn user<'a>(
    parts: &[Node<'a>],
    messages: &mut ChatMessages<'a>,
    calls: &mut PendingCalls,
) -> Result<(), Untranslatable> {
    let mut content = Vec::new();
    for part in parts {
        check_part(part)?;
        let (response, data, file) = (part.get("functionResponse"), part.get("inlineData"), part.get("fileData"));
        if !response.is_null() {
            response.only(&["id", "name", "response"])?;
            let name = response.get("name").text()?;
            let Some(id) = calls.remove(response.get("id").word()?, name) else {
                return Err(response.refuse(format!("no call of `{name}` waits for a response")));
            };
            messages.tool(id, text_of(response.get("response").json()).into_json());
        } else if !data.is_null() {
            data.only(&["mimeType", "data", "displayName"])?;
            content.push(image_part(data_url(image(&data)?, data.get("data").text()?), None));
        } else if !file.is_null() {
            file.only(&["mimeType", "fileUri", "displayName"])?;
            image(&file)?;
            let uri = file.get("fileUri");
            if !uri.text()?.starts_with("http") {
                return Err(uri.refuse("the backend can only fetch images over HTTP"));
            }
            content.push(image_part(uri.text()?, None));
        } else {
            let call = part.get("functionCall");
            if !call.is_null() {
                return Err(call.refuse("only the model calls functions"));
            }
            content.push(text_part(part.get("text").text()?));
        }
    }
    if !content.is_empty() {
        messages.user(content);
    }
    Ok(())
}

/// The media type of an image.
fn image<'a>(node: &Node<'a>) -> Result<&'a str, Untranslatable> {
    let media_type = node.get("mimeType").text()?;
    if media_type.starts_with("image/") {
        return Ok(media_type);
    }
    Err(node.refuse(format!("`{media_type}` {NO_COUNTERPART}")))
}

fn declared<'a>(node: &Node<'a>) -> Result<Json<'a>, Untranslatable> {
    node.only(&["name", "description", "parameters", "parametersJsonSchema"])?;
    let json_schema = node.get("parametersJsonSchema");
    let parameters = if json_schema.is_null() {
        schema(node.get("parameters").json())
    } else {
        lower_case_types(json_schema.json())
    };
    Ok(function(node.get("name").text()?, node.get("description").json(), parameters, None::<bool>))
}

/// The client's choice, and the functions that the model may call; none means all. Arguments are not checked against their
/// schemas, as `VALIDATED` demands.
fn tool_choice<'a>(node: &Node<'a>) -> Result<(Choice<'a>, Vec<&'a str>), Untranslatable> {
    node.only(&["functionCallingConfig"])?;
    let config = node.get("functionCallingConfig");
    config.only(&["mode", "allowedFunctionNames"])?;
    let mode = config.get("mode");
    let allowed = config.get("allowedFunctionNames").list()?;
    let names: Vec<&str> = allowed.iter().map(Node::text).collect::<Result<_, _>>()?;
    let choice = match (mode.word()?, names.as_slice()) {
        (None, _) if config.is_null() => Choice::Open,
        (Some("NONE"), _) => Choice::None,
        (Some("ANY"), [name]) => Choice::Function((*name).into()),
        (Some("ANY"), _) => Choice::Required,
        (Some("VALIDATED"), _) => {
            mode.leave_out();
            Choice::Auto
        }
        (None | Some("AUTO" | "MODE_UNSPECIFIED"), _) => Choice::Auto,
        (Some(other), _) => return Err(mode.refuse(format!("`{other}` {NO_COUNTERPART}"))),
    };
    Ok((choice, names))
}

/// True when the client asks for reasoning.
pub(super) fn includes_thoughts(request: &Json<'_>) -> bool {
    let config = request.any(&["generationConfig", "generation_config"]);
    let thinking = config.any(&["thinkingConfig", "thinking_config"]);
    thinking.any(&["includeThoughts", "include_thoughts"]).bool() == Some(true)
}

/// Whether reasoning is enabled, and its effort. A budget is an upper bound; only 0 has an effect.
fn thinking(node: &Node<'_>) -> Result<(Option<bool>, Option<String>), Untranslatable> {
    node.only(&["includeThoughts", "thinkingBudget", "thinkingLevel"])?;
    let enabled = (node.get("thinkingBudget").json().int() == Some(0)).then_some(false);
    let level = node.get("thinkingLevel").word()?.filter(|level| *level != "THINKING_LEVEL_UNSPECIFIED");
    Ok((enabled, level.map(str::to_lowercase)))
}

fn response_format<'a>(config: &Node<'a>) -> Result<Option<Json<'a>>, Untranslatable> {
    let json_schemas = [config.get("responseJsonSchema"), config.get("_responseJsonSchema")];
    let schema_of_gemini = config.get("responseSchema");
    let wanted = json_schemas.iter().find(|schema| !schema.is_null()).map(|schema| lower_case_types(schema.json()));
    let wanted = wanted.or_else(|| (!schema_of_gemini.is_null()).then(|| schema(schema_of_gemini.json())));
    let kind = config.get("responseMimeType");
    match (kind.word()?, wanted) {
        (None | Some("application/json"), Some(schema)) => Ok(Some(json_schema("answer", None, schema, true))),
        (Some("application/json"), None) => Ok(Some(object! {"type": "json_object"})),
        (None | Some("text/plain"), None) => Ok(None),
        (Some(other), _) => Err(kind.refuse(format!("`{other}` {NO_COUNTERPART}"))),
    }
}
