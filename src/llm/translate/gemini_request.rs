//! Requests of Gemini's generateContent become requests of chat completions.
//!
//! Fields that can't be expressed are refused. The model's name is in the path: the caller adds it.

use super::chat_request::{
    ChatMessages, data_url, function, image_part, json_schema, named_function, stream_options, text_part,
};
use super::gemini_schema::schema;
use super::node::{NO_COUNTERPART, Node};
use super::source::GeminiPath;
use super::untranslatable::Untranslatable;
use crate::llm::json_object::{IntoJson, object, text_of};
use crate::wire::json::Json;

/// The known fields of a request. The last two are left out: the gateway does not filter answers, and labels are about
/// billing.
const FIELDS: &[&str] =
    &["contents", "generationConfig", "model", "systemInstruction", "toolConfig", "tools", "labels", "safetySettings"];

/// The known fields of `generationConfig`.
#[rustfmt::skip]
const CONFIG_FIELDS: &[&str] = &[
    "_responseJsonSchema", "candidateCount", "frequencyPenalty", "maxOutputTokens", "presencePenalty",
    "responseJsonSchema", "responseMimeType", "responseModalities", "responseSchema", "seed", "stopSequences",
    "temperature", "thinkingConfig", "topK", "topP",
];

/// Translates a request. Its path says whether the response is a stream.
pub(super) fn to_chat<'a>(root: &Node<'a>, path: GeminiPath) -> Result<Json<'a>, Untranslatable> {
    let streams = path.streams;
    root.only(FIELDS)?;
    let config = root.get("generationConfig");
    config.only(CONFIG_FIELDS)?;
    check(&config)?;
    let mut messages = ChatMessages::default();
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
    let mut tools = Vec::new();
    for tool in root.get("tools").list()? {
        tool.only(&["functionDeclarations"])?;
        for declaration in tool.get("functionDeclarations").list()? {
            tools.push(declared(&declaration)?);
        }
    }
    let (enable_thinking, effort) = thinking(&config.get("thinkingConfig"))?;
    let model = root.get("model").word()?.map(|model| model.strip_prefix("models/").unwrap_or(model));
    Ok(object! {
        "model": model,
        "messages": messages.finish(),
        "tool_choice": tool_choice(&root.get("toolConfig"), &tools)?,
        "tools": tools,
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

/// Refuses parts with unknown fields.
fn check_part(part: &Node<'_>) -> Result<(), Untranslatable> {
    // The signature can't be checked here and is left out.
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
    let parameters =
        if json_schema.is_null() { schema(node.get("parameters").json()) } else { json_schema.json().clone() };
    Ok(function(node.get("name").text()?, node.get("description").json(), parameters, None::<bool>))
}

fn tool_choice<'a>(node: &Node<'a>, tools: &[Json<'_>]) -> Result<Json<'a>, Untranslatable> {
    node.only(&["functionCallingConfig"])?;
    let config = node.get("functionCallingConfig");
    config.only(&["mode", "allowedFunctionNames"])?;
    let (mode, allowed) = (config.get("mode"), config.get("allowedFunctionNames"));
    let names: Vec<&str> = allowed.list()?.iter().map(Node::text).collect::<Result<_, _>>()?;
    let all_allowed = || {
        let is_allowed =
            |tool: &Json<'_>| tool.at(&["function", "name"]).text().is_some_and(|name| names.contains(&name));
        tools.iter().all(is_allowed)
    };
    match (mode.word()?.unwrap_or("AUTO"), names.as_slice()) {
        ("NONE", _) => Ok("none".into_json()),
        ("AUTO" | "MODE_UNSPECIFIED", []) => Ok("auto".into_json()),
        ("ANY", []) => Ok("required".into_json()),
        ("ANY", [name]) => Ok(named_function(name)),
        ("ANY", _) if all_allowed() => Ok("required".into_json()),
        ("ANY" | "AUTO", _) => Err(allowed.refuse("chat completions can't allow only some of the functions")),
        (other, _) => Err(mode.refuse(format!("`{other}` {NO_COUNTERPART}"))),
    }
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
    let wanted = json_schemas.iter().find(|schema| !schema.is_null()).map(|schema| schema.json().clone());
    let wanted = wanted.or_else(|| (!schema_of_gemini.is_null()).then(|| schema(schema_of_gemini.json())));
    let kind = config.get("responseMimeType");
    match (kind.word()?, wanted) {
        (None | Some("application/json"), Some(schema)) => Ok(Some(json_schema("answer", None, schema, true))),
        (Some("application/json"), None) => Ok(Some(object! {"type": "json_object"})),
        (None | Some("text/plain"), None) => Ok(None),
        (Some(other), _) => Err(kind.refuse(format!("`{other}` {NO_COUNTERPART}"))),
    }
}

#[cfg(test)]
mod tests {
    use crate::llm::translate::SourceApi::Gemini;
    use crate::llm::translate::tests::{chat, refused_at};
    use serde_json::json;

    #[test]
    fn a_conversation_with_functions() {
        let request = json!({
            "system_instruction": {"parts": [{"text": "be"}, {"text": "kind"}]},
            "contents": [
                {"parts": [{"text": "hi"}, {"inline_data": {"mime_type": "image/png", "data": "AA=="}}]},
                {"role": "model", "parts": [{"text": "hm", "thought": true, "thoughtSignature": "s"}, {"text": "one "}]},
                {"role": "model", "parts": [
                    {"text": "moment"},
                    {"functionCall": {"name": "look", "args": {"at": "x"}}},
                    {"functionCall": {"name": "look"}},
                    {"functionCall": {"name": "hear", "id": "h"}},
                ]},
                {"role": "user", "parts": [
                    {"text": "and"},
                    {"functionResponse": {"name": "hear", "id": "h", "response": {"output": "la"}}},
                    {"functionResponse": {"name": "look", "response": {"output": 1}}},
                    {"functionResponse": {"name": "look", "id": "unknown", "response": {"output": 2}}},
                ]},
            ],
            "tools": [{"functionDeclarations": [
                {"name": "look", "description": "looks", "parameters": {"type": "OBJECT", "properties": {"at": {"type": "STRING"}}}},
                {"name": "hear", "parametersJsonSchema": {"type": "object"}},
            ]}],
            "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["look"]}},
            "generationConfig": {
                "temperature": 0.5, "topP": 0.9, "topK": 3, "maxOutputTokens": 9, "stopSequences": ["x"], "seed": 1,
                "candidateCount": 1, "responseMimeType": "application/json",
                "thinkingConfig": {"thinkingBudget": 0, "includeThoughts": true},
            },
            "safetySettings": [{"category": "c", "threshold": "BLOCK_NONE"}],
        });
        let call = |id: &str, name: &str, arguments: &str| {
            let function = json!({"name": name, "arguments": arguments});
            json!({"id": id, "type": "function", "function": function})
        };
        let expected = json!({
            "messages": [
                {"role": "system", "content": "be\nkind"},
                {"role": "user", "content": [
                    {"type": "text", "text": "hi"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                ]},
                {
                    "role": "assistant",
                    "content": "one moment",
                    "reasoning_content": "hm",
                    "tool_calls": [
                        call("call_0", "look", r#"{"at":"x"}"#), call("call_1", "look", "{}"), call("h", "hear", "{}"),
                    ],
                },
                {"role": "tool", "tool_call_id": "h", "content": r#"{"output":"la"}"#},
                {"role": "tool", "tool_call_id": "call_0", "content": r#"{"output":1}"#},
                {"role": "tool", "tool_call_id": "call_1", "content": r#"{"output":2}"#},
                {"role": "user", "content": "and"},
            ],
            "tools": [
                {"type": "function", "function": {
                    "name": "look",
                    "description": "looks",
                    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
                }},
                {"type": "function", "function": {"name": "hear", "parameters": {"type": "object"}}},
            ],
            "tool_choice": {"type": "function", "function": {"name": "look"}},
            "max_tokens": 9,
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 3,
            "stop": ["x"],
            "seed": 1,
            "chat_template_kwargs": {"enable_thinking": false},
            "response_format": {"type": "json_object"},
        });
        assert_eq!(chat(Gemini, &request.to_string()), expected);
    }

    #[test]
    fn fields_without_counterpart_are_refused_with_their_place() {
        let user = |part: serde_json::Value| json!({"contents": [{"role": "user", "parts": [part]}]});
        let model = |part: serde_json::Value| json!({"contents": [{"role": "model", "parts": [part]}]});
        let config = |field: serde_json::Value| json!({"generationConfig": field});
        for (request, place) in [
            (json!({"cachedContent": "c"}), "cachedContent"),
            (user(json!({"executableCode": {}})), "contents[0].parts[0].executableCode"),
            (user(json!({"inlineData": {"mimeType": "audio/wav", "data": ""}})), "contents[0].parts[0].inlineData"),
            (
                user(json!({"file_data": {"mime_type": "image/png", "file_uri": "gs://b/x"}})),
                "contents[0].parts[0].file_data.file_uri",
            ),
            (user(json!({"functionResponse": {"name": "f", "response": {}}})), "contents[0].parts[0].functionResponse"),
            (model(json!({"inlineData": {"mimeType": "image/png"}})), "contents[0].parts[0].inlineData"),
            (json!({"contents": [{"role": "system"}]}), "contents[0].role"),
            (json!({"tools": [{"googleSearch": {}}]}), "tools[0].googleSearch"),
            (
                json!({"toolConfig": {"functionCallingConfig": {"mode": "VALIDATED"}}}),
                "toolConfig.functionCallingConfig.mode",
            ),
            (config(json!({"candidateCount": 2})), "generationConfig.candidateCount"),
            (config(json!({"responseModalities": ["IMAGE"]})), "generationConfig.responseModalities[0]"),
            (config(json!({"responseMimeType": "text/x.enum"})), "generationConfig.responseMimeType"),
            (config(json!({"responseLogprobs": true})), "generationConfig.responseLogprobs"),
        ] {
            assert_eq!(refused_at(Gemini, &request), place, "{request}");
        }
    }
}
