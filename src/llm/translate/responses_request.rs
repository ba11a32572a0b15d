//! Requests of OpenAI responses become requests of chat completions.
//!
//! What would change the answer and can't be expressed is refused. Other fields are left out, and named.

use super::chat_request::{ChatMessages, content, image_part, json_schema, stream_options, text_part};
use super::node::{NO_COUNTERPART, Node};
use super::opaque::read_opaque;
use super::options::TranslationOptions;
use super::responses_tools::{ToolNames, Tools};
use super::tools;
use super::untranslatable::Untranslatable;
use crate::llm::json_object::object;
use crate::wire::json::Json;

/// The fields that are read, and behind them those that never have an effect: they are about storage, billing, routing,
/// caching and usage.
#[rustfmt::skip]
const FIELDS: &[&str] = &[
    "background", "generate", "input", "instructions", "max_output_tokens", "model", "parallel_tool_calls", "previous_response_id",
    "reasoning", "stream", "temperature", "text", "tool_choice", "tools", "top_p", "user",
    "client_metadata", "include", "metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier",
    "service_tier", "store", "stream_options",
];

/// Translates a request, which has the conversation that it continues in its input. Also gives the names of its tools, which responses need.
pub(super) fn to_chat<'a>(
    root: &Node<'a>,
    options: TranslationOptions,
) -> Result<(Json<'a>, ToolNames), Untranslatable> {
    check(root)?;
    root.only(FIELDS)?;
    let mut messages = ChatMessages::new(options.turns);
    let mut all_tools = Tools::new(options.server_tools);
    all_tools.add(&root.get("tools"))?;
    messages.system(root.get("instructions").word()?.unwrap_or_default());
    let input = root.get("input");
    match input.json().text() {
        Some(text) => messages.user(vec![text_part(text)]),
        None => input.list()?.iter().try_for_each(|node| item(node, &mut messages, &mut all_tools))?,
    }
    let reasoning = root.get("reasoning");
    reasoning.only(&["effort", "summary", "generate_summary"])?;
    let text = root.get("text");
    text.only(&["format", "verbosity"])?;
    let streams = root.get("stream").flag();
    let choice = root.get("tool_choice");
    let chosen = tools::chosen(&choice, all_tools.choice(&choice)?, all_tools.functions());
    let (functions, names) = all_tools.finish();
    let chat = object! {
        "model": root.get("model").json(),
        "messages": messages.finish(),
        "tools": functions,
        "tool_choice": chosen,
        "parallel_tool_calls": root.get("parallel_tool_calls").json(),
        "max_tokens": if is_warmup(root) { &WARMUP_TOKENS } else { root.get("max_output_tokens").json() },
        "temperature": root.get("temperature").json(),
        "top_p": root.get("top_p").json(),
        "reasoning_effort": reasoning.get("effort").json(),
        "verbosity": text.get("verbosity").json(),
        "response_format": response_format(&text.get("format"))?,
        "user": root.get("user").json(),
        "stream": streams.then_some(true),
        "stream_options": streams.then(stream_options),
    };
    Ok((chat, names))
}

/// True for a request of which only the prompt is to be read (`generate: false`), so that a later one is answered sooner.
pub(super) fn is_warmup(root: &Node<'_>) -> bool {
    root.get("generate").json().bool() == Some(false)
}

/// True for a request for a summary that takes the place of the conversation. The client gets it as one opaque item.
pub(super) fn is_compaction(root: &Node<'_>) -> bool {
    let is_trigger = |item: &Json<'_>| item.get("type").text() == Some("compaction_trigger");
    // One that is not the last item was answered before.
    root.get("input").json().list().last().is_some_and(is_trigger)
}

/// The prompt for models that do not know the trigger.
const COMPACTION_PROMPT: &str = "This is a context checkpoint compaction. Write a summary of the conversation so far for \
    another model that goes on with the task: what is done, what was decided and why, what remains to be done, and every \
    fact that is needed for it. Answer with the summary only, and call no tools.";

/// What stands in front of such a summary in the conversation that goes on.
const SUMMARY_PREFIX: &str = "The conversation before was replaced by this summary of it:\n";

/// What is sampled all the same, since chat completions can't sample nothing. The client does not get it.
const WARMUP_TOKENS: Json<'static> = Json::Int(1);

/// Refuses fields that need a server which stores conversations or prompts, or responds later.
fn check(root: &Node<'_>) -> Result<(), Untranslatable> {
    root.without(&["conversation", "prompt"])?;
    let background = root.get("background");
    if background.flag() {
        return Err(background.refuse("the gateway responds at once only"));
    }
    Ok(())
}

fn item<'a>(node: &Node<'a>, messages: &mut ChatMessages<'a>, all_tools: &mut Tools<'a>) -> Result<(), Untranslatable> {
    let kind = node.get("type").word()?;
    match kind.or_else(|| node.json().has("role").then_some("message")) {
        Some("message") => message(node, messages),
        Some("function_call") => {
            node.only(&["type", "id", "call_id", "name", "namespace", "arguments", "status"])?;
            let arguments = node.get("arguments").text()?.to_owned();
            call(node, arguments, messages)
        }
        // The input of a custom tool is the only argument of the function that it became.
        Some("custom_tool_call") => {
            node.only(&["type", "id", "call_id", "name", "namespace", "input", "status"])?;
            let arguments = Tools::arguments(node.get("input").text()?);
            call(node, arguments, messages)
        }
        Some("function_call_output" | "custom_tool_call_output") => {
            node.only(&["type", "id", "call_id", "name", "output", "status"])?;
            let parts = parts(&node.get("output"))?;
            messages.tool(node.get("call_id").text()?, content(parts));
            Ok(())
        }
        Some("reasoning") => reasoning(node, messages),
        // Codex: what one agent says to another. Nothing is encrypted where the model wrote it for itself.
        Some("agent_message") => {
            node.only(&["type", "id", "author", "recipient", "content"])?;
            let text = |part: &Node<'a>| part.json().any(&["text", "encrypted_content"]).text().unwrap_or_default();
            let texts: Vec<&str> = node.get("content").list()?.iter().map(text).collect();
            messages.user(vec![text_part(texts.concat())]);
            Ok(())
        }
        Some("compaction_trigger") => {
            messages.user(vec![text_part(COMPACTION_PROMPT)]);
            Ok(())
        }
        Some("compaction" | "compaction_summary") => {
            let summary = node.get("encrypted_content");
            match summary.word()?.and_then(read_opaque) {
                Some(text) => messages.user(vec![text_part(format!("{SUMMARY_PREFIX}{text}"))]),
                // Only the service that encrypted it can read it.
                None => summary.leave_out(),
            }
            Ok(())
        }
        Some("additional_tools") => {
            node.only(&["type", "id", "role", "tools"])?;
            all_tools.add(&node.get("tools"))
        }
        // They tell of the client, or of what a server did that is not here.
        Some("configuration_update" | "web_search_call" | "ghost_snapshot") => {
            node.leave_out();
            Ok(())
        }
        Some("item_reference") | None => Err(node.refuse("is no item, and refers to none that is known")),
        Some(other) => Err(node.refuse(format!("`{other}` {NO_COUNTERPART}"))),
    }
}

fn call<'a>(node: &Node<'a>, arguments: String, messages: &mut ChatMessages<'a>) -> Result<(), Untranslatable> {
    let name = Tools::function_name(node.get("namespace").word()?, node.get("name").text()?);
    messages.assistant().call(node.get("call_id").text()?, &name, arguments);
    Ok(())
}

fn message<'a>(node: &Node<'a>, messages: &mut ChatMessages<'a>) -> Result<(), Untranslatable> {
    node.only(&["type", "id", "role", "content", "status"])?;
    let (role, parts) = (node.get("role"), parts(&node.get("content"))?);
    match role.text()? {
        "user" => messages.user(parts),
        "system" | "developer" => messages.system(&texts(node, &parts)?.join("\n")),
        "assistant" => messages.assistant().text.push_str(&texts(node, &parts)?.concat()),
        other => return Err(role.refuse(format!("`{other}` is no role of a message"))),
    }
    Ok(())
}

/// The texts of parts that must all be text.
fn texts<'b>(node: &Node<'_>, parts: &'b [Json<'_>]) -> Result<Vec<&'b str>, Untranslatable> {
    let texts: Option<Vec<&str>> = parts.iter().map(|part| part.get("text").text()).collect();
    texts.ok_or_else(|| node.get("content").refuse("only messages of the user and results of tools can have images"))
}

/// A text, or a list of parts.
fn parts<'a>(node: &Node<'a>) -> Result<Vec<Json<'a>>, Untranslatable> {
    match node.json().text() {
        Some(text) => Ok(vec![text_part(text)]),
        None => node.list()?.iter().map(part).collect(),
    }
}

fn part<'a>(node: &Node<'a>) -> Result<Json<'a>, Untranslatable> {
    match node.get("type").text()? {
        "input_text" | "output_text" | "text" => {
            // Annotations are not part of what a model reads.
            node.only(&["type", "text", "annotations", "logprobs"])?;
            Ok(text_part(node.get("text").text()?))
        }
        "refusal" => Ok(text_part(node.get("refusal").text()?)),
        "input_image" => {
            node.only(&["type", "image_url", "detail"])?;
            Ok(image_part(node.get("image_url").text()?, node.get("detail").word()?))
        }
        other => Err(node.refuse(format!("`{other}` {NO_COUNTERPART}"))),
    }
}

/// Reasoning: its content if there is any, else what [`opaque`] wrote, else its summary.
fn reasoning<'a>(node: &Node<'a>, messages: &mut ChatMessages<'a>) -> Result<(), Untranslatable> {
    node.only(&["type", "id", "summary", "content", "encrypted_content", "status"])?;
    let (content, summary) = (node.get("content").list()?, node.get("summary").list()?);
    let encrypted = node.get("encrypted_content");
    let ours = encrypted.word()?.and_then(read_opaque);
    if let Some(text) = ours.filter(|_| content.is_empty()) {
        messages.assistant().reasoning.push_str(&text);
        return Ok(());
    }
    let parts = if content.is_empty() { summary } else { content };
    // Only the service that encrypted it can read it.
    if parts.is_empty() {
        encrypted.leave_out();
    }
    for part in parts {
        part.only(&["type", "text"])?;
        messages.assistant().reasoning.push_str(part.get("text").text()?);
    }
    Ok(())
}

fn response_format<'a>(node: &Node<'a>) -> Result<Option<Json<'a>>, Untranslatable> {
    node.only(&["type", "name", "description", "schema", "strict"])?;
    match node.get("type").word()? {
        None | Some("text") => Ok(None),
        Some("json_object") => Ok(Some(object! {"type": "json_object"})),
        Some("json_schema") => {
            let (name, description) = (node.get("name").text()?, node.get("description").word()?);
            let (schema, strict) = (node.get("schema").json(), node.get("strict").json());
            Ok(Some(json_schema(name, description, schema, strict)))
        }
        Some(other) => Err(node.refuse(format!("the format `{other}` {NO_COUNTERPART}"))),
    }
}

#[cfg(test)]
mod tests {
    use crate::llm::translate::SourceApi::Responses;
    use crate::llm::translate::opaque::opaque;
    use crate::llm::translate::test_support::{chat, refused_at, translated};
    use serde_json::json;

    #[test]
    fn a_conversation_with_tools() {
        let request = json!({
            "model": "m",
            "instructions": "be kind",
            "input": [
                {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "really"}]},
                {"role": "user", "content": "hi"},
                {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
                {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [
                    {"type": "output_text", "text": "one ", "annotations": []}, {"type": "refusal", "refusal": "moment"},
                ]},
                {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "look", "arguments": "{ }"},
                {"type": "function_call", "call_id": "c2", "name": "hear", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "seen"},
                {"type": "function_call_output", "call_id": "c2", "output": [
                    {"type": "input_image", "image_url": "http://x/y.png", "detail": "low"},
                ]},
            ],
            "tools": [{"type": "function", "name": "look", "description": "looks", "parameters": {"type": "object"}, "strict": false}],
            "tool_choice": {"type": "function", "name": "look"},
            "parallel_tool_calls": true,
            "max_output_tokens": 9,
            "reasoning": {"effort": "low", "summary": "auto"},
            "text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": true}, "verbosity": "low"},
            "include": ["reasoning.encrypted_content"],
            "store": false,
            "prompt_cache_key": "k",
        });
        let call = |id: &str, name: &str, arguments: &str| {
            let function = json!({"name": name, "arguments": arguments});
            json!({"id": id, "type": "function", "function": function})
        };
        let expected = json!({
            "model": "m",
            "messages": [
                {"role": "system", "content": "be kind\n\nreally"},
                {"role": "user", "content": "hi"},
                {
                    "role": "assistant",
                    "content": "one moment",
                    "reasoning_content": "hm",
                    "reasoning": "hm",
                    "tool_calls": [call("c1", "look", "{ }"), call("c2", "hear", "{}")],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "seen"},
                {"role": "tool", "tool_call_id": "c2", "content": [
                    {"type": "image_url", "image_url": {"url": "http://x/y.png", "detail": "low"}},
                ]},
            ],
            "tools": [{"type": "function", "function": {
                "name": "look", "description": "looks", "parameters": {"type": "object"}, "strict": false,
            }}],
            "tool_choice": {"type": "function", "function": {"name": "look"}},
            "parallel_tool_calls": true,
            "max_tokens": 9,
            "reasoning_effort": "low",
            "verbosity": "low",
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": true}},
        });
        assert_eq!(chat(Responses, &request.to_string()), expected);
    }

    #[test]
    fn an_input_may_be_a_text() {
        let expected = json!({
            "model": "m",
            "messages": [{"role": "user", "content": "hi"}],
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        assert_eq!(chat(Responses, r#"{"model":"m","input":"hi","stream":true,"tool_choice":"auto"}"#), expected);
    }

    #[test]
    fn what_changes_the_answer_is_refused_with_its_place() {
        let input = |item: serde_json::Value| json!({"input": [item]});
        for (request, place) in [
            (json!({"conversation": "c"}), "conversation"),
            (json!({"prompt": {"id": "p"}}), "prompt"),
            (json!({"background": true}), "background"),
            (input(json!({"type": "item_reference", "id": "i"})), "input[0]"),
            (input(json!({"id": "i"})), "input[0]"),
            (input(json!({"type": "local_shell_call"})), "input[0]"),
            (input(json!({"role": "user", "content": [{"type": "input_file"}]})), "input[0].content[0]"),
            (input(json!({"role": "tool", "content": ""})), "input[0].role"),
            (
                input(json!({"role": "system", "content": [{"type": "input_image", "image_url": "u"}]})),
                "input[0].content",
            ),
            (json!({"text": {"format": {"type": "grammar"}}}), "text.format"),
        ] {
            assert_eq!(refused_at(Responses, &request), place, "{request}");
        }
    }

    #[test]
    fn what_has_no_effect_is_left_out_and_named() {
        let request = json!({
            "model": "m",
            "input": [
                {"type": "configuration_update"},
                {"type": "reasoning", "summary": [], "encrypted_content": "another's"},
                {"role": "user", "content": "hi", "internal_passthrough": {"turn_id": "1"}},
            ],
            "tools": [{"type": "web_search"}],
            "tool_choice": {"type": "web_search"},
            "reasoning": {"effort": "low", "context": "x"},
            "truncation": "auto",
            "include": ["file_search_call.results"],
            "store": false,
        });
        let (chat, dropped) = translated(Responses, &request);
        let messages = json!([{"role": "user", "content": "hi"}]);
        assert_eq!(chat, json!({"model": "m", "messages": messages, "reasoning_effort": "low"}));
        let places = [
            "input[]",
            "input[].encrypted_content",
            "input[].internal_passthrough",
            "reasoning.context",
            "tool_choice",
            "tools[]",
            "truncation",
        ];
        assert_eq!(dropped, places);
    }

    #[test]
    fn reasoning_comes_back_as_it_was() {
        let item = json!({"type": "reasoning", "summary": [], "encrypted_content": opaque("hm \u{1f914}")});
        let request = json!({"input": [item, {"role": "assistant", "content": "yes"}]});
        assert_eq!(translated(Responses, &request).0["messages"][0]["reasoning"], "hm \u{1f914}");
    }

    #[test]
    fn messages_between_agents_are_the_users() {
        let content = json!([
            {"type": "input_text", "text": "Payload:\n"}, {"type": "encrypted_content", "encrypted_content": "look"},
        ]);
        let message = json!({"type": "agent_message", "id": "a", "author": "/root", "recipient": "/root/b", "content": content, "new": 1});
        let (chat, dropped) = translated(Responses, &json!({"model": "m", "input": [message]}));
        assert_eq!(chat["messages"], json!([{"role": "user", "content": "Payload:\nlook"}]));
        assert_eq!(dropped, ["input[].new"]);
    }
}
