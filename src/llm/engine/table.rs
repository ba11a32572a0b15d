//! The table of the engines, and which of them a response or a list of models shows.

use super::spec::{EngineSpec, Mark, TokenIdRequest};
use super::{anthropic, gemini, llama_cpp, ollama, openai, other, sglang, tgi, transformers, vllm};
use crate::llm::api::spec::ApiSpec;
use crate::wire::json::Json;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The engines, in the order in which a response is looked through for their marks.
static ALL: &[&EngineSpec] = &[
    &sglang::SGLANG,
    &vllm::VLLM,
    &llama_cpp::LLAMA_CPP,
    &ollama::OLLAMA,
    &tgi::TGI,
    &transformers::TRANSFORMERS,
    &openai::OPENAI,
    &anthropic::ANTHROPIC,
    &gemini::GEMINI,
    &other::OTHER,
];

/// The software that samples, or the service that serves an API: a row of the table.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Engine(&'static EngineSpec);

/// A name that no engine has.
#[derive(Debug, thiserror::Error)]
#[error("unknown engine {name:?}; known are {}", names())]
pub struct UnknownEngine {
    name: String,
}

impl Engine {
    /// vLLM. Other servers know its fields as well.
    pub const VLLM: Self = Self(&vllm::VLLM);
    /// OpenAI, or any other server of its APIs that gives no ids.
    pub const OPENAI: Self = Self(&openai::OPENAI);
    /// Unknown, or nothing is to be requested from it.
    pub const OTHER: Self = Self(&other::OTHER);

    /// What is known of it.
    pub(crate) fn spec(self) -> &'static EngineSpec {
        self.0
    }

    /// The name in settings.
    pub(crate) fn as_str(self) -> &'static str {
        self.0.name
    }

    /// The engine that a setting names.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        all().find(|engine| engine.0.name == name)
    }

    /// The engine of a provider. `None`: it gives no token ids.
    pub(crate) fn of_provider(provider: &str) -> Option<Self> {
        all().find(|engine| engine.gives_token_ids() && engine.0.provider == provider)
    }

    /// The engine that a list of models (`GET /models`) shows.
    pub(crate) fn of_models(list: &[u8]) -> Option<Self> {
        let list = crate::wire::json::parse(list).ok()?;
        let owner = list.get("data").list().first()?.get("owned_by").text()?;
        all().find(|engine| engine.0.owners.contains(&owner))
    }

    /// The engine that a response of OpenAI's shape, or one of its events, shows by its marks.
    pub(crate) fn of_marks(body: &Json<'_>) -> Option<Self> {
        let choice = body.get("choices").list().first();
        let shows = |mark: &Mark| match mark {
            Mark::Root(name) => body.has(name),
            Mark::Choice(name) => choice.is_some_and(|choice| choice.has(name)),
            Mark::RootText(name, text) => body.get(name).text() == Some(text),
        };
        all().find(|engine| engine.0.marks.iter().any(shows))
    }

    /// Calls `each` with every version of the weights in a response or an event, of whatever engine; null where there is
    /// none.
    pub(crate) fn for_each_weight_version(body: &Json<'_>, mut each: impl FnMut(&Json<'_>)) {
        for path in ALL.iter().flat_map(|spec| spec.weight_versions) {
            match path {
                ["choices", path @ ..] => body.get("choices").list().iter().for_each(|choice| each(choice.at(path))),
                path => each(body.at(path)),
            }
        }
    }

    /// True when it returns token ids on request.
    pub(crate) fn gives_token_ids(self) -> bool {
        !self.0.token_ids.is_empty()
    }

    /// How token ids are requested from it at an API; `None` if it returns none there.
    pub(crate) fn token_id_request(self, api: &ApiSpec) -> Option<&'static TokenIdRequest> {
        self.0.token_ids.iter().find(|request| request.api == api)
    }

    /// True when it serves an API.
    pub(crate) fn serves(self, api: &ApiSpec) -> bool {
        self.0.apis.contains(&api)
    }
}

/// The name of a field that is added to requests, if it is one.
pub(crate) fn added_field(name: &str) -> Option<&'static str> {
    let requests = ALL.iter().flat_map(|spec| spec.token_ids);
    let fields =
        requests.flat_map(|request| request.fields.iter().chain(request.arrays.iter().flat_map(|array| array.fields)));
    fields.map(|field| field.name).find(|known| *known == name)
}

/// True if some engine returns token ids at an API.
pub(crate) fn any_gives_token_ids(api: &ApiSpec) -> bool {
    all().any(|engine| engine.token_id_request(api).is_some())
}

fn all() -> impl Iterator<Item = Engine> {
    ALL.iter().map(|spec| Engine(spec))
}

fn names() -> String {
    ALL.iter().map(|spec| spec.name).collect::<Vec<_>>().join(", ")
}

/// Two are the same if their names are.
impl PartialEq for Engine {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Engine {}

impl fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.name)
    }
}

impl TryFrom<String> for Engine {
    type Error = UnknownEngine;

    fn try_from(name: String) -> Result<Self, UnknownEngine> {
        Self::of_name(&name).ok_or(UnknownEngine { name })
    }
}

impl From<Engine> for String {
    fn from(engine: Engine) -> Self {
        engine.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json::parse;
    use std::collections::BTreeSet;

    #[test]
    fn rows_have_names_of_their_own() {
        let names: BTreeSet<&str> = ALL.iter().map(|spec| spec.name).collect();
        assert_eq!(names.len(), ALL.len());
        for spec in ALL {
            assert!(spec.token_ids.iter().all(|request| spec.apis.contains(&request.api)), "{}", spec.name);
        }
    }

    #[test]
    fn settings_and_lists_of_models_name_engines() {
        assert_eq!(serde_json::from_str::<Engine>("\"llama.cpp\"").unwrap().as_str(), "llama.cpp");
        let error = serde_json::from_str::<Engine>("\"vlm\"").unwrap_err().to_string();
        assert!(error.contains("unknown engine \"vlm\"; known are sglang, vllm"), "{error}");
        for (owner, expected) in
            [("vllm", Some("vllm")), ("sglang", Some("sglang")), ("system", Some("openai")), ("me", None)]
        {
            let list = serde_json::json!({ "data": [{ "id": "m", "owned_by": owner }] }).to_string();
            assert_eq!(Engine::of_models(list.as_bytes()).map(Engine::as_str), expected);
        }
        assert_eq!(Engine::of_models(b"<html>"), None);
    }

    #[test]
    fn responses_show_engines() {
        for (body, expected) in [
            (r#"{"prompt_token_ids":null}"#, Some("vllm")),
            (r#"{"choices":[{"meta_info":{}}]}"#, Some("sglang")),
            (r#"{"timings":{}}"#, Some("llama.cpp")),
            (r#"{"system_fingerprint":"fp_ollama"}"#, Some("ollama")),
            (r#"{"system_fingerprint":"fp_1"}"#, None),
        ] {
            assert_eq!(Engine::of_marks(&parse(body.as_bytes()).unwrap()).map(Engine::as_str), expected, "{body}");
        }
        assert_eq!(Engine::of_provider("vllm"), Some(Engine::VLLM));
        assert_eq!((Engine::of_provider("ollama"), Engine::of_provider("")), (None, None));
    }
}
