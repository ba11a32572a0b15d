//! Models: which one a call is sent to, and the list of those that are served.

use super::own_answers::answered;
use super::routing::{ApiSurface, Route};
use super::service::Gateway;
use super::settings::Reroute;
use crate::error::{ErrorKind, ProxyError};
use crate::forward::ActiveExchange;
use crate::upstream::{Body, Origin};
use http::Response;
use serde_json::json;

impl Gateway {
    /// The model of a call, by the name under which backends are registered. `requested` is the agent's name of it, and
    /// `host` the host that the agent called.
    ///
    /// The first of: the model of the reroute, the requested model (or its alias) if it is served, `gateway.model`, the only
    /// model there is. The routes of Agent Lightning 1.0 try the requested model last, as Agent Lightning does.
    pub(super) fn model_for(
        &self,
        route: &Route,
        requested: Option<&str>,
        host: &Origin,
    ) -> Result<String, ProxyError> {
        let settings = self.settings();
        let rerouted = || {
            let reroutes = self.reroutes();
            let reroute = Reroute::of_host(&reroutes, host)?;
            (route.surface == ApiSurface::Reroute && !reroute.model.is_empty()).then(|| reroute.model.clone())
        };
        let requested = requested.map(|name| settings.aliases.get(name).map_or(name, String::as_str));
        let backends = self.backends().all();
        let is_served = |name: &str| backends.iter().any(|backend| backend.serves(name));
        let default = || (!settings.model.is_empty()).then(|| settings.model.clone());
        let only = || {
            let first = backends.first()?;
            let is_only = !first.model.is_empty() && backends.iter().all(|backend| backend.model == first.model);
            is_only.then(|| first.model.clone())
        };
        let by_agent = || requested.filter(|name| is_served(name)).map(str::to_owned);
        let model = match route.surface {
            ApiSurface::V1 => default().or_else(only).or_else(by_agent),
            _ => rerouted().or_else(by_agent).or_else(default).or_else(only),
        };
        model.ok_or_else(|| no_backend(requested.unwrap_or_default()))
    }

    /// Responds with the list of models, or with one of them, in a form that the clients of OpenAI and of Anthropic read.
    pub(super) async fn list_models(
        &self,
        exchange: &ActiveExchange,
        model: Option<&str>,
    ) -> Result<Response<Body>, ProxyError> {
        let mut names: Vec<String> = self.backends().all().iter().map(|backend| backend.model.clone()).collect();
        names.retain(|name| !name.is_empty());
        names.extend(self.settings().aliases.keys().cloned());
        names.sort();
        names.dedup();
        let entry = |name: &str| {
            json!({ "id": name, "object": "model", "type": "model", "display_name": name, "created": 0,
                    "created_at": "1970-01-01T00:00:00Z", "owned_by": "tracewire" })
        };
        let list = match model {
            None => {
                let data: Vec<_> = names.iter().map(|name| entry(name)).collect();
                json!({ "object": "list", "data": data, "has_more": false, "first_id": names.first(), "last_id": names.last() })
            }
            Some(model) if names.iter().any(|name| name == model) => entry(model),
            Some(model) => {
                let cause = format!("no backend and no alias has the model {model}");
                return Err(ProxyError::new(ErrorKind::RouteUnknown, "", cause));
            }
        };
        Ok(answered(exchange, list.to_string()).await)
    }
}

/// The text is that of Agent Lightning 1.0.
pub(super) fn no_backend(model: &str) -> ProxyError {
    ProxyError::new(ErrorKind::NoBackend, "", format!("No servers available for model '{model}'"))
}
