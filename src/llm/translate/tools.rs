//! Tools that a service would run itself, and the choice among the tools that are left.
//!
//! The API that is translated is not known here.

use super::chat_request::named_function;
use super::node::Node;
use super::options::ServerTools;
use super::untranslatable::Untranslatable;
use crate::llm::json_object::IntoJson;
use crate::wire::json::Json;
use std::borrow::Cow;

/// Which tools the model may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice<'a> {
    /// The client says nothing.
    Open,
    /// Any, or none.
    Auto,
    /// The model must not call a tool.
    None,
    /// At least one.
    Required,
    /// The function with this name.
    Function(Cow<'a, str>),
    /// One that is not translated, such as a tool of the service.
    Other,
}

/// The `tool_choice` of a chat request. A choice that can only be met by a tool that was left out is left out too. `node` is
/// where the client wrote it.
pub(super) fn chosen<'a>(node: &Node<'a>, choice: Choice<'a>, functions: &[Json<'_>]) -> Json<'a> {
    let has = |name: &str| functions.iter().any(|tool| tool.at(&["function", "name"]).text() == Some(name));
    match choice {
        Choice::Open => Json::Null,
        Choice::Auto => "auto".into_json(),
        Choice::None => "none".into_json(),
        Choice::Required if !functions.is_empty() => "required".into_json(),
        Choice::Function(name) if has(&name) => named_function(name),
        Choice::Required | Choice::Function(_) | Choice::Other => {
            node.leave_out();
            Json::Null
        }
    }
}

/// A tool that the service would run: it is left out, or refused.
pub(super) fn of_server<T>(
    node: &Node<'_>,
    kind: &str,
    server_tools: ServerTools,
) -> Result<Option<T>, Untranslatable> {
    match server_tools {
        ServerTools::Drop => {
            node.leave_out();
            Ok(None)
        }
        ServerTools::Refuse => Err(node.refuse(format!(
            "the tool `{kind}` is run by the model service, and the backend has none; set gateway.server_tools = \"drop\" \
             to leave it out"
        ))),
    }
}
