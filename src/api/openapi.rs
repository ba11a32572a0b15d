//! The OpenAPI (3.1) document of operations.

use super::access::RouteRollouts;
use super::respond::ErrorBody;
use super::route::ApiOperation;
use super::schema::{BodySchema, Schemas, one};
use axum::http::{Method, StatusCode};
use serde_json::Value as JsonValue;
use utoipa::openapi::path::{Operation, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{SchemaType, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, HttpMethod, InfoBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, Paths,
    Required, ResponseBuilder,
};

/// Operations of one subject, which a document shows together.
pub(super) struct Group<'a> {
    pub(super) tag: &'static str,
    pub(super) operations: Vec<&'a ApiOperation>,
}

/// The document of these operations.
pub(super) fn document(title: &str, groups: &[Group<'_>]) -> JsonValue {
    let mut document = serde_json::to_value(described(title, groups)).unwrap_or_default();
    in_terms_of_json(&mut document);
    document
}

/// Descriptions of types are their comments in Rust: a missing value is called `None` there, and types are linked.
fn in_terms_of_json(document: &mut JsonValue) {
    match document {
        JsonValue::Object(fields) => {
            for (name, value) in fields {
                match value {
                    JsonValue::String(text) if name == "description" => {
                        *text = text.replace("`None`", "`null`").replace("[`", "`").replace("`]", "`");
                    }
                    value => in_terms_of_json(value),
                }
            }
        }
        JsonValue::Array(items) => items.iter_mut().for_each(in_terms_of_json),
        _ => {}
    }
}

fn described(title: &str, groups: &[Group<'_>]) -> OpenApi {
    let (mut paths, mut schemas) = (Paths::new(), Schemas::default());
    for group in groups {
        for operation in &group.operations {
            // A parameter for the rest of a path is written like one for a segment.
            let path = operation.path.replace("{*", "{");
            let methods = vec![http_method(&operation.method)];
            paths.add_path_operation(path, methods, describe(group.tag, operation, &mut schemas));
        }
    }
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A token of `server.tokens`; if there are none, no token is needed. `x-api-key` works too."));
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas.into_components())
        .security_scheme(BEARER, SecurityScheme::Http(bearer.build()));
    let info = InfoBuilder::new()
        .title(title)
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Times are Unix seconds, durations seconds."));
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components.build())).build()
}

const BEARER: &str = "bearer";

fn http_method(method: &Method) -> HttpMethod {
    match *method {
        Method::POST => HttpMethod::Post,
        Method::PUT => HttpMethod::Put,
        Method::PATCH => HttpMethod::Patch,
        Method::DELETE => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}

fn describe(tag: &str, operation: &ApiOperation, schemas: &mut Schemas) -> Operation {
    let mut described =
        OperationBuilder::new().tag(tag).summary(Some(operation.summary)).operation_id(Some(id_of(operation)));
    for name in operation.path_parameters() {
        let text = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String));
        let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path).required(Required::True);
        described = described.parameter(parameter.schema(Some(text)));
    }
    for parameter in &operation.query {
        described = described.parameter(parameter.clone());
    }
    if let Some((content_types, schema)) = operation.request {
        let body = content_types.iter().fold(RequestBodyBuilder::new(), |body, content_type| {
            body.content(*content_type, ContentBuilder::new().schema(Some(schema(schemas))).build())
        });
        described = described.request_body(Some(body.build()));
    }
    for (status, content_types, schema) in &operation.responses {
        described = described.response(status.as_str(), response("Success", content_types, *schema, schemas));
    }
    for (status, text) in errors_of(operation) {
        described =
            described.response(status.as_str(), response(text, &["application/json"], one::<ErrorBody>, schemas));
    }
    match operation.access.needed() {
        None => described.securities(Some([])).build(),
        Some((scope, _)) => {
            let token = SecurityRequirement::new(BEARER, [scope.as_str()]);
            described.securities(Some([SecurityRequirement::default(), token])).build()
        }
    }
}

/// Unique, since no two operations have the same method and path: `post_v1_agl_rollouts_rollout_attempts`.
fn id_of(operation: &ApiOperation) -> String {
    let words = operation.path.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let method = operation.method.as_str().to_ascii_lowercase();
    words.fold(method, |id, word| format!("{id}_{word}"))
}

fn response(text: &str, content_types: &[&str], schema: BodySchema, schemas: &mut Schemas) -> ResponseBuilder {
    content_types.iter().fold(ResponseBuilder::new().description(text), |response, content_type| {
        response.content(*content_type, ContentBuilder::new().schema(Some(schema(schemas))).build())
    })
}

/// The errors that an operation can have, by its access and parameters.
fn errors_of(operation: &ApiOperation) -> Vec<(StatusCode, &'static str)> {
    let mut errors = Vec::new();
    if !operation.query.is_empty() || operation.request.is_some() {
        errors.push((StatusCode::BAD_REQUEST, "A value is not allowed"));
        errors.push((StatusCode::UNPROCESSABLE_ENTITY, "The body or the query has another shape"));
    }
    if let Some((_, rollouts)) = operation.access.needed() {
        errors.push((StatusCode::UNAUTHORIZED, "The token is missing or unknown"));
        errors.push((
            StatusCode::FORBIDDEN,
            match rollouts {
                RouteRollouts::All => "The token lacks the scope, or is for some rollouts only",
                RouteRollouts::InPath(_) | RouteRollouts::ByHandler => {
                    "The token lacks the scope, or is not for this rollout"
                }
            },
        ));
        errors.push((StatusCode::INTERNAL_SERVER_ERROR, "The store failed; a retry may succeed"));
    }
    if operation.path_parameters().next().is_some() {
        errors.push((StatusCode::NOT_FOUND, "What the path names does not exist"));
    }
    errors
}
