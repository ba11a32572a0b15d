//! The tools of OpenAI responses: functions, custom tools that take a text, and namespaces of both. All become functions.
//!
//! The names that functions get are kept for the response, in which the client's tools are called again.

use super::chat_request::function;
use super::node::{NO_COUNTERPART, Node};
use super::options::ServerTools;
use super::tools::{self, Choice};
use super::untranslatable::Untranslatable;
use crate::llm::json_object::{IntoJson, object, text_of};
use crate::wire::json::{Json, parse};
use std::collections::BTreeMap;

/// A tool as the client knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ToolName {
    /// Its namespace, if it is in one.
    pub(super) namespace: Option<String>,
    /// Its name there.
    pub(super) name: String,
    /// How it is called.
    pub(super) kind: ToolKind,
}

/// How a tool is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ToolKind {
    /// With a JSON object.
    Function,
    /// With a text.
    Custom,
}

/// The tools by the names of their functions; only those with another form of call than a plain function.
pub(super) type ToolNames = BTreeMap<String, ToolName>;

/// The tools of a request.
#[derive(Debug)]
pub(super) struct Tools<'a> {
    server_tools: ServerTools,
    functions: Vec<Json<'a>>,
    names: ToolNames,
}

impl<'a> Tools<'a> {
    /// No tools yet.
    pub(super) fn new(server_tools: ServerTools) -> Self {
        Self { server_tools, functions: Vec::new(), names: ToolNames::new() }
    }

    /// The functions so far.
    pub(super) fn functions(&self) -> &[Json<'a>] {
        &self.functions
    }

    /// The functions, and the names of those that stand for other tools.
    pub(super) fn finish(self) -> (Vec<Json<'a>>, ToolNames) {
        (self.functions, self.names)
    }

    /// Adds a list of tools.
    pub(super) fn add(&mut self, list: &Node<'a>) -> Result<(), Untranslatable> {
        list.list()?.iter().try_for_each(|node| self.add_one(node, None))
    }

    fn add_one(&mut self, node: &Node<'a>, namespace: Option<&'a str>) -> Result<(), Untranslatable> {
        let description = node.get("description");
        match node.get("type").text()? {
            "function" => {
                node.only(&["type", "name", "description", "parameters", "strict", "defer_loading"])?;
                let name = self.name(node, namespace, ToolKind::Function)?;
                let (parameters, strict) = (node.get("parameters").json(), node.get("strict").json());
                self.functions.push(function(name, description.json(), parameters, strict));
            }
            "custom" => {
                node.only(&["type", "name", "description", "format", "defer_loading"])?;
                let name = self.name(node, namespace, ToolKind::Custom)?;
                let description = custom_description(description.word()?, &node.get("format"))?;
                self.functions.push(function(name, description, input_schema(), None::<bool>));
            }
            "namespace" if namespace.is_none() => {
                node.only(&["type", "name", "tools", "description"])?;
                let name = node.get("name").text()?;
                node.get("tools").list()?.iter().try_for_each(|tool| self.add_one(tool, Some(name)))?;
            }
            kind => {
                tools::of_server::<()>(node, kind, self.server_tools)?;
            }
        }
        Ok(())
    }

    fn name(&mut self, node: &Node<'_>, namespace: Option<&str>, kind: ToolKind) -> Result<String, Untranslatable> {
        let name = node.get("name").text()?;
        let of_function = Self::function_name(namespace, name);
        if namespace.is_some() || kind == ToolKind::Custom {
            let tool = ToolName { namespace: namespace.map(str::to_owned), name: name.to_owned(), kind };
            self.names.insert(of_function.clone(), tool);
        }
        Ok(of_function)
    }

    /// The name of the function that a tool becomes: different for tools of one name in different namespaces.
    pub(super) fn function_name(namespace: Option<&str>, name: &str) -> String {
        match namespace.filter(|namespace| !namespace.is_empty()) {
            Some(namespace) => format!("{namespace}__{name}"),
            None => name.to_owned(),
        }
    }

    /// The input of a custom tool as the arguments of its function.
    pub(super) fn arguments(input: &str) -> String {
        text_of(&object! {"input": input})
    }

    /// The client's choice of a tool.
    pub(super) fn choice(&self, node: &Node<'a>) -> Result<Choice<'a>, Untranslatable> {
        match node.json().text() {
            Some("auto") => return Ok(Choice::Auto),
            Some("none") => return Ok(Choice::None),
            Some("required") => return Ok(Choice::Required),
            Some(_) => return Err(node.refuse(NO_COUNTERPART)),
            None if node.is_null() => return Ok(Choice::Open),
            None => {}
        }
        match node.get("type").text()? {
            "function" | "custom" => {
                node.only(&["type", "name", "namespace"])?;
                let namespace = node.get("namespace").word()?;
                Ok(Choice::Function(Self::function_name(namespace, node.get("name").text()?).into()))
            }
            "allowed_tools" => {
                node.only(&["type", "mode"])?;
                let is_required = node.get("mode").word()? == Some("required");
                Ok(if is_required { Choice::Required } else { Choice::Auto })
            }
            _ => Ok(Choice::Other),
        }
    }
}

/// The input of a call of a custom tool, from the arguments of its function; the arguments as they are, if the model wrote
/// no such object.
pub(super) fn custom_input(arguments: &str) -> String {
    let input = parse(arguments.as_bytes()).ok().and_then(|json| json.get("input").text().map(str::to_owned));
    input.unwrap_or_else(|| arguments.to_owned())
}

/// What a custom tool does, and the grammar of its input, which a backend can't enforce.
fn custom_description(description: Option<&str>, format: &Node<'_>) -> Result<Option<String>, Untranslatable> {
    format.only(&["type", "syntax", "definition"])?;
    let grammar = match (format.get("syntax").word()?, format.get("definition").word()?) {
        (Some(syntax), Some(definition)) => {
            format.leave_out();
            Some(format!("The input must match this grammar ({syntax}):\n{definition}"))
        }
        _ => None,
    };
    let texts: Vec<String> = description.map(str::to_owned).into_iter().chain(grammar).collect();
    Ok((!texts.is_empty()).then(|| texts.join("\n\n")))
}

fn input_schema() -> Json<'static> {
    object! {
        "type": "object",
        "properties": object! {"input": object! {"type": "string"}},
        "required": vec!["input".into_json()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::translate::SourceApi::Responses;
    use crate::llm::translate::test_support::translated;
    use serde_json::json;

    #[test]
    fn every_kind_of_tool_becomes_a_function() {
        let f = json!({"type": "function", "name": "f", "description": "d", "parameters": {}, "strict": false});
        let grammar = json!({"type": "grammar", "syntax": "lark", "definition": "start: X"});
        let exec = json!({"type": "custom", "name": "exec", "description": "runs", "format": grammar});
        let more = json!({"type": "namespace", "name": "agents", "description": "", "tools": [exec, f]});
        let request = json!({
            "input": [
                {"type": "additional_tools", "role": "developer", "tools": [more]},
                {"type": "custom_tool_call", "call_id": "1", "name": "exec", "namespace": "agents", "input": "ls \"x\""},
                {"type": "custom_tool_call_output", "call_id": "1", "output": "y"},
                {"type": "function_call", "call_id": "2", "name": "f", "arguments": ""},
            ],
            "tools": [f],
            "tool_choice": {"type": "custom", "name": "exec", "namespace": "agents"},
        });
        let (chat, dropped) = translated(Responses, &request);
        let names: Vec<_> =
            chat["tools"].as_array().unwrap().iter().map(|tool| tool["function"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["f", "agents__exec", "agents__f"]);
        let exec = &chat["tools"][1]["function"];
        assert_eq!(exec["description"], "runs\n\nThe input must match this grammar (lark):\nstart: X");
        assert_eq!(exec["parameters"]["required"], json!(["input"]));
        assert_eq!(chat["tool_choice"]["function"]["name"], "agents__exec");
        let called = &chat["messages"][0]["tool_calls"][0]["function"];
        assert_eq!(
            (&called["name"], &called["arguments"]),
            (&json!("agents__exec"), &json!(r#"{"input":"ls \"x\""}"#))
        );
        assert_eq!(chat["messages"][2]["tool_calls"][0]["function"]["arguments"], "{}");
        assert_eq!(dropped, ["input[].tools[].tools[].format"]);
    }

    #[test]
    fn the_input_of_a_custom_tool_is_what_the_model_wrote() {
        assert_eq!(custom_input(&Tools::arguments("a\n\"b\"")), "a\n\"b\"");
        assert_eq!(custom_input(r#"{"other":1}"#), r#"{"other":1}"#);
        assert_eq!(custom_input("ls"), "ls");
    }

    #[test]
    fn a_choice_that_no_tool_is_left_for_is_left_out() {
        for (choice, expected, is_dropped) in [
            (json!("required"), json!(null), true),
            (json!({"type": "web_search"}), json!(null), true),
            (json!({"type": "function", "name": "g"}), json!(null), true),
            (json!("auto"), json!(null), false),
        ] {
            let request = json!({"input": "x", "tools": [{"type": "web_search"}], "tool_choice": choice});
            let (chat, dropped) = translated(Responses, &request);
            assert_eq!(chat["tool_choice"], expected, "{choice}");
            assert_eq!(dropped.contains(&"tool_choice".to_owned()), is_dropped, "{choice}");
        }
        let tools = json!([{"type": "function", "name": "f"}]);
        let request =
            json!({"input": "x", "tools": tools, "tool_choice": {"type": "allowed_tools", "mode": "required"}});
        assert_eq!(translated(Responses, &request).0["tool_choice"], "required");
    }
}
