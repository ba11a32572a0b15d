//! The OpenAPI (3.1) document of the store's routes, made from the table that also makes the router.

use super::route::{Operation, Route};
use serde_json::{Map, Value as JsonValue, json};

/// The document of these routes.
pub(super) fn document(routes: &[Route]) -> JsonValue {
    let mut paths = Map::new();
    for route in routes {
        let mut methods = Map::new();
        for operation in route.operations {
            methods.insert(operation.method.to_owned(), describe(route.path, operation));
        }
        paths.insert(format!("/v1/agl{}", route.path), JsonValue::Object(methods));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tracewire: Agent Lightning's store",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The store protocol of Agent Lightning 0.3. Times are Unix seconds.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
        },
        "security": [{}, { "bearer": [] }],
    })
}

fn describe(path: &str, operation: &Operation) -> JsonValue {
    let content = |schema: &str| json!({ "application/json": { "schema": reference(schema) } });
    let named = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<JsonValue> = named
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    if operation.method == "get"
        && let Some(query) = query_of(operation.answer)
    {
        parameters.extend(query.iter().chain(PAGING).map(|(name, kind)| {
            let schema = match kind.strip_suffix("[]") {
                Some(kind) => json!({ "type": "array", "items": { "type": kind } }),
                None => json!({ "type": kind }),
            };
            json!({ "name": name, "in": "query", "schema": schema, "required": *name == "rollout_id" })
        }));
    }
    let error = |text: &str| json!({ "description": text, "content": content("Error") });
    let mut described = json!({
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {
            operation.status.to_string(): { "description": "Done", "content": content(operation.answer) },
            "400": error("A page, an order or a null that can't be"),
            "401": error("No token, or an unknown one"),
            "403": error("The token does not allow it"),
            "404": error("No such rollout or attempt"),
            "422": error("The body or query has another shape"),
            "500": error("The store failed; try again"),
        },
    });
    if !operation.body.is_empty() {
        described["requestBody"] = json!({ "content": content(operation.body) });
    }
    described
}

/// Conditions of a listing, by what it lists.
fn query_of(answer: &str) -> Option<&'static [(&'static str, &'static str)]> {
    Some(match answer {
        "Page of AttemptedRollout" => {
            &[("status_in", "string[]"), ("rollout_id_in", "string[]"), ("rollout_id_contains", "string"), LOGIC]
        }
        "Page of Attempt" => &[],
        "Page of Worker" => &[("status_in", "string[]"), ("worker_id_contains", "string"), LOGIC],
        "Page of ResourcesUpdate" => &[("resources_id", "string"), ("resources_id_contains", "string")],
        "Page of Span" => &[
            ("rollout_id", "string"),
            ("attempt_id", "string"),
            ("trace_id", "string"),
            ("trace_id_contains", "string"),
            ("span_id", "string"),
            ("span_id_contains", "string"),
            ("parent_id", "string"),
            ("parent_id_contains", "string"),
            ("name", "string"),
            ("name_contains", "string"),
            LOGIC,
        ],
        _ => return None,
    })
}

const LOGIC: (&str, &str) = ("filter_logic", "string");
const PAGING: &[(&str, &str)] =
    &[("limit", "integer"), ("offset", "integer"), ("sort_by", "string"), ("sort_order", "string")];

fn reference(schema: &str) -> JsonValue {
    if let Some(item) = schema.strip_prefix("Page of ") {
        return json!({ "type": "object", "required": ["items", "limit", "offset", "total"], "properties": {
            "items": { "type": "array", "items": reference(item) },
            "limit": { "type": "integer" }, "offset": { "type": "integer" }, "total": { "type": "integer" },
        }});
    }
    if let Some(item) = schema.strip_prefix("List of ") {
        return json!({ "type": "array", "items": reference(item) });
    }
    if let Some(value) = schema.strip_suffix(" or null") {
        return json!({ "oneOf": [reference(value), { "type": "null" }] });
    }
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn schemas() -> JsonValue {
    let object = |fields: &[(&str, &str)]| {
        let properties: Map<String, JsonValue> = fields
            .iter()
            .map(|(name, kind)| {
                let schema = match kind.split_once('|') {
                    _ if *kind == "any" => json!({}),
                    Some((kind, "null")) => json!({ "type": [kind, "null"] }),
                    Some(_) => json!({ "type": "string", "enum": kind.split('|').collect::<Vec<_>>() }),
                    None if kind.starts_with(char::is_uppercase) => reference(kind),
                    None => json!({ "type": kind }),
                };
                ((*name).to_owned(), schema)
            })
            .collect();
        json!({ "type": "object", "properties": properties })
    };
    let rollout: &[(&str, &str)] = &[
        ("rollout_id", "string"),
        ("input", "any"),
        ("start_time", "number"),
        ("end_time", "number|null"),
        ("mode", "string|null"),
        ("resources_id", "string|null"),
        ("status", "queuing|preparing|running|failed|succeeded|cancelled|requeuing"),
        ("config", "RolloutConfig"),
        ("metadata", "object|null"),
    ];
    let attempted: Vec<(&str, &str)> = rollout.iter().copied().chain([("attempt", "Attempt")]).collect();
    json!({
        "Rollout": object(rollout),
        "AttemptedRollout": object(&attempted),
        "RolloutConfig": object(&[("timeout_seconds", "number|null"), ("unresponsive_seconds", "number|null"),
            ("max_attempts", "integer"), ("retry_condition", "array")]),
        "Attempt": object(&[("rollout_id", "string"), ("attempt_id", "string"), ("sequence_id", "integer"),
            ("start_time", "number"), ("end_time", "number|null"),
            ("status", "preparing|running|failed|succeeded|unresponsive|timeout"), ("worker_id", "string|null"),
            ("last_heartbeat_time", "number|null"), ("metadata", "object|null")]),
        "Worker": object(&[("worker_id", "string"), ("status", "idle|busy|unknown"), ("heartbeat_stats", "object|null"),
            ("last_heartbeat_time", "number|null"), ("last_dequeue_time", "number|null"), ("last_busy_time", "number|null"),
            ("last_idle_time", "number|null"), ("current_rollout_id", "string|null"), ("current_attempt_id", "string|null")]),
        "ResourcesUpdate": object(&[("resources_id", "string"), ("create_time", "number"), ("update_time", "number"),
            ("version", "integer"), ("resources", "object")]),
        "NamedResources": { "type": "object", "description": "Resources by name, each with a resource_type: llm, proxy_llm or prompt_template" },
        "Span": object(&[("rollout_id", "string"), ("attempt_id", "string"), ("sequence_id", "integer"), ("trace_id", "string"),
            ("span_id", "string"), ("parent_id", "string|null"), ("name", "string"), ("status", "object"),
            ("attributes", "object"), ("events", "array"), ("links", "array"), ("start_time", "number|null"),
            ("end_time", "number|null"), ("context", "object|null"), ("parent", "object|null"), ("resource", "object")]),
        "NewRollout": object(&[("input", "any"), ("mode", "string|null"), ("resources_id", "string|null"),
            ("config", "RolloutConfig"), ("metadata", "object|null"), ("worker_id", "string|null")]),
        "Enqueue": { "type": "object", "required": ["rollouts"], "properties": {
            "rollouts": { "type": "array", "items": reference("NewRollout") } } },
        "Dequeue": object(&[("limit", "integer"), ("worker_id", "string|null")]),
        "RolloutChange": object(&[("input", "any"), ("mode", "string|null"), ("resources_id", "string|null"),
            ("status", "string"), ("config", "RolloutConfig"), ("metadata", "object|null")]),
        "AttemptChange": object(&[("status", "string"), ("worker_id", "string"), ("last_heartbeat_time", "number"),
            ("metadata", "object")]),
        "WorkerChange": object(&[("heartbeat_stats", "object")]),
        "Whose": object(&[("worker_id", "string|null")]),
        "Wait": object(&[("rollout_ids", "array"), ("timeout", "number|null")]),
        "NextId": object(&[("rollout_id", "string"), ("attempt_id", "string")]),
        "SequenceId": object(&[("sequence_id", "integer")]),
        "Conditions": { "type": "object", "description": "The query parameters of the same listing" },
        "Object": { "type": "object" },
        "Error": { "type": "object", "properties": { "detail": {} } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_is_to_something() {
        let routes = super::super::routes();
        let document = document(&routes);
        let text = document.to_string();
        for name in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
        }
        assert_eq!(document["paths"].as_object().unwrap().len(), routes.len());
    }
}
